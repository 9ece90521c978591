"""Plays whole episodes: one token an environment and step, decoded with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from textgym.core import TextGymError
from textgym_agents.buffers import Recording, Sequences, pack_bits
from textgym_agents.decoding import CachedDecoder
from textgym_agents.policies import LMPolicy
from textgym_agents.sampling import Decoding, Drawn, sample
from textgym_agents.vec_env import fixed_limits

OnStep = Callable[[int, dict[str, Any]], bool]
"""Called after every step of the environments with the number of tokens written in it and the local variables of the step;
false stops the rollout."""


def play_episodes(
    env: VecEnv, policy: LMPolicy, decoding: Decoding, generator: torch.Generator, on_step: OnStep
) -> Sequences | None:
    """Plays exactly one episode in every environment.

    So no kind of episode is over-represented: taking the first episodes to finish would prefer short ones. A slot whose
    episode has ended rests until the last one has, and leaves the batch that the model computes. Which token a slot draws
    depends on its own random numbers only, not on which others are still there.

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
    n, width = observations["input_ids"].shape
    holds, limits = env.has_attr("hold"), fixed_limits(env)
    masked = limits is None and env.has_attr("action_masks")
    room = width if limits is None else limits.max_new_tokens
    tensors = {key: torch.as_tensor(observations[key], device=policy.device) for key in observations}
    decoder = CachedDecoder(
        policy, tensors["input_ids"].long(), tensors["attention_mask"], tensors["completion_mask"], room
    )
    recording = Recording(observations["input_ids"], observations["attention_mask"], limits)
    lengths = recording.prompt_lengths.copy()  # of the observations, so that replies are noticed
    slots = np.arange(n)  # of the decoder's rows
    actions = np.zeros(n, dtype=np.int64)
    for written in range(room):
        rows = torch.as_tensor(slots, device=policy.device)
        with torch.inference_mode():
            logits = decoder.logits
            if masked:
                allowed = torch.as_tensor(np.stack(env.env_method("action_masks", indices=slots.tolist())))
                logits.masked_fill_(~allowed.to(policy.device), -torch.inf)
            elif limits is not None:
                logits = limits.support(torch.full_like(rows, written)).restrict_(logits)
            uniforms = torch.rand(
                n, generator=generator, device=policy.device
            )  # one a slot, whether or not it still plays
            drawn = sample(logits, decoding, uniforms[rows])
            tokens = drawn.tokens.cpu().numpy()
        actions[slots] = tokens
        new_observations, rewards, dones, infos = env.step(actions)
        assert isinstance(new_observations, dict)
        recording.append(slots, tokens, drawn, decoder.values, rewards[slots], _packed(drawn, logits, masked))
        ended = dones[slots]
        for slot in slots[ended]:
            if infos[slot].get("TimeLimit.truncated", False):
                recording.last_values[slot] = _value_of(policy, infos[slot]["terminal_observation"])
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
            break
        if ended.any():
            if holds:
                env.env_method("hold", indices=slots[ended].tolist())
            order = decoder.drop(ended)
            slots, tokens = slots[order], tokens[order]
        now = new_observations["attention_mask"][slots].sum(-1, dtype=np.int64)
        counts, lengths[slots] = now - lengths[slots], now
        decoder.append(*_appended(new_observations["input_ids"], slots, tokens, counts, recording, policy.device))
    else:
        raise TextGymError(f"Expected every episode to end within {room} tokens; slots {slots.tolist()} did not")
    return recording.sequences()


def _packed(drawn: Drawn, logits: torch.Tensor, masked: bool) -> np.ndarray | None:
    """What could be drawn, as packed bits, where the environment's fixed limits do not say it."""
    if drawn.support is not None:
        return pack_bits(drawn.support)
    return pack_bits(torch.isfinite(logits)) if masked else None


def _appended(
    input_ids: np.ndarray,
    slots: np.ndarray,
    tokens: np.ndarray,
    counts: np.ndarray,
    recording: Recording,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the decoder has to read: the tokens just chosen, and replies of the environment behind them."""
    if (counts == 1).all():
        return torch.as_tensor(tokens, device=device)[:, None], None
    most = int(counts.max())
    ids = input_ids[slots][:, -most:]
    for slot, row, count in zip(slots, ids, counts, strict=True):
        if count > 1:
            recording.append_reply(slot, row[most - count + 1 :])
    mask = np.arange(most) >= most - counts[:, None]
    return torch.as_tensor(ids, device=device).long(), torch.as_tensor(mask, device=device)


def _value_of(policy: LMPolicy, observation: dict[str, np.ndarray]) -> float:
    tensors = {key: torch.as_tensor(value, device=policy.device)[None] for key, value in observation.items()}
    with torch.no_grad():
        return float(policy.predict_values(tensors)[0, 0])
