"""What the wrappers share."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

from textgym.core import expected
from textgym.envs import TextGenEnv, TextGenVectorEnv


class ForBoth(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """A wrapper of single environments that, given a vector environment, makes its variant for those instead."""

    vector_variant: ClassVar[type[VectorWrapper[Any, Any, Any, Any, Any]]]

    def __new__(cls, env: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The wrapper, or its variant (whose ``__init__`` has run by then)."""
        return cls.vector_variant(env, *args, **kwargs) if isinstance(env, VectorEnv) else super().__new__(cls)


def single_base(env: Any) -> TextGenEnv:
    """The environment of ours inside of ``env``.

    Raises:
        TypeError: There is none.
    """
    base = env.unwrapped if isinstance(env, gym.Env) else env
    if not isinstance(base, TextGenEnv):
        raise TypeError(expected("env", env, "an environment of textgym"))
    return base


def vector_base(env: VectorEnv[Any, Any, Any]) -> TextGenVectorEnv:
    """The vector environment of ours inside of ``env``.

    Raises:
        TypeError: There is none.
    """
    if not isinstance(env.unwrapped, TextGenVectorEnv):
        raise TypeError(expected("env", env, "an environment of textgym, or one of its own vector environments"))
    return env.unwrapped
