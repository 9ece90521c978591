"""Episodes that were played earlier, to learn from again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from textgym.core import TextGymError, whole_number
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import Limits


class SequenceReplay:
    """The newest episodes, whole, with the rewards that the environment paid.

    Episodes of all ages lie one behind the other in the same tensors. To add some copies the others, which takes some
    milliseconds a rollout, and in return there is nothing to keep in order.

    Attributes:
        capacity: Episodes it holds at most; the oldest give way.
        sequences: All of them, the oldest first; ``None`` before the first.
    """

    sequences: Sequences | None

    def __init__(self, capacity: int, limits: Limits | None = None) -> None:
        """Args: capacity: See the class. limits: Of the episodes that :meth:`load_state_dict` brings."""
        self.capacity = whole_number("capacity", capacity, 1)
        self.sequences, self._limits = None, limits

    def __len__(self) -> int:
        """Number of episodes."""
        return 0 if self.sequences is None else len(self.sequences)

    @property
    def num_tokens(self) -> int:
        """Tokens that a policy chose in it."""
        return 0 if self.sequences is None else self.sequences.num_tokens

    def add(self, sequences: Sequences) -> None:
        """Adds finished episodes, on the CPU.

        Raises:
            TextGymError: Other tokens could be drawn in them than in those that are here.
        """
        held = self.sequences
        if held is not None:
            known = held.supports is None  # without them, limits say what could be drawn
            if known != (sequences.supports is None) or (known and held.limits != sequences.limits):
                raise TextGymError(
                    "Expected episodes of the environment whose episodes are in the replay buffer, actual: of one that "
                    f"allows other tokens ({sequences.limits} after {held.limits})"
                )
            sequences = Sequences.cat([held, sequences])
        newest = torch.arange(max(0, len(sequences) - self.capacity), len(sequences))
        self.sequences = sequences.select(newest)

    def sample(self, batch_size: int, generator: torch.Generator) -> Sequences:
        """Episodes drawn uniformly, with replacement; on the CPU, as the generator."""
        if self.sequences is None:
            raise TextGymError("Expected episodes in the replay buffer, actual: none")
        return self.sequences.select(torch.randint(len(self), (batch_size,), generator=generator))

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors; empty without episodes."""
        return {} if self.sequences is None else self.sequences.tensors()

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Holds what :meth:`state_dict` gave, and nothing else."""
        self.sequences = Sequences(**state_dict, limits=self._limits) if state_dict else None
