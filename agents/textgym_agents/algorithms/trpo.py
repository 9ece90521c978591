"""Trust Region Policy Optimization for text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor
from typing_extensions import Unpack

from textgym.core import expected, number, whole_number
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.trust_region import (
    RolloutPart,
    conjugate_gradient,
    fisher_products,
    flat_grad,
    mean_over,
)
from textgym_agents.algorithms.updates import TrainingError
from textgym_agents.losses import explained_variance, gae, whiten
from textgym_agents.models.token_scores import Head
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class TRPO(TextAlgorithm):
    """Trust Region Policy Optimization (Schulman et al. 2015, https://arxiv.org/abs/1502.05477) for text.

    One step a rollout solves, to second order,

        maximise ``mean_t (pi(a_t | s_t) / pi_old(a_t | s_t)) * A_t``
        subject to ``mean_t KL(pi_old(. | s_t) || pi(. | s_t)) <= target_kl``

    The direction ``x`` solves ``F x = g``, with ``g`` the gradient and ``F`` the Fisher matrix (the curvature of the KL), by
    conjugate gradients, which ask for products ``F v`` only. The step is ``x`` scaled to the bound, and shortened until the
    true KL is within the bound and the objective has risen; if it never is, the policy stays as it was. ``A_t`` is that of
    :class:`PPO`, penalty included.

    When to use it: where a step that is too long costs more than computing. A step takes several times PPO's time and the
    memory of second derivatives, but there is no learning rate of the policy to tune, only the KL that a step may cost. The
    value head learns beside it, on hidden states that it does not change.

    It is a Stable-Baselines3 algorithm; keyword names are those of sb3-contrib's TRPO, except those marked *.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO`, and

    * ``train/policy_objective``: how much the objective rose; 0 where no step was made;
    * ``train/kl_divergence_loss``: ``KL(pi_old || pi)`` of the step made, in nats a token, exact and at most ``target_kl``;
    * ``train/line_search_success``: 1 if a step was made; ``train/line_search_tries``;
    * ``train/value_loss``, ``train/explained_variance``, ``train/entropy_loss``: as there.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 1,
        gamma: float = 1.0,
        cg_max_steps: int = 10,
        cg_damping: float = 0.1,
        line_search_shrinking_factor: float = 0.8,
        line_search_max_iter: int = 10,
        n_critic_updates: int = 10,
        gae_lambda: float = 0.95,
        normalize_advantage: bool = True,
        target_kl: float = 0.01,
        sub_sampling_factor: int = 1,
        kl_coef: float = 0.05,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: See there.
            learning_rate: Of the value head.
            n_steps: See there; all tokens of a rollout make one step.
            gamma: Discount; 1 suits a reward at the end.
            cg_max_steps: Most steps of conjugate gradients.
            cg_damping: Added to the diagonal of the Fisher matrix.
            line_search_shrinking_factor: A step that fails is tried again at this length, in (0, 1).
            line_search_max_iter: Most tries.
            n_critic_updates: Updates of the value head a rollout.
            gae_lambda: Bias against variance of the advantage.
            normalize_advantage: To mean 0 and standard deviation 1 over the tokens of a rollout.
            target_kl: The bound, in nats a token, above 0.
            sub_sampling_factor: The Fisher matrix is that of every so many-th episode: cheaper, less exact.
            kl_coef: * Penalty against the reference model; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`. There is no entropy bonus.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        number("target_kl", target_kl, 0, math.inf, above=True, wanted="above 0")
        self.cg_max_steps = whole_number("cg_max_steps", cg_max_steps, 1)
        self.cg_damping = number("cg_damping", cg_damping, 0, math.inf)
        self.line_search_max_iter = whole_number("line_search_max_iter", line_search_max_iter, 1)
        shrinking = number("line_search_shrinking_factor", line_search_shrinking_factor, 0, 1, above=True)
        if shrinking == 1:
            raise ValueError(expected("line_search_shrinking_factor", shrinking, "above 0 and below 1"))
        self.line_search_shrinking_factor = shrinking
        self.n_critic_updates = whole_number("n_critic_updates", n_critic_updates, 1)
        self.sub_sampling_factor = whole_number("sub_sampling_factor", sub_sampling_factor, 1)
        self.normalize_advantage = normalize_advantage
        if options.get("ent_coef", 0.0) != 0.0:
            raise ValueError("Expected `ent_coef` to be 0: TRPO has no entropy bonus")
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=1,  # not used, nor is n_epochs
            n_epochs=1,
            gamma=gamma,
            gae_lambda=gae_lambda,
            vf_coef=1.0,
            target_kl=target_kl,
            kl_coef=kl_coef,
            **options,
        )

    decided = frozenset({"batch_size", "n_epochs", "vf_coef"})

    def _with_advantages(self, sequences: Sequences, penalty: Tensor) -> Sequences:
        rewards, mask = sequences.rewards - penalty, sequences.action_mask
        advantages, returns = gae(rewards, sequences.values, mask, sequences.last_values, self.gamma, self.gae_lambda)
        return sequences.with_(advantages=advantages, returns=returns)

    def train(self) -> None:
        """Makes one step on the rollout in the buffer; see SB3."""
        self.policy.set_training_mode(False)
        self._update_learning_rate(self.policy.optimizer)
        whole, mask = self.rollout_buffer.sequences, self.rollout_buffer.sequences.action_mask
        if self.normalize_advantage:
            whole = whole.with_(advantages=whiten(whole.advantages, mask))
        old_head = self._old_head()

        def parts_of(sequences: Sequences) -> list[RolloutPart]:
            chosen = [sequences.select(rows).to(self.device) for rows in sequences.passes(self.micro_batch_tokens)]
            return [RolloutPart(self.policy, old_head, part, self.decoding.temperature) for part in chosen]

        parts = some = parts_of(whole)
        if self.sub_sampling_factor > 1:
            some = parts_of(whole.select(torch.arange(0, len(whole), self.sub_sampling_factor)))
        weights = [p for p in self.policy.model.parameters() if p.requires_grad]
        before = list[Tensor]()

        def slope(part: RolloutPart) -> Tensor:
            objective = part.objective()
            before.append(objective.detach() * part.size / mask.sum())
            return flat_grad(objective, weights)

        gradient = mean_over(slope, parts)
        if not torch.isfinite(gradient).all():
            raise TrainingError(f"The gradient is not finite at {self.num_timesteps} timesteps; nothing was changed")

        products = fisher_products(some, weights)

        def fisher(vector: Tensor) -> Tensor:
            return products(vector) + self.cg_damping * vector

        direction = conjugate_gradient(fisher, gradient, self.cg_max_steps)
        curvature = float(direction @ fisher(direction))
        step = math.sqrt(2 * self.target_kl / curvature) * direction if curvature > 0 else torch.zeros_like(direction)  # type: ignore[operator]
        self._search(step, weights, parts, float(sum(before)))
        self._fit_values(parts)
        self.logger.record("train/entropy_loss", -float(whole.entropies[mask].mean()))
        self.logger.record("train/explained_variance", explained_variance(whole.values, whole.returns, mask))
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._rollout_start = None  # from now on a checkpoint continues behind this rollout, not before it

    def _old_head(self) -> Head:
        """A copy of the model's head, which stays as it is when the weights move."""
        head = self.policy.backbone.head.converted()
        return replace(head, weight=head.weight.detach().clone())

    @torch.no_grad()
    def _search(self, step: Tensor, weights: Sequence[Tensor], parts: Sequence[RolloutPart], before: float) -> None:
        """Moves the weights along ``step`` as far as the bound lets them, or not at all; ``before``: the objective so far."""
        old = torch.nn.utils.parameters_to_vector(weights)
        tries, gain, divergence = 0, 0.0, 0.0
        while tries < self.line_search_max_iter:
            tries += 1
            torch.nn.utils.vector_to_parameters(old + step, weights)
            objective, divergence = mean_over(lambda part: part.both(), parts).tolist()
            gain = objective - before
            if gain > 0 and divergence <= self.target_kl:
                break
            step = step * self.line_search_shrinking_factor
        else:
            torch.nn.utils.vector_to_parameters(old, weights)
            gain, divergence = 0.0, 0.0
        self.logger.record("train/policy_objective", gain)
        self.logger.record("train/kl_divergence_loss", divergence)
        self.logger.record("train/line_search_success", float(gain > 0))
        self.logger.record("train/line_search_tries", tries)

    def _fit_values(self, parts: Sequence[RolloutPart]) -> None:
        """Trains the value head, and nothing else, on what the states are now; or the whole of a value network of its own."""
        if not self.policy.share_features_extractor:
            return self._fit_value_network(parts)
        with torch.no_grad():
            states = torch.cat([part.hidden() for part in parts])
        returns, losses = torch.cat([part.returns for part in parts]), []
        for _ in range(self.n_critic_updates):
            loss = torch.nn.functional.mse_loss(self.policy.value_head(states).squeeze(-1), returns)
            self.policy.optimizer.zero_grad()  # to None: what has no gradient does not move
            loss.backward()
            self.policy.optimizer.step()
            losses.append(loss.item())
        self.logger.record("train/value_loss", sum(losses) / len(losses))

    def _fit_value_network(self, parts: Sequence[RolloutPart]) -> None:
        size, losses = sum(part.size for part in parts), list[float]()
        for _ in range(self.n_critic_updates):
            self.policy.optimizer.zero_grad()
            losses.append(0.0)
            for part in parts:
                share = part.value_error() * (part.size / size)
                share.backward()
                losses[-1] += share.item()
            self._step()
        self.logger.record("train/value_loss", sum(losses) / len(losses))
