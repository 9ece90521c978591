"""Policies whose model has heads for the values of all tokens beside its own, and writes the better for them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from textgym_agents.models.token_scores import Head
from textgym_agents.policies import CausalLMPolicy, LMPolicy, Seq2SeqLMPolicy


class ActionValueHead(nn.Module):
    """From a hidden state to ``Q(s, a)`` of every token: a layer of twice its width, and a linear one that starts at 0."""

    def __init__(self, width: int, vocab_size: int) -> None:
        """Args: width: ``H``. vocab_size: ``V``."""
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, vocab_size)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def features(self, hidden: Tensor) -> Tensor:
        """``[..., H]`` to ``[..., 2 H]``."""
        return torch.relu(self.inner(hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        """The values of all tokens, ``[..., H]`` to ``[..., V]``."""
        values: Tensor = self.outer(self.features(hidden))
        return values

    def of(self, features: Tensor, tokens: Tensor) -> Tensor:
        """``Q(s, a)`` ``[N]`` of one token ``[N]`` a state, of which ``features`` ``[N, 2 H]`` are known."""
        return (features * self.outer.weight[tokens]).sum(-1) + self.outer.bias[tokens]

    def head(self) -> Head:
        """Its last layer, for log-probabilities under ``softmax(Q)``."""
        return Head(self.outer.weight, self.outer.bias)


class ActionValues(nn.Module):
    """Two heads of the same kind, the lower of which is believed."""

    def __init__(self, width: int, vocab_size: int) -> None:
        """Args: as for :class:`ActionValueHead`."""
        super().__init__()
        self.first, self.second = ActionValueHead(width, vocab_size), ActionValueHead(width, vocab_size)

    @property
    def heads(self) -> tuple[ActionValueHead, ActionValueHead]:
        """Both."""
        return self.first, self.second

    def forward(self, hidden: Tensor) -> Tensor:
        """``min(Q_1, Q_2)`` of all tokens, ``[..., H]`` to ``[..., V]``."""
        return torch.minimum(self.first(hidden), self.second(hidden))

    def of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """``min(Q_1, Q_2)`` ``[N]`` of one token a state, without those of the others."""
        first, second = (head.of(head.features(hidden), tokens) for head in self.heads)
        return torch.minimum(first, second)


class ActionValuePolicy(LMPolicy):
    """A language model that is steered by what it learned tokens to be worth (Snell et al. 2022, section 4).

    Wherever it writes, in rollouts, ``predict``, ``generate`` and beam search, it does so by
    ``log pi(a | s) + advantage_weight * (min(Q_1, Q_2)(s, a) - V(s))``. What ``save_pretrained`` writes has no such heads.

    Attributes:
        action_values: ``Q_1`` and ``Q_2``.
        advantage_weight: See above; 0 writes as the model does by itself.
    """

    advantage_weight: float = 1.0

    def _add_heads(self, width: int) -> None:
        self.action_values = ActionValues(width, self.vocab_size)
        self.backbone.steering = self._steering

    def _steering(self, hidden: Tensor) -> Tensor:
        steered: Tensor = self.advantage_weight * (self.action_values(hidden) - self.value_head(hidden))
        return steered.float()

    @property
    def own_head(self) -> Head:
        """The model's head as it is without steering."""
        return replace(self.backbone.head, steering=None)


class CausalActionValuePolicy(ActionValuePolicy, CausalLMPolicy):
    """As :class:`textgym_agents.policies.CausalLMPolicy`, with values of tokens."""


class Seq2SeqActionValuePolicy(ActionValuePolicy, Seq2SeqLMPolicy):
    """As :class:`textgym_agents.policies.Seq2SeqLMPolicy`, with values of tokens."""
