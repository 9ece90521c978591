"""The policy writes, but only tokens that another model finds likely."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from textgym_agents.models.backbone import Backbone
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.decoding import CachedDecoder, Limits
from textgym_agents.rollouts.sampling import Decoding, support
from textgym_agents.rollouts.writers import PolicyWriter


class MaskedWriter(PolicyWriter):
    """Draws from the policy among the nucleus of a masking model, which reads the same tokens beside it.

    The nucleus is taken among what the environment allows; the policy's own top-k and top-p narrow it further.
    """

    def __init__(
        self, policy: LMPolicy, decoding: Decoding, generator: torch.Generator, mask: Backbone, mask_top_p: float
    ) -> None:
        """Args: as for :class:`PolicyWriter`; mask: the masking model. mask_top_p: Probability of the nucleus, in (0, 1]."""
        super().__init__(policy, decoding, generator)
        self._mask, self._nucleus = mask, Decoding(top_p=mask_top_p)

    def begin(self, observations: dict[str, np.ndarray], limits: Limits | None, room: int) -> None:
        """See :meth:`RolloutWriter.begin`."""
        super().begin(observations, limits, room)
        ids, seen, own = self._observed(observations)
        self._masking = CachedDecoder(self._policy, ids, seen, own, room, self._mask)

    def _narrow(self, logits: Tensor) -> bool:
        allowed = torch.isfinite(logits)
        kept = support(self._masking.logits, allowed, self._nucleus)
        assert kept is not None
        logits.masked_fill_(~kept, -torch.inf)
        return self._nucleus.narrows

    def drop(self, ended: np.ndarray) -> np.ndarray:
        """See :meth:`RolloutWriter.drop`."""
        self._masking.drop(ended)
        return super().drop(ended)

    def append(self, ids: np.ndarray, mask: np.ndarray | None) -> None:
        """See :meth:`RolloutWriter.append`."""
        super().append(ids, mask)
        tokens = torch.as_tensor(ids, device=self._device)
        self._masking.append(tokens, None if mask is None else torch.as_tensor(mask, device=self._device))
