"""Plays whole episodes: one token an environment and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from textgym.core import TextGymError
from textgym.envs import TextGenVectorEnv
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Recording, Sequences
from textgym_agents.rollouts.writers import RolloutWriter
from textgym_agents.vec_env import fixed_limits, heavy_rewards, somebody_replies

OnStep = Callable[[int, dict[str, Any]], bool]
"""Called after every step of the environments with the number of tokens written in it and the local variables of the step;
false stops the rollout."""


def play_episodes(env: VecEnv, policy: LMPolicy, writer: RolloutWriter, on_step: OnStep) -> Sequences | None:
    """Plays exactly one episode in every environment.

    So no kind of episode is over-represented: taking the first episodes to finish would prefer short ones. A slot whose
    episode has ended rests until the last one has, and leaves the batch that the model computes.

    Heavy rewards (:class:`textgym.rewards.Reward`) are computed in another thread meanwhile: then the step that ends an episode
    pays 0, and its info, the same object, is completed before this returns.

    Args:
        env: ``n`` environments.
        policy: Values the last state of an episode that is cut off from outside.
        writer: Chooses the tokens.
        on_step: See :data:`OnStep`.

    Returns:
        ``n`` episodes in the order of the slots, with the exact log-probabilities of the distribution that was drawn from; or
        ``None`` if ``on_step`` stopped it.
    """
    slow = heavy_rewards(env)
    if slow is None:
        return _play(env, policy, writer, on_step, {})
    slow.defer_scores(True)
    try:
        final_infos: dict[int, dict[str, Any]] = {}
        played = _play(env, policy, writer, on_step, final_infos)
        return None if played is None else _settled(played, slow, final_infos)
    finally:
        slow.defer_scores(False)


def _play(
    env: VecEnv, policy: LMPolicy, writer: RolloutWriter, on_step: OnStep, final_infos: dict[int, dict[str, Any]]
) -> Sequences | None:
    """See :func:`play_episodes`; puts the last info of every slot into ``final_infos``."""
    observations = env.reset()
    assert isinstance(observations, dict)
    n, width = observations["input_ids"].shape
    holds, limits = env.has_attr("hold"), fixed_limits(env)
    masked, replies = limits is None and env.has_attr("action_masks"), limits is None or somebody_replies(env)
    room = width if limits is None else limits.max_new_tokens
    writer.begin(observations, limits, room)
    recording = Recording(observations["input_ids"], observations["attention_mask"], limits)
    lengths = recording.prompt_lengths.copy()  # of the observations, so that replies are noticed
    actions = np.zeros(n, dtype=np.int64)
    for written in range(room):
        slots = writer.slots
        masks = np.stack(env.env_method("action_masks", indices=slots.tolist())) if masked else None
        choices = writer.choose(written, masks)
        actions[slots] = tokens = choices.tokens
        new_observations, rewards, dones, infos = env.step(actions)
        assert isinstance(new_observations, dict)
        recording.append(slots, choices, rewards[slots])
        ended = dones[slots]
        for slot in slots[ended].tolist():
            final_infos[slot] = infos[slot]
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
            return writer.finish(recording.sequences())
        if ended.any():
            if holds:
                env.env_method("hold", indices=slots[ended].tolist())
            tokens = tokens[writer.drop(ended)]
            slots = writer.slots
        if replies:
            now = new_observations["attention_mask"][slots].sum(-1, dtype=np.int64)
            counts, lengths[slots] = now - lengths[slots], now
            writer.append(*_appended(new_observations["input_ids"], slots, tokens, counts, recording))
        else:
            writer.append(tokens[:, None], None)
    raise TextGymError(f"Expected every episode to end within {room} tokens; slots {writer.slots.tolist()} did not")


def _settled(sequences: Sequences, envs: TextGenVectorEnv, final_infos: dict[int, dict[str, Any]]) -> Sequences:
    """The episodes with the rewards that were computed meanwhile, at the last token each; their infos are completed."""
    rewards = sequences.rewards.clone()
    for slot, (reward, info) in envs.settle().items():
        rewards[slot, -1] += reward  # the last column is every episode's last token
        final_infos[slot].update(info)
        if "episode" in final_infos[slot]:
            final_infos[slot]["episode"]["r"] += reward
    return sequences.with_(rewards=rewards)


def _appended(
    input_ids: np.ndarray, slots: np.ndarray, tokens: np.ndarray, counts: np.ndarray, recording: Recording
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the writer has to read: the tokens just chosen, and replies of the environment behind them."""
    if (counts == 1).all():
        return tokens[:, None], None
    most = int(counts.max())
    ids = input_ids[slots][:, -most:]
    for slot, row, count in zip(slots, ids, counts, strict=True):
        if count > 1:
            recording.append_reply(slot, row[most - count + 1 :])
    return ids, np.arange(most) >= most - counts[:, None]


def _value_of(policy: LMPolicy, observation: dict[str, np.ndarray]) -> float:
    tensors = {key: torch.as_tensor(value, device=policy.device)[None] for key, value in observation.items()}
    with torch.no_grad():
        return float(policy.predict_values(tensors)[0, 0])
