"""Learning curves as small multiples of inline SVG.

A chart is an SVG without text that stretches to any size, its lines of constant width, inside an HTML frame that holds the
labels: so letters keep their size from a phone to a projector, and the page needs no script to show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textgym_agents.report.html import escape
from textgym_agents.report.numbers import bounds, show, smooth_radius, smoothed, thinned, tick_labels, ticks
from textgym_agents.report.quantities import KL, REWARD, Quantity
from textgym_agents.report.run import Measures, Progress

_MOST_POINTS = 400
_SIZE = 1000  # of the SVG's own coordinates, in both directions


@dataclass(frozen=True)
class _HeldOut:
    """A held-out result as a mark in a chart; ``low`` and ``high`` are its interval, if it has one."""

    timesteps: int
    mean: float
    low: float
    high: float


class _Axes:
    """Positions of data in a chart, in percent of its width and height."""

    def __init__(self, end: int, low: float, high: float) -> None:
        self.end, self.low, self.high = end, low, high

    def x(self, timesteps: float) -> float:
        return 100 * timesteps / self.end

    def y(self, value: float) -> float:
        return 100 * (value - self.low) / (self.high - self.low)

    def path(self, points: Sequence[tuple[int, float]]) -> str:
        """Of an SVG line. A single point becomes a line of no length, which round ends make a dot."""
        scale = _SIZE / 100
        places = [f"{self.x(t) * scale:.1f} {_SIZE - self.y(v) * scale:.1f}" for t, v in points]
        return "M" + "L".join(places if len(places) > 1 else places * 2)


def draw(
    quantity: Quantity,
    progress: Progress,
    before: Measures | None,
    after: Measures | None,
    best: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """A chart, and the numbers that its read-out needs.

    Args:
        quantity: What to draw.
        progress: The log.
        before: Held-out results before training, for the charts that show them.
        after: The same after training ...
        best: ... for so many tokens, if not for all.
    """
    points = [(t, quantity.sign * v) for t, v in progress.points(quantity.column)]
    end = max(progress.timesteps[-1], 1)
    held_out = _held_out(quantity, before, after, end if best is None else best)
    thin = thinned(points, _MOST_POINTS)
    values = [v for _, v in thin]
    radius = smooth_radius(len(thin))
    smooth = smoothed(values, radius)
    low, high = bounds([*values, *(m.low for m in held_out), *(m.high for m in held_out)], zero=quantity.zero)
    axes = _Axes(end, low, high)

    y_ticks, x_ticks = ticks(low, high, 7), ticks(0, end, 5)
    grid = "".join(f'<path class="grid" d="M0 {_SIZE - 10 * axes.y(v):.1f}H{_SIZE}"/>' for v in y_ticks)
    if low < 0 < high:
        grid += f'<path class="zero" d="M0 {_SIZE - 10 * axes.y(0):.1f}H{_SIZE}"/>'
    if radius:
        lines = f'<path class="raw" d="{axes.path(thin)}"/>'
        lines += f'<path class="line" d="{axes.path([(t, s) for (t, _), s in zip(thin, smooth, strict=True)])}"/>'
    else:
        lines = f'<path class="line" d="{axes.path(thin)}"/>'

    marks = "".join(
        f'<i class="held" style="left:{axes.x(m.timesteps):.2f}%;bottom:{axes.y(m.mean):.2f}%"></i>'
        + (
            f'<i class="bar" style="left:{axes.x(m.timesteps):.2f}%;bottom:{axes.y(m.low):.2f}%;'
            f'height:{axes.y(m.high) - axes.y(m.low):.2f}%"></i>'
            if m.high > m.low
            else ""
        )
        for m in held_out
    )
    y_labels = "".join(
        f'<span style="bottom:{axes.y(v):.2f}%">{label}</span>'
        for v, label in zip(y_ticks, tick_labels(y_ticks), strict=True)
    )
    x_labels = "".join(
        f'<span style="left:{axes.x(v):.2f}%">{label}</span>'
        for v, label in zip(x_ticks, tick_labels(x_ticks), strict=True)
    )
    title, unit = escape(quantity.title), escape(quantity.unit)
    latest = f"<b>{show(values[-1])}</b> at the end"
    legend = ""
    if radius:
        legend += '<span class="key"><i class="swatch raw"></i>as logged</span>'
        legend += f'<span class="key"><i class="swatch line"></i>mean of {2 * radius + 1} neighbours</span>'
    if held_out:
        name = "held-out prompts" + (", with 95% interval" if any(m.high > m.low for m in held_out) else "")
        legend += f'<span class="key"><i class="swatch held"></i>{name}</span>'
    legend = f'<div class="legend">{legend}</div>' if held_out or (radius and quantity == REWARD) else ""
    summary = f"{quantity.title}, {quantity.unit}: {show(values[0])} at first, {show(values[-1])} at the end"
    html = f"""<figure class="chart{" wide" if quantity == REWARD else ""}">
<figcaption><h3>{title}</h3></figcaption>
{legend}<div class="frame">
<div class="head"><span>{unit}</span><span class="readout">{latest}</span></div>
<div class="y-axis" aria-hidden="true">{y_labels}</div>
<div class="plot" data-chart="{escape(quantity.column)}" tabindex="0" role="slider" aria-label="{escape(summary)}"
 aria-valuemin="0" aria-valuemax="{len(thin) - 1}" aria-valuenow="{len(thin) - 1}">
<svg viewBox="0 0 {_SIZE} {_SIZE}" preserveAspectRatio="none" aria-hidden="true">{grid}{lines}</svg>{marks}
<i class="cross" hidden></i><i class="dot" hidden></i>
</div>
<div class="x-axis" aria-hidden="true">{x_labels}</div>
<span class="x-title">timesteps (tokens generated)</span>
</div>
<p class="note">{escape(quantity.text)}</p>
</figure>"""
    data = {
        "t": [t for t, _ in thin],
        "raw": [_rounded(v) for v in values],
        "smooth": [_rounded(v) for v in smooth] if radius else None,
        "low": low,
        "high": high,
        "end": end,
    }
    return html, data


def points_per_mean(progress: Progress) -> int:
    """How many logged values a drawn point is the mean of; 1 unless the log is long."""
    return -(-len(progress.timesteps) // _MOST_POINTS)


def _held_out(quantity: Quantity, before: Measures | None, after: Measures | None, end: int) -> list[_HeldOut]:
    marks = []
    for measures, timesteps in ((before, 0), (after, end)):
        if measures is not None and quantity == REWARD and measures.reward is not None:
            marks.append(_HeldOut(timesteps, *measures.reward))
        elif measures is not None and quantity == KL and measures.kl is not None:
            marks.append(_HeldOut(timesteps, measures.kl, measures.kl, measures.kl))
    return marks


def _rounded(x: float) -> float:
    return float(f"{x:.5g}")
