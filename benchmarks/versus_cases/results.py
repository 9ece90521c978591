"""What is made of the runs: intervals, the table, the verdicts. NumPy only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

Run = dict[str, Any]

# Two-sided 95% points of Student's t with 1, 2, ... degrees of freedom.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Difference of the means with its 95% interval (Welch 1947): the two sides' spreads need not be alike.

    Degrees of freedom are rounded down, which makes the interval a little wider. Seeds are not paired: the same seed draws
    other numbers on either side.

    Raises:
        ValueError: A side has fewer than two values, which say nothing of a spread.
    """
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"Expected at least two seeds a side, actual: {len(ours)} and {len(theirs)}")
    parts = [(np.var(side, ddof=1) / len(side), len(side) - 1) for side in (ours, theirs)]
    variance = sum(part for part, _ in parts)
    middle = float(np.mean(ours) - np.mean(theirs))
    if variance == 0:
        return middle, middle, middle
    freedom = int(variance**2 / sum(part**2 / df for part, df in parts))
    margin = _T95[min(freedom, len(_T95)) - 1] * math.sqrt(variance)
    return middle, middle - margin, middle + margin


def compared(algorithm: str, ours: Sequence[Run], theirs: Sequence[Run], peer: str) -> dict[str, Any]:
    """One row: how two sides did with one algorithm."""

    def side(runs: Sequence[Run]) -> dict[str, Any]:
        rewards, kls = ([run["evaluation"][key] for run in runs] for key in ("reward", "kl"))
        values = [reward[0] for reward in rewards]
        return {
            "seeds": [run["seed"] for run in runs],
            "reward": values,
            "reward_mean": float(np.mean(values)),
            "kl": kls,
            "kl_mean": float(np.mean(kls)),
            "length": [run["evaluation"]["length"] for run in runs],
            "tokens": [run["tokens"] for run in runs],
            "seconds_median": statistics.median(run["seconds"] for run in runs),
        }

    row: dict[str, Any] = {"algorithm": algorithm, "peer": peer, "ours": side(ours), "theirs": side(theirs)}
    row["time_ratio"] = row["theirs"]["seconds_median"] / row["ours"]["seconds_median"]
    if min(len(ours), len(theirs)) >= 2:
        for key in ("reward", "kl"):
            middle, low, high = difference(row["ours"][key], row["theirs"][key])
            row[f"{key}_difference"] = [middle, low, high]
            row[f"{key}_within"] = low <= 0 <= high
    return row


def verdict(row: dict[str, Any]) -> str:
    """Whether the rewards differ by more than the seeds do, whichever way it falls."""
    name = f"{row['algorithm'].upper()} against {row['peer']}"
    if "reward_difference" not in row:
        return f"{name}: too few seeds for an interval"
    middle, low, high = row["reward_difference"]
    told = f"difference {middle:+.3f}, 95% interval {low:+.3f} to {high:+.3f}"
    if row["reward_within"]:
        return f"{name}: within the seeds' interval ({told})"
    return f"{name}: outside the seeds' interval, textgym is {'better' if middle > 0 else 'worse'} ({told})"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| algorithm | side | reward, mean | reward, each seed | KL, nats | textgym minus peer [95%] | time, peer / textgym |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, side in (("textgym", row["ours"]), (row["peer"], row["theirs"])):
            told = ["", ""]
            if side is row["theirs"]:
                told[1] = f"{row['time_ratio']:.1f}×"
                if "reward_difference" in row:
                    told[0] = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["reward_difference"])
            each = ", ".join(f"{x:.2f}" for x in side["reward"])
            lines.append(
                f"| {row['algorithm'].upper()} | {name} | {side['reward_mean']:.3f} | {each} | {side['kl_mean']:.1f} "
                f"| {told[0]} | {told[1]} |"
            )
    return "\n".join(lines)
