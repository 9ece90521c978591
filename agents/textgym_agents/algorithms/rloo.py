"""REINFORCE Leave-One-Out."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from transformers import PreTrainedModel

from textgym_agents.algorithms.groups import GroupAlgorithm
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
        ent_coef: float = 0.0,
        max_grad_norm: float = 1.0,
        target_kl: float | None = None,
        micro_batch_tokens: int = 8192,
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: int = 2000,
        ref_model: str | PreTrainedModel | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        rollout_backend: str = "transformers",
        rollout_kwargs: dict[str, Any] | None = None,
        n_envs: int = 64,
        env_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
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
            ent_coef: Weight of the entropy bonus.
            max_grad_norm: See there.
            target_kl: See there.
            micro_batch_tokens: See there.
            kl_coef: See there.
            kl_target: See there.
            kl_horizon: See there.
            ref_model: See there.
            temperature: See there.
            top_k: See there.
            top_p: See there.
            rollout_backend: See there.
            rollout_kwargs: See there.
            n_envs: See there.
            env_kwargs: See there.
            stats_window_size: See there.
            tensorboard_log: See there.
            policy_kwargs: See there.
            verbose: See there.
            seed: See there.
            device: See there.
            _init_setup_model: SB3's.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        super().__init__(
            policy,
            env,
            num_generations=num_generations,
            clip_range=clip_range,
            n_envs=n_envs,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            micro_batch_tokens=micro_batch_tokens,
            target_kl=target_kl,
            ent_coef=ent_coef,
            max_grad_norm=max_grad_norm,
            kl_coef=kl_coef,
            kl_target=kl_target,
            kl_horizon=kl_horizon,
            ref_model=ref_model,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            rollout_backend=rollout_backend,
            rollout_kwargs=rollout_kwargs,
            env_kwargs=env_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
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
