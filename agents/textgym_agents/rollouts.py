"""Plays whole episodes: one token an environment and step, decoded with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from textgym_agents.buffers import Episode, pack_bits
from textgym_agents.decoding import CachedDecoder
from textgym_agents.policies import CausalLMPolicy
from textgym_agents.sampling import Decoding, draw, log_softmax_on, support

OnStep = Callable[[int, dict[str, Any]], bool]
"""Called after every step of the environments with the number of tokens written in it and the local variables of the step;
false stops the rollout."""


@torch.no_grad()
def play_episodes(
    env: VecEnv, policy: CausalLMPolicy, decoding: Decoding, generator: torch.Generator, on_step: OnStep
) -> list[Episode] | None:
    """Plays exactly one episode in every environment.

    So no kind of episode is over-represented: taking the first episodes to finish would prefer short ones. A slot whose
    episode has ended rests until the last one has (environments of ours are told to ``hold``), and leaves the batch that
    the model computes.

    Args:
        env: ``n`` environments.
        policy: Chooses the tokens.
        decoding: How they are drawn.
        generator: Source of randomness, on the policy's device.
        on_step: See :data:`OnStep`.

    Returns:
        ``n`` episodes in the order of the slots, with the exact log-probabilities of the distribution that was drawn from; or
        ``None`` if ``on_step`` stopped it.
    """
    observations = env.reset()
    assert isinstance(observations, dict)
    masked, holds = env.has_attr("action_masks"), env.has_attr("hold")
    ids = torch.as_tensor(observations["input_ids"], device=policy.device).long()
    attention = torch.as_tensor(observations["attention_mask"], device=policy.device).bool()
    decoder = CachedDecoder(policy, ids, attention)
    lengths = observations["attention_mask"].sum(-1).astype(np.int64)  # (n,)
    episodes = [
        Episode(prompt=row[len(row) - used :].tolist())
        for row, used in zip(observations["input_ids"], lengths, strict=True)
    ]
    slots = np.arange(env.num_envs)  # of the rows of the decoder
    actions = np.zeros(env.num_envs, dtype=np.int64)
    while True:
        tokens, log_probs, packed = _choose(env, decoder.logits, slots if masked else None, decoding, generator)
        values = decoder.values.cpu().numpy()
        actions[slots] = tokens
        new_observations, rewards, dones, infos = env.step(actions)
        assert isinstance(new_observations, dict)
        for row, slot in enumerate(slots):
            episodes[slot].append(
                int(tokens[row]),
                float(log_probs[row]),
                float(values[row]),
                float(rewards[slot]),
                None if packed is None else packed[row],
            )
        ended = dones[slots]
        for slot in slots[ended]:
            if infos[slot].get("TimeLimit.truncated", False):
                episodes[slot].last_value = _value_of(policy, infos[slot]["terminal_observation"])
        step = {
            "actions": actions,
            "new_obs": new_observations,
            "rewards": rewards,
            "dones": dones,
            "infos": infos,
            "slots": slots,
        }
        if not on_step(len(slots), step):
            return None
        if ended.all():
            return episodes
        if ended.any():
            if holds:
                env.env_method("hold", indices=slots[ended].tolist())
            rows = torch.as_tensor(np.flatnonzero(~ended), device=policy.device)
            decoder.select(rows)
            slots, tokens = slots[~ended], tokens[~ended]
        decoder.append(*_appended(new_observations, slots, tokens, lengths, episodes, policy.device))


def _choose(
    env: VecEnv, logits: Tensor, slots: np.ndarray | None, decoding: Decoding, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Tokens ``(m,)``, their log-probabilities ``(m,)``, and the packed support ``(m, ceil(V / 8))`` if that is not all."""
    mask = None
    if slots is not None:
        rows = np.stack(env.env_method("action_masks", indices=slots.tolist()))
        mask = torch.as_tensor(rows, device=logits.device)
    kept = support(logits, mask, decoding)
    distribution = log_softmax_on(logits, kept, decoding.temperature)
    tokens = draw(distribution, generator)
    chosen = distribution.gather(-1, tokens[:, None]).squeeze(-1)
    return tokens.cpu().numpy(), chosen.cpu().numpy(), None if kept is None else pack_bits(kept)


def _appended(
    observations: dict[str, Any],
    slots: np.ndarray,
    tokens: np.ndarray,
    lengths: np.ndarray,
    episodes: list[Episode],
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """What the decoder has to read: the tokens just chosen, and replies of the environment behind them."""
    now = observations["attention_mask"][slots].sum(-1).astype(np.int64)
    counts = now - lengths[slots]
    lengths[slots] = now
    if (counts == 1).all():
        return torch.as_tensor(tokens, device=device)[:, None], None
    most = int(counts.max())
    ids = observations["input_ids"][slots][:, -most:]
    for slot, row, count in zip(slots, ids, counts, strict=True):
        if count > 1:
            episodes[slot].append_reply(row[most - count + 1 :].tolist())
    mask = np.arange(most) >= most - counts[:, None]
    return torch.as_tensor(ids, device=device).long(), torch.as_tensor(mask, device=device)


def _value_of(policy: CausalLMPolicy, observation: dict[str, np.ndarray]) -> float:
    tensors = {key: torch.as_tensor(value, device=policy.device)[None] for key, value in observation.items()}
    return float(policy.predict_values(tensors)[0, 0])
