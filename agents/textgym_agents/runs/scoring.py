"""What models think of given completions, token by token, by teacher-forced passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from textgym.core import Example
from textgym.envs.episodes import Setting
from textgym_agents.decoding import Limits
from textgym_agents.policies import CausalLMPolicy
from textgym_agents.sampling import log_softmax_on

_LOGITS_AT_ONCE = 2**23  # numbers in a [B, K, V] block: 32 MiB in float32, of which a few copies live at a time


@dataclass(frozen=True)
class TokenScores:
    """What models think of the tokens of one completion; arrays of shape ``(T,)``.

    Attributes:
        log_probs: Of the policy, at temperature 1 under the environment's masks.
        ref_log_probs: Of the reference model, likewise.
        full_ref_log_probs: Of the reference model over the whole vocabulary.
        values: Of the states in which the tokens were chosen.
    """

    log_probs: np.ndarray
    ref_log_probs: np.ndarray
    full_ref_log_probs: np.ndarray
    values: np.ndarray


@torch.no_grad()
def score_tokens(
    policy: CausalLMPolicy,
    setting: Setting,
    examples: Sequence[Example],
    completions: Sequence[Sequence[int]],
    reference: PreTrainedModel,
) -> list[TokenScores]:
    """Log-probabilities and values of every token of completions, by teacher-forced passes of both models.

    Args:
        policy: The policy.
        setting: Of the environment that the completions were written in; it gives the masks.
        examples: The prompts.
        completions: Token ids that were written after each, at least one.
        reference: The other model.
    """
    limits = Limits.of(setting)
    rows = [*zip(setting.encode_prompts(examples), completions, strict=True)]
    most = max(len(written) for _, written in rows)
    size = max(1, _LOGITS_AT_ONCE // ((most + 1) * limits.vocab_size))
    policy.set_training_mode(False)
    scores: list[TokenScores] = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        width, columns = max(len(p) + len(w) for p, w in batch), max(len(w) for _, w in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.bool)
        for i, (prompt, written) in enumerate(batch):
            both = [*prompt, *written]
            ids[i, width - len(both) :], mask[i, width - len(both) :] = torch.tensor(both), True
        ids, mask = ids.to(policy.device), mask.to(policy.device)
        lengths = torch.tensor([len(w) for _, w in batch], device=ids.device)
        before = (torch.arange(columns, device=ids.device) - columns + lengths[:, None]).clamp(
            min=0
        )  # [B, K], own tokens so far
        support = limits.mask(before.flatten()).view(len(batch), columns, -1)
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        chosen = ids[:, -columns:, None]

        def of_chosen(logits: Tensor, support: Tensor | None, chosen: Tensor = chosen) -> np.ndarray:
            return log_softmax_on(logits[:, :-1], support, 1.0).gather(-1, chosen).squeeze(-1).cpu().numpy()

        logits, values, _ = policy.forward_tokens(ids, mask, positions, columns + 1)
        own = of_chosen(logits, support)
        logits, _, _ = policy.forward_tokens(ids, mask, positions, columns + 1, model=reference)
        ref, full, valued = of_chosen(logits, support), of_chosen(logits, None), values[:, :-1].cpu().numpy()
        for i, (_, written) in enumerate(batch):
            last = slice(columns - len(written), columns)
            scores.append(TokenScores(own[i, last], ref[i, last], full[i, last], valued[i, last]))
    return scores
