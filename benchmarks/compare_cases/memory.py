"""Peak memory of GPT-2 small's size: a rollout and a training pass of 64 × (64 + 192) tokens, and how a rollout's grows.

Each in a process of its own, read from the operating system's high-water mark (`ru_maxrss`) after the set-up, the rollout and
the training. A limit on the process's data keeps a run that needs too much from taking the machine down with it.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare_cases.rows import Context, Row, Side, guarded

GIB = 2**30
SLOTS, PROMPT_TOKENS, NEW_TOKENS = 64, 64, 192
SHORTER = (48, 96)
MINIBATCH = 8  # episodes: what of a training pass has to be in memory at once
LIMIT = 24.0  # GiB


@dataclass(frozen=True)
class Memory:
    """The peak against 24 GiB."""

    name: str = "memory"
    target: float = LIMIT
    optional: bool = True

    def run(self, context: Context) -> Row:
        """Measures it; takes minutes."""
        row = Row(
            self.name,
            "peak GiB, rollout and training",
            "limit",
            self.target,
            at_most=True,
            unit=" GiB",
            same=f"GPT-2 small's size, vocabulary 50,257, random weights, float32; {SLOTS} × ({PROMPT_TOKENS} + {NEW_TOKENS}) "
            f"tokens; PPO, one epoch, minibatches of {MINIBATCH} episodes, no reference model",
        )
        return guarded(row, lambda: self._run(row, context))

    def _run(self, row: Row, context: Context) -> None:
        found = {
            new_tokens: _in_a_process(context, new_tokens, train=new_tokens == NEW_TOKENS)
            for new_tokens in (*SHORTER, NEW_TOKENS)
        }
        # more bytes for every further token the longer the completions are: that would be growth with tokens × length
        short, middle, long = (found[n]["rollout"] * GIB for n in (*SHORTER, NEW_TOKENS))
        first = (middle - short) / (SLOTS * (SHORTER[1] - SHORTER[0]))
        second = (long - middle) / (SLOTS * (NEW_TOKENS - SHORTER[1]))
        row.details.update(
            peak_gib={str(n): peaks for n, peaks in found.items()},
            bytes_a_further_token={
                f"{SHORTER[0]} to {SHORTER[1]}": first,
                f"{SHORTER[1]} to {NEW_TOKENS}": second,
                "ratio": second / first if first > 0 else None,
                "ratio_if_it_grew_with_tokens": 1.0,
                "ratio_if_it_grew_with_tokens_times_length": _quadratic(),
            },
        )
        row.measured([found[NEW_TOKENS]["training"]])


def _quadratic() -> float:
    a, b, c = (PROMPT_TOKENS + n for n in (*SHORTER, NEW_TOKENS))
    return ((c * c - b * b) / (c - b)) / ((b * b - a * a) / (b - a))


def _in_a_process(context: Context, new_tokens: int, train: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="textgym-memory-") as folder:
        side = Side(f"{new_tokens} new tokens", "memory", {"new_tokens": new_tokens, "train": train})
        worker = side.start(context, Path(folder))
        worker.patience = 3600.0
        with worker:
            worker.wait_until_ready()
            return dict(worker.facts["peak_gib"])


# ---- in the process ---------------------------------------------------------------------------------------------------


def words(vocab_size: int = 50_257) -> Any:
    """A tokenizer of as many tokens as a model has (GPT-2), every word one token, so that nothing has to be downloaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<|endoftext|>": 0, "<|pad|>": 1, **{f"w{i}": i for i in range(2, vocab_size)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def peak() -> float:
    """The most memory that this process has had so far, in GiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / GIB if sys.platform == "darwin" else size * 1024 / GIB


def limit_memory() -> None:
    """At most 24 GiB of data, or nine tenths of what is free: a failed allocation, not a machine that has to kill."""
    limit = LIMIT * GIB
    facts = Path("/proc/meminfo")
    if facts.exists():
        free = next(line for line in facts.read_text().splitlines() if line.startswith("MemAvailable"))
        limit = min(limit, 0.9 * int(free.split()[1]) * 1024)
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))


def main() -> None:
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from compare_cases.ours import ENV_ID, LetterShare
    from compare_cases.serving import Session, options
    from compare_cases.workload import THREADS
    from textgym_agents import PPO

    asked, session = options(), Session(warm_up=1)
    limit_memory()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prompts = [" ".join(f"w{i}" for i in rng.integers(2, 50_257, PROMPT_TOKENS)) for _ in range(4 * SLOTS)]
    tokens = asked["new_tokens"]
    algorithm = PPO(
        "CausalLMPolicy",
        ENV_ID,
        n_envs=SLOTS,
        batch_size=MINIBATCH,
        n_epochs=1,
        kl_coef=0.0,
        learning_rate=1e-5,
        env_kwargs={
            "prompts": prompts,
            "tokenizer": words(),
            "reward": LetterShare(),
            "max_prompt_tokens": PROMPT_TOKENS,
            "max_new_tokens": tokens,
            "min_new_tokens": tokens,
        },
        policy_kwargs={"model": GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0))},
        device="cpu",
        seed=0,
    )
    peaks = {"setup": peak()}
    _, callback = algorithm._setup_learn(10**9, None)
    assert algorithm.env is not None
    algorithm.collect_rollouts(algorithm.env, callback, algorithm.rollout_buffer, n_rollout_steps=1)
    if algorithm.num_timesteps != SLOTS * tokens:
        raise RuntimeError(f"Expected {SLOTS * tokens} tokens, actual: {algorithm.num_timesteps}")
    peaks["rollout"] = peak()
    if asked["train"]:
        algorithm.train()
        peaks["training"] = peak()
    session.begin(peak_gib=peaks)
    session.tick(0)


if __name__ == "__main__":
    main()
