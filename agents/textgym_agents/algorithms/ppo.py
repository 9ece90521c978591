"""Proximal Policy Optimization for text."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from typing_extensions import Unpack

from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.options import AlgorithmOptions, check_positive
from textgym_agents.losses import clipped_policy_loss, explained_variance, gae, masked_mean, value_loss, whiten
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class PPO(TextAlgorithm):
    """Proximal Policy Optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), clipped, for text.

    Every token is an action. With ``ratio_t = pi(a_t | s_t) / pi_old(a_t | s_t)`` it maximises, over tokens,

        ``min(ratio_t * A_t, clip(ratio_t, 1 - clip_range, 1 + clip_range) * A_t)``

    where ``A_t`` is the generalised advantage of the reward minus ``kl_coef * (log pi_old(a_t) - log pi_ref(a_t))``: the
    policy is paid for the task and charged for every nat that it departs from the model it started as (Ziegler et al. 2019,
    https://arxiv.org/abs/1909.08593). The method to begin with: robust, and it learns from sparse rewards through its critic.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration:

    * ``rollout/ep_rew_mean``, ``rollout/ep_len_mean``: return without penalty and length in tokens, mean of the last episodes;
    * ``rollout/kl``: mean over episodes of ``sum_t log pi_old - log pi_ref``, in nats an episode; ``train/kl_coef``;
    * ``rollout/reward/<name>``: mean of each part of the reward;
    * ``train/policy_gradient_loss``, ``train/value_loss``, ``train/entropy_loss`` (minus the mean entropy in nats a token; of
      the rollout, where ``ent_coef`` is 0), ``train/loss``: means over minibatches (``loss``: the last);
    * ``train/approx_kl``: estimate of ``KL(pi_old || pi)`` in nats a token, ``train/clip_fraction``: share of clipped tokens;
    * ``train/explained_variance``: how much of the returns the values foresaw: 1 all, 0 nothing;
    * ``train/learning_rate``, ``train/clip_range``, ``train/clip_range_vf``: schedules as they stand; ``train/n_updates``.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 32,
        n_epochs: int = 4,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        vf_coef: float = 0.5,
        target_kl: float | None = None,
        kl_coef: float = 0.05,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm.

        Args:
            policy: ``"CausalLMPolicy"``, ``"Seq2SeqLMPolicy"`` or a subclass of :class:`LMPolicy`.
            env: An id of ours, an environment (wrapped or not), a Gymnasium ``VectorEnv`` or an SB3 ``VecEnv``.
            learning_rate: Or a function of the progress that remains, from 1 to 0.
            n_steps: A rollout has at least ``n_steps * n_envs`` tokens. Episodes are never cut, so 1, the default, means one
                whole episode in every environment.
            batch_size: Minibatch, in episodes (not in steps as in SB3: an episode is one teacher-forced pass).
            n_epochs: Passes over a rollout.
            gamma: Discount; 1 suits a reward at the end.
            gae_lambda: Bias against variance of the advantage.
            clip_range: Clipping of the ratio; may be a schedule.
            clip_range_vf: Clipping of the value's change; ``None`` for none.
            normalize_advantage: To mean 0 and standard deviation 1 over the tokens of a minibatch.
            vf_coef: Weight of the value loss.
            target_kl: Stops a rollout's updates once ``train/approx_kl`` exceeds 1.5 times this (nats a token).
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        check_positive("clip_range", clip_range)
        check_positive("clip_range_vf", clip_range_vf, optional=True)
        self.clip_range, self.clip_range_vf = clip_range, clip_range_vf
        self.normalize_advantage = normalize_advantage
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            target_kl=target_kl,
            kl_coef=kl_coef,
            gamma=gamma,
            gae_lambda=gae_lambda,
            vf_coef=vf_coef,
            **options,
        )

    def train(self) -> None:
        """Updates the policy on the rollout in the buffer; see SB3."""
        super().train()
        whole = self.rollout_buffer.sequences
        self.logger.record(
            "train/explained_variance", explained_variance(whole.values, whole.returns, whole.action_mask)
        )
        self.logger.record("train/clip_range", self._now(self.clip_range))
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self._now(self.clip_range_vf))

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        rewards, mask = sequences.rewards - penalty, sequences.action_mask
        advantages, returns = gae(rewards, sequences.values, mask, sequences.last_values, self.gamma, self.gae_lambda)
        return sequences.with_(advantages=advantages, returns=returns)

    def _prepared(self, batch: Sequences) -> Sequences:
        if not self.normalize_advantage:
            return batch
        return batch.with_(advantages=whiten(batch.advantages, batch.action_mask))

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        mask = part.action_mask
        log_probs, values, entropies = self.policy.evaluate_sequences(
            part, self.decoding.temperature, entropies=self.ent_coef != 0
        )
        policy_loss, clip_fraction, approx_kl = clipped_policy_loss(
            log_probs, part.log_probs, part.advantages, mask, self._now(self.clip_range)
        )
        clip_range_vf = None if self.clip_range_vf is None else self._now(self.clip_range_vf)
        error = value_loss(values, part.values, part.returns, mask, clip_range_vf)
        # without a bonus nothing needs their gradient, and the rollout has recorded what they were
        entropy_loss = -masked_mean(entropies if self.ent_coef != 0 else part.entropies, mask)
        loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * error
        return loss, {
            "policy_gradient_loss": policy_loss.item(),
            "value_loss": error.item(),
            "entropy_loss": entropy_loss.item(),
            "approx_kl": approx_kl.item(),
            "clip_fraction": clip_fraction.item(),
        }
