"""On one GPU: our rollout against `generate`, and training against products of matrices.

``python benchmarks/gpu.py --json OUT``

Two models with random weights, GPT-2 small and one of Qwen2.5-0.5B's shape; 256 episodes of 128 + 256 tokens, all of full
length; bfloat16. Both sides take turns in one process, and medians of the repetitions count.

* rollout: `collect_rollouts` of our PPO through the environment, log-probabilities and values recorded, decoding in shapes that
  do not change (``static_shapes``), over `generate` of transformers with the model's weights in bfloat16.
* training: PPO's `train` on that rollout, one epoch, without a reference model. Its floating-point operations (six a weight
  and token, and for attention twelve times layers, width and half the length a token; the head only where a token was
  generated) a second, over the rate at which this GPU multiplies two 8,192 × 8,192 matrices in bfloat16.

Without a GPU, ``--tiny`` runs the same code on a CPU with a model of no size, to see that it works; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_cases.memory import words
from compare_cases.ours import ENV_ID, LetterShare
from measuring import machine
from rich.console import Console
from rich.table import Table
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from textgym_agents import PPO

ROLLOUT_TARGET, TRAINING_TARGET = 3.0, 0.4


def gpt2_small() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0))


def qwen_half_billion() -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151_936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def tiny() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, bos_token_id=0, eos_token_id=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results to this file")
    parser.add_argument("--repetitions", type=int, default=5, help="of each side, at least 5 (default: 5)")
    parser.add_argument("--micro-batch-tokens", type=int, default=32_768, help="of a training pass (default: 32768)")
    parser.add_argument("--tiny", action="store_true", help="only see that it works, on a CPU too")
    args = parser.parse_args()
    if args.repetitions < 5:
        parser.error("--repetitions must be at least 5")
    if not (args.tiny or torch.cuda.is_available()):
        parser.error("PyTorch finds no GPU here; --tiny runs the code on a CPU")
    console = Console()
    models: dict[str, Callable[[], PreTrainedModel]] = (
        {"tiny": tiny} if args.tiny else {"GPT-2 small": gpt2_small, "Qwen-like, 0.5 billion": qwen_half_billion}
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matrix_rate(device, 8192 if device == "cuda" else 256)
    console.print(f"{rate / 1e12:.1f} TFLOP/s in a product of bfloat16 matrices")
    table = Table("model", "what", "ours", "generate, or operations", "ratio", "target")
    results: dict[str, Any] = {"matrix_flops_per_second": rate, "device": device_name(), "models": {}}
    for name, make in models.items():
        found = measure(make, device, rate, args)
        results["models"][name] = found
        rollout, training = found["rollout"], found["training"]
        peers = (
            f"{rollout['generate_tokens_per_second']:,.0f} tokens/s",
            f"{training['flops_per_second'] / 1e12:.1f} TFLOP/s",
        )
        for what, numbers, peer in zip(("rollout", "training"), (rollout, training), peers, strict=True):
            ours = f"{numbers['tokens_per_second']:,.0f} tokens/s"
            table.add_row(name, what, ours, peer, f"{numbers['ratio']:.2f}", f"{numbers['target']:g}")
    console.print(table)
    if args.json:
        results |= {"benchmark": "gpu", "how": __doc__, "machine": machine("torch", "transformers")}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(make: Callable[[], PreTrainedModel], device: str, rate: float, args: argparse.Namespace) -> dict[str, Any]:
    slots, prompt, new = (8, 8, 8) if args.tiny else (256, 128, 256)
    torch.manual_seed(0)
    model = make()
    weights = sum(p.numel() for p in model.parameters())  # a tied head and its embeddings once: the head multiplies
    text, rng = model.config, np.random.default_rng(0)
    prompts = [" ".join(f"w{i}" for i in rng.integers(2, text.vocab_size, prompt)) for _ in range(4 * slots)]
    ppo = PPO(
        "CausalLMPolicy",
        ENV_ID,
        n_envs=slots,
        batch_size=slots,
        n_epochs=1,
        kl_coef=0.0,
        learning_rate=1e-6,
        micro_batch_tokens=args.micro_batch_tokens,
        env_kwargs={
            "prompts": prompts,
            "tokenizer": words(text.vocab_size),
            "reward": LetterShare(),
            "max_prompt_tokens": prompt,
            "max_new_tokens": new,
            "min_new_tokens": new,
        },
        policy_kwargs={"model": model, "bf16": True, "static_shapes": True},
        device=device,
        seed=0,
    )
    _, callback = ppo._setup_learn(10**9, None)
    torch.manual_seed(0)
    peer = make().to(device=device, dtype=torch.bfloat16).eval()

    def rollout() -> None:
        assert ppo.env is not None
        ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, n_rollout_steps=1)

    def generate() -> None:
        ids = torch.from_numpy(rng.integers(2, text.vocab_size, (slots, prompt))).to(device)
        sampling = {"do_sample": True, "top_k": 0, "top_p": 1.0, "min_new_tokens": new, "max_new_tokens": new}
        with torch.inference_mode():
            found = peer.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=1, eos_token_id=0, **sampling)
        assert found.shape == (slots, prompt + new)

    times = take_turns({"ours": rollout, "generate": generate, "train": ppo.train}, args.repetitions)
    assert ppo.num_timesteps % (slots * new) == 0
    seconds = {name: statistics.median(all_) for name, all_ in times.items()}
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["generate"], strict=True)]
    # the embeddings of a model whose head is its own multiply nothing; both models here share them with the head
    attention = 12 * text.num_hidden_layers * text.hidden_size * (prompt + new) / 2
    # hidden states at every position, the head only where a token was generated
    head = text.vocab_size * text.hidden_size
    operations = slots * ((prompt + new) * (6 * (weights - head) + attention) + new * 6 * head)
    return {
        "weights": weights,
        "rollout": {
            "tokens_per_second": slots * new / seconds["ours"],
            "generate_tokens_per_second": slots * new / seconds["generate"],
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "target": ROLLOUT_TARGET,
        },
        "training": {
            "tokens_per_second": slots * new / seconds["train"],
            "flops": operations,
            "flops_per_second": operations / seconds["train"],
            "ratio": operations / seconds["train"] / rate,
            "target": TRAINING_TARGET,
        },
        "seconds": times,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    }


def take_turns(cases: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each case, alternating, after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(repetitions + 2):
        for name, call in cases.items():
            synchronise()
            began = time.perf_counter()
            call()
            synchronise()
            if round_ >= 2:
                times[name].append(time.perf_counter() - began)
    return times


def matrix_rate(device: str, size: int) -> float:
    """Floating-point operations a second of a product of two square bfloat16 matrices, the median of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = take_turns({"product": lambda: [a @ b for _ in range(10)]}, 10)["product"]
    return 10 * 2 * size**3 / statistics.median(times)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
