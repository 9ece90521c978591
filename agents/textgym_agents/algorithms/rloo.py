"""REINFORCE Leave-One-Out."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from typing_extensions import Unpack

from textgym_agents.algorithms.groups import GroupAlgorithm
from textgym_agents.algorithms.options import AlgorithmOptions, check_positive
from textgym_agents.losses import leave_one_out, masked_mean, sequence_mean
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class RLOO(GroupAlgorithm):
    """REINFORCE Leave-One-Out (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740; Kool et al. 2019).

    The completion is one action. Of ``G`` completions of a prompt each is compared with the mean of the others,

        ``A_i = R_i - mean(R_j, j != i)``,  ``R_i = reward - kl_coef * sum_t (log pi_old(a_t) - log pi_ref(a_t))``

    which leaves REINFORCE's gradient, ``-A_i * grad log pi(completion)``, unbiased and takes most of its variance away. With
    several epochs the ratio of the whole completion's probabilities is clipped as in PPO; in the first update it is 1, and the
    gradient is exactly that of REINFORCE. The simplest method that works: try it first where the reward comes at the end.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO`, and

    * ``train/policy_gradient_loss``, ``train/entropy_loss``, ``train/approx_kl``, ``train/loss``: as there;
    * ``train/clip_fraction``: share of clipped completions;
    * ``train/reward_std``: mean over groups of the standard deviation of penalised returns.
    """

    token_means = frozenset({"approx_kl"})

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
        target_kl: float | None = None,
        kl_coef: float = 0.05,
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
            target_kl: See there.
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        check_positive("clip_range", clip_range)
        self.clip_range = clip_range
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
        returns = self._returns(sequences.with_(rewards=sequences.rewards - penalty))
        self.logger.record("train/reward_std", float(self._spread(returns).mean()))
        return self._to_tokens(sequences, leave_one_out(returns, self.num_generations))

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        mask, clip_range = part.action_mask, self._now(self.clip_range)
        log_probs, _, entropies = self.policy.evaluate_sequences(
            part, self.decoding.temperature, entropies=self.ent_coef != 0
        )
        log_ratio = torch.where(mask, log_probs - part.log_probs, torch.zeros_like(log_probs))
        ratio = log_ratio.sum(-1).exp()  # [B], of whole completions
        advantages = sequence_mean(part.advantages, mask)  # the same at every token
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)
        policy_loss = -surrogate.mean()
        spread = entropies if self.ent_coef != 0 else part.entropies
        entropy_loss = -sequence_mean(spread, mask).mean()
        return policy_loss + self.ent_coef * entropy_loss, {
            "policy_gradient_loss": policy_loss.item(),
            "entropy_loss": entropy_loss.item(),
            "approx_kl": masked_mean((log_ratio.exp() - 1) - log_ratio, mask).item(),
            "clip_fraction": ((ratio - 1).abs() > clip_range).float().mean().item(),
        }

    def _weight(self, part: Sequences, batch: Sequences) -> float:
        return len(part) / len(batch)
