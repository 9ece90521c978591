"""Every quantity of an episode, token by token, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from transformers import PreTrainedModel

from textgym.core import Example
from textgym.envs.episodes import Setting
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.losses import gae
from textgym_agents.runs.evaluation import Sample, setting_of, write
from textgym_agents.runs.scoring import score_tokens


def record_episodes(
    model: TextAlgorithm,
    env: gym.Env[Any, Any],
    examples: Sequence[Example],
    seed: int = 0,
    *,
    reference: PreTrainedModel | None = None,
) -> list[dict[str, Any]]:
    """Plays episodes with the policy, sampling at temperature 1, and notes what there is to know of every token.

    Args:
        model: The algorithm; its ``gamma``, ``gae_lambda`` and KL coefficient make the advantages.
        env: A single environment of ours, in which the completions are stepped.
        examples: What the episodes start from.
        seed: Of the draws.
        reference: ``None``: the algorithm's own, or the policy itself if it has none.

    Returns:
        For each episode ``prompt``, ``tokens``, ``return`` (sum of the environment's rewards) and ``finish_reason``. A token
        has its ``text``; ``probability`` and ``reference_probability`` under the environment's mask; the ``value`` of the state
        before it; ``kl``, ``log pi - log pi_ref`` in nats; the environment's ``reward`` for it; its ``advantage`` after the
        penalty, not normalised.
    """
    setting = setting_of(env)
    reference = reference or model.reference or model.policy.model
    samples = write(model, setting, examples, seed)
    scores = score_tokens(
        model.policy, setting, examples, [s.all_tokens for s in samples], reference, [s.chosen for s in samples]
    )
    records = []
    for example, sample, score in zip(examples, samples, scores, strict=True):
        env.reset(options={"example": example})
        rewards: list[float] = []
        info: dict[str, Any] = {}
        for token in sample.tokens:
            _, reward, _, _, info = env.step(token)
            rewards.append(float(reward))
        kl = score.log_probs - score.ref_log_probs
        row = torch.tensor(np.array(rewards, dtype=np.float32) - model.kl.coef * kl)[None]
        values = torch.tensor(score.values)[None]
        mask = torch.ones_like(row, dtype=torch.bool)
        advantages, _ = gae(row, values, mask, torch.zeros(1), model.gamma, model.gae_lambda)
        names = _with_replies(setting, sample)
        records.append(
            {
                "prompt": sample.prompt,
                "tokens": [
                    {
                        "text": names[t],
                        "probability": float(np.exp(score.log_probs[t])),
                        "reference_probability": float(np.exp(score.ref_log_probs[t])),
                        "value": float(score.values[t]),
                        "kl": float(kl[t]),
                        "reward": rewards[t],
                        "advantage": float(advantages[0, t]),
                    }
                    for t in range(len(names))
                ],
                "return": float(sum(rewards)),
                "finish_reason": info["finish_reason"],
            }
        )
    return records


def _with_replies(setting: Setting, sample: Sample) -> list[str]:
    """The text of each of the policy's tokens; a reply stands behind the token that asked for it."""
    names: list[str] = []
    for text, own in zip(setting.tokenizer.tokens(sample.all_tokens), sample.chosen, strict=True):
        if own:
            names.append(text)
        else:
            names[-1] += text
    return names
