"""``learning_curve.png``: reward and KL over training, for slides and notes."""

from __future__ import annotations

import io
from pathlib import Path

from textgym_agents.report.numbers import short, smooth_radius, smoothed, thinned
from textgym_agents.report.quantities import KL, REWARD
from textgym_agents.report.report import write_atomically
from textgym_agents.report.run import read_progress

_DPI = 150
_MOST_POINTS = 2000
_COLOURS = {REWARD: "#2b5cb8", KL: "#b8560a"}


def write_learning_curve(run_dir: str | Path) -> Path:
    """Writes ``learning_curve.png`` into a run folder: reward and KL over timesteps, as logged and smoothed.

    A quantity that was not logged leaves its panel empty, with a line that says so.

    Args:
        run_dir: The folder of a training run.

    Returns:
        The path of the picture, 1200 by 900 pixels.

    Raises:
        RunError: ``run_dir`` is no folder, or its ``progress.csv`` is malformed.
    """
    # Only now: matplotlib takes a while. Not pyplot, which would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder = Path(run_dir)
    progress = read_progress(folder)
    figure = Figure(figsize=(8, 6), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, quantity in zip(panels, (REWARD, KL), strict=True):
        points = thinned(progress.points(quantity.column), _MOST_POINTS)
        axes.set_title(quantity.title, loc="left", fontsize=12, fontweight="bold")
        axes.set_ylabel(quantity.unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e1dc", linewidth=0.8)
        axes.set_axisbelow(True)
        if not points:
            axes.text(0.5, 0.5, f"{quantity.column} was not logged", ha="center", va="center", transform=axes.transAxes)
            continue
        timesteps, values = [t for t, _ in points], [v for _, v in points]
        colour, radius = _COLOURS[quantity], smooth_radius(len(points))
        marker = "o" if len(points) == 1 else None
        if radius:
            axes.plot(timesteps, values, color=colour, alpha=0.35, linewidth=1, label="as logged")
            name = f"mean of {2 * radius + 1} neighbours"
            axes.plot(timesteps, smoothed(values, radius), color=colour, linewidth=2, label=name)
            axes.legend(frameon=False, loc="best", fontsize=9)
        else:
            axes.plot(timesteps, values, color=colour, linewidth=2, marker=marker)
        if quantity.zero:
            axes.set_ylim(bottom=min(0.0, *values))
    panels[-1].set_xlabel("timesteps (tokens generated)")
    panels[-1].xaxis.set_major_formatter(lambda x, _: short(x))
    if progress.timesteps:
        panels[-1].set_xlim(0, max(progress.timesteps[-1], 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return write_atomically(folder / "learning_curve.png", buffer.getvalue())
