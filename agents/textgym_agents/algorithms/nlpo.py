"""Natural Language Policy Optimization: PPO on the tokens that a slower copy of the policy finds likely."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from textgym.core import expected, number, whole_number
from textgym_agents.algorithms.options import PPOOptions
from textgym_agents.algorithms.ppo import PPO
from textgym_agents.algorithms.saving import Stateful
from textgym_agents.models.backbone import backbone_of
from textgym_agents.models.token_scores import token_scores
from textgym_agents.policies import LMPolicy, chosen_in
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.masked_writer import MaskedWriter
from textgym_agents.rollouts.writers import RolloutWriter


class NLPO(PPO):
    """Natural Language Policy Optimization (Ramamurthy et al. 2023, https://arxiv.org/abs/2210.01241).

    PPO with fewer actions: in state ``s`` the policy draws among the fewest tokens whose probabilities under the *masking
    policy* add up to ``mask_top_p``,

        ``pi(a | s) is proportional to exp(logit(a)) if a is in top-p of pi_mask(. | s), else 0``

    and the masking policy is a copy of the policy, made anew every ``mask_update_interval`` rollouts. What the model finds
    absurd is never tried; between refreshes the mask stays as it is, however far the policy goes. All log-probabilities (of the
    policy, of rollouts and of the reference) are those of the distribution on these tokens.

    When to use it: where the vocabulary is large, most of it is nonsense in any context, and rewards are few. Decoding costs
    twice as much, for both policies read every token.

    Nothing in this says what becomes of the tokens outside the mask: no rollout has them, so their logits drift, and a policy
    that is later read without a mask writes them. So the loss has a second part, which the paper does not have:
    ``mask_loss_coef`` times the mean of ``-log`` of the probability that the policy, unmasked, gives to the tokens inside.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: as for :class:`PPO`, ``train/mask_age``, the rollouts since the mask was refreshed, and
    ``train/mask_loss``, that mean, in nats a token.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        *,
        mask_top_p: float = 0.9,
        mask_update_interval: int = 10,
        mask_loss_coef: float = 0.5,
        **options: Unpack[PPOOptions],
    ) -> None:
        """Makes the algorithm.

        Args:
            policy: As for :class:`PPO`.
            env: As for :class:`PPO`.
            mask_top_p: * Probability that the allowed tokens have under the masking policy, in (0, 1]; 1 is PPO.
            mask_update_interval: * Rollouts after which the masking policy becomes the policy as it is then.
            mask_loss_coef: * Weight of keeping the policy's probability inside the mask, at least 0; see the class.
            options: All other arguments of :class:`PPO`, and their defaults.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        self.mask_top_p = number("mask_top_p", mask_top_p, 0, 1, above=True, wanted="in (0, 1]")
        self.mask_loss_coef = number("mask_loss_coef", mask_loss_coef, 0, float("inf"), wanted="at least 0")
        self.mask_update_interval = whole_number("mask_update_interval", mask_update_interval, 1)
        if (backend := options.get("rollout_backend", "transformers")) != "transformers":
            raise ValueError(expected("rollout_backend", backend, "'transformers' with NLPO"))
        self.mask_age = 0
        super().__init__(policy, env, **options)

    def _make_writer(self) -> RolloutWriter:
        self.mask_model = copy.deepcopy(self.policy.model).requires_grad_(False).eval()
        backbone = backbone_of(self.mask_model, self.policy.vocab_size, self.policy.bf16)
        return MaskedWriter(self.policy, self.decoding, self.generator, backbone, self.mask_top_p)

    def train(self) -> None:
        """Updates the policy on the rollout in the buffer, and every so often the mask; see SB3."""
        super().train()
        self.logger.record("train/mask_age", self.mask_age)
        self.mask_age += 1
        if self.mask_age == self.mask_update_interval:
            self.mask_model.load_state_dict(self.policy.model.state_dict())
            self.mask_age = 0

    def _loss(self, part: Sequences) -> tuple[Tensor, dict[str, float]]:
        loss, numbers = super()._loss(part)
        if self.mask_loss_coef == 0 or self.mask_top_p == 1:
            return loss, numbers
        hidden, tokens = chosen_in(part, self.policy.backbone)
        head, temperature = self.policy.backbone.head, self.decoding.temperature
        inside, _ = token_scores(hidden, head, tokens, part.support(), temperature)
        anywhere, _ = token_scores(hidden, head, tokens, replace(part, supports=None).support(), temperature)
        lost = (inside - anywhere).mean()  # p(a) / mass is p(a | inside), so this is -log mass
        return loss + self.mask_loss_coef * lost, {**numbers, "mask_loss": lost.item()}

    def _models(self) -> Mapping[str, Stateful]:
        return {**super()._models(), "mask": self.mask_model}

    def _progress(self) -> dict[str, Any]:
        return {**super()._progress(), "mask_age": self.mask_age}

    def _restore(self, progress: dict[str, Any], random: dict[str, Tensor], given: Any) -> None:
        super()._restore(progress, random, given)
        self.mask_age = progress["mask_age"]
