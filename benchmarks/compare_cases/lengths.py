"""Episodes of mixed lengths: each ends where it was drawn to end, whatever the model says."""

from __future__ import annotations

import numpy as np

SHORTEST, LONGEST = 4, 48


def draw_lengths(slots: int) -> np.ndarray:
    """Tokens of each slot's completion, the end token included: drawn uniformly from 4 to 48, once and for all.

    Both sides play these lengths in every rollout, so that no side gets the luckier draw.
    """
    return np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, slots)
