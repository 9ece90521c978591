"""How sure one can be of a mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
