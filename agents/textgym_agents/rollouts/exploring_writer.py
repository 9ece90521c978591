"""A policy that now and then writes any token at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.sampling import Decoding
from textgym_agents.rollouts.writers import PolicyWriter


class ExploringWriter(PolicyWriter):
    """With probability ``rate`` a token is drawn uniformly from the allowed ones, else by the policy.

    What is recorded of the distribution is that of the mixture.
    """

    def __init__(
        self, policy: LMPolicy, decoding: Decoding, generator: torch.Generator, rate: Callable[[], float]
    ) -> None:
        """Args: policy, decoding, generator: See :class:`PolicyWriter`; top-k and top-p are off. rate: In [0, 1]."""
        super().__init__(policy, decoding, generator)
        self._rate = rate

    def _narrow(self, logits: Tensor) -> bool:
        rate, temperature = self._rate(), self.decoding.temperature
        if rate > 0:
            allowed = torch.isfinite(logits)
            mixture = (1 - rate) * (logits / temperature).softmax(-1) + rate * allowed / allowed.sum(-1, keepdim=True)
            logits.copy_(temperature * mixture.log())  # the draw divides by the temperature
        return False
