"""The metric protocol: sentence scores, corpus score and interval from the same sufficient statistics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, TextGymError, expected
from textgym.metrics.intervals import resampled
from textgym.rewards.base import Reward, Scores

Statistics = npt.NDArray[np.float64]
Contributions = Sequence[Any] | Statistics
"""One entry a completion, of whatever kind the metric needs."""
Interval = tuple[float, float, float]
"""A score, and the lower and upper end of its bootstrap interval."""


class MetricError(TextGymError, ValueError):
    """A metric lacks what it compares with, or was asked for the score of nothing."""


class Metric(Reward):
    """A reward that also scores a whole set of completions.

    A subclass says what one completion contributes (:meth:`statistics`) and what a set of contributions is worth
    (:meth:`pooled`). Everything else follows: the score of a sentence is that of a set of one, and a bootstrap interval
    pools resampled contributions without looking at a text again. Scores are fractions, 0 to 1, unless ``range`` says
    otherwise; a metric that others print as a percentage says so in its docstring.

    Attributes:
        needs_references: Whether a completion without references is an error.
        higher_is_better: False for error rates and perplexities.
    """

    needs_references: ClassVar[bool] = False
    higher_is_better: ClassVar[bool] = True

    @abstractmethod
    def statistics(self, completions: Sequence[Completion]) -> Contributions:
        """What each of ``n`` completions contributes, one entry a completion.

        Raises:
            MetricError: A completion has no references, where the metric needs some (see :meth:`check`).
        """

    @abstractmethod
    def pooled(self, statistics: Contributions) -> float:
        """The score of a set of at least one completion, given what each contributed."""

    def signature(self) -> str:
        """Everything that the numbers depend on, as sacreBLEU prints it: ``name|key:value|...|version:...``."""
        return self.name

    def sentence_scores(self, statistics: Contributions) -> Statistics:
        """The score of every completion by itself, shape ``(n,)``, float64."""
        return np.array([self.pooled(statistics[i : i + 1]) for i in range(len(statistics))], dtype=np.float64)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """Sentence scores, shape ``(n,)``, float32: the metric as a reward."""
        if not completions:
            return np.zeros(0, dtype=np.float32)
        return self.sentence_scores(self.statistics(completions)).astype(np.float32)

    def corpus_score(self, completions: Sequence[Completion]) -> float:
        """The score of all completions together.

        Raises:
            MetricError: There are none, or references are missing.
        """
        if not completions:
            raise MetricError(
                f"Metric {self.name!r} " + expected("completions", completions, "at least one completion")
            )
        return float(self.pooled(self.statistics(completions)))

    def interval(
        self, completions: Sequence[Completion], confidence: float = 0.95, n_resamples: int = 1000, seed: int = 0
    ) -> Interval:
        """Corpus score with a percentile bootstrap interval; see :func:`textgym.metrics.bootstrap_interval`.

        Raises:
            MetricError: See :meth:`corpus_score`.
            ValueError: An argument out of range.
        """
        if not completions:
            raise MetricError(
                f"Metric {self.name!r} " + expected("completions", completions, "at least one completion")
            )
        statistics = self.statistics(completions)
        scores = self._resampled_scores(statistics, n_resamples, seed)
        if not 0 < confidence < 1:
            raise ValueError(expected("confidence", confidence, "a number in (0, 1)"))
        low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(self.pooled(statistics)), float(low), float(high)

    def _resampled_scores(self, statistics: Contributions, n_resamples: int, seed: int) -> Statistics:
        return np.concatenate(
            [
                [self.pooled([statistics[i] for i in row]) for row in block]
                for block in resampled(len(statistics), n_resamples, seed)
            ]
        )

    def check(self, completions: Sequence[Completion]) -> None:
        """Makes sure that every completion has what the metric compares with.

        Raises:
            MetricError: A completion has no references; the message names the metric and the prompt.
        """
        if self.needs_references:
            for completion in completions:
                if not completion.references:
                    raise MetricError(
                        f"Metric {self.name!r} compares with references, but the prompt {completion.prompt!r} has none"
                    )


class SumMetric(Metric):
    """A metric whose statistics are rows of numbers that add up: BLEU, chrF, error rates, means.

    A subclass defines :meth:`statistics`, shape ``(n, k)``, and :meth:`score`.
    """

    @abstractmethod
    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """What each of ``n`` completions contributes, shape ``(n, k)``, float64; those of a set are their sum."""

    @abstractmethod
    def score(self, statistics: Statistics) -> Statistics:
        """Scores of summed statistics: shape ``(..., k)`` to shape ``(...)``."""

    def pooled(self, statistics: Contributions) -> float:
        """See :meth:`Metric.pooled`."""
        return float(self.score(np.asarray(statistics, dtype=np.float64).sum(axis=0)))

    def sentence_scores(self, statistics: Contributions) -> Statistics:
        """See :meth:`Metric.sentence_scores`."""
        return self.score(np.asarray(statistics, dtype=np.float64))

    def _resampled_scores(self, statistics: Contributions, n_resamples: int, seed: int) -> Statistics:
        table = np.asarray(statistics, dtype=np.float64)
        return np.concatenate(
            [self.score(table[block].sum(axis=1)) for block in resampled(len(table), n_resamples, seed)]
        )


class MeanMetric(SumMetric):
    """A metric that is the mean of its sentence scores; a subclass defines :meth:`each`."""

    @abstractmethod
    def each(self, completions: Sequence[Completion]) -> npt.ArrayLike:
        """The score of each of ``n`` completions, shape ``(n,)``."""

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: the score, and 1."""
        self.check(completions)
        scores = np.asarray(self.each(completions), dtype=np.float64)
        return np.stack([scores, np.ones(len(completions))], axis=1)

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        return np.asarray(statistics[..., 0] / statistics[..., 1])
