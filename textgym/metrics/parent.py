"""PARENT, for texts that are written from a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from textgym.core import Completion, expected, number, whole_number
from textgym.metrics._texts import TOKENIZERS, Tokenizer, bit_masks, lcs_length, ngram_counts, tokenizer
from textgym.metrics.base import MeanMetric, MetricError

Counts = list[Counter[tuple[str, ...]]]


class PARENT(MeanMetric):
    """F1 of precision and recall against the reference and the table that the text was written from, in [0, 1].

    Dhingra et al. 2019 (https://aclanthology.org/P19-1483) with the word-overlap model: an n-gram is entailed by the table
    with a probability ``w`` that is the share of its words that occur among the table's values.

    * Precision, geometric mean over orders: an n-gram of the text is right with probability 1 as often as the reference
      has it, else with ``w``.
    * Recall, geometric mean of two: against the reference, its n-grams weighing ``w``; and against the table, the mean
      over its rows of the share of the value's words that the text has in order (LCS). The weight ``lambda`` of the latter is
      by default the paper's heuristic, 1 - the *reference's* recall of the table: where the reference tells all of it, only
      the reference counts.

    As in the authors' code, attributes do not count as words of the table, and a precision or recall of 0 becomes
    ``smoothing``, but for the precision of single words. Of several references the one with the highest F1 counts; the
    corpus score is the mean of the sentence scores.

    The table is ``meta["table"]``: rows of attribute and value, or (as in WebNLG) of head, relation and tail, of which head and
    tail count as the value.
    """

    name = "parent"
    range = (0.0, 1.0)
    needs_references: ClassVar[bool] = True

    def __init__(
        self,
        lambda_weight: float | None = None,
        n: int = 4,
        smoothing: float = 1e-5,
        key: str = "table",
        tokenize: str | Tokenizer = "punctuation",
    ) -> None:
        """Makes the metric.

        Args:
            lambda_weight: Weight of the recall against the table, 0 to 1; None for the heuristic (so the authors' script).
            n: Longest n-grams that count.
            smoothing: Instead of 0, above 0 and at most 1.
            key: Where in ``meta`` the table is.
            tokenize: ``"punctuation"``: words of any script and punctuation marks; ``"words"``, ``"whitespace"``; or a
                function of a text that returns its words.

        Raises:
            ValueError: An argument out of range.
        """
        self.lambda_weight = None if lambda_weight is None else number("lambda_weight", lambda_weight, 0, 1)
        self.n = whole_number("n", n, 1)
        self.smoothing = number("smoothing", smoothing, 0, 1, above=True)
        if not isinstance(key, str):
            raise ValueError(expected("key", key, "the name of a column"))
        self.key = key
        self._tokenizer_name, self._tokenize = tokenizer(tokenize, TOKENIZERS)

    def signature(self) -> str:
        """``parent|entailment:overlap|lambda:...|n:...|refs:best|smooth:...|tok:...|version:1``."""
        weight = "heuristic" if self.lambda_weight is None else f"{self.lambda_weight:g}"
        return (
            f"{self.name}|entailment:overlap|lambda:{weight}|n:{self.n}|refs:best|smooth:{self.smoothing:g}"
            f"|tok:{self._tokenizer_name}|version:1"
        )

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`.

        Raises:
            MetricError: A completion has no table, or none with a word in it.
        """
        return [self._best(completion) for completion in completions]

    def _best(self, completion: Completion) -> float:
        values = self._values(completion)
        text = self._tokenize(completion.text)
        known = {word for value in values for word in value}
        counts = self._counts(text)
        told = _told(values, text)
        best = 0.0
        for reference in completion.references:
            words = self._tokenize(reference)
            others = self._counts(words)
            precision = self._precision(counts, others, known)
            weight = 1 - _told(values, words) if self.lambda_weight is None else self.lambda_weight
            recall = self._recall(counts, others, known) ** (1 - weight) * max(told, self.smoothing) ** weight
            best = max(best, 2 * precision * recall / (precision + recall))
        return best

    def _values(self, completion: Completion) -> list[Sequence[str]]:
        table = completion.meta.get(self.key)
        values = []
        if isinstance(table, Sequence) and not isinstance(table, str):
            for row in table:
                if not isinstance(row, Sequence) or isinstance(row, str) or len(row) not in (2, 3):
                    raise self._no_table(completion, table)
                value = str(row[1]) if len(row) == 2 else f"{row[0]} {row[2]}"
                values.append(self._tokenize(value))
        values = [value for value in values if value]
        if not values:
            raise self._no_table(completion, table)
        return values

    def _no_table(self, completion: Completion, table: Any) -> MetricError:
        wanted = "a table of at least one [attribute, value]"
        return MetricError(
            f"Metric {self.name!r}: {expected(f'meta[{self.key!r}]', table, wanted)}; prompt {completion.prompt!r}"
        )

    def _counts(self, tokens: Sequence[str]) -> Counts:
        return [ngram_counts(tokens, k + 1) for k in range(self.n)]

    def _precision(self, text: Counts, reference: Counts, known: set[str]) -> float:
        shares = []
        for counts, others in zip(text, reference, strict=True):
            right = 0.0
            for gram, k in counts.items():
                matched = min(k, others[gram])
                right += matched + (k - matched) * _entailed(gram, known)
            shares.append(right / counts.total() if counts else 0.0)
        return self._geometric_mean(shares) if shares[0] else 0.0

    def _recall(self, text: Counts, reference: Counts, known: set[str]) -> float:
        shares = []
        for counts, others in zip(text, reference, strict=True):
            found = total = 0.0
            for gram, k in others.items():
                weight = _entailed(gram, known)
                total += k * weight
                found += min(k, counts[gram]) * weight
            shares.append(found / total if total else 1.0)
        # The authors' code takes the smoothing for the mean where no single word of the reference that matters is told.
        return self._geometric_mean(shares) if shares[0] else self.smoothing

    def _geometric_mean(self, shares: Sequence[float]) -> float:
        return math.exp(sum(math.log(share or self.smoothing) for share in shares) / len(shares))


def _entailed(gram: tuple[str, ...], known: set[str]) -> float:
    """Probability that the table entails an n-gram: the share of its words that the table has."""
    return sum([word in known for word in gram]) / len(gram)


def _told(values: Sequence[Sequence[str]], text: Sequence[str]) -> float:
    """How much of the table the text tells: mean share of a value's words that are a subsequence of the text."""
    masks = bit_masks(text)
    return sum(lcs_length(masks, len(text), value) / len(value) for value in values) / len(values)
