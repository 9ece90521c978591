"""How well scores agree with what people said, with bootstrap intervals."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, expected, whole_number
from textgym.metrics.base import Interval
from textgym.metrics.intervals import resampled
from textgym.rewards import Reward, RewardModel
from textgym_agents.reward_models.data import Dataset, Judged, read_judgements

CHOICES = ("spearman", "pearson", "pairwise_accuracy", "mse")
"""What the best epoch of a training can be chosen by."""
_BINS = 10
_MOST = 2000  # records whose pairs are all looked at; the number of pairs grows with the square

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RewardModelEvaluation:
    """Agreement of scores with judgements: each ``(value, low, high)`` with a 95% percentile bootstrap interval over records.

    ``None`` where the data set has no ratings.

    Attributes:
        n: Records.
        spearman: Rank correlation with the ratings, in [-1, 1]; ties have the mean of their ranks; 0 if all scores are equal.
        pearson: Linear correlation with the ratings, in [-1, 1]; 0 if all scores are equal.
        pairwise_accuracy: Share of the pairs of texts with different values whose scores are in that order, in [0, 1]; equal
            scores count a half. Of a data set of scores all pairs of texts (of 2,000 records at most, drawn at random), of
            comparisons and rankings those within a record.
        mse: Mean squared difference of score and rating; says something only if scores are in units of the ratings.
        calibration_slope: Slope of the least-squares line ``rating = intercept + slope * score``: 1 if calibrated, less if
            scores are too extreme, more if they are too timid.
        calibration_intercept: Intercept of that line, 0 if calibrated.
        pairwise_ece: Expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599; 10 bins of equal width) of
            ``sigmoid(score difference)``, the probability of Bradley and Terry that the one text is preferred, over the pairs
            of ``pairwise_accuracy``; in [0, 1], 0 is best. A claim of models trained by the objectives ``"bradley-terry"`` and
            ``"plackett-luce"``, not of others.
    """

    n: int
    spearman: Interval | None
    pearson: Interval | None
    pairwise_accuracy: Interval
    mse: Interval | None
    calibration_slope: Interval | None
    calibration_intercept: Interval | None
    pairwise_ece: Interval

    def names(self) -> list[str]:
        """Names of the numbers that there are."""
        return [field.name for field in fields(self) if field.name != "n" and getattr(self, field.name) is not None]

    def value(self, name: str) -> float:
        """The number ``name`` without its interval."""
        return float(getattr(self, name)[0])

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return asdict(self)

    def table(self) -> str:
        """One line a number, with its interval."""
        rows = [(name, *getattr(self, name)) for name in self.names()]
        lines = [f"{name:22} {value:8.4f}   [{low:.4f}, {high:.4f}]" for name, value, low, high in rows]
        return "\n".join([f"{self.n} records{'':11} value   95% interval", *lines])


def evaluate_reward_model(
    model: Reward | str | os.PathLike[str], dataset: Dataset, n_resamples: int = 1000, seed: int = 0
) -> RewardModelEvaluation:
    """How well a reward agrees with what people said of texts.

    Args:
        model: A reward, such as ``RewardModel(folder)`` or ``Sentiment()``; or the folder or Hub id of a reward model.
            It scores each text as the completion of an empty prompt: a ``prompt`` of the data is part of the text.
        dataset: Scores, comparisons or rankings; see :func:`textgym_agents.reward_models.data.read_judgements`.
        n_resamples: Of the bootstrap, at least 1.
        seed: Of the bootstrap.

    Raises:
        DataError: The data cannot be read.
        ModelError: The model cannot be loaded.
    """
    judged = read_judgements(dataset, "dataset", "dev")
    reward = model if isinstance(model, Reward) else RewardModel(model)
    texts = [text for item in judged for text in item.texts]
    scores = reward([Completion("", text, transcript=text) for text in texts])
    return evaluate_scores(judged, scores, whole_number("n_resamples", n_resamples, 1), seed)


def evaluate_scores(
    judged: Sequence[Judged], scores: npt.ArrayLike, n_resamples: int = 1000, seed: int = 0
) -> RewardModelEvaluation:
    """The same of scores that are there already.

    Args:
        judged: What people said.
        scores: One a text, shape ``(n,)``, in the order of the records; finite.
        n_resamples: Of the bootstrap; 0: the ends of the intervals are the values themselves.
        seed: Of the bootstrap.

    Raises:
        ValueError: The number of scores is wrong, or one is not finite.
    """
    found = np.asarray(scores, dtype=np.float64)
    values = np.array([value for item in judged for value in item.values])
    if found.shape != values.shape or not np.isfinite(found).all():
        raise ValueError(expected("scores", scores, f"{len(values)} finite numbers, one a text"))
    n = len(judged)
    samples = np.concatenate(list(resampled(n, n_resamples, seed))) if n_resamples else np.zeros((0, n), dtype=np.int64)
    statistics: dict[str, Interval | None] = dict.fromkeys(
        (field.name for field in fields(RewardModelEvaluation)), None
    )
    ends = np.cumsum([len(item.texts) for item in judged])
    places = [np.arange(end - len(item.texts), end) for end, item in zip(ends, judged, strict=True)]
    if all(item.rated for item in judged):
        single = len(values) == n
        drawn = [sample if single else np.concatenate([places[i] for i in sample]) for sample in samples]
        table = np.array([_of_ratings(found[k], values[k]) for k in [np.arange(len(values)), *drawn]])
        names = ("spearman", "pearson", "mse", "calibration_slope", "calibration_intercept")
        statistics.update({name: _interval(column) for name, column in zip(names, table.T, strict=True)})
    if judged[0].kind == "scores":
        chosen = np.arange(n) if n <= _MOST else np.sort(np.random.default_rng(seed).choice(n, _MOST, replace=False))
        if n > _MOST:
            samples = np.concatenate(
                [*(resampled(_MOST, n_resamples, seed) if n_resamples else []), np.zeros((0, _MOST), int)]
            )
        groups, counts = [chosen], _counts(samples, len(chosen))
    else:
        groups, counts = places, _counts(samples, n)
    accuracy, error = _of_pairs(found, values, groups, counts, across=judged[0].kind == "scores")
    statistics.update(pairwise_accuracy=_interval(accuracy), pairwise_ece=_interval(error))
    return RewardModelEvaluation(**{**statistics, "n": n})  # type: ignore[arg-type]


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation of two arrays ``(n,)``; ties have the mean of their ranks; 0 if one is constant."""
    return pearson(_ranks(x), _ranks(y))


def pearson(x: Array, y: Array) -> float:
    """Pearson's correlation of two arrays ``(n,)``; 0 if one is constant."""
    a, b = x - x.mean(), y - y.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0


def _ranks(x: Array) -> Array:
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places])


def _of_ratings(scores: Array, ratings: Array) -> tuple[float, ...]:
    centred = scores - scores.mean()
    spread = centred @ centred
    slope = float(centred @ (ratings - ratings.mean()) / spread) if spread > 0 else 0.0
    line = (slope, float(ratings.mean() - slope * scores.mean()))
    return spearman(scores, ratings), pearson(scores, ratings), float(((scores - ratings) ** 2).mean()), *line


def _of_pairs(scores: Array, values: Array, groups: Sequence[Any], counts: Array, across: bool) -> tuple[Array, Array]:
    """Accuracy and calibration error over pairs, for each row of ``counts``: how often a record (or text) was drawn.

    Args:
        scores: One a text.
        values: One a text.
        groups: Texts that are compared with one another.
        counts: ``(R, n)``.
        across: Whether the one group's texts are the records, so that a pair counts as often as both of its texts together.
    """
    facts = []
    for group in groups:
        s, v = scores[group], values[group]
        ordered = (v[:, None] > v[None, :]).astype(np.float64)  # [K, K]: each pair once, the better text first
        difference = s[:, None] - s[None, :]
        right = (np.sign(difference) + 1) / 2
        sure = 1 / (1 + np.exp(-np.abs(difference)))  # of the text with the higher score, in [0.5, 1]
        bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
        gaps = [ordered * (bins == b) * (sure - right) for b in range(_BINS // 2, _BINS)]
        stack = np.stack([ordered, ordered * right, *gaps])  # [2 + bins, K, K]
        facts.append(stack if across else stack.sum((1, 2)))
    if across:
        sums = np.stack([((counts @ fact) * counts).sum(1) for fact in facts[0]])
    else:
        sums = (counts @ np.array(facts)).T  # [2 + bins, R]
    total = np.maximum(sums[0], 1e-300)
    return sums[1] / total, np.abs(sums[2:]).sum(0) / total


def _counts(samples: npt.NDArray[np.int64], n: int) -> Array:
    """``(1 + R, n)``: once each, and how often each was drawn in each of ``R`` samples."""
    return np.stack([np.ones(n), *(np.bincount(sample, minlength=n).astype(np.float64) for sample in samples)])


def _interval(values: Array) -> Interval:
    """The first value, and the middle 95% of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0], values[0])
    return float(values[0]), float(low), float(high)
