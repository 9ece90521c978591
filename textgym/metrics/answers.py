"""Metrics of short answers: exact match, overlap of words, equality of labels."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from textgym.core import Completion
from textgym.metrics.base import MeanMetric

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces.

    Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250), as their evaluation script does it.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


class ExactMatch(MeanMetric):
    """1 if the completion equals a reference after :func:`normalize_answer`, else 0. Times 100 it is SQuAD's number.

    As in SQuAD's evaluation script (version 2), a reference of which nothing is left counts only where all are so: then
    the right answer is the empty one.
    """

    name = "exact_match"
    range = (0.0, 1.0)
    needs_references = True

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [float(normalize_answer(c.text) in _gold(c)) for c in completions]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|norm:squad|refs:best|version:1"


class TokenF1(MeanMetric):
    """F1 of the words that completion and reference share, after :func:`normalize_answer`; of several references the best.

    As SQuAD's evaluation script (version 2) has it: words count as often as they occur; where either side has no word
    left, it is 1 if both have none, else 0; references of which nothing is left count only where all are so. Times 100
    it is SQuAD's number.
    """

    name = "token_f1"
    range = (0.0, 1.0)
    needs_references = True

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [max(_f1(normalize_answer(c.text), gold) for gold in _gold(c)) for c in completions]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|norm:squad|refs:best|version:1"


class Accuracy(MeanMetric):
    """1 if the completion is one of the references, else 0; white space at the ends and upper case do not matter."""

    name = "accuracy"
    range = (0.0, 1.0)
    needs_references = True

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [
            float(c.text.strip().casefold() in {reference.strip().casefold() for reference in c.references})
            for c in completions
        ]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|case:no|refs:any|version:1"


def _gold(completion: Completion) -> list[str]:
    return [gold for text in completion.references if (gold := normalize_answer(text))] or [""]


def _f1(text: str, gold: str) -> float:
    predicted, wanted = text.split(), gold.split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)
