"""Numbers on a page: formatted, smoothed, thinned out, and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence


def show(x: float | None) -> str:
    """A number with two or three significant digits and a real minus sign, or a whole number; a dash if there is none."""
    if x is None or not math.isfinite(x):
        return "–"
    size = abs(x)
    if size >= 999.5:
        text = f"{x:,.0f}" if size < 1e9 else f"{x:.2e}"
    elif x == int(x):
        text = f"{x:.0f}" if x else "0"
    elif size < 0.0000995:
        text = f"{x:.1e}".replace("e-0", "e-")
    else:
        decimals = (
            0
            if size >= 99.5
            else 1
            if size >= 9.95
            else 2
            if size >= 0.0995
            else 3
            if size >= 0.00995
            else 4
            if size >= 0.000995
            else 5
        )
        text = f"{x:.{decimals}f}"
    return text.replace("-", "−")


def short(x: float) -> str:
    """A large count in short: 40k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.6g}{letter}".replace("-", "−")
    return f"{x:.6g}".replace("-", "−")


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` round numbers inside ``[low, high]``, at steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [k * step for k in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """All ticks of an axis with the same number of decimals."""
    if len(values) < 2:
        return [show(v) for v in values]
    step = values[1] - values[0]
    if step >= 1000 or max(map(abs, values)) >= 10_000:
        return [short(v) for v in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 4:
        return [("0" if abs(v) < step / 2 else f"{v:.1e}".replace("e-0", "e-")).replace("-", "−") for v in values]
    return [f"{0.0 if abs(v) < step / 2 else v:.{decimals}f}".replace("-", "−") for v in values]


def bounds(values: Sequence[float], *, zero: bool) -> tuple[float, float]:
    """Ends of an axis that shows all ``values`` with some air, and 0 if asked to."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9 * max(1.0, abs(high)):  # constant
        pad = 0.1 * abs(high) or 1.0
        return (0.0, high + pad) if zero and high >= 0 else (low - pad, high + pad)
    pad = 0.06 * (high - low)
    return (low if zero and low == 0 else low - pad), (high if zero and high == 0 else high + pad)


def smooth_radius(n: int) -> int:
    """How many neighbours on either side the smoothed curve of ``n`` points averages."""
    return 0 if n < 10 else max(2, n // 25)


def smoothed(values: Sequence[float], radius: int) -> list[float]:
    """Mean over a window of up to ``radius`` neighbours on either side; near the ends there are fewer."""
    windows = (values[max(0, i - radius) : i + radius + 1] for i in range(len(values)))
    return [math.fsum(w) / len(w) for w in windows]


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most ``most`` points: means of neighbours, so that no screen draws ten thousand."""
    k = math.ceil(len(points) / most)
    if k <= 1:
        return list(points)
    groups = [points[i : i + k] for i in range(0, len(points), k)]
    return [(round(sum(t for t, _ in g) / len(g)), math.fsum(v for _, v in g) / len(g)) for g in groups]
