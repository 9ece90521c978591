"""Gymnasium's vector environments as Stable-Baselines3's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from textgym.core import expected
from textgym.envs import TextGenVectorEnv
from textgym_agents.rollouts.decoding import Limits

_PER_SLOT = ("action_masks", "get_state")


class GymVecEnv(VecEnv):
    """A Gymnasium ``VectorEnv`` (ours, wrapped or not) behind SB3's interface: finished slots restart within the step.

    ``env_method`` reaches the methods that a single environment of ours has: ``action_masks``, ``hold``, ``get_state``,
    ``set_state``. So it does with a ``SyncVectorEnv`` of single environments.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        """Args: envs: In any autoreset mode; finished slots are reset with a ``reset_mask`` where it does not do it itself.

        Raises:
            TypeError: An ``AsyncVectorEnv``: the action masks in its processes cannot be reached slot by slot.
        """
        if isinstance(envs.unwrapped, AsyncVectorEnv):
            raise TypeError(
                "Expected a vector environment whose action masks can be read, actual: an AsyncVectorEnv. Use "
                "gym.make_vec(id, num_envs=n), which is batched natively, or Stable-Baselines3's SubprocVecEnv"
            )
        self.envs = envs
        self._singles: list[Any] | None = envs.unwrapped.envs if isinstance(envs.unwrapped, SyncVectorEnv) else None
        self.metadata: dict[str, Any] = envs.metadata
        self._same_step = envs.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self._seed: int | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Observations of fresh episodes in all slots."""
        observations, infos = self.envs.reset(seed=self._seed, options=dict(self._options[0]) or None)
        self.reset_infos = _rows(infos, self.num_envs)
        self._seed = None
        self._reset_options()
        return dict(observations)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds the slots at the next reset, as ``envs.reset(seed=seed)`` does."""
        self._seed = seed
        return [seed] * self.num_envs

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the actions of the step that :meth:`step_wait` makes."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One step; ``infos[i]["terminal_observation"]`` has the last observation of an episode that ended."""
        observations, rewards, terminated, truncated, step_infos = self.envs.step(self._actions)
        dones, infos = terminated | truncated, cast(Any, step_infos)
        rows = _rows(infos, self.num_envs)
        if dones.any():
            if self._same_step:
                listed = not isinstance(infos, dict)
                finals = (
                    [row.get("final_info") for row in infos] if listed else _rows(infos["final_info"], self.num_envs)
                )
                for i in np.flatnonzero(dones):
                    last = infos[i]["final_obs"] if listed else infos["final_obs"][i]
                    rows[i] = {**finals[i], "terminal_observation": last}
            else:
                for i in np.flatnonzero(dones):
                    rows[i]["terminal_observation"] = {key: value[i] for key, value in observations.items()}
                observations, _ = self.envs.reset(options={"reset_mask": dones.copy()})
            for i in np.flatnonzero(dones):
                rows[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return dict(observations), rewards.astype(np.float32), dones, rows

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, once a slot."""
        for env in _layers(self.envs):
            if hasattr(env, attr_name):
                return [getattr(env, attr_name)] * len(self._slots(indices))
        if self._singles is not None:
            return [self._singles[i].get_wrapper_attr(attr_name) for i in self._slots(indices)]
        raise AttributeError(f"{self.envs} has no attribute {attr_name!r}")

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the vector environment; all slots share it."""
        if self._singles is not None:
            for i in self._slots(indices):
                self._singles[i].set_wrapper_attr(attr_name, value)
            return
        if len(self._slots(indices)) != self.num_envs:
            raise ValueError(f"Expected to set {attr_name!r} in all slots, which share it, actual indices: {indices!r}")
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method for the slots in ``indices`` (all, if ``None``); returns one result a slot."""
        slots, inner = self._slots(indices), self.envs.unwrapped
        if self._singles is not None:
            return [self._singles[i].get_wrapper_attr(method_name)(*method_args, **method_kwargs) for i in slots]
        method = getattr(inner, method_name)
        if method_name in _PER_SLOT:
            results = method()
            return [results[i] for i in slots]
        if method_name == "hold":
            mask = np.zeros(self.num_envs, dtype=np.bool_)
            mask[slots] = True
            method(mask)
            return [None] * len(slots)
        if method_name == "set_state":
            states = inner.get_state()  # type: ignore[attr-defined]
            for i in slots:
                states[i] = method_args[0]
            method(states)
            return [None] * len(slots)
        return [method(*method_args, **method_kwargs)] * len(slots)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Whether the slots are wrapped by a (single-environment) wrapper: they never are."""
        return [False] * len(self._slots(indices))

    def _slots(self, indices: VecEnvIndices) -> list[int]:
        if indices is None:
            return list(range(self.num_envs))
        return [int(i) for i in indices] if isinstance(indices, Iterable) else [int(indices)]


def vectorised(env_id: str, n_envs: int, **kwargs: Any) -> GymVecEnv:
    """``n_envs`` environments of one id, ready for SB3.

    Raises:
        TypeError: The id is not of an environment of ours, or does not take an argument in ``kwargs``.
    """
    try:
        return GymVecEnv(gym.make_vec(env_id, num_envs=n_envs, autoreset_mode="SameStep", **kwargs))
    except TypeError as error:
        if "'autoreset_mode'" in str(error):
            raise TypeError(expected("env", env_id, "the id of an environment of textgym")) from error
        raise


def heavy_rewards(env: VecEnv) -> TextGenVectorEnv | None:
    """The environments, if their rewards take long and nothing between them and SB3 needs to see a reward at once."""
    layers: list[Any] = list(_layers(env, inside="venv"))
    inner = layers.pop()
    seen = any(type(layer) is not VecMonitor or layer.results_writer is not None for layer in layers)
    if seen or not isinstance(inner, GymVecEnv) or not isinstance(inner.envs, TextGenVectorEnv):
        return None
    reward = inner.envs.setting.reward
    return inner.envs if reward.heavy and not reward.dense else None


def fixed_limits(env: VecEnv) -> Limits | None:
    """What an environment allows, if that depends on nothing but the number of tokens written; ``None`` if it may."""
    inner = env.unwrapped
    if not isinstance(inner, GymVecEnv):
        return None
    *wrappers, base = _layers(inner.envs)
    plain = getattr(type(base), "action_masks", None) is TextGenVectorEnv.action_masks
    if plain and not any(hasattr(type(wrapper), "action_masks") for wrapper in wrappers):
        return Limits.of(base.setting)
    return None


def somebody_replies(env: VecEnv) -> bool:
    """Whether tokens that are not the policy's may follow its own within an episode."""
    return env.has_attr("setting") and env.get_attr("setting", indices=0)[0].task.turn_end is not None


def is_text_space(space: spaces.Space[Any]) -> bool:
    """Whether observations are what our environments give: ``input_ids``, ``attention_mask``, ``completion_mask``."""
    return isinstance(space, spaces.Dict) and {"input_ids", "attention_mask", "completion_mask"} <= set(space.spaces)


def _layers(envs: Any, inside: str = "env") -> Iterable[Any]:
    while True:
        yield envs
        if inside not in vars(envs):
            return
        envs = getattr(envs, inside)


def _rows(infos: Any, n: int) -> list[dict[str, Any]]:
    """Vector infos as one dict a slot; only entries that are marked as real (all, where nothing is marked)."""
    if not isinstance(infos, dict):  # gymnasium's DictInfoToList has done it already
        return [dict(info) for info in infos]
    rows: list[dict[str, Any]] = [{} for _ in range(n)]
    for key, value in infos.items():
        if key.startswith("_") or key in ("final_obs", "final_info"):
            continue
        mask = infos.get(f"_{key}", np.ones(n, dtype=np.bool_))
        values = _rows(value, n) if isinstance(value, dict) else value
        for i in np.flatnonzero(mask):
            item = values[i]
            rows[i][key] = item.item() if isinstance(item, np.generic) else item
    return rows
