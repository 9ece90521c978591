"""Advantage Actor-Critic for text."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from typing_extensions import Unpack

from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.policy_gradient import PolicyGradientAlgorithm
from textgym_agents.losses import gae
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class A2C(PolicyGradientAlgorithm):
    """Advantage Actor-Critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783), the synchronous form, for text.

    One update a rollout, along

        ``A_t * grad log pi(a_t | s_t) - vf_coef * grad (V(s_t) - G_t)^2``

    where ``A_t`` is the generalised advantage of the reward minus ``kl_coef * (log pi(a_t) - log pi_ref(a_t))`` (with
    ``gae_lambda=1`` the return that follows minus the value) and ``G_t = A_t + V(s_t)``. It is PPO without its second look at a
    rollout: simpler, and never off-policy, but it needs more tokens. The first method to read, and the one to compare PPO with.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have. Its optimizer
    is AdamW as everywhere here; ``policy_kwargs={"optimizer_class": torch.optim.RMSprop}`` is that of the paper.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO`, and ``train/policy_gradient_loss``,
    ``train/value_loss``, ``train/entropy_loss``, ``train/loss``, ``train/explained_variance`` as there.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        gamma: float = 1.0,
        gae_lambda: float = 1.0,
        vf_coef: float = 0.5,
        normalize_advantage: bool = False,
        kl_coef: float = 0.05,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: See there.
            learning_rate: See there.
            n_steps: See there; all tokens of a rollout make one update.
            gamma: Discount; 1 suits a reward at the end.
            gae_lambda: Bias against variance of the advantage.
            vf_coef: Weight of the value loss.
            normalize_advantage: To mean 0 and standard deviation 1 over the tokens of a rollout.
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            vf_coef=vf_coef,
            normalize_advantage=normalize_advantage,
            kl_coef=kl_coef,
            **options,
        )

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        rewards, mask = sequences.rewards - penalty, sequences.action_mask
        advantages, returns = gae(rewards, sequences.values, mask, sequences.last_values, self.gamma, self.gae_lambda)
        return sequences.with_(advantages=advantages, returns=returns)
