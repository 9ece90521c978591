"""Observations that forget."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from textgym.core import expected, whole_number
from textgym.envs.episodes import Observation
from textgym.wrappers._common import ForBoth, single_base, vector_base


class VectorHistoryWrapper(VectorWrapper[Observation, Any, Observation, Any, Any]):
    """See :class:`HistoryWrapper`; observations under ``final_obs`` are shortened as well."""

    def __init__(self, env: VectorEnv[Any, Any, Any], tokens: int) -> None:
        """See :class:`HistoryWrapper`."""
        super().__init__(env)
        vector_base(env)
        self.tokens = _checked(tokens, env.single_observation_space)
        self.single_observation_space = _shortened_space(env.single_observation_space, self.tokens)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        """See Gymnasium's ``VectorEnv.reset``."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return _shortened(observations, self.tokens), infos

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """See Gymnasium's ``VectorEnv.step``."""
        observations, *results, infos = self.env.step(actions)
        if "final_obs" in infos:
            for slot in np.flatnonzero(infos["_final_obs"]):
                infos["final_obs"][slot] = _shortened(infos["final_obs"][slot], self.tokens)
        return (_shortened(observations, self.tokens), *results, infos)


class HistoryWrapper(ForBoth):
    """Shows only the newest tokens of the text: the state is no longer all in the observation.

    A diagnostic of memory, for agents that read observations and may remember more than these: with 1 token, say, only an
    agent with a state of its own can copy a word from the prompt. The language-model policies of ``textgym_agents`` read
    the whole prompt from the observation, so to them it is a limit that they cannot get around.

    The entries of the observation have the shape ``(tokens,)`` in place of ``(L,)``.

    Example:
        >>> import gymnasium as gym, textgym
        >>> from textgym.wrappers import HistoryWrapper
        >>> env = HistoryWrapper(gym.make("TextGen-Sentiment-v0"), tokens=4)
        >>> env.reset(seed=0)[0]["input_ids"].shape
        (4,)
    """

    vector_variant = VectorHistoryWrapper

    def __init__(self, env: gym.Env[Any, Any], tokens: int) -> None:
        """Args: env: An environment of textgym. tokens: How many tokens are shown, 1 to the observation's length.

        Raises:
            ValueError: ``tokens`` is out of range.
            TypeError: ``env`` is not of textgym.
        """
        gym.utils.RecordConstructorArgs.__init__(self, tokens=tokens)
        gym.Wrapper.__init__(self, env)
        single_base(env)
        self.tokens = _checked(tokens, env.observation_space)
        self.observation_space = _shortened_space(env.observation_space, self.tokens)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        """See Gymnasium's ``Env.reset``."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _shortened(observation, self.tokens), info

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """See Gymnasium's ``Env.step``."""
        observation, *results, info = self.env.step(action)
        return (_shortened(observation, self.tokens), *results, info)  # type: ignore[return-value]


def _checked(tokens: int, space: Any) -> int:
    width = space["input_ids"].shape[0]
    if whole_number("tokens", tokens, 1) > width:
        raise ValueError(expected("tokens", tokens, f"at most the observation's length {width}"))
    return int(tokens)


def _shortened_space(space: Any, tokens: int) -> spaces.Dict:
    ids = space["input_ids"]
    return spaces.Dict(
        {
            "input_ids": spaces.Box(0, int(ids.high.max()), (tokens,), ids.dtype),
            "attention_mask": spaces.MultiBinary(tokens),
            "completion_mask": spaces.MultiBinary(tokens),
        }
    )


def _shortened(observation: Observation, tokens: int) -> Observation:
    """The last columns of every entry, ``(..., L)`` to ``(..., tokens)``."""
    return {key: value[..., -tokens:].copy() for key, value in observation.items()}
