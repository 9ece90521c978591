"""chrF and chrF++, sacreBLEU's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from textgym.core import Completion, whole_number
from textgym.metrics._texts import Remembered, overlap
from textgym.metrics.base import Statistics, SumMetric
from textgym.metrics.bleu import reference_count


class CHRF(SumMetric):
    """F-score of character n-grams, in [0, 1]; times 100 is sacreBLEU's number. ``word_order=2`` makes it chrF++.

    Popović 2015 (https://aclanthology.org/W15-3049) and 2017 (https://aclanthology.org/W17-4770). Each completion
    contributes, for every order, its n-grams, those of the reference and those in both; of several references, those of the
    one with the highest score. Sentence scores and corpus score are the same function of them.
    """

    name = "chrf"
    range = (0.0, 1.0)
    needs_references: ClassVar[bool] = True

    def __init__(
        self,
        word_order: int = 0,
        char_order: int = 6,
        beta: int = 2,
        lowercase: bool = False,
        whitespace: bool = False,
    ) -> None:
        """Makes the metric.

        Args:
            word_order: Longest word n-grams that count; 0 for chrF, 2 for chrF++.
            char_order: Longest character n-grams that count.
            beta: How many times as important recall is as precision.
            lowercase: Whether case is ignored.
            whitespace: Whether white space counts as characters.

        Raises:
            ValueError: An argument out of range.
        """
        self.word_order = whole_number("word_order", word_order, 0)
        self.char_order = whole_number("char_order", char_order, 1)
        self.beta = whole_number("beta", beta, 1)
        self.lowercase, self.whitespace = bool(lowercase), bool(whitespace)
        self._num_refs = -1
        self.name = "chrf" + "+" * self.word_order
        self._reference = Remembered(self._counted)

    def signature(self) -> str:
        """The signature that sacreBLEU prints, ``nrefs`` being that of the completions scored last."""
        self._sacrebleu.num_refs = self._num_refs
        return f"{self.name}|beta:{self.beta}|{self._sacrebleu.get_signature()}"

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: for every order the n-grams of text, of reference, and of both."""
        self.check(completions)
        rows, owners = [], []
        for i, completion in enumerate(completions):
            counts, totals = self._counted(completion.text)
            for text in completion.references:
                others, other_totals = self._reference(text)
                matches = [overlap(a, b) for a, b in zip(counts, others, strict=True)]
                # n-grams of an order that the reference is too short for do not count, as in sacreBLEU
                hypothesis = [n if m else 0 for n, m in zip(totals, other_totals, strict=True)]
                rows.append([hypothesis, other_totals, matches])
                owners.append(i)
        table = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
        best = np.full(len(completions), -1)
        scores = self.score(table)
        for j, i in enumerate(owners):
            if best[i] < 0 or scores[j] > scores[best[i]]:
                best[i] = j
        self._num_refs = reference_count(completions)
        chosen: Statistics = table[best]
        return chosen

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        hypothesis, reference, matches = np.moveaxis(
            statistics.reshape(*statistics.shape[:-1], 3, self.char_order + self.word_order), -2, 0
        )
        counted = (hypothesis > 0) & (reference > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            orders = np.maximum(1, counted.sum(axis=-1))
            # One order after the other, as sacreBLEU adds them: else rounding could prefer another of two equal references.
            precision = np.add.accumulate(np.where(counted, matches / hypothesis, 0.0), axis=-1)[..., -1] / orders
            recall = np.add.accumulate(np.where(counted, matches / reference, 0.0), axis=-1)[..., -1] / orders
            weight = self.beta**2
            score = (1 + weight) * precision * recall / (weight * precision + recall)
        return np.asarray(np.where(precision + recall > 0, score, 0.0))

    @cached_property
    def _sacrebleu(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF as SacreCHRF

        return SacreCHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
            whitespace=self.whitespace,
        )

    def _counted(self, text: str) -> tuple[list[Counter[str]], list[int]]:
        from sacrebleu.metrics.helpers import extract_all_char_ngrams, extract_word_ngrams

        text = text.lower() if self.lowercase else text
        counts = extract_all_char_ngrams(text, self.char_order, self.whitespace)
        if self.word_order:
            split = self._sacrebleu._remove_punctuation(text)
            counts += [extract_word_ngrams(split, n + 1) for n in range(self.word_order)]
        return counts, [sum(count.values()) for count in counts]
