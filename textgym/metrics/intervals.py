"""How sure one can be of a mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from textgym.core import expected, whole_number

_NUMBERS_AT_ONCE = 4_000_000  # resamples are drawn in blocks of about this many indices, to bound the memory


def bootstrap_interval(
    values: Sequence[float] | npt.NDArray[np.floating],
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of ``values`` with a percentile bootstrap interval.

    Efron 1979 (https://doi.org/10.1214/aos/1176344552); the interval is the middle ``confidence`` of the means of
    ``n_resamples`` samples of the same size, drawn with replacement.

    Args:
        values: Independent scores, shape ``(n,)``, at least one, finite.
        confidence: Share of resampled means that the interval holds, in (0, 1).
        n_resamples: Number of resamples, at least 1.
        seed: Of the resampling, which uses a generator of its own.

    Returns:
        The mean, and the lower and upper end of the interval. With one value, or equal ones, all three are equal.

    Raises:
        ValueError: No values, a value that is not finite, or another argument out of range.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(expected("values", values, "a sequence of at least one finite number"))
    if not 0 < confidence < 1:
        raise ValueError(expected("confidence", confidence, "a number in (0, 1)"))
    means = np.concatenate([array[block].mean(axis=1) for block in resampled(array.size, n_resamples, seed)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(array.mean()), float(low), float(high)


def resampled(n: int, n_resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of samples of ``n`` out of ``n`` with replacement, in blocks of shape ``(some, n)``.

    Raises:
        ValueError: ``n_resamples`` is not a whole number of at least 1.
    """
    count = whole_number("n_resamples", n_resamples, 1)
    rng = np.random.default_rng(seed)
    block = max(1, _NUMBERS_AT_ONCE // n)
    for start in range(0, count, block):
        yield rng.integers(n, size=(min(block, count - start), n))


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Mean of the middle half of ``values``: a quarter of them, rounded down, is left out at each end.

    Robust against single runs that fail or succeed, without the noise of a median (Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264, whose rliable computes the same).

    Args:
        values: Scores of any shape, at least one, finite.

    Raises:
        ValueError: No values, or a value that is not finite.
    """
    array = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(expected("values", values, "at least one finite number"))
    cut = array.size // 4
    return float(array[cut : array.size - cut].mean())


def stratified_interval(
    scores: npt.ArrayLike,
    statistic: Callable[[npt.NDArray[np.float64]], float],
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of a table of scores, resampling runs within each task.

    Args:
        scores: Shape ``(tasks, runs)``, finite.
        statistic: From such a table to a number.
        confidence: Share of resampled statistics that the interval holds, in (0, 1).
        n_resamples: Number of resamples, at least 1.
        seed: Of the resampling, which uses a generator of its own.

    Raises:
        ValueError: An argument is out of range.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(expected("scores", scores, "a table of finite numbers, tasks by runs"))
    if not 0 < confidence < 1:
        raise ValueError(expected("confidence", confidence, "a number in (0, 1)"))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(whole_number("n_resamples", n_resamples, 1)):
        columns = rng.integers(table.shape[1], size=table.shape)
        found.append(statistic(np.take_along_axis(table, columns, axis=1)))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
