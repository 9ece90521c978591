"""Tokens a second of a whole PPO iteration, ours against stock SB3's: ``python benchmarks/agent_throughput.py --json OUT``.

Both train the same language model as the same policy class (`CausalLMPolicy`) on the same environments: 64 slots, prompts
of exactly 16 tokens, exactly 48 new tokens (the end token is forbidden before), a reward of zeros, float32, no reference
model. One repetition is one call of `learn` for one rollout of 64 × 48 = 3,072 tokens and its updates, with the same number
of epochs and as many tokens in a minibatch: a minibatch of ours has 16 episodes, one of SB3's 768 steps.

What differs is how a prefix is read. SB3 hands a policy single observations, so that the model reads every prefix anew, in
the rollout and again in every epoch. Ours decodes with a key-value cache and makes one teacher-forced pass an episode.

Of what is not the same, all favours SB3's side: one epoch is the default here, because in training ours gains the most;
the rollout of SB3 has no key-value cache to manage; and its observations are trimmed to the longest prefix in a batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from env_throughput import ENV_ID, NEW_TOKENS, PROMPT_TOKENS, Nothing, prompts_of_16_tokens
from measuring import alternate, machine
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO as StockPPO
from stable_baselines3.common.vec_env import VecMonitor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym.tokenization import ASSETS, load_tokenizer
from textgym_agents import PPO, CausalLMPolicy, Limits
from textgym_agents.models import load_model
from textgym_agents.vec_env import vectorised

SLOTS, EPISODES_A_MINIBATCH = 64, 16
TOKENS = SLOTS * NEW_TOKENS
TARGET = 10.0  # times stock SB3's tokens a second


def language_model(which: str) -> PreTrainedModel:
    """A fresh copy of the bundled model, or of the reference workload's: 4 layers of width 128, random weights."""
    if which == "bundled":
        return load_model("bundled")
    torch.manual_seed(0)
    size = {"n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": PROMPT_TOKENS + NEW_TOKENS}
    vocab_size, end = load_tokenizer().vocab_size, load_tokenizer().eos_token_id
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, bos_token_id=end, eos_token_id=end, **size))


def environments(prompts: list[str]) -> VecMonitor:
    envs = vectorised(
        ENV_ID,
        SLOTS,
        prompts=prompts,
        reward=Nothing(),
        max_prompt_tokens=PROMPT_TOKENS,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
    )
    return VecMonitor(envs)


def make_ours(model: PreTrainedModel, prompts: list[str], epochs: int) -> PPO:
    return PPO(
        "CausalLMPolicy",
        environments(prompts),
        batch_size=EPISODES_A_MINIBATCH,
        n_epochs=epochs,
        kl_coef=0.0,
        learning_rate=1e-5,
        policy_kwargs={"model": model},
        device="cpu",
        seed=0,
    )


def make_stock(model: PreTrainedModel, prompts: list[str], epochs: int) -> StockPPO:
    tokenizer = load_tokenizer()
    limits = Limits(
        tokenizer.vocab_size,
        tokenizer.eos_token_id,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        forbidden=(tokenizer.pad_token_id,),
    )
    return StockPPO(
        CausalLMPolicy,
        environments(prompts),
        n_steps=NEW_TOKENS,
        batch_size=EPISODES_A_MINIBATCH * NEW_TOKENS,
        n_epochs=epochs,
        gamma=1.0,
        max_grad_norm=1.0,
        learning_rate=1e-5,
        policy_kwargs={"model": model, "limits": limits},
        device="cpu",
        seed=0,
    )


def timed(algorithm: Any, parts: dict[str, list[float]]) -> Callable[[], None]:
    """One iteration of ``algorithm``; ``parts`` gets the seconds of its rollouts and of its updates."""

    def clocked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            found = call(*args, **kwargs)
            parts.setdefault(name, []).append(time.perf_counter() - began)
            return found

        return run

    algorithm.collect_rollouts = clocked("rollout", algorithm.collect_rollouts)
    algorithm.train = clocked("training", algorithm.train)

    def iterate() -> None:
        before = algorithm.num_timesteps
        algorithm.learn(TOKENS, reset_num_timesteps=False)
        if algorithm.num_timesteps - before != TOKENS:
            raise RuntimeError(f"Expected one rollout of {TOKENS} tokens, actual: {algorithm.num_timesteps - before}")

    return iterate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results to this file")
    parser.add_argument("--repetitions", type=int, default=5, help="of each side, at least 5 (default: 5)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over a rollout, on both sides (default: 1)")
    parser.add_argument("--model", choices=("bundled", "reference"), help="default: bundled, if it is there")
    parser.add_argument(
        "--patience", type=float, default=600.0, help="most seconds to wait for a quiet machine (default: 600)"
    )
    args = parser.parse_args()
    if args.repetitions < 5 or args.epochs < 1:
        parser.error("--repetitions must be at least 5 and --epochs at least 1")
    which = args.model or ("bundled" if (ASSETS / "model.safetensors").is_file() else "reference")
    console, prompts = Console(), prompts_of_16_tokens()

    parts: dict[str, dict[str, list[float]]] = {"textgym PPO": {}, "stock SB3 PPO": {}}
    makers: tuple[Callable[..., Any], ...] = (make_ours, make_stock)
    cases = {
        name: timed(make(language_model(which), prompts, args.epochs), parts[name])
        for name, make in zip(parts, makers, strict=True)
    }
    console.print(f"{args.repetitions} repetitions of each side in turns, waiting for a quiet machine ...")
    timings = alternate(cases, args.repetitions, patience=args.patience)

    ours, stock = (timings[name].median for name in parts)
    ratio = stock / ours
    table = Table("", "tokens/s", "lowest", "highest", "rollout", "training", "load", title=f"{ENV_ID}, {which} model")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, timing in timings.items():
        rates = [TOKENS / seconds for seconds in timing.seconds]
        numbers = [f"{number:,.0f}" for number in (TOKENS / timing.median, min(rates), max(rates))]
        halves = [f"{statistics.median(parts[name][part][1:]):.2f} s" for part in ("rollout", "training")]
        table.add_row(name, *numbers, *halves, f"{max(timing.foreign):.0%}")
    console.print(table)
    if not all(timing.quiet for timing in timings.values()):
        console.print("The machine was not quiet: others used up to the share of it under `load`.", style="yellow")
    verdict = "reached" if ratio >= TARGET else "missed"
    console.print(f"textgym's PPO is {ratio:.1f} times as fast as stock SB3's; target of {TARGET:g} times: {verdict}")
    console.print(
        f"Same model, environments, policy class, {args.epochs} epoch{'s' * (args.epochs > 1)}, minibatches of "
        f"{EPISODES_A_MINIBATCH * NEW_TOKENS} tokens; SB3 reads every prefix anew",
        style="dim",
    )
    facts = machine("torch", "transformers", "stable-baselines3", "gymnasium", "numpy")
    facts["torch_threads"] = torch.get_num_threads()
    console.print(f"{facts['cpu']}, {facts['cores']} cores, {facts['torch_threads']} threads", style="dim")

    if args.json:
        result = {
            "benchmark": "agent_throughput",
            "env_id": ENV_ID,
            "compared": __doc__,
            "model": which,
            "slots": SLOTS,
            "prompt_tokens": PROMPT_TOKENS,
            "new_tokens": NEW_TOKENS,
            "tokens_per_repetition": TOKENS,
            "epochs": args.epochs,
            "tokens_a_minibatch": EPISODES_A_MINIBATCH * NEW_TOKENS,
            "tokens_per_second": {name: TOKENS / timing.median for name, timing in timings.items()},
            "ratio": ratio,
            "target_ratio": TARGET,
            "seconds_of_parts": {name: {part: s[1:] for part, s in found.items()} for name, found in parts.items()},
            "timings": {name: timing.to_json() for name, timing in timings.items()},
            "machine": facts,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
