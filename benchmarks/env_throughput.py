"""Token-steps a second of the environments, without any model: ``python benchmarks/env_throughput.py --json OUT``.

Every episode has a prompt of exactly 16 tokens and exactly 48 random new tokens, and restarts in the step in which it
ended. A reward that returns zeros keeps the time of rewards out; one row has the task's own reward for comparison. Ratios
are against Gymnasium's SyncVectorEnv with as many slots, in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from measuring import Timing, alternate, machine
from rich.console import Console
from rich.table import Table

import textgym
from textgym.rewards import Reward

ENV_ID = "TextGen-Sentiment-v0"
PROMPT_TOKENS, NEW_TOKENS = 16, 48
TARGET = 3_000_000  # token-steps a second of the native vector environment with 1,024 slots
TARGET_RATIOS = {64: 20, 1024: 60}  # times SyncVectorEnv with as many slots


class Nothing(Reward):
    """Zero for everything."""

    name = "nothing"
    range = (0.0, 0.0)

    def __call__(self, completions):
        return np.zeros(len(completions), dtype=np.float32)


def prompts_of_16_tokens(n: int = 1000) -> list[str]:
    """Beginnings of the task's own texts that are exactly 16 tokens, before and after a round trip."""
    tokenizer, task, rng = textgym.load_tokenizer(), textgym.make_task(ENV_ID), np.random.default_rng(0)
    found: list[str] = []
    while len(found) < n:
        text = tokenizer.decode(tokenizer.encode(task.document(rng))[:PROMPT_TOKENS])
        if len(tokenizer.encode(text)) == PROMPT_TOKENS:
            found.append(text)
    return found


def make(num_envs: int, prompts: list[str], reward: Reward | None, sync: bool) -> VectorEnv:
    kwargs: dict[str, Any] = {
        "prompts": prompts,
        "reward": reward,
        "max_prompt_tokens": PROMPT_TOKENS,
        "max_new_tokens": NEW_TOKENS,
        "min_new_tokens": NEW_TOKENS,
    }
    if sync:
        mode = {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}, "vectorization_mode": "sync"}
    else:
        mode = {"autoreset_mode": AutoresetMode.SAME_STEP.value}
    return gym.make_vec(ENV_ID, num_envs=num_envs, **mode, **kwargs)


def episodes(envs: VectorEnv, rounds: int) -> Callable[[], None]:
    """Plays ``rounds`` whole episodes in every slot."""
    rng, shape = np.random.default_rng(0), (NEW_TOKENS, envs.num_envs)
    obs, _ = envs.reset(seed=0)
    if (obs["attention_mask"].sum(axis=1) != PROMPT_TOKENS).any():
        raise RuntimeError(f"Expected prompts of {PROMPT_TOKENS} tokens")

    def play() -> None:
        for _ in range(rounds):
            for actions in rng.integers(2, envs.single_action_space.n, size=shape):  # other texts in every round
                _, _, terminated, _, _ = envs.step(actions)
            if not terminated.all():
                raise RuntimeError(f"Expected every episode to end after {NEW_TOKENS} tokens")

    return play


def rounds_for(play: Callable[[int], Callable[[], None]], seconds: float) -> int:
    once = play(1)
    once()
    began = time.perf_counter()
    once()
    return max(1, round(seconds / (time.perf_counter() - began)))


def import_seconds(repetitions: int = 5) -> list[float]:
    """Seconds that ``import textgym`` takes in a fresh process, without starting Python itself; files are cached."""
    code = "import time; t = time.perf_counter(); import textgym; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(repetitions + 1)]
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results to this file")
    parser.add_argument("--repetitions", type=int, default=7, help="of each case, at least 5 (default: 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a repetition (default: 1)")
    parser.add_argument(
        "--patience", type=float, default=300.0, help="most seconds to wait for a quiet machine (default: 300)"
    )
    args = parser.parse_args()
    if args.repetitions < 5:
        parser.error("--repetitions must be at least 5")
    console, prompts = Console(), prompts_of_16_tokens()

    setups: dict[str, tuple[int, Reward | None, bool]] = {
        "native, 1,024": (1024, Nothing(), False),
        "native, 64": (64, Nothing(), False),
        "SyncVectorEnv, 1,024": (1024, Nothing(), True),
        "SyncVectorEnv, 64": (64, Nothing(), True),
        "native, 1,024, own reward": (1024, None, False),
    }
    cases, steps = {}, {}
    for name, (num_envs, reward, sync) in setups.items():
        envs = make(num_envs, prompts, reward, sync)
        rounds = rounds_for(lambda n, envs=envs: episodes(envs, n), args.seconds)
        cases[name], steps[name] = episodes(envs, rounds), rounds * NEW_TOKENS * num_envs
    gc.freeze()  # no case pays for Python's garbage collector looking through the thousand environments of another
    console.print(f"{args.repetitions} repetitions of about {args.seconds:g} s each, waiting for a quiet machine ...")
    timings = alternate(cases, args.repetitions, patience=args.patience)
    imports = import_seconds()

    def rate(timing: Timing) -> float:
        return steps[timing.name] / timing.median

    def ratio(name: str) -> float:
        num_envs = setups[name][0]
        return rate(timings[name]) / rate(timings[f"SyncVectorEnv, {num_envs:,}"])

    table = Table("environment, slots", "token-steps/s", "lowest", "highest", "ratio", "load", title=ENV_ID)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, timing in timings.items():
        rates = [steps[name] / s for s in timing.seconds]
        numbers = [f"{number:,.0f}" for number in (rate(timing), min(rates), max(rates))]
        table.add_row(name, *numbers, f"{ratio(name):.1f}×", f"{max(timing.foreign):.0%}")
    console.print(table)
    if not all(timing.quiet for timing in timings.values()):
        console.print("The machine was not quiet: others used up to the share of it under `load`.", style="yellow")
    reached = rate(timings["native, 1,024"])
    ratios = {num_envs: ratio(f"native, {num_envs:,}") for num_envs in TARGET_RATIOS}
    verdict = "reached" if reached >= TARGET else "missed"
    console.print(f"Target of {TARGET:,} token-steps/s with 1,024 slots: {verdict} ({reached / TARGET:.2f}×)")
    for num_envs, target in TARGET_RATIOS.items():
        verdict = "reached" if ratios[num_envs] >= target else "missed"
        console.print(f"Target of {target}× SyncVectorEnv with {num_envs:,} slots: {verdict} ({ratios[num_envs]:.1f}×)")
    console.print(f"import textgym: {statistics.median(imports):.3f} s (median of {len(imports)} fresh processes)")
    facts = machine("gymnasium", "numpy", "tokenizers")
    console.print(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}", style="dim")

    if args.json:
        result = {
            "benchmark": "env_throughput",
            "env_id": ENV_ID,
            "prompt_tokens": PROMPT_TOKENS,
            "new_tokens": NEW_TOKENS,
            "target_token_steps_per_second": TARGET,
            "target_ratios_to_sync": TARGET_RATIOS,
            "ratios_to_sync": ratios,
            "token_steps_per_second": {name: rate(timing) for name, timing in timings.items()},
            "token_steps_per_repetition": steps,
            "timings": {name: timing.to_json() for name, timing in timings.items()},
            "import_seconds": {"median": statistics.median(imports), "all": imports},
            "machine": facts,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
