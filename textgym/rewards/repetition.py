"""How much of a text repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, whole_number
from textgym.rewards.base import Reward, Scores


class Repetition(Reward):
    """Share of the completion's word n-grams that occurred before in it, in [0, 1]: ``1 - distinct / total``.

    0 for a text in which no n-gram comes twice, near 1 for one word over and over; 0 for a text shorter than ``n``
    words. It is one minus distinct-n (Li et al. 2016, https://arxiv.org/abs/1510.03055) of the single text. Words are
    split at white space and compared in lower case. Usually subtracted.
    """

    name = "repetition"
    range = (0.0, 1.0)

    def __init__(self, n: int = 3) -> None:
        """Args: n: Words in an n-gram, at least 1.

        Raises:
            ValueError: ``n`` is not a whole number of at least 1.
        """
        self.n = whole_number("n", n, 1)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        scores = np.zeros(len(completions), dtype=np.float32)
        for i, completion in enumerate(completions):
            words = completion.text.lower().split()
            grams = [tuple(words[j : j + self.n]) for j in range(len(words) - self.n + 1)]
            if grams:
                scores[i] = 1.0 - len(set(grams)) / len(grams)
        return scores
