"""What the plain policy gradient's algorithms share: one update a rollout, along ``A_t * grad log pi(a_t)``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.losses import explained_variance, masked_mean, policy_gradient_loss, value_loss, whiten
from textgym_agents.rollouts.buffers import Sequences

_ALL = 2**31  # episodes: more than any rollout has


class PolicyGradientAlgorithm(TextAlgorithm):
    """An algorithm that makes one step along the policy gradient of a whole rollout, and then forgets the rollout.

    So every update is strictly on-policy: there is no ratio, and nothing to clip. The loss is the mean over tokens of
    ``-A_t * log pi(a_t | s_t)``, and where there is a value function, ``vf_coef`` times its mean squared error.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"batch_size", "n_epochs", "target_kl"})
    token_means = frozenset[str]()

    def __init__(self, policy: Any, env: Any, *, normalize_advantage: bool, **kwargs: Any) -> None:
        """Args: as for :class:`TextAlgorithm`; ``normalize_advantage``: to mean 0 and standard deviation 1."""
        self.normalize_advantage = normalize_advantage
        super().__init__(policy, env, batch_size=_ALL, n_epochs=1, target_kl=None, **kwargs)

    def train(self) -> None:
        """Updates the policy on the rollout in the buffer; see SB3."""
        super().train()
        if self.vf_coef > 0:
            whole = self.rollout_buffer.sequences
            known = explained_variance(whole.values, whole.returns, whole.action_mask)
            self.logger.record("train/explained_variance", known)

    def _prepared(self, batch: Sequences) -> Sequences:
        if not self.normalize_advantage:
            return batch
        return batch.with_(advantages=whiten(batch.advantages, batch.action_mask))

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        mask = part.action_mask
        log_probs, values, entropies = self.policy.evaluate_sequences(
            part, self.decoding.temperature, entropies=self.ent_coef != 0
        )
        loss = policy_loss = policy_gradient_loss(log_probs, part.advantages, mask)
        entropy_loss = -masked_mean(entropies if self.ent_coef != 0 else part.entropies, mask)
        if self.ent_coef != 0:
            loss = loss + self.ent_coef * entropy_loss
        numbers = {"policy_gradient_loss": policy_loss.item(), "entropy_loss": entropy_loss.item()}
        if self.vf_coef > 0:
            error = value_loss(values, part.values, part.returns, mask, None)
            loss, numbers["value_loss"] = loss + self.vf_coef * error, error.item()
        return loss, numbers
