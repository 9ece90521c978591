"""Length of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, expected
from textgym.rewards.base import Reward, Scores


class Length(Reward):
    """Number of words of the completion (or of tokens, or characters), at least 0.

    With ``target``, minus the distance from it instead, so at most 0.
    """

    name = "length"

    def __init__(self, unit: str = "words", target: int | None = None) -> None:
        """Args: unit: ``"words"`` (split at white space), ``"tokens"`` or ``"characters"``. target: Wanted length, at least 0.

        Raises:
            ValueError: Another unit, or a negative target.
        """
        if unit not in ("words", "tokens", "characters"):
            raise ValueError(expected("unit", unit, "'words', 'tokens' or 'characters'"))
        if target is not None and target < 0:
            raise ValueError(expected("target", target, "None or a number of at least 0"))
        self.unit, self.target = unit, target
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
