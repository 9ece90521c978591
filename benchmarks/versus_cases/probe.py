"""Whether two GRPOs make the same of the same rollout: the one comparison without chance in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from textgym_agents import GRPO
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.runs.evaluation import setting_of


def apart(file: Path, algorithm: GRPO, asked: dict[str, Any]) -> dict[str, float]:
    """How far textgym's loss is from the one that TRL saved, and its gradient, relative to the gradient's norm."""
    known = torch.load(file, weights_only=True)
    asked_of, written = known["prompt_mask"].bool(), known["completion_mask"].bool()
    sequences = Sequences.of(
        [row[mask].tolist() for row, mask in zip(known["prompt_ids"], asked_of, strict=True)],
        [row[mask].tolist() for row, mask in zip(known["completion_ids"], written, strict=True)],
        Limits.of(setting_of(asked["env"], max_new_tokens=asked["max_new_tokens"])),
    )
    mask = sequences.action_mask  # completions lie at its right end, TRL's at the left

    def tokens(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(mask.shape).masked_scatter(mask, values[written])

    advantages = known["advantages"][:, None].expand(written.shape)
    sequences = sequences.with_(
        log_probs=tokens(known["old_per_token_logps"]),
        ref_log_probs=tokens(known["ref_per_token_logps"]),
        advantages=tokens(advantages),
    )
    model = algorithm.policy.model
    model.load_state_dict(known["weights"], strict=False)  # the head shares the embeddings' weights
    model.zero_grad()
    loss, numbers = algorithm._loss(sequences)
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    if gradients.keys() != known["gradients"].keys():
        raise RuntimeError("Expected both models to have the same weights")
    error = sum(float((gradients[name] - theirs).square().sum()) for name, theirs in known["gradients"].items())
    norm = sum(float(theirs.square().sum()) for theirs in known["gradients"].values())
    return {
        "loss": loss.item(),
        "loss_difference": abs(loss.item() - known["loss"]),
        "gradient_difference": math.sqrt(error / norm),
        "clip_fraction": numbers["clip_fraction"],
        "ref_kl": numbers["ref_kl"],
    }
