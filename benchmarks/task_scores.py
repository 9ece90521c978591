"""Measures every task: scores of random tokens, of the bundled model untrained and of the oracle, and what scoring costs.

``python benchmarks/task_scores.py --json benchmarks/results/task_scores.json``

The three scores are mean returns on the same held-out prompts (500 of the ``dev`` split), with 95% bootstrap intervals; the
model's score is also measured at each level of difficulty, on 200 prompts.
"Scoring" is how many of the model's completions the task's reward scores a second, in batches of a tenth of them, and how many
times that is the rate of scoring one by one: medians of five batches each, in turn, none of which has been scored before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from measuring import machine

from textgym import TASKS, load_tokenizer
from textgym.core import Completion, Example
from textgym.metrics import bootstrap_interval

BATCHES = 5


def play(env_id: str, examples: Sequence[Example], choose: Any) -> tuple[list[float], list[bool | None]]:
    """Returns, and successes, of one episode from each example; ``choose(step, masks)`` gives a token for every slot."""
    envs = gym.make_vec(env_id, num_envs=len(examples), split="dev", autoreset_mode="Disabled").unwrapped
    envs.reset(seed=0, options={"examples": list(examples)})
    returns, running = np.zeros(len(examples)), np.ones(len(examples), dtype=bool)
    successes: list[bool | None] = [None] * len(examples)
    step = 0
    while running.any():
        _, rewards, terminated, _, infos = envs.step(choose(step, envs.action_masks()))
        returns += rewards
        for i in np.flatnonzero(terminated & running):
            if "is_success" in infos and infos["_is_success"][i]:
                successes[i] = bool(infos["is_success"][i])
        running &= ~terminated
        envs.hold(terminated)
        step += 1
    return returns.tolist(), successes


def random_player(seed: int = 0) -> Any:
    """Uniformly random allowed tokens."""
    rng = np.random.default_rng(seed)
    return lambda step, masks: (rng.random(masks.shape) * masks).argmax(axis=1)


def oracle_player(env_id: str, examples: Sequence[Example]) -> Any:
    """What the task's oracle writes, then the end token."""
    task, tokenizer = next(cls() for cls in TASKS.values() if cls.id == env_id), load_tokenizer()
    rows = [[*tokenizer.encode(task.oracle(e)), tokenizer.eos_token_id] for e in examples]
    return lambda step, masks: np.array([row[min(step, len(row) - 1)] for row in rows])


def scoring_speed(reward: Any, completions: Sequence[Completion]) -> tuple[float, float]:
    """Completions a second: in a batch, and one by one. Medians of five disjoint batches each, in turn."""
    reward(completions[:1])  # whatever is loaded once
    size = (len(completions) - 1) // (2 * BATCHES)
    rates: tuple[list[float], list[float]] = ([], [])
    for k in range(2 * BATCHES):
        batch, alone = completions[1 + k * size : 1 + (k + 1) * size], k % 2 == 1
        start = time.perf_counter()
        for part in [[c] for c in batch] if alone else [batch]:
            reward(part)
        rates[alone].append(len(batch) / (time.perf_counter() - start))
    return statistics.median(rates[0]), statistics.median(rates[1])


def measure(env_id: str, episodes: int) -> dict[str, Any]:
    """Everything about one task."""
    from textgym_agents import PPO
    from textgym_agents.runs.evaluation import held_out, setting_of, write

    setting = setting_of(env_id, split="dev")
    examples = held_out(setting, episodes)
    random, _ = play(env_id, examples, random_player())
    oracle, solved = play(env_id, examples, oracle_player(env_id, examples))
    model = PPO("CausalLMPolicy", env_id, n_envs=1, kl_coef=0.0, device="cpu")
    unscored = setting_of(
        env_id, split="dev", reward="length"
    )  # the same completions; nothing of them is remembered yet
    completions = [
        Completion(e.prompt, s.completion, e.references, e.meta, tuple(s.tokens), s.finish_reason, s.transcript)
        for e, s in zip(examples, write(model, unscored, examples), strict=True)
    ]
    batched, alone = scoring_speed(setting.reward, completions)
    samples = write(model, setting, examples)
    successes = [s.is_success for s in samples if s.is_success is not None]
    scores = {
        "random": bootstrap_interval(random),
        "base": bootstrap_interval([s.reward for s in samples]),
        "oracle": bootstrap_interval(oracle),
    }
    low, high = scores["random"][0], scores["oracle"][0]
    levels = {}
    for level in setting.task.difficulties:
        at = setting_of(env_id, split="dev", difficulty=level)
        levels[level] = list(bootstrap_interval([s.reward for s in write(model, at, held_out(at, min(episodes, 200)))]))
    return {
        "id": env_id,
        "episodes": episodes,
        "base_levels": levels,
        **{name: list(score) for name, score in scores.items()},
        "base_normalized": (scores["base"][0] - low) / (high - low),
        "base_success": float(np.mean(successes)) if successes else None,
        "oracle_success": float(np.mean([s for s in solved if s is not None])) if successes else None,
        "base_tokens": float(np.mean([len(s.tokens) for s in samples])),
        "prompt_tokens": float(np.mean([len(ids) for ids in setting.encode_prompts(examples)])),
        "scored_per_second": batched,
        "scored_per_second_one_by_one": alone,
        "samples": [[s.prompt, s.transcript, s.reward] for s in samples[:5]],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure the scores of every task.")
    parser.add_argument("ids", nargs="*", help="environment ids; all if none is given")
    parser.add_argument("--episodes", type=int, default=500, help="held-out prompts a task")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    known = [task.id for task in TASKS.values()]
    if unknown := set(options.ids) - set(known):
        parser.error(f"unknown ids: {sorted(unknown)}; known: {known}")
    rows = []
    names = f"{'task':26} {'random':>7} {'base':>7} {'oracle':>7} {'base, normalized':>17} {'success':>8}"
    print(f"{names} {'scored/s':>9} {'batch/one':>9}  base at each level")
    for env_id in options.ids or known:
        row = measure(env_id, options.episodes)
        success = "" if row["base_success"] is None else f"{row['base_success']:.2f}"
        print(
            f"{env_id:26} {row['random'][0]:7.3f} {row['base'][0]:7.3f} {row['oracle'][0]:7.3f} "
            f"{row['base_normalized']:17.2f} {success:>8} {row['scored_per_second']:9,.0f} "
            f"{row['scored_per_second'] / row['scored_per_second_one_by_one']:9.1f}  "
            + ", ".join(f"{level} {score[0]:.2f}" for level, score in row["base_levels"].items()),
            flush=True,
        )
        rows.append(row)
    room = sum(0.05 <= row["base_normalized"] <= 0.9 for row in rows)
    print(f"{room} of {len(rows)} tasks have a base score of 0.05 to 0.9 on the scale from random to oracle")
    if options.json:
        facts = machine("torch", "transformers", "numpy")
        options.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
