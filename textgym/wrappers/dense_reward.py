"""Rewards on every step instead of the last alone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

from textgym.wrappers._common import ForBoth, single_base, vector_base


class VectorDenseRewardWrapper(VectorWrapper[Any, Any, Any, Any, Any]):
    """See :class:`DenseRewardWrapper`."""

    def __init__(self, env: VectorEnv[Any, Any, Any], potential: object = None, gamma: float = 1.0) -> None:
        """See :class:`DenseRewardWrapper`."""
        super().__init__(env)
        vector_base(env).shape_reward(potential, gamma)


class DenseRewardWrapper(ForBoth):
    """Pays the environment's reward step by step, by potential-based shaping, which keeps the optimal policy.

    The step from ``s`` to ``s'`` pays ``gamma * P(s') - P(s)``, the last one the reward on top (with ``P(s')`` being 0); see
    :class:`textgym.rewards.Shaped`. The rewards' parts in ``info`` and ``is_success`` stay what they are.

    Example:
        >>> import gymnasium as gym, textgym
        >>> from textgym.wrappers import DenseRewardWrapper
        >>> env = DenseRewardWrapper(gym.make("TextGen-Sentiment-v0"))
    """

    vector_variant = VectorDenseRewardWrapper

    def __init__(self, env: gym.Env[Any, Any], potential: object = None, gamma: float = 1.0) -> None:
        """Args: env: Not yet reset. potential: What scores unfinished text; ``None``: the reward. gamma: The agent's discount.

        Raises:
            TextGymError: The environment was reset already.
            TypeError: It is not of textgym.
            ValueError: ``gamma`` is not in (0, 1], or the reward is dense already.
        """
        gym.utils.RecordConstructorArgs.__init__(self, potential=potential, gamma=gamma)
        gym.Wrapper.__init__(self, env)
        single_base(env).shape_reward(potential, gamma)
