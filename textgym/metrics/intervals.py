"""How sure one can be of a mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from textgym.core import expected

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
    if isinstance(n_resamples, bool) or not isinstance(n_resamples, int) or n_resamples < 1:
        raise ValueError(expected("n_resamples", n_resamples, "a whole number of at least 1"))
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    block = max(1, _NUMBERS_AT_ONCE // array.size)
    for start in range(0, n_resamples, block):
        count = min(block, n_resamples - start)
        means[start : start + count] = array[rng.integers(array.size, size=(count, array.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(array.mean()), float(low), float(high)
