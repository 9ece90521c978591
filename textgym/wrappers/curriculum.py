"""Raises the difficulty as success grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from textgym.core import TextGymError, expected, number, whole_number
from textgym.envs.episodes import Observation, Setting
from textgym.tasks import Task
from textgym.wrappers._common import ForBoth, single_base, vector_base

_NAME = "curriculum"  # of its part of the environment's state


class Progress:
    """The level that was reached, and how the last episodes at that level went."""

    def __init__(
        self, setting: Setting, threshold: float, window: int, levels: Sequence[str] | None, metric: str
    ) -> None:
        """Args: setting: Of the environment. The others: see :class:`CurriculumWrapper`."""
        task = setting.task
        self.levels = tuple(task.difficulties if levels is None else levels)
        if isinstance(levels, str) or not set(self.levels) <= set(task.difficulties) or len(self.levels) < 2:
            raise ValueError(expected("levels", self.levels, f"at least two of the task's levels {task.difficulties}"))
        if metric not in ("success", "reward"):
            raise ValueError(expected("metric", metric, "'success' or 'reward'"))
        if not setting.own_reward:
            raise ValueError(f"Expected {task.id!r} with its own reward: success and normalised reward are about that")
        if metric == "success" and type(task).is_success is Task.is_success:
            raise ValueError(expected("metric", metric, f"'reward', as {task.id!r} has no notion of success"))
        self.threshold = number("threshold", threshold, -1, 1)
        self.scores: deque[float] = deque(maxlen=whole_number("window", window, 1))
        self.index = 0
        self._by_success, self._task = metric == "success", task

    @property
    def level(self) -> str:
        """The level of the episodes to come."""
        return self.levels[self.index]

    def add(self, level: int, total: float, success: bool | None, terminated: bool) -> None:
        """Takes note of an episode that has ended, if it was one of the present level (the index ``level``)."""
        if level != self.index:
            return
        if self._by_success and success is None and terminated:
            raise TextGymError(
                f"Expected `is_success` in the last info of an episode of {self._task.id!r}; there is none"
            )
        low, high = self._task.random_score, self._task.oracle_score
        self.scores.append(float(bool(success)) if self._by_success else (total - low) / (high - low))
        full = len(self.scores) == self.scores.maxlen
        if full and float(np.mean(self.scores)) >= self.threshold and self.index + 1 < len(self.levels):
            self.index += 1
            self.scores.clear()

    def state(self) -> dict[str, Any]:
        """Level and scores, JSON-able."""
        return {"level": self.level, "scores": list(self.scores)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state` gave."""
        if state["level"] not in self.levels:
            raise TextGymError(f"Expected the saved level {state['level']!r} among the levels {self.levels}")
        self.index = self.levels.index(state["level"])
        self.scores.clear()
        self.scores.extend(state["scores"])


class VectorCurriculumWrapper(VectorWrapper[Any, Any, Any, Any, Any]):
    """See :class:`CurriculumWrapper`; all slots share one curriculum.

    With a ``group_size`` above 1 a new level waits for the next reset of all slots, so that the prompts of a group stay equal.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        threshold: float = 0.8,
        window: int = 100,
        levels: Sequence[str] | None = None,
        metric: str = "success",
    ) -> None:
        """See :class:`CurriculumWrapper`."""
        super().__init__(env)
        self._base = vector_base(env)
        self._progress = Progress(self._base.setting, threshold, window, levels, metric)
        self._base.set_difficulty(self._progress.level)
        self._base.attach(_NAME, self)
        self._levels = np.full(self.num_envs, -1)  # of running episodes; -1: of none
        self._returns = np.zeros(self.num_envs)
        self._fresh = np.zeros(self.num_envs, dtype=np.bool_)  # nothing written yet

    @property
    def difficulty(self) -> str:
        """The level of the episodes to come."""
        return self._progress.level

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """See Gymnasium's ``VectorEnv.reset``; ``infos`` has ``difficulty``. It does not start the curriculum anew."""
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            mask = np.array(options["reset_mask"])
        if mask.all():
            self._base.set_difficulty(self._progress.level)
        observations, infos = self.env.reset(seed=seed, options=options)
        asked = options is not None and ("examples" in options or "example" in options)
        self._begin(mask, infos, of_level=not asked)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """See Gymnasium's ``VectorEnv.step``; ``infos`` has ``difficulty`` at the begin and the end of an episode."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        self._returns += rewards
        same_step = self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        finals = infos.get("final_info", {}) if same_step else infos
        ended = [
            (self._levels[i], self._returns[i], _entry(finals, "is_success", i), bool(terminated[i]))
            for i in np.flatnonzero(done).tolist()
        ]
        self._put(finals, done & (self._levels >= 0))
        fresh = self._base.written == 0
        self._begin(fresh & (done | ~self._fresh), infos)
        self._fresh = fresh
        for episode in ended:
            self._progress.add(*episode)
        if self._base.group_size == 1:
            self._base.set_difficulty(self._progress.level)
        return observations, rewards, terminated, truncated, infos

    def part_state(self) -> dict[str, Any]:
        """See :meth:`textgym.envs.TextGenEnv.attach`."""
        return self._progress.state()

    def set_part_state(self, state: dict[str, Any]) -> None:
        """See :meth:`textgym.envs.TextGenEnv.attach`."""
        self._progress.set_state(state)
        self._base.set_difficulty(self._progress.level)

    def _begin(self, mask: Any, infos: dict[str, Any], of_level: bool = True) -> None:
        level = self._progress.levels.index(self._base.setting.prompts.difficulty)  # type: ignore[attr-defined]
        self._levels[mask] = level if of_level else -1
        self._returns[mask] = 0
        self._fresh[mask] = True
        self._put(infos, mask & of_level)

    def _put(self, infos: dict[str, Any], mask: Any) -> None:
        """Puts ``difficulty`` into the infos of the slots in ``mask``."""
        if not mask.any():
            return
        infos.setdefault("difficulty", np.full(self.num_envs, None, dtype=object))
        infos.setdefault("_difficulty", np.zeros(self.num_envs, dtype=np.bool_))
        infos["difficulty"][mask] = [self._progress.levels[level] for level in self._levels[mask]]
        infos["_difficulty"] |= mask


class CurriculumWrapper(ForBoth):
    """Begins with the easiest level of the task, and goes on to the next one as the policy gets better.

    When the mean over the last ``window`` episodes of the present level reaches ``threshold``, the episodes that begin from
    then on are of the next level. There is no way back, and the random generators stay where they are.

    ``info["difficulty"]`` has the episode's level after ``reset`` and at the end. Progress belongs to the environment's
    ``get_state``, so that a training with ``textgym_agents`` resumes exactly. Episodes that begin with a prompt given to
    ``reset`` do not count.

    Example:
        >>> import gymnasium as gym, textgym
        >>> from textgym.wrappers import CurriculumWrapper
        >>> envs = CurriculumWrapper(gym.make_vec("TextGen-Copy-v0", num_envs=16), threshold=0.9)
        >>> envs.difficulty
        'easy'
    """

    vector_variant = VectorCurriculumWrapper

    def __init__(
        self,
        env: gym.Env[Any, Any],
        threshold: float = 0.8,
        window: int = 100,
        levels: Sequence[str] | None = None,
        metric: str = "success",
    ) -> None:
        """Makes the wrapper, and sets the environment to the first level.

        Args:
            env: An environment of textgym, single or vector, with prompts of its task's generator.
            threshold: Mean from which the next level begins, -1 to 1.
            window: Number of episodes that the mean is taken over.
            levels: Some of the task's levels, in the order of training; ``None`` for all.
            metric: ``"success"`` (share of episodes that solve the task) or ``"reward"`` (return, normalised so that random
                tokens have 0 and the oracle 1).

        Raises:
            ValueError: An argument is bad, or the task has no notion of success or does not pay its own reward.
            PromptError: The prompts are not those of the task's generator.
            TypeError: ``env`` is not of textgym.
        """
        gym.utils.RecordConstructorArgs.__init__(self, threshold=threshold, window=window, levels=levels, metric=metric)
        gym.Wrapper.__init__(self, env)
        self._base = single_base(env)
        self._progress = Progress(self._base.setting, threshold, window, levels, metric)
        self._base.set_difficulty(self._progress.level)
        self._base.attach(_NAME, self)
        self._level, self._return = -1, 0.0

    @property
    def difficulty(self) -> str:
        """The level of the episodes to come."""
        return self._progress.level

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        """See Gymnasium's ``Env.reset``; ``info`` has ``difficulty``. It does not start the curriculum anew."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._level, self._return = self._progress.index, 0.0
        if options is not None and "example" in options:
            self._level = -1
            return observation, info
        return observation, {**info, "difficulty": self.difficulty}

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """See Gymnasium's ``Env.step``; at the end ``info`` has the episode's ``difficulty``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        if (terminated or truncated) and self._level >= 0:
            info = {**info, "difficulty": self._progress.levels[self._level]}
            self._progress.add(self._level, self._return, info.get("is_success"), terminated)
            self._base.set_difficulty(self._progress.level)
        return observation, reward, terminated, truncated, info

    def part_state(self) -> dict[str, Any]:
        """See :meth:`textgym.envs.TextGenEnv.attach`."""
        return self._progress.state()

    def set_part_state(self, state: dict[str, Any]) -> None:
        """See :meth:`textgym.envs.TextGenEnv.attach`."""
        self._progress.set_state(state)
        self._base.set_difficulty(self._progress.level)


def _entry(infos: dict[str, Any], key: str, slot: int) -> Any:
    """A slot's entry of vector infos; ``None`` if it has none."""
    return infos[key][slot] if key in infos and infos[f"_{key}"][slot] else None
