"""Proximal Policy Optimization for text."""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from transformers import PreTrainedModel

from textgym.core import number
from textgym_agents.algorithms.on_policy import OnPolicyTextAlgorithm
from textgym_agents.losses import clipped_policy_loss, explained_variance, gae, masked_mean, value_loss, whiten
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class PPO(OnPolicyTextAlgorithm):
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
    * ``train/explained_variance``: how much of the returns the values foresaw: 1 all, 0 nothing.
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
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
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
            ent_coef: Weight of the entropy bonus.
            vf_coef: Weight of the value loss.
            max_grad_norm: Gradients are scaled down to this norm.
            target_kl: Stops a rollout's updates once ``train/approx_kl`` exceeds 1.5 times this (nats a token).
            micro_batch_tokens: * Most tokens, padding included, that one forward and backward pass reads. A larger minibatch is
                read in several passes, whose gradients add up to the same (gradient accumulation). Lower it where memory is
                short.
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            kl_target: * Wanted KL in nats an episode: the coefficient adapts to it; ``None`` keeps it fixed.
            kl_horizon: * Episodes over which it adapts.
            ref_model: * The reference; ``None``: the policy's model as it is now.
            temperature: * Of sampling in rollouts.
            top_k: * Sample among the ``k`` most likely tokens; 0 for all.
            top_p: * Nucleus sampling; 1 for all.
            rollout_backend: * Who writes the tokens of a rollout: ``"transformers"``, the policy itself; or ``"vllm"``, whose
                engine gets the policy's weights before every rollout (needs vLLM, a causal model, ``top_k=0``, ``top_p=1``).
            rollout_kwargs: * Arguments of ``vllm.LLM``, such as ``{"gpu_memory_utilization": 0.4}``.
            n_envs: * Number of environments where ``env`` is an id.
            env_kwargs: * Arguments of the environment where ``env`` is an id.
            stats_window_size: Episodes that ``rollout/ep_rew_mean`` averages over.
            tensorboard_log: Folder for TensorBoard.
            policy_kwargs: Arguments of the policy, such as ``{"model": "bundled"}``.
            verbose: 0 silent, 1 info, 2 debug.
            seed: Of everything random: environments, sampling, minibatches.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``.
            _init_setup_model: SB3's.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        if not callable(clip_range):
            number("clip_range", clip_range, 0, math.inf, above=True, wanted="above 0")
        if clip_range_vf is not None and not callable(clip_range_vf):
            number("clip_range_vf", clip_range_vf, 0, math.inf, above=True, wanted="above 0, or None for none")
        self.clip_range, self.clip_range_vf = clip_range, clip_range_vf
        self.normalize_advantage = normalize_advantage
        super().__init__(
            policy,
            env,
            n_envs=n_envs,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            micro_batch_tokens=micro_batch_tokens,
            target_kl=target_kl,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
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
