"""What algorithms without a critic share: several completions of each prompt, compared with one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from stable_baselines3.common.vec_env import VecEnv

from textgym.core import expected, whole_number
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.losses import sequence_sum
from textgym_agents.rollouts.buffers import Sequences


def check_groups(env: VecEnv, wanted: int, what: str) -> None:
    """Raises a ``ValueError`` unless neighbouring environments form groups of ``wanted`` with the same prompts."""
    size = env.get_attr("group_size", indices=0)[0] if env.has_attr("group_size") else None
    if size != wanted:
        raise ValueError(
            expected(
                "the environments' group_size", size, f"{what}, as in gym.make_vec(id, num_envs=n, group_size=...)"
            )
        )


class GroupAlgorithm(TextAlgorithm):
    """An on-policy algorithm whose baseline is the reward of other completions of the same prompt.

    Neighbouring environments form groups of ``num_generations``; the k-th episodes of a group have the same prompt. All of an
    episode's tokens get the same advantage, that of the episode's return.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"gamma", "gae_lambda", "vf_coef"})

    def __init__(self, policy: Any, env: Any, *, num_generations: int, **kwargs: Any) -> None:
        """Args: as for :class:`TextAlgorithm`, and ``num_generations``; see the subclasses.

        Raises:
            ValueError: The environments are not grouped so, or an argument is bad.
        """
        self.num_generations = whole_number("num_generations", num_generations, 2)
        env_kwargs, n_envs = kwargs.pop("env_kwargs", None), kwargs.get("n_envs", 64)
        if isinstance(env, str) and (env_kwargs is None or isinstance(env_kwargs, dict)):
            if n_envs % num_generations:
                raise ValueError(expected("n_envs", n_envs, f"a multiple of num_generations={num_generations}"))
            needed = self.needed_env_kwargs({"num_generations": num_generations})
            env_kwargs = {**needed, **(env_kwargs or {})}
        super().__init__(policy, env, env_kwargs=env_kwargs, gamma=1.0, gae_lambda=1.0, vf_coef=0.0, **kwargs)

    @classmethod
    def needed_env_kwargs(cls, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`TextAlgorithm.needed_env_kwargs`."""
        return {"group_size": hyperparameters["num_generations"]}

    def _check_env(self, env: VecEnv) -> None:
        super()._check_env(env)
        check_groups(env, self.num_generations, f"num_generations={self.num_generations}")

    def _returns(self, sequences: Sequences) -> torch.Tensor:
        """``[B]``: what the environment paid for each episode."""
        return sequence_sum(sequences.rewards, sequences.action_mask)

    def _spread(self, returns: torch.Tensor) -> torch.Tensor:
        """Standard deviation of ``returns`` ``[B]`` within each group."""
        return returns.double().view(-1, self.num_generations).std(-1)

    def _to_tokens(self, sequences: Sequences, advantages: torch.Tensor) -> Sequences:
        """Gives every token the advantage ``[B]`` of its episode."""
        zero = torch.zeros_like(sequences.rewards)
        return sequences.with_(advantages=torch.where(sequences.action_mask, advantages[:, None], zero))
