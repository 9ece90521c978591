"""Does a small student learn more from a teacher than from references alone?

``python benchmarks/distillation.py --json benchmarks/results/distillation.json``

The teacher is the bundled model, fine-tuned on a task's answers to many prompts. Students are new models of one layer, with
the same vocabulary. Compared, at equal tokens: maximum likelihood of the references of a few prompts, over and over (``SFT``);
word-level distillation on these same prompts and references; and sequence-level distillation, for which the teacher answers
ever new prompts: it needs no references.
Measured on held-out prompts: the perplexity of their references, and the task's reward of what the student writes.
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
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym import load_tokenizer
from textgym.prompts import GeneratedPrompts
from textgym_agents import SFT, Distillation
from textgym_agents.algorithms.demonstrations import demonstrations
from textgym_agents.losses import masked_mean
from textgym_agents.runs.evaluation import evaluate, held_out, setting_of

METHODS: dict[str, dict[str, Any]] = {
    "references": {},
    "word": {"level": "word", "alpha": 0.9},
    "sequence": {"level": "sequence", "teacher_top_k": 1},
}


def student(seed: int) -> GPT2LMHeadModel:
    """A new model of one layer."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer()
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_positions=256,
        n_embd=96,
        n_layer=1,
        n_head=4,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def one(
    env_id: str, method: str, seed: int, prompts: int, tokens: int, episodes: int, teacher: PreTrainedModel
) -> dict[str, Any]:
    """Trains and measures a student."""
    torch.set_num_threads(1)
    source = setting_of(env_id, split="train").prompts
    assert isinstance(source, GeneratedPrompts)
    rng = np.random.default_rng(1000 + seed)
    examples = [source.draw(rng) for _ in range(prompts)]
    cls: Any = SFT if method == "references" else Distillation
    more = {} if method == "references" else {"teacher": teacher}
    start = time.perf_counter()
    model = cls(
        "CausalLMPolicy",
        env_id,
        learning_rate=2e-3,
        n_envs=16,
        env_kwargs={} if method == "sequence" else {"prompts": examples},
        policy_kwargs={"model": student(seed)},
        targets="oracle",
        seed=seed,
        device="cpu",
        **METHODS[method],
        **more,
    ).learn(tokens)
    setting = setting_of(env_id, split="dev")
    unseen = held_out(setting, episodes)
    wanted = demonstrations(setting, unseen, False, np.random.default_rng(0))
    with torch.no_grad():
        log_probs, _, _ = model.policy.evaluate_sequences(wanted, 1.0)
    found = evaluate(model, env_id, episodes, deterministic=True)
    return {
        "method": method,
        "seed": seed,
        "tokens": model.num_timesteps,
        "seconds": round(time.perf_counter() - start, 1),
        "perplexity": float(np.exp(-float(masked_mean(log_probs, wanted.action_mask)))),
        "reward": found.reward[0],
    }


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| learned from | perplexity of held-out references, each seed | reward on held-out prompts |",
        "|---|---|---|",
    ]
    for method in METHODS:
        mine = [r for r in runs if r["method"] == method]
        cells = (", ".join(f"{r[what]:.2f}" for r in mine) for what in ("perplexity", "reward"))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare distillation with learning from references alone.")
    parser.add_argument("--env", default="TextGen-Describe-v0", help="environment id")
    parser.add_argument("--prompts", type=int, default=50, help="prompts that have references")
    parser.add_argument("--tokens", type=int, default=40_000, help="of each training")
    parser.add_argument("--teacher-tokens", type=int, default=20_000, help="that the teacher is fine-tuned on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=200, help="held-out prompts")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    teacher = SFT("CausalLMPolicy", options.env, 3e-4, targets="oracle", n_envs=16, seed=0, device="cpu")
    taught = evaluate(teacher.learn(options.teacher_tokens), options.env, options.episodes, deterministic=True).reward[
        0
    ]
    print(f"the teacher's reward: {taught:.2f}", flush=True)
    runs = []
    for seed in range(options.seeds):
        for method in METHODS:
            runs.append(
                one(options.env, method, seed, options.prompts, options.tokens, options.episodes, teacher.policy.model)
            )
            print(runs[-1], flush=True)
    print(f"\n{table(runs)}\n")
    found = {(r["method"], r["seed"]): r["perplexity"] for r in runs}
    for method in ("word", "sequence"):
        better = sum(found[method, seed] < found["references", seed] for seed in range(options.seeds))
        print(f"{method}: lower perplexity than with references alone, {better} of {options.seeds} seeds")
    if options.json:
        facts = machine("torch", "transformers", "stable-baselines3", "numpy")
        options.json.write_text(
            json.dumps({"machine": facts, "env": options.env, "teacher": taught, "runs": runs}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
