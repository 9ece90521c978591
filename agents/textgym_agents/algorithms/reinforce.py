"""REINFORCE, with a choice of baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Unpack

from textgym.core import expected, number
from textgym_agents.algorithms.groups import check_groups
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.policy_gradient import PolicyGradientAlgorithm
from textgym_agents.losses import gae, masked_mean, sequence_sum
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.writers import PolicyWriter

BASELINES = ("none", "mean", "value", "greedy")
_PAIR = 2  # one sampled and one greedy completion of a prompt


class REINFORCE(PolicyGradientAlgorithm):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696): the policy gradient in its first form.

    With ``G_t`` the sum of the rewards from step ``t`` on, each minus ``kl_coef * (log pi(a_t) - log pi_ref(a_t))``, one update
    a rollout goes along

        ``(G_t - b) * grad log pi(a_t | s_t)``

    Any baseline ``b`` that does not depend on ``a_t`` leaves the gradient's mean as it is and changes its variance:

    * ``"none"``: 0. If all rewards are positive, everything that was written is made likelier, good or bad;
    * ``"mean"``: the running mean of ``G_t`` over earlier rollouts;
    * ``"value"``: ``V(s_t)``, learned beside the policy;
    * ``"greedy"``: what the policy earns on the same prompt with the most likely token at every step (self-critical sequence
      training, Rennie et al. 2017, https://arxiv.org/abs/1612.00563). Every second environment plays greedily, and is learned
      from in no other way.

    The method to understand the others by. :class:`RLOO` is the same with another baseline, the other completions of a prompt.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO` (with ``"greedy"``, ``rollout/ep_rew_mean``
    and the like count greedy episodes too), and

    * ``train/policy_gradient_loss``, ``train/entropy_loss``, ``train/loss``: as there;
    * ``train/baseline``: mean of ``b`` over tokens; ``train/advantage_std``: standard deviation of ``G_t - b``;
    * ``train/value_loss``, ``train/explained_variance``: with ``"value"``, as there.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"gae_lambda"})

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        gamma: float = 1.0,
        baseline: str = "mean",
        vf_coef: float = 0.5,
        normalize_advantage: bool = False,
        kl_coef: float = 0.05,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: See there; for ``baseline="greedy"`` a vector environment is made with ``group_size=2``.
            learning_rate: See there.
            n_steps: See there; all tokens of a rollout make one update.
            gamma: Discount; 1 suits a reward at the end.
            baseline: * One of ``"none"``, ``"mean"``, ``"value"``, ``"greedy"``, see the class.
            vf_coef: Weight of the value loss, with ``baseline="value"``.
            normalize_advantage: To mean 0 and standard deviation 1 over the tokens of a rollout.
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        if baseline not in BASELINES:
            raise ValueError(expected("baseline", baseline, f"one of {BASELINES}"))
        number("vf_coef", vf_coef, 0, float("inf"))
        self.baseline = baseline
        self.running_mean: float | None = None
        if baseline == "greedy":
            if options.get("rollout_backend", "transformers") != "transformers":
                raise ValueError(
                    expected("rollout_backend", options["rollout_backend"], "'transformers' with 'greedy'")
                )
            if isinstance(env, str):
                kwargs = self.needed_env_kwargs({"baseline": baseline})
                options["env_kwargs"] = {**kwargs, **(options.get("env_kwargs") or {})}
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=1.0,
            vf_coef=vf_coef if baseline == "value" else 0.0,
            normalize_advantage=normalize_advantage,
            kl_coef=kl_coef,
            **options,
        )

    @classmethod
    def needed_env_kwargs(cls, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`TextAlgorithm.needed_env_kwargs`."""
        return {"group_size": _PAIR} if hyperparameters["baseline"] == "greedy" else {}

    def _check_env(self, env: VecEnv) -> None:
        super()._check_env(env)
        if self.baseline == "greedy":
            check_groups(env, _PAIR, "2 for baseline='greedy'")
            assert isinstance(self.writer, PolicyWriter)
            self.writer.greedy = np.arange(env.num_envs) % _PAIR == 1

    def _progress(self) -> dict[str, Any]:
        return {**super()._progress(), "running_mean": self.running_mean}

    def _restore(self, progress: dict[str, Any], *args: Any) -> None:
        super()._restore(progress, *args)
        self.running_mean = progress["running_mean"]

    def _score(self, buffer: SequenceBuffer) -> None:
        if self.baseline == "greedy":
            whole = buffer.stack()
            rewards = sequence_sum(whole.rewards, whole.action_mask)
            self._earned = rewards[1::_PAIR, None]  # [B, 1], by the greedy completion
            buffer.reset()
            buffer.add_sequences(whole.select(torch.arange(0, len(whole), _PAIR)))
        super()._score(buffer)

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        rewards, mask = sequences.rewards - penalty, sequences.action_mask
        nothing = torch.zeros_like(rewards)
        if self.baseline == "value":
            values, last = sequences.values, sequences.last_values
            advantages, returns = gae(rewards, values, mask, last, self.gamma, 1.0)
            baseline = values
        else:
            returns, _ = gae(rewards, nothing, mask, torch.zeros(len(rewards)), self.gamma, 1.0)
            baseline = self._baseline(returns, mask).expand_as(returns)
            advantages = torch.where(mask, returns - baseline, nothing)
        self.logger.record("train/baseline", float(masked_mean(baseline, mask)))
        self.logger.record("train/advantage_std", float(advantages[mask].std(unbiased=False)))
        return sequences.with_(advantages=advantages, returns=returns)

    def _baseline(self, returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.baseline == "none":
            return torch.zeros(())
        if self.baseline == "greedy":
            return self._earned
        mean = float(masked_mean(returns, mask))
        known = mean if self.running_mean is None else self.running_mean  # the first rollout has only itself
        self.running_mean = known + _NEWS * (mean - known)
        return torch.tensor(known)


_NEWS = 0.1  # weight of the newest rollout in the running mean
