"""Sentiment of a text by the VADER lexicon."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.core import Completion
from textgym.rewards.base import Reward, Scores


class Sentiment(Reward):
    """VADER's compound score of the completion, in [-1, 1]: -1 most negative, 0 neutral, 1 most positive.

    It is ``s / sqrt(s**2 + 15)`` with ``s`` the sum of the word valences after VADER's rules for negation, degree words,
    capitals and punctuation (Hutto and Gilbert 2014, https://github.com/cjhutto/vaderSentiment).
    """

    name = "sentiment"
    range = (-1.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return np.array([tone(c.text) for c in completions], dtype=np.float32)


@functools.lru_cache(maxsize=8192)  # a reward, and the success that is judged by it, score the same text
def tone(text: str) -> float:
    """VADER's compound score of ``text``, in [-1, 1]."""
    return float(_analyzer().polarity_scores(text)["compound"])


@functools.cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
