"""What ``train`` and ``eval`` print at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from textgym.rendering import harmless  # what a policy writes may hold control characters

NOTE = "Mean [95% bootstrap interval]. KL and perplexity: against the reference, the untrained model."


def results(measured: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Evaluations side by side.

    Args:
        measured: Column headings and what ``Evaluation.to_json`` gave (``None``: not measured).

    KL and perplexity are against the reference model, see ``Evaluation``.
    """
    columns = {name: m for name, m in measured.items() if m is not None}
    table = Table("")
    for name in columns:
        table.add_column(name, justify="right")

    def row(label: str, shown: Sequence[str], style: str = "") -> None:
        table.add_row(label, *shown, style=style)

    row("reward", [_interval(m["reward"]) for m in columns.values()], "bold")
    for part in dict.fromkeys(part for m in columns.values() for part in m["parts"]):
        row(f"  {part}", [_interval(m["parts"].get(part)) for m in columns.values()])
    if any(m.get("success") for m in columns.values()):
        row("success", [_interval(m.get("success")) for m in columns.values()])
    for name in dict.fromkeys(name for m in columns.values() for name in m.get("metrics", ())):
        row(f"{name}, corpus", [_interval(m.get("metrics", {}).get(name)) for m in columns.values()])
    for label, key, digits in (
        ("KL, nats an episode", "kl", 2),
        ("perplexity", "perplexity", 2),
        ("distinct-1", "distinct_1", 3),
        ("distinct-2", "distinct_2", 3),
        ("length, tokens", "length", 1),
    ):
        row(label, ["–" if m.get(key) is None else f"{m[key] + 0.0:.{digits}f}" for m in columns.values()])
    return table


def samples(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Prompts and completions with their rewards, each row a mapping with ``prompt``, ``completion`` and ``reward``."""
    table = Table(show_lines=True)
    table.add_column("prompt and completion", ratio=1)
    table.add_column("reward", justify="right")
    for r in rows:
        text = Text.assemble((harmless(r["prompt"]), "dim"), (harmless(r["completion"]), "green"))
        table.add_row(text, f"{r['reward']:+.2f}")
    return table


def duration(seconds: float) -> str:
    """``75`` as ``1:15``, ``3675`` as ``1:01:15``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _interval(value: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    mean, low, high = (round(v, 3) + 0.0 for v in value)
    return f"{mean:.3f}  [{low:.3f}, {high:.3f}]"
