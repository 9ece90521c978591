"""Dense rewards that keep the optimal policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, expected
from textgym.rewards.base import Reward, Scores, checked_scores
from textgym.rewards.functions import as_reward


class Shaped(Reward):
    """Potential-based shaping (Ng, Harada and Russell 1999): the step from ``s`` to ``s'`` pays ``gamma * P(s') - P(s)``.

    On the last step the wrapped reward is paid on top and ``P(s')`` is 0, so every episode's discounted return is the
    unshaped one minus ``P`` of the bare prompt, whatever the policy does: the optimal policy does not change, but credit
    arrives at the token that earned it. By default the potential is the wrapped reward itself on the unfinished text.

    The environment decodes the text on every step for it, so it costs time in proportion to the square of the length.
    """

    dense = True

    def __init__(self, reward: object, potential: object | None = None, gamma: float = 1.0) -> None:
        """Args: reward: Paid at the end. potential: Scores unfinished completions. gamma: The agent's discount, in (0, 1].

        Raises:
            ValueError: ``gamma`` outside of (0, 1], or a reward or potential that is dense already.
        """
        if (
            not isinstance(gamma, (int, float, np.integer, np.floating))
            or isinstance(gamma, bool)
            or not 0 < gamma <= 1
        ):
            raise ValueError(expected("gamma", gamma, "a number in (0, 1]"))
        self.reward = as_reward(reward)
        self._potential = self.reward if potential is None else as_reward(potential)
        for what, part in (("reward", self.reward), ("potential", self._potential)):
            if part.dense:
                raise ValueError(expected(what, part, "a reward that is not dense already"))
        self.gamma = float(gamma)
        self.name = self.reward.name
        self.range = self.reward.range

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return checked_scores(self.reward, completions)

    def parts(self, completions: Sequence[Completion]) -> tuple[Scores, dict[str, Scores]]:
        """See :meth:`Reward.parts`."""
        return self.reward.parts(completions)

    def potential(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.potential`."""
        return checked_scores(self._potential, completions)
