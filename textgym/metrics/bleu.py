"""BLEU, with sacreBLEU's tokenizers and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from textgym.core import Completion, expected, number, whole_number
from textgym.metrics._texts import Remembered, ngram_counts, overlap
from textgym.metrics.base import Statistics, SumMetric

TOKENIZERS = tuple("13a char flores101 flores200 intl ja-mecab ko-mecab none spBLEU-1K spm zh".split())
"""SacreBLEU's; listed here so that a metric is made, and its arguments are checked, without importing sacreBLEU."""
_SMOOTHING = {"none": 0.0, "floor": 0.1, "add-k": 1.0, "exp": 0.0}  # sacreBLEU's values


class BLEU(SumMetric):
    """Geometric mean of word n-gram precisions, times a penalty for brevity, in [0, 1]; times 100 is sacreBLEU's number.

    Papineni et al. 2002 (https://aclanthology.org/P02-1040), computed as sacreBLEU does (Post 2018,
    https://aclanthology.org/W18-6319). Each completion contributes its length, that of the closest reference, and matched
    and all n-grams of each order; a corpus score is that of the sums (``sacrebleu.corpus_bleu``).

    A sentence score leaves out the orders that the text is too short for (``sacrebleu.sentence_bleu``, its "effective
    order"), so it differs from the corpus score of that one completion, which is 0, where a text has fewer than
    ``max_ngram_order`` tokens. References may differ in number from one completion to the next.
    """

    name = "bleu"
    range = (0.0, 1.0)
    needs_references: ClassVar[bool] = True

    def __init__(
        self,
        tokenize: str = "13a",
        lowercase: bool = False,
        smooth_method: str = "exp",
        smooth_value: float | None = None,
        max_ngram_order: int = 4,
        effective_order: bool = False,
    ) -> None:
        """Makes the metric.

        Args:
            tokenize: One of sacreBLEU's tokenizers: ``"13a"`` (Western languages), ``"intl"``, ``"zh"``, ``"char"``,
                ``"none"``, and some that need further packages or a download.
            lowercase: Whether case is ignored.
            smooth_method: What becomes of orders without a match: ``"exp"``, ``"floor"``, ``"add-k"`` or ``"none"``.
            smooth_value: Of ``"floor"`` (0.1 by default) and ``"add-k"`` (1).
            max_ngram_order: Longest n-grams that count.
            effective_order: Whether the corpus score also leaves out orders that no text is long enough for.

        Raises:
            ValueError: An argument out of range.
        """
        if tokenize not in TOKENIZERS:
            raise ValueError(expected("tokenize", tokenize, f"one of {TOKENIZERS}"))
        if not isinstance(smooth_method, str) or smooth_method not in _SMOOTHING:
            raise ValueError(expected("smooth_method", smooth_method, f"one of {sorted(_SMOOTHING)}"))
        if smooth_value is not None:
            smooth_value = number("smooth_value", smooth_value, 0, float("inf"))
        self.order = whole_number("max_ngram_order", max_ngram_order, 1)
        self.lowercase, self.effective_order = bool(lowercase), bool(effective_order)
        self.smooth_method = smooth_method
        self.smooth_value = _SMOOTHING[smooth_method] if smooth_value is None else smooth_value
        self._settings: dict[str, Any] = {
            "lowercase": self.lowercase,
            "tokenize": tokenize,
            "smooth_method": smooth_method,
            "smooth_value": smooth_value,
            "max_ngram_order": self.order,
            "effective_order": self.effective_order,
        }
        self._num_refs = -1
        self._reference = Remembered(self._counted)

    def signature(self) -> str:
        """The signature that sacreBLEU prints, ``nrefs`` being that of the completions scored last."""
        self._sacrebleu.num_refs = self._num_refs
        return f"{self.name}|{self._sacrebleu.get_signature()}"

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: lengths of text and closest reference, matches by order, n-grams by order."""
        self.check(completions)
        rows = np.zeros((len(completions), 2 + 2 * self.order))
        for row, completion in zip(rows, completions, strict=True):
            length, counts = self._counted(completion.text)
            references = [self._reference(text) for text in completion.references]
            row[0] = length
            row[1] = min((abs(length - other), other) for other, _ in references)[1]
            for k, hypothesis in enumerate(counts):
                clip = references[0][1][k]
                for _, others in references[1:]:
                    clip = clip | others[k]
                row[2 + k] = overlap(hypothesis, clip)
                row[2 + self.order + k] = max(0, length - k)
        self._num_refs = reference_count(completions)
        return rows

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        return self._score(statistics, self.effective_order)

    def sentence_scores(self, statistics: Any) -> Statistics:
        """See :meth:`Metric.sentence_scores`; in effective order."""
        return self._score(np.asarray(statistics, dtype=np.float64), True)

    @cached_property
    def _sacrebleu(self) -> Any:
        from sacrebleu.metrics.bleu import BLEU as SacreBLEU

        return SacreBLEU(**self._settings)

    def _counted(self, text: str) -> tuple[int, list[Any]]:
        text = text.lower() if self.lowercase else text
        tokens = self._sacrebleu.tokenizer(text.rstrip()).split()
        return len(tokens), [ngram_counts(tokens, n + 1) for n in range(self.order)]

    def _score(self, statistics: Statistics, effective_order: bool) -> Statistics:
        length, closest = statistics[..., 0], statistics[..., 1]
        matches = statistics[..., 2 : 2 + self.order].copy()
        total = statistics[..., 2 + self.order :].copy()
        some = matches.any(axis=-1)  # without a single match the score is 0, whatever the smoothing
        if self.smooth_method == "add-k":
            matches[..., 1:] += self.smooth_value
            total[..., 1:] += self.smooth_value
        counted = np.logical_and.accumulate(total > 0, axis=-1)  # the orders before the first that is empty
        missed = counted & (matches == 0)
        if self.smooth_method == "exp":  # the k-th order without a match has a precision of 1 / (2^k total)
            matches = np.where(missed, 0.5 ** missed.cumsum(axis=-1), matches)
        elif self.smooth_method == "floor":
            matches = np.where(missed, self.smooth_value, matches)
        with np.errstate(divide="ignore"):
            logs = np.log(np.where(counted, matches, 0.0)) - np.log(np.where(counted, total, 1.0))
            if effective_order:
                logs = np.where(counted, logs, 0.0)
                orders = np.maximum(1, counted.sum(axis=-1))
            else:
                orders = np.full(length.shape, self.order)
            brevity = np.minimum(0.0, 1 - closest / np.where(length > 0, length, 1.0))
            return np.asarray(np.where(some, np.exp(brevity + logs.sum(axis=-1) / orders), 0.0))


def reference_count(completions: Sequence[Completion]) -> int:
    """How many references each completion has, or -1 where they differ (sacreBLEU's "var")."""
    counts = {len(completion.references) for completion in completions}
    return counts.pop() if len(counts) == 1 else -1
