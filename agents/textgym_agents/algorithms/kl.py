"""How strongly the policy is held to its reference model."""

from __future__ import annotations

import math

from textgym.core import expected, number, whole_number


class KLController:
    """The coefficient ``beta`` of the penalty ``beta * (log pi - log pi_ref)`` on every token's reward.

    Fixed without a target. With one, it is adapted as by Ziegler et al. 2019 (https://arxiv.org/abs/1909.08593, section 2.2):
    ``beta *= 1 + clip(KL / target - 1, -0.2, 0.2) * n / horizon`` after ``n`` episodes.
    """

    def __init__(self, coef: float, target: float | None = None, horizon: int = 2000) -> None:
        """Args: coef: First coefficient, at least 0. target: Wanted KL in nats an episode. horizon: Episodes.

        Raises:
            ValueError: A value is out of range, or a target is given with a coefficient of 0, which could never move.
        """
        self.coef = number("kl_coef", coef, 0, math.inf, wanted="a number of at least 0")
        if target is not None:
            number("kl_target", target, 0, math.inf, above=True, wanted="None or a number above 0 (nats an episode)")
            if coef == 0:
                raise ValueError(
                    expected("kl_coef", coef, "above 0 where kl_target is given: from 0 it could never move")
                )
        self.target, self.horizon = target, whole_number("kl_horizon", horizon, 1)

    def update(self, kl: float, n_episodes: int) -> None:
        """Adapts the coefficient to a measured ``kl`` (nats an episode, mean of ``n_episodes``)."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + error * n_episodes / self.horizon
