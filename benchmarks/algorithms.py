"""Which settings suit each algorithm, and what each algorithm then makes of a task; on the bundled model.

``python benchmarks/algorithms.py search --out runs/search --json benchmarks/results/search.json`` tries the settings in
`SEARCHED` with one seed, on which most rows of ``textgym_agents/runs/recipes.json`` for these algorithms rest.

``python benchmarks/algorithms.py table --out runs/algorithms --json benchmarks/results/algorithms.json`` trains every
online algorithm by its recipe with several seeds.

Scores are normalised: 0 is random tokens, 1 the oracle. "Closed" is the share of the gap between the untrained model and the
oracle. Runs that are already in the folder are not repeated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from learnability import row_of, train
from measuring import machine

from textgym import TASKS

SEARCHED: dict[str, list[dict[str, Any]]] = {
    "grpo": [{"learning_rate": rate, "kl_coef": c} for rate, c in ((2e-4, 0.15), (4e-4, 0.15), (4e-4, 0.05))],
    "rloo": [{"learning_rate": rate, "n_epochs": n} for rate, n in ((2e-4, 1), (4e-4, 1), (2e-4, 2))],
    "reinforce": [{"learning_rate": rate, "n_envs": n} for rate, n in ((3e-4, 16), (6e-4, 16), (6e-4, 32))],
    "a2c": [{"learning_rate": rate, "n_envs": n} for rate, n in ((3e-4, 16), (6e-4, 16), (6e-4, 32))],
    "bestofn": [{"learning_rate": rate, "kl_coef": 0.01} for rate in (3e-4, 1e-3)],
    "dpo": [
        *({"learning_rate": rate, "beta": beta} for rate, beta in ((1.5e-4, 0.1), (3e-4, 0.1), (3e-4, 0.03))),
        *({"learning_rate": 6e-4, "n_envs": 16, "beta": beta} for beta in (0.03, 0.1, 0.5, 1.0)),
        {"learning_rate": 3e-4, "n_envs": 16, "beta": 0.5},
        *(
            {"learning_rate": rate, "n_envs": 16, "beta": 0.1, "rpo_alpha": alpha}
            for rate, alpha in ((6e-4, 1.0), (3e-4, 1.0), (3e-4, 3.0), (3e-4, 0.3))
        ),
    ],
    "trpo": [{"target_kl": kl, "cg_max_steps": 5, "sub_sampling_factor": 4} for kl in (0.01, 0.04)],
}
HALF = 0.5


def label(algo: str, changes: dict[str, Any]) -> str:
    """The name of a trial."""
    return " ".join([algo, *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in changes.items())])


def closed(row: dict[str, Any]) -> list[float]:
    """The share of the gap to the oracle that each run closed."""
    return [raised / (1 - before) for raised, before in zip(row["raise"], row["before"], strict=True)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = ["| algorithm | tokens | seconds | before | after, each seed | gap closed, mean | KL, nats |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        after = ", ".join(f"{x:.2f}" for x in row["after"])
        kl = ", ".join("" if x is None else f"{x:.1f}" for x in row["kl"])  # no reference: not measured
        lines.append(
            f"| {row['trial']} | {max(row['tokens']):,} | {np.median(row['seconds']):.0f} | {np.mean(row['before']):.2f} "
            f"| {after} | {np.mean(closed(row)):.0%} | {kl} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    from textgym_agents.algorithms.registry import ALGORITHMS

    parser = argparse.ArgumentParser(description="Compare the algorithms.")
    parser.add_argument("what", choices=("search", "table"))
    parser.add_argument("--env", default="TextGen-Sentiment-v0", help="environment id")
    parser.add_argument("--algos", nargs="*", help="algorithms; all if none is given")
    parser.add_argument("--tokens", type=int, help="of each training; search: 30,000, table: as the recipes say")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the table")
    parser.add_argument("--episodes", type=int, default=200, help="held-out prompts of an evaluation")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    if unknown := set(options.algos or []) - set(ALGORITHMS):
        parser.error(f"unknown algorithms: {sorted(unknown)}; known: {sorted(ALGORITHMS)}")
    if options.env not in {t.id for t in TASKS.values()}:
        parser.error(f"unknown id: {options.env}")
    task = next(t for t in TASKS.values() if t.id == options.env)
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    search = options.what == "search"
    algos = options.algos or list(SEARCHED if search else ALGORITHMS)
    tokens = options.tokens or (30_000 if search else None)
    trials = [(algo, changes) for algo in algos for changes in (SEARCHED[algo] if search else [{}])]
    seeds = range(1 if search else options.seeds)
    jobs = [(algo, changes, seed) for seed in seeds for algo, changes in trials]

    def file(algo: str, changes: dict[str, Any], seed: int) -> Path:
        return Path(options.out / f"{options.env} {label(algo, changes)} {seed}.json")

    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(train, options.env, seed, file(a, c, seed), options.episodes, a, tokens, c): (a, c, seed)
            for a, c, seed in jobs
        }
        for future in as_completed(futures):
            algo, changes, seed = futures[future]
            row = row_of(task, [future.result()])
            shown = f"{row['before'][0]:.2f} -> {row['after'][0]:.2f}  KL {row['kl'][0] or 0:.1f}  {row['seconds'][0]:.0f} s"
            print(f"{label(algo, changes):45} seed {seed}  {shown}", flush=True)
    rows = []
    for algo, changes in trials:
        found = [json.loads(file(algo, changes, seed).read_text()) for seed in seeds]
        rows.append({"trial": label(algo, changes), "algo": algo, "changes": changes, **row_of(task, found)})
    print(f"\n{table(rows)}\n")
    if not search:
        enough = [row["algo"] for row in rows if min(closed(row)) >= HALF]
        print(f"at least half of the gap with every seed: {len(enough)} of {len(rows)} ({', '.join(enough)})")
    if options.json:
        facts = machine("torch", "transformers", "stable-baselines3", "numpy")
        options.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
