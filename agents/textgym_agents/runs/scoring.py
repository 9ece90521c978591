"""What models think of given completions, token by token, by teacher-forced passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.core import Example
from textgym.envs.episodes import Setting
from textgym_agents.models.backbone import backbone_of
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import Limits

_TOKENS_AT_ONCE = 2**14  # in a pass without gradients


@dataclass(frozen=True)
class TokenScores:
    """What models think of the tokens that the policy chose in one completion; arrays of shape ``(T,)``.

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
    policy: LMPolicy,
    setting: Setting,
    examples: Sequence[Example],
    completions: Sequence[Sequence[int]],
    reference: PreTrainedModel,
    chosen: Sequence[Sequence[bool]] | None = None,
) -> list[TokenScores]:
    """Log-probabilities and values of every token of completions, by teacher-forced passes of both models.

    Args:
        policy: The policy.
        setting: Of the environment that the completions were written in; it gives the masks.
        examples: The prompts.
        completions: Token ids after each prompt, at least one.
        reference: The other model.
        chosen: Which of these the policy chose; ``None``: all. The others get no scores.
    """
    prompts = setting.encode_prompts(examples)
    everything = Sequences.of(prompts, completions, Limits.of(setting), chosen)
    other = backbone_of(reference, policy.vocab_size, policy.bf16)
    policy.set_training_mode(False)
    scores: dict[int, TokenScores] = {}
    for rows in everything.passes(_TOKENS_AT_ONCE):
        batch = everything.select(rows).to(policy.device)
        log_probs, values, _ = policy.evaluate_sequences(batch, 1.0)
        ref_log_probs, _, _ = policy.evaluate_sequences(batch, 1.0, backbone=other)
        full, _, _ = policy.evaluate_sequences(replace(batch, limits=None), 1.0, backbone=other)
        numbers = [x.cpu().numpy() for x in (log_probs, ref_log_probs, full, values)]
        for i, row in enumerate(rows.tolist()):
            own = batch.action_mask[i].cpu().numpy()
            scores[row] = TokenScores(*(x[i][own] for x in numbers))
    return [scores[row] for row in range(len(completions))]
