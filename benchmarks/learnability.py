"""Does PPO learn every task? Trains the bundled model with the default recipes, several seeds a task.

``python benchmarks/learnability.py --out runs/learnability --json benchmarks/results/learnability.json``

Each training is what ``textgym train ID --algo ppo --seed N`` does. Scores are normalised: 0 is random tokens, 1 the
oracle. "Raise" is the trained model's score minus the untrained one's, on the same held-out prompts. Runs that are
already in the folder are not repeated, and the results are those of all that are in it. The summary is an interquartile
mean over the runs of the tasks with the most seeds, with a bootstrap interval that resamples seeds within tasks (Agarwal
et al. 2021, https://arxiv.org/abs/2108.13264).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine

from textgym import TASKS
from textgym.metrics import interquartile_mean, stratified_interval

WANTED = 0.2


def train(
    env_id: str,
    seed: int,
    file: Path,
    episodes: int,
    algo: str = "ppo",
    tokens: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One run, on one thread; or what an earlier one left behind.

    Args:
        env_id, algo, seed: What to train.
        file: Where the result is kept.
        episodes: Held-out prompts.
        tokens: ``None``: as many as the recipe says.
        changes: Hyperparameters other than the recipe's.
    """
    if not file.exists():
        import torch

        from textgym_agents.algorithms.registry import ALGORITHMS, hyperparameters_of
        from textgym_agents.runs.evaluation import evaluate
        from textgym_agents.runs.recipes import recipe_for

        torch.set_num_threads(1)
        recipe = recipe_for(env_id, algo, "bundled")
        settings = hyperparameters_of(algo, changes or {}, recipe.hyperparameters)
        start = time.perf_counter()
        model = ALGORITHMS[algo]("CausalLMPolicy", env_id, seed=seed, device="cpu", **settings)
        before = evaluate(model, env_id, episodes).to_json()
        began = time.perf_counter()
        model.learn(tokens or recipe.total_timesteps or 0)
        trained = time.perf_counter() - began
        after = evaluate(model, env_id, episodes).to_json()
        record = {
            "tokens": model.num_timesteps,
            "seconds": round(time.perf_counter() - start, 1),
            "training_seconds": round(trained, 1),
            "before": before,
            "after": after,
        }
        file.write_text(json.dumps(record))
    return dict(json.loads(file.read_text()))


def row_of(task: Any, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Normalised scores of a task's runs."""

    def normalised(when: str) -> list[float]:
        return [(r[when]["reward"][0] - task.random_score) / (task.oracle_score - task.random_score) for r in runs]

    before, after = normalised("before"), normalised("after")
    raises = [b - a for a, b in zip(before, after, strict=True)]
    return {
        "id": task.id,
        "before": before,
        "after": after,
        "raise": raises,
        "learned": min(raises) >= WANTED,
        "kl": [r["after"]["kl"] for r in runs],
        "success": [r["after"]["success"][0] if "success" in r["after"] else None for r in runs],
        "distinct_2": [[r["before"]["distinct_2"], r["after"]["distinct_2"]] for r in runs],
        "parts": {
            name: [[r["before"]["parts"][name][0], r["after"]["parts"][name][0]] for r in runs]
            for name in runs[0]["before"]["parts"]
        },
        "tokens": [r["tokens"] for r in runs],
        "seconds": [r["seconds"] for r in runs],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = ["| task | tokens | before | after, each seed | raise, mean | KL, nats |", "|---|---|---|---|---|---|"]
    for row in rows:
        after = ", ".join(f"{x:.2f}" for x in row["after"])
        kl = ", ".join(f"{x:.1f}" for x in row["kl"])
        lines.append(
            f"| {row['id']} | {max(row['tokens']):,} | {np.mean(row['before']):.2f} | {after} | {np.mean(row['raise']):+.2f} "
            f"| {kl} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train PPO on every task.")
    parser.add_argument("ids", nargs="*", help="environment ids; all if none is given")
    parser.add_argument("--seeds", type=int, default=3, help="seeds a task")
    parser.add_argument("--episodes", type=int, default=200, help="held-out prompts of an evaluation")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    tasks = {task.id: task for task in TASKS.values()}
    if unknown := set(options.ids) - set(tasks):
        parser.error(f"unknown ids: {sorted(unknown)}; known: {sorted(tasks)}")
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = options.ids or list(tasks)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    jobs = [(env_id, seed) for seed in range(options.seeds) for env_id in chosen]  # every task once before any twice

    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(train, *job, options.out / f"{job[0]}-{job[1]}.json", options.episodes): job for job in jobs
        }
        for future in as_completed(futures):
            (env_id, seed), found = futures[future], future.result()
            row = row_of(tasks[env_id], [found])
            shown = f"{row['before'][0]:.2f} -> {row['after'][0]:.2f}  KL {row['kl'][0]:.1f}"
            print(f"{env_id:26} seed {seed}  {shown}  {found['tokens']:,} tokens  {found['seconds']:.0f} s", flush=True)
    runs = {i: [json.loads(f.read_text()) for f in sorted(options.out.glob(f"{i}-*.json"))] for i in tasks}
    rows = [row_of(tasks[i], found) for i, found in runs.items() if found]
    most = max(len(row["raise"]) for row in rows)
    raises = np.array([row["raise"] for row in rows if len(row["raise"]) == most])
    iqm, interval = interquartile_mean(raises), stratified_interval(raises, interquartile_mean)
    every, on_average = sum(row["learned"] for row in rows), sum(np.mean(row["raise"]) >= WANTED for row in rows)
    print(f"\n{table(rows)}\n")
    print(f"{every} of {len(rows)} tasks: a raise of at least {WANTED} with every seed; {on_average}: on average")
    print(
        f"raise, interquartile mean over {raises.size} runs of {len(raises)} tasks with {most} seeds: "
        f"{iqm:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
    )
    if options.json:
        facts = machine("torch", "transformers", "stable-baselines3", "numpy")
        summary = {
            "learned": every,
            "learned_on_average": int(on_average),
            "raise_iqm": [iqm, *interval],
            "tasks": len(raises),
        }
        options.json.write_text(json.dumps({"machine": facts, "summary": summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
