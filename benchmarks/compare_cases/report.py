"""How the rows are shown: a table for the terminal, a picture for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from compare_cases.rows import Row

VERDICTS = {True: "[green]reached[/]", False: "[red]missed[/]", None: "[yellow]–[/]"}


def show(rows: Sequence[Row], console: Console) -> None:
    """Prints the table, and below it what the sides of each row have in common and what not."""
    table = Table(
        "comparison", "ours", "peer", "ratio", "lowest", "highest", "target", "", title="Ours against the peers"
    )
    for column in table.columns[3:7]:
        column.justify = "right"
    for row in rows:
        target = f"{'≤' if row.at_most else '≥'} {row.target:g}{row.unit}"
        if row.ratio is None:
            table.add_row(row.name, row.ours, row.peer, row.status, "", "", target, VERDICTS[None])
            continue
        numbers = [f"{number:.2f}{row.unit}" for number in (row.ratio, min(row.ratios), max(row.ratios))]
        name = row.name if row.quiet else f"{row.name} *"
        table.add_row(
            name, *(_with_rate(row, side) for side in (row.ours, row.peer)), *numbers, target, VERDICTS[row.reached]
        )
    console.print(table)
    if not all(row.quiet for row in rows):
        console.print("* others used more than 5% of the machine in some of the rounds that count", style="yellow")
    for row in rows:
        if row.reason:
            console.print(f"{row.name}: {row.status}: {row.reason}", style="yellow", markup=False)
    alike: dict[str, list[str]] = {}
    for row in rows:
        alike.setdefault(f"Same: {row.same}." + f" Not the same: {row.differs}." * bool(row.differs), []).append(
            row.name
        )
    for note, names in alike.items():
        console.print(f"{', '.join(names)}. {note}", style="dim", markup=False, highlight=False)


def _against(row: Row) -> str:
    if row.unit != "×":
        return f"{row.ours}, {'at most' if row.at_most else 'in'} {row.unit.strip()}"
    return f"at most … times {row.peer}" if row.at_most else f"times {row.peer}"


def _with_rate(row: Row, side: str) -> str:
    found = row.details.get("sides", {}).get(side)
    return side if found is None else f"{side}\n[dim]{found['tokens_per_second']:,.0f} tokens/s[/]"


def draw(rows: Sequence[Row], file: Path) -> None:
    """Bars of the median ratios, from the lowest to the highest round, each with a mark at its target."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    shown = [row for row in rows if row.ratio is not None]
    if not shown:
        return
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.45 * len(shown)), layout="constrained")
    for y, row in enumerate(shown):
        assert row.ratio is not None
        colour = "#4c9f70" if row.reached else "#c8553d"
        spread = [[row.ratio - min(row.ratios)], [max(row.ratios) - row.ratio]]
        axes.barh(y, row.ratio, xerr=spread, height=0.6, color=colour, error_kw={"lw": 1, "capsize": 2})
        axes.plot([row.target] * 2, [y - 0.4, y + 0.4], color="black", lw=2)
        axes.text(
            max(row.ratio, max(row.ratios), row.target) * 1.05, y, f"{row.ratio:.2f}{row.unit}", va="center", fontsize=9
        )
    names = [f"{row.name}\n{_against(row)}" for row in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")  # from 0.85 to 25
    low = min(min(*row.ratios, row.target) for row in shown)
    high = max(max(*row.ratios, row.target) for row in shown)
    axes.set_xlim(min(0.5, low / 1.5), high * 1.8)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("median of the rounds (line: lowest to highest); black mark: target", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)
