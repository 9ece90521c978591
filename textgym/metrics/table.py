"""One table of many metrics about the same completions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from textgym.core import Completion, expected
from textgym.metrics.base import MeanMetric, Metric, MetricError
from textgym.rewards.base import Reward, Scores, checked_scores


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of a set of completions.

    Attributes:
        name: Of the metric; a name that comes again gets a number behind it.
        score: Corpus score.
        low: Lower end of the bootstrap interval.
        high: Upper end.
        n: Completions.
        signature: What the numbers depend on, see :meth:`Metric.signature`.
        higher_is_better: False for error rates and perplexities.
    """

    name: str
    score: float
    low: float
    high: float
    n: int
    signature: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class MetricTable:
    """What :func:`evaluate` returns: one row a metric. ``table["bleu"]`` is a row; printing it shows them all.

    Attributes:
        rows: In the order that was asked for.
        confidence: Share of resampled scores that each interval holds.
        n_resamples: Number of resamples.
        seed: Of the resampling.
    """

    rows: tuple[MetricRow, ...]
    confidence: float
    n_resamples: int
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[MetricRow]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> MetricRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(expected("name", name, f"one of {[row.name for row in self.rows]}"))

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for row in cells:
            aligned = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, _RIGHT, strict=True)
            ]
            lines.append("  ".join(aligned).rstrip())
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in self._cells()]
        rule = ["--:" if right else ":--" for right in _RIGHT]
        return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])

    def to_json(self) -> str:
        """The table as JSON: ``{"confidence", "n_resamples", "seed", "rows": [...]}``; a number that is not finite is null."""
        rows = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}
            for row in self.rows
        ]
        settings = {"confidence": self.confidence, "n_resamples": self.n_resamples, "seed": self.seed}
        return json.dumps({**settings, "rows": rows}, indent=1, ensure_ascii=False, allow_nan=False)

    def _cells(self) -> list[list[str]]:
        header = ["metric", "score", f"{self.confidence:.4g} interval", "n", "better", "signature"]
        return [header] + [
            [
                row.name,
                f"{row.score:.4f}",
                f"[{row.low:.4f}, {row.high:.4f}]",
                str(row.n),
                "higher" if row.higher_is_better else "lower",
                row.signature,
            ]
            for row in self.rows
        ]


_RIGHT = (False, True, True, True, False, False)


def evaluate(
    completions: Sequence[Completion],
    metrics: Sequence[object],
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> MetricTable:
    """Corpus scores of many metrics, with percentile bootstrap intervals, in one table.

    All metrics see the same resamples, so that the intervals belong together.

    Args:
        completions: At least one.
        metrics: At least one, each of what :func:`textgym.rewards.as_reward` takes: a Metric, a name such as ``"bleu"``, a
            Reward, weights, a function. What is no Metric is scored by its mean.
        confidence: Share of resampled scores that an interval holds, in (0, 1).
        n_resamples: Number of resamples, at least 1.
        seed: Of the resampling, which uses a generator of its own.

    Raises:
        MetricError: No completions, or a metric lacks what it compares with; the message names both.
        ValueError: An unknown name, no metrics, or another argument out of range.
        TypeError: Something else than completions or metrics.
        RewardError: A reward raised, or returned something that is not finite.
    """
    from textgym.rewards.functions import as_reward

    if isinstance(metrics, (str, Reward)) or not isinstance(metrics, Sequence) or not metrics:
        raise ValueError(expected("metrics", metrics, "a list of at least one metric"))
    if isinstance(completions, str) or not isinstance(completions, Sequence):
        raise TypeError(expected("completions", completions, "a sequence of completions"))
    if not completions:
        raise MetricError(expected("completions", completions, "at least one completion"))
    for i, completion in enumerate(completions):
        if not isinstance(completion, Completion):
            raise TypeError(expected(f"completions[{i}]", completion, "a Completion"))
    wanted = [as_reward(metric) for metric in metrics]  # before any work: an unknown name should not cost minutes
    rows: list[MetricRow] = []
    for reward in wanted:
        metric = reward if isinstance(reward, Metric) else _Mean(reward)
        score, low, high = metric.interval(completions, confidence, n_resamples, seed)
        row = MetricRow(metric.name, score, low, high, len(completions), metric.signature(), metric.higher_is_better)
        rows.append(_numbered(row, {other.name for other in rows}))
    return MetricTable(tuple(rows), confidence, n_resamples, seed)


def _numbered(row: MetricRow, taken: set[str]) -> MetricRow:
    name, count = row.name, 2
    while name in taken:
        name, count = f"{row.name}_{count}", count + 1
    return replace(row, name=name)


class _Mean(MeanMetric):
    """A reward as a metric."""

    def __init__(self, reward: Reward) -> None:
        self.reward, self.name, self.range = reward, reward.name, reward.range

    def signature(self) -> str:
        return f"{self.name}|mean of rewards"

    def each(self, completions: Sequence[Completion]) -> Scores:
        return checked_scores(self.reward, completions)
