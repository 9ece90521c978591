"""``report.md`` and ``overoptimization.png``: what became of proxy and true reward, as the policy left its origin."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym_agents.report.report import write_atomically
from textgym_agents.rlhf.files import RLHFFolder, read_json, read_points
from textgym_agents.rlhf.optimise import Point
from textgym_agents.rlhf.settings import RLHFSettings

_DPI = 130
_COLOURS = ("#2b5cb8", "#b8560a", "#2d7d46", "#8a3f97", "#6b6b6b")
_EXPLANATION = """\
*Agreement*: of the reward model with ratings (and with the true reward) of held-out prompts' candidates. *Proxy*: the score of
the round's reward model. Both rewards are means over {prompts} prompts of the split `dev`; *z* is in standard deviations of the
untrained policy's texts, from their mean. *KL*: from the untrained policy, in nats an episode. Brackets: 95% bootstrap
intervals over records or prompts.
"""


def write_reports(folder: RLHFFolder, settings: RLHFSettings, rounds: int) -> None:
    """Writes both for the first ``rounds`` rounds, which are finished."""
    draw(folder.picture, read_points(folder.curve))
    write_atomically(folder.report, _page(folder, settings, rounds).encode())


def draw(path: Path, points: Sequence[Point]) -> None:
    """Draws proxy (dashed) and true reward (solid, with its 95% interval) over the KL, a colour a round.

    As figure 1 of Gao et al. 2022 (https://arxiv.org/abs/2210.10760), the axis grows with the square root of the KL, and both
    rewards are in standard deviations of the untrained policy's.

    Args:
        path: Of the picture (PNG).
        points: Of all rounds, at least one.
    """
    # Only now: matplotlib takes a while. Not pyplot, which would choose a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number in sorted({point.round for point in points}):
        some = [point for point in points if point.round == number]
        colour = _COLOURS[(number - 1) % len(_COLOURS)]
        roots = [max(point.kl, 0.0) ** 0.5 for point in some]  # an estimate near 0 may be below
        std = _unit(some)
        low, high = ([p.true_z + (getattr(p, end) - p.true) / std for p in some] for end in ("true_low", "true_high"))
        order = np.argsort(roots)  # of the band alone: the lines show the way that the policy went
        axes.fill_between(
            np.array(roots)[order], np.array(low)[order], np.array(high)[order], color=colour, alpha=0.13, lw=0
        )
        proxy, true = [p.proxy_z for p in some], [p.true_z for p in some]
        axes.plot(
            roots,
            proxy,
            "--o",
            color=colour,
            lw=1.6,
            ms=3.5,
            mfc="white",
            label=f"round {number}, proxy (reward model)",
        )
        axes.plot(roots, true, "-o", color=colour, lw=2, ms=3.5, label=f"round {number}, true reward")
    axes.axhline(0, color="#999999", lw=0.8)
    top = max(1.0, *(max(point.kl, 0.0) for point in points))
    ticks = [tick for tick in (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= top * 1.1]
    axes.set_xticks([tick**0.5 for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("KL from the untrained policy (nats an episode, square-root scale)")
    axes.set_ylabel("reward (standard deviations of\nthe untrained policy's texts)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e1dc", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8.5, loc="best")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    write_atomically(path, buffer.getvalue())


def _unit(points: Sequence[Point]) -> float:
    """The true reward's standard deviation that ``true_z`` is in, from the two points that are furthest apart."""
    low, high = min(points, key=lambda p: p.true), max(points, key=lambda p: p.true)
    return (high.true - low.true) / (high.true_z - low.true_z) if high.true_z > low.true_z else 1.0


def _page(folder: RLHFFolder, settings: RLHFSettings, rounds: int) -> str:
    rows: list[tuple[str, list[str]]] = []
    stored = [folder.round(n) for n in range(1, rounds + 1)]
    found: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
        (read_json(r.agreement) if r.agreement.is_file() else {}, read_json(r.measured), read_json(r.evaluation))
        for r in stored
    ]

    def row(name: str, cell: Any) -> None:
        rows.append((name, [cell(*each) for each in found]))

    row("raters with one another: Spearman", lambda a, m, e: _number(a.get("spearman")))
    row("raters with one another: same order", lambda a, m, e: _number(a.get("same_order")))
    row("ratings, trained and held out", lambda a, m, e: f"{m['trained_on']}, {m['measured_on']}")
    row("agreement with ratings: Spearman", lambda a, m, e: _interval(m["ratings"]["spearman"]))
    row("agreement with ratings: pairs in order", lambda a, m, e: _interval(m["ratings"]["pairwise_accuracy"]))
    row("agreement with the true reward: Spearman", lambda a, m, e: _interval(m["truth"]["spearman"]))
    row("the same on what the optimised policy writes", lambda a, m, e: _interval(e["truth_after"]["spearman"]))
    row("true reward before", lambda a, m, e: _of_point(e["before"], "true"))
    row("true reward after", lambda a, m, e: _of_point(e["after"], "true"))
    row("highest true reward on the way", lambda a, m, e: f"{_of_point(e['peak'], 'true')} at KL {e['peak']['kl']:.1f}")
    row("true reward, change", lambda a, m, e: _interval(e["true_change"]))
    row("proxy before (z)", lambda a, m, e: f"{e['before']['proxy']:.3f} ({e['before']['proxy_z']:+.2f})")
    row("proxy after (z)", lambda a, m, e: f"{e['after']['proxy']:.3f} ({e['after']['proxy_z']:+.2f})")
    row("true reward after (z)", lambda a, m, e: f"{e['after']['true_z']:+.2f}")
    row("KL before, after", lambda a, m, e: f"{e['before']['kl']:.1f}, {e['after']['kl']:.1f}")
    row("true reward fell while the proxy rose", lambda a, m, e: _yes(e["fell_while_proxy_rose"]))
    row("it did so after its peak, beyond chance", lambda a, m, e: _yes(e["overoptimised"]))
    head = ["", *(f"round {n}" for n in range(1, rounds + 1))]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    table += ["| " + " | ".join([name, *cells]) + " |" for name, cells in rows]
    by = "by a person" if settings.rater == "human" else (
        f"by {settings.raters} simulated raters (noise {settings.noise:g}, disagreement {settings.disagreement:g})"
    )  # fmt: skip
    lead = (
        f"{settings.algo.upper()} on {settings.env_id}, {settings.timesteps:,} tokens and {settings.prompts} prompts a round, "
        f"rated {by} with {settings.mode}; seed {settings.seed}."
    )
    parts = ["# From ratings to a policy", lead, "![Over-optimisation](overoptimization.png)", "\n".join(table)]
    return "\n\n".join([*parts, _EXPLANATION.format(prompts=settings.eval_prompts)])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(value: Sequence[float] | None) -> str:
    return "" if value is None else f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


def _of_point(point: dict[str, float], name: str) -> str:
    return _interval([point[name], point[f"{name}_low"], point[f"{name}_high"]])


def _yes(value: bool) -> str:
    return "yes" if value else "no"
