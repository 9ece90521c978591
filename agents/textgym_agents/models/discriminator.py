"""A network that tells given completions from the policy's."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from textgym_agents.models.backbone import backbone_of


class Discriminator(nn.Module):
    """A copy of a causal language model, with a linear head on the mean of the hidden states behind the tokens so far.

    A mean, as the state behind an end token alone says little of what came before: it is about to begin something new.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int, bf16: bool | str) -> None:
        """Args: model: Is copied. vocab_size, bf16: See :class:`textgym_agents.policies.LMPolicy`."""
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(True)
        if self.model.get_output_embeddings().weight is not self.model.get_input_embeddings().weight:
            self.model.get_output_embeddings().requires_grad_(False)  # nobody reads them
        self._backbone = backbone_of(self.model, vocab_size, bf16)
        self.head = nn.Linear(self.model.get_output_embeddings().weight.shape[1], 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, mask: Tensor, written: Tensor) -> Tensor:
        """Logits ``[B, K]`` that what was written up to each token is genuine.

        Args:
            ids: ``[B, S]`` int64, left-padded.
            mask: ``[B, S]`` bool.
            written: ``[B, K]`` bool, ``K`` at most ``S``: which of the last tokens were written, rather than given.
        """
        hidden = self._backbone.states(ids, mask)[:, -written.shape[1] :]
        count = written.cumsum(-1).clamp(min=1)[..., None]
        so_far = torch.where(written[..., None], hidden, torch.zeros_like(hidden)).cumsum(1) / count
        logits: Tensor = self.head(so_far).squeeze(-1)
        return logits


def discriminator_loss(logits: Tensor, mask: Tensor, genuine: bool) -> Tensor:
    """Binary cross entropy (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661), a mean over the true entries of ``mask``.

    Args:
        logits: ``[B, K]``.
        mask: ``[B, K]`` bool.
        genuine: Whether the completions are given ones.
    """
    found = logits[mask]
    return torch.nn.functional.binary_cross_entropy_with_logits(found, torch.full_like(found, float(genuine)))
