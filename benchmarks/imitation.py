"""Does the policy come to write what GAIL's discriminator cannot tell from the task's own answers, and does it stay fluent?

``python benchmarks/imitation.py --json benchmarks/results/imitation.json``

The bundled model, by the recipe of ``gail``. The discriminator's accuracy is that on whole completions which it has not
learned from yet; it begins at a half, as it has learned nothing, rises while it learns faster than the policy, and falls to a
half again where the policy has caught up. The environment's reward is not shown to anybody. Fluency is the perplexity of
completions under the untrained model, which is compared with that of the task's answers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine
from stable_baselines3.common.logger import KVWriter, Logger

from textgym import TASKS
from textgym_agents import GAIL
from textgym_agents.algorithms.demonstrations import demonstrations
from textgym_agents.algorithms.registry import hyperparameters_of
from textgym_agents.losses import masked_mean
from textgym_agents.runs.evaluation import evaluate, held_out, setting_of
from textgym_agents.runs.recipes import recipe_for

SHOWN = {
    "tokens": "time/total_timesteps",
    "accuracy": "train/discriminator_accuracy",
    "reward": "rollout/ep_rew_mean",
    "kl": "rollout/kl",
}


class Curve(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """One rollout."""
        self.rows.append({name: float(key_values[column]) for name, column in SHOWN.items()})

    def close(self) -> None:
        """Nothing is open."""


def one(task: Any, seed: int, tokens: int, episodes: int) -> dict[str, Any]:
    """Trains and measures a policy."""
    settings = hyperparameters_of("gail", {}, recipe_for(task.id, "gail", "bundled").hyperparameters)
    start = time.perf_counter()
    model, curve = GAIL("CausalLMPolicy", task.id, seed=seed, device="cpu", **settings), Curve()
    model.set_logger(Logger(None, [curve]))
    setting = setting_of(task.id, split="dev")
    answers = demonstrations(setting, held_out(setting, episodes), False, np.random.default_rng(0))
    with torch.no_grad():
        log_probs, _, _ = model.policy.evaluate_sequences(answers, 1.0)
    row: dict[str, Any] = {
        "seed": seed,
        "answers_perplexity": float(np.exp(-float(masked_mean(log_probs, answers.action_mask)))),
    }
    for when in ("before", "after"):
        if when == "after":
            model.learn(tokens)
        found = evaluate(model, setting, episodes)
        row[when] = {
            "score": (found.reward[0] - task.random_score) / (task.oracle_score - task.random_score),
            "perplexity": found.perplexity,
            "kl": found.kl,
            "distinct_2": found.distinct_2,
        }
    return {**row, "curve": curve.rows, "seconds": round(time.perf_counter() - start, 1)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| seed | highest accuracy | accuracy, last five rollouts | score | perplexity | distinct pairs of words | KL |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy, before, after = [point["accuracy"] for point in row["curve"]], row["before"], row["after"]
        changes = " | ".join(
            f"{before[name]:.2f} → {after[name]:.2f}" for name in ("score", "perplexity", "distinct_2")
        )
        lines.append(
            f"| {row['seed']} | {max(accuracy):.2f} | {np.mean(accuracy[-5:]):.2f} | {changes} | {after['kl']:.1f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train GAIL, and watch its discriminator.")
    parser.add_argument("--env", default="TextGen-Polite-v0", help="environment id")
    parser.add_argument("--tokens", type=int, default=20_000, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=200, help="held-out prompts")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tasks = {task.id: task for task in TASKS.values()}
    if options.env not in tasks:
        parser.error(f"unknown id: {options.env}")
    rows = []
    for seed in range(options.seeds):
        rows.append(one(tasks[options.env], seed, options.tokens, options.episodes))
        print(table(rows[-1:]), flush=True)
    print(f"\n{table(rows)}\n\nperplexity of the task's answers: {rows[0]['answers_perplexity']:.2f}")
    if options.json:
        facts = machine("torch", "transformers", "stable-baselines3", "numpy")
        options.json.write_text(json.dumps({"machine": facts, "env": options.env, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
