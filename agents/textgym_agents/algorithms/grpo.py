"""Group Relative Policy Optimization."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from typing_extensions import Unpack

from textgym.core import expected
from textgym_agents.algorithms.groups import GroupAlgorithm
from textgym_agents.algorithms.options import AlgorithmOptions, check_positive
from textgym_agents.losses import group_relative, k3, masked_mean, sequence_mean, sequence_sum
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class GRPO(GroupAlgorithm):
    """Group Relative Policy Optimization (Shao et al. 2024, https://arxiv.org/abs/2402.03300): PPO without a critic.

    ``G`` completions of the same prompt are compared: the advantage of all of a completion's tokens is

        ``A_i = (R_i - mean(R_1 .. R_G)) / std(R_1 .. R_G)``

    and with ``ratio_t = pi(a_t | s_t) / pi_old(a_t | s_t)`` it maximises

        ``min(ratio_t * A_i, clip(ratio_t, 1 - clip_range, 1 + clip_range_high) * A_i) - kl_coef * KL(pi || pi_ref)``

    averaged as ``loss_type`` says. The KL to the reference model is part of the loss, by the estimate that is never negative
    (``k3``), not of the reward. Use it where a reward comes at the end of an episode and is cheap enough to be asked for ``G``
    times a prompt: there is no value function to fit, and none that can be wrong.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO`, and

    * ``train/policy_gradient_loss``, ``train/entropy_loss``, ``train/approx_kl``, ``train/clip_fraction``, ``train/loss``;
    * ``train/ref_kl``: the estimate of ``KL(pi || pi_ref)`` in the loss, in nats a token;
    * ``train/reward_std``: mean over groups of the standard deviation of returns; at 0 there is nothing to learn from;
    * ``train/idle_groups``: share of groups in which all returns were the same.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 64,
        n_epochs: int = 1,
        num_generations: int = 8,
        clip_range: float | Schedule = 0.2,
        clip_range_high: float | Schedule | None = None,
        loss_type: str = "grpo",
        scale_rewards: str = "group",
        importance_sampling_level: str = "token",
        target_kl: float | None = None,
        kl_coef: float = 0.04,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: An id of ours, or a vector environment made with ``group_size=num_generations``.
            learning_rate: See there.
            n_steps: See there.
            batch_size: Minibatch, in episodes. A minibatch need not hold whole groups: advantages are known before.
            n_epochs: Passes over a rollout; 1 makes every update strictly on-policy.
            num_generations: * Completions of each prompt, ``G``, at least 2; ``n_envs`` is a multiple of it.
            clip_range: Clipping of the ratio; may be a schedule. Without effect in the first update of a rollout.
            clip_range_high: * Upper clipping, above ``clip_range`` as in DAPO ("clip-higher"); ``None``: the same.
            loss_type: * How tokens are averaged: ``"grpo"`` within each completion, then over completions; ``"dapo"`` over all
                tokens (Yu et al. 2025, https://arxiv.org/abs/2503.14476); ``"dr_grpo"`` over completions, each divided by the
                token budget (Liu et al. 2025, https://arxiv.org/abs/2503.20783).
            scale_rewards: * What advantages are divided by: ``"group"``, ``"batch"`` or ``"none"``; see
                :func:`textgym_agents.losses.group_relative`.
            importance_sampling_level: * ``"token"``, or ``"sequence"`` for one ratio a completion, the geometric mean of its
                tokens' (GSPO, Zheng et al. 2025, https://arxiv.org/abs/2507.18071).
            target_kl: See there.
            kl_coef: * Weight of the KL to the reference model in the loss; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        for name, value, known in (
            ("loss_type", loss_type, ("grpo", "dapo", "dr_grpo")),
            ("scale_rewards", scale_rewards, ("group", "batch", "none")),
            ("importance_sampling_level", importance_sampling_level, ("token", "sequence")),
        ):
            if value not in known:
                raise ValueError(expected(name, value, f"one of {known}"))
        check_positive("clip_range", clip_range)
        check_positive("clip_range_high", clip_range_high, optional=True)
        self.clip_range, self.clip_range_high = clip_range, clip_range_high
        self.loss_type, self.scale_rewards = loss_type, scale_rewards
        self.importance_sampling_level = importance_sampling_level
        super().__init__(
            policy,
            env,
            num_generations=num_generations,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            target_kl=target_kl,
            kl_coef=kl_coef,
            **options,
        )

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        returns = self._returns(sequences)
        spread = self._spread(returns)
        self.logger.record("train/reward_std", float(spread.mean()))
        self.logger.record("train/idle_groups", float((spread < 1e-8).float().mean()))
        return self._to_tokens(sequences, group_relative(returns, self.num_generations, self.scale_rewards))

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        mask, low = part.action_mask, self._now(self.clip_range)
        high = low if self.clip_range_high is None else self._now(self.clip_range_high)
        log_probs, _, entropies = self.policy.evaluate_sequences(
            part, self.decoding.temperature, entropies=self.ent_coef != 0
        )
        log_ratio = torch.where(mask, log_probs - part.log_probs, torch.zeros_like(log_probs))
        if self.importance_sampling_level == "sequence":
            log_ratio = sequence_mean(log_ratio, mask)[:, None].expand_as(mask)
        ratio = log_ratio.exp()
        surrogate = torch.minimum(ratio * part.advantages, ratio.clamp(1 - low, 1 + high) * part.advantages)
        policy_loss = self._mean(-surrogate, mask)
        clipped = ((ratio < 1 - low) & (part.advantages < 0)) | ((ratio > 1 + high) & (part.advantages > 0))
        entropy_loss = -self._mean(entropies if self.ent_coef != 0 else part.entropies, mask)
        loss = policy_loss + self.ent_coef * entropy_loss
        numbers = {
            "policy_gradient_loss": policy_loss.item(),
            "entropy_loss": entropy_loss.item(),
            "approx_kl": masked_mean((ratio - 1) - log_ratio, mask).item(),
            "clip_fraction": masked_mean(clipped.float(), mask).item(),
        }
        if self.reference is not None:
            distance = self._mean(torch.where(mask, k3(log_probs, part.ref_log_probs), 0.0), mask)
            loss = loss + self.kl.coef * distance
            numbers["ref_kl"] = distance.item()
        return loss, numbers

    def _mean(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.loss_type == "dapo":
            return masked_mean(x, mask)
        if self.loss_type == "grpo":
            return sequence_mean(x, mask).mean()
        assert self.limits is not None
        return sequence_sum(x, mask).mean() / self.limits.max_new_tokens

    def _weight(self, part: Sequences, batch: Sequences) -> float:
        return super()._weight(part, batch) if self.loss_type == "dapo" else len(part) / len(batch)
