"""Length of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, expected, whole_number
from textgym.rewards.base import Reward, Scores


class Length(Reward):
    """Number of words of the completion (or of tokens, or characters), at least 0.

    With ``target``, minus the distance from it instead, so at most 0.
    """

    name = "length"

    def __init__(self, unit: str = "words", target: int | None = None) -> None:
        """Args: unit: ``"words"`` (split at white space), ``"tokens"`` or ``"characters"``. target: Wanted length, at least 0.

        Raises:
            ValueError: Another unit, or a target that is not a whole number of at least 0.
        """
        if unit not in ("words", "tokens", "characters"):
            raise ValueError(expected("unit", unit, "'words', 'tokens' or 'characters'"))
        self.unit, self.target = unit, None if target is None else whole_number("target", target, 0)
        self.range = (0.0, math.inf) if target is None else (-math.inf, 0.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        if self.unit == "words":
            counts = [len(c.text.split()) for c in completions]
        elif self.unit == "tokens":
            counts = [len(c.token_ids) for c in completions]
        else:
            counts = [len(c.text) for c in completions]
        lengths = np.array(counts, dtype=np.float32)
        return lengths if self.target is None else -np.abs(lengths - np.float32(self.target))
