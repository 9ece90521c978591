"""Proximal Policy Optimization for text."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule
from transformers import PreTrainedModel

from textgym.core import number, whole_number
from textgym_agents.buffers import Sequences
from textgym_agents.losses import clipped_policy_loss, explained_variance, masked_mean, value_loss, whiten
from textgym_agents.on_policy import OnPolicyTextAlgorithm, TrainingError
from textgym_agents.policies import CausalLMPolicy


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
    * ``train/policy_gradient_loss``, ``train/value_loss``, ``train/entropy_loss`` (minus the mean entropy in nats a token),
      ``train/loss``: means over minibatches (``loss``: the last);
    * ``train/approx_kl``: estimate of ``KL(pi_old || pi)`` in nats a token, ``train/clip_fraction``: share of clipped tokens;
    * ``train/explained_variance``: how much of the returns the values foresaw: 1 all, 0 nothing.
    """

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
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
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: int = 2000,
        ref_model: str | PreTrainedModel | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
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
            policy: ``"CausalLMPolicy"`` or a subclass of :class:`CausalLMPolicy`.
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
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            kl_target: * Wanted KL in nats an episode: the coefficient adapts to it; ``None`` keeps it fixed.
            kl_horizon: * Episodes over which it adapts.
            ref_model: * The reference; ``None``: the policy's model as it is now.
            temperature: * Of sampling in rollouts.
            top_k: * Sample among the ``k`` most likely tokens; 0 for all.
            top_p: * Nucleus sampling; 1 for all.
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
        whole_number("batch_size", batch_size, 1)
        whole_number("n_epochs", n_epochs, 1)
        for name, value in (("clip_range", clip_range), ("clip_range_vf", clip_range_vf), ("target_kl", target_kl)):
            if value is None and name != "clip_range":
                continue
            if not callable(value) or name == "target_kl":
                wanted = "above 0" + ("" if name == "clip_range" else ", or None for none")
                number(name, value, 0, math.inf, above=True, wanted=wanted)
        self.batch_size, self.n_epochs = batch_size, n_epochs
        self.clip_range, self.clip_range_vf = clip_range, clip_range_vf
        self.normalize_advantage, self.target_kl = normalize_advantage, target_kl
        super().__init__(
            policy,
            env,
            n_envs=n_envs,
            learning_rate=learning_rate,
            n_steps=n_steps,
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
        self.policy.set_training_mode(False)  # dropout stays off: it would change the log-probabilities
        self._update_learning_rate(self.policy.optimizer)
        clip_range = FloatSchedule(self.clip_range)(self._current_progress_remaining)
        clip_range_vf = (
            None if self.clip_range_vf is None else FloatSchedule(self.clip_range_vf)(self._current_progress_remaining)
        )
        logged: dict[str, list[float]] = defaultdict(list)
        shuffler = torch.Generator().manual_seed(
            int(torch.randint(2**62, (1,), generator=self.generator, device=self.device))
        )
        stop = False
        for _ in range(self.n_epochs):
            for batch in self.rollout_buffer.batches(self.batch_size, shuffler):
                loss, numbers = self._loss(batch, clip_range, clip_range_vf)
                for name, found in numbers.items():
                    logged[name].append(found)
                if self.target_kl is not None and numbers["approx_kl"] > 1.5 * self.target_kl:
                    stop = True
                    break
                self._step(loss)
            self._n_updates += 1
            if stop:
                break
        for name, numbers_seen in logged.items():
            self.logger.record(f"train/{name}", numbers_seen[-1] if name == "loss" else float(np.mean(numbers_seen)))
        whole = self.rollout_buffer.sequences
        self.logger.record(
            "train/explained_variance", explained_variance(whole.values, whole.returns, whole.action_mask)
        )
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)
        self._finished_training()

    def _loss(
        self, batch: Sequences, clip_range: float, clip_range_vf: float | None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        mask = batch.action_mask
        log_probs, values, entropies = self.policy.evaluate_sequences(
            batch.input_ids,
            batch.attention_mask,
            mask.shape[1],
            batch.support(self.policy.vocab_size),
            self.decoding.temperature,
        )
        advantages = whiten(batch.advantages, mask) if self.normalize_advantage else batch.advantages
        policy_loss, clip_fraction, approx_kl = clipped_policy_loss(
            log_probs, batch.log_probs, advantages, mask, clip_range
        )
        error = value_loss(values, batch.values, batch.returns, mask, clip_range_vf)
        entropy_loss = -masked_mean(entropies, mask)
        loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * error
        return loss, {
            "policy_gradient_loss": policy_loss.item(),
            "value_loss": error.item(),
            "entropy_loss": entropy_loss.item(),
            "approx_kl": approx_kl.item(),
            "clip_fraction": clip_fraction.item(),
            "loss": loss.item(),
        }

    def _step(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss.item()} at {self.num_timesteps} timesteps (update {self._n_updates}); "
                "the weights are those from before it. Try a lower learning_rate or max_grad_norm"
            )
        self.policy.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"The gradient became {norm.item()} at {self.num_timesteps} timesteps (update {self._n_updates}); "
                "the weights are those from before it. Try a lower learning_rate"
            )
        self.policy.optimizer.step()
