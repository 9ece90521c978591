"""Rewards that bring another reward's scores to a scale: cut off, from 0 to 1, or whitened."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, expected, number
from textgym.rewards.base import Reward, Scores, _finite
from textgym.rewards.functions import as_reward

Numbers = npt.NDArray[np.float64]


class Transformed(Reward):
    """A function of another reward's scores. Its parts are those of that reward, as they were before.

    Attributes:
        reward: The reward whose scores are transformed.
    """

    def __init__(self, reward: object) -> None:
        """Args: reward: Anything that :func:`textgym.rewards.as_reward` takes.

        Raises:
            ValueError: The reward is dense; shaping must wrap the transformed one instead.
        """
        self.reward = as_reward(reward)
        if self.reward.dense:
            raise ValueError(
                f"Expected a reward that is not dense, actual: {self.reward.name!r}; shape the transformed reward instead"
            )
        self.heavy = self.reward.heavy

    @abstractmethod
    def transform(self, scores: Numbers) -> Numbers:
        """New scores of a batch, shape ``(n,)`` to shape ``(n,)``."""

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return self.parts(completions)[0]

    def parts(self, completions: Sequence[Completion]) -> tuple[Scores, dict[str, Scores]]:
        """See :meth:`Reward.parts`."""
        scores, named = self.reward.parts(completions)
        with np.errstate(over="ignore"):  # it becomes infinity, which is told
            transformed = self.transform(scores.astype(np.float64)).astype(np.float32)
        return _finite(self, transformed, completions), named


class Clipped(Transformed):
    """``min(max(score, low), high)``."""

    def __init__(self, reward: object, low: float | None = None, high: float | None = None) -> None:
        """Args: reward: The reward. low, high: The bounds; ``None`` leaves that side open.

        Raises:
            ValueError: No bound, one that is not a finite number, ``low`` not below ``high``, or a dense reward.
        """
        super().__init__(reward)
        if low is None and high is None:
            raise ValueError(expected("low", low, "a number, where `high` is None"))
        self.low = -math.inf if low is None else number("low", low, -math.inf, math.inf, wanted="a finite number")
        self.high = math.inf if high is None else number("high", high, -math.inf, math.inf, wanted="a finite number")
        if self.low >= self.high:
            raise ValueError(expected("high", high, f"a number above `low`, {self.low:g}"))
        self.name = f"clipped({self.reward.name})"
        low, high = (float(np.clip(bound, self.low, self.high)) for bound in self.reward.range)
        self.range = (low, high)

    def transform(self, scores: Numbers) -> Numbers:
        """See :meth:`Transformed.transform`."""
        return np.clip(scores, self.low, self.high)


class Normalized(Transformed):
    """``(score - low) / (high - low)``, cut to [0, 1]: ``low`` becomes 0 and ``high`` 1.

    For an error rate give the worse, higher number as ``low``: ``Normalized(TER(), low=1, high=0)``.
    """

    range = (0.0, 1.0)

    def __init__(self, reward: object, low: float | None = None, high: float | None = None) -> None:
        """Args: reward: The reward. low, high: Scores that become 0 and 1; by default the ends of the reward's range.

        Raises:
            ValueError: A bound that is not a finite number (as is the range of some rewards: give it then), equal
                bounds, or a dense reward.
        """
        super().__init__(reward)
        ends = [end if given is None else given for given, end in zip((low, high), self.reward.range, strict=True)]
        wanted = f"a finite number (the range of {self.reward.name!r} is {self.reward.range})"
        self.low, self.high = (
            number(name, end, -math.inf, math.inf, wanted=wanted)
            for name, end in zip(("low", "high"), ends, strict=True)
        )
        if self.low == self.high:
            raise ValueError(expected("high", self.high, f"another number than `low`, {self.low:g}"))
        self.name = f"normalized({self.reward.name})"

    def transform(self, scores: Numbers) -> Numbers:
        """See :meth:`Transformed.transform`."""
        return np.clip((scores - self.low) / (self.high - self.low), 0.0, 1.0)


class Whitened(Transformed):
    """``(score - mean) / (std + epsilon)``, cut to ``[-clip, clip]``, with the moments of all scores so far.

    A batch is counted before it is transformed, as Stable-Baselines3's ``VecNormalize`` does; so the first score of all
    becomes 0. Every score counts the same (the moments of batches are merged as by Chan et al. 1979, a
    generalisation of Welford's algorithm, so nothing cancels out however large the mean); with ``momentum`` a batch's
    own moments weigh ``1 - momentum`` and all earlier ones ``momentum``, for scores that drift.

    The same text gets another score later, so call :meth:`freeze` before evaluating, and do not
    let :class:`Shaped` score unfinished texts with it (give that another potential). One object in several
    environments has one memory; a copy in another process has its own. :meth:`state` belongs into a checkpoint.
    """

    def __init__(
        self, reward: object, momentum: float | None = None, epsilon: float = 1e-8, clip: float | None = 10.0
    ) -> None:
        """Makes the reward.

        Args:
            reward: The reward.
            momentum: See above, in (0, 1); ``None`` counts every score the same.
            epsilon: Added to the standard deviation, above 0.
            clip: Largest absolute score, above 0; ``None``: none.

        Raises:
            ValueError: An argument out of range, or a dense reward.
        """
        super().__init__(reward)
        if momentum is not None and number("momentum", momentum, 0, 1, above=True) == 1:
            raise ValueError(expected("momentum", momentum, "a number in (0, 1), or None"))
        self.momentum = None if momentum is None else float(momentum)
        self.epsilon = number("epsilon", epsilon, 0, math.inf, above=True, wanted="a finite number above 0")
        self.clip = (
            math.inf
            if clip is None
            else number("clip", clip, 0, math.inf, above=True, wanted="a number above 0, or None")
        )
        self.name = f"whitened({self.reward.name})"
        self.range = (-self.clip, self.clip)
        self.frozen = False
        self._count, self._mean, self._variance = 0, 0.0, 0.0

    def freeze(self, frozen: bool = True) -> None:
        """Stops (or, with ``False``, resumes) counting: scores are still whitened, by what was counted so far."""
        self.frozen = bool(frozen)

    def state(self) -> dict[str, float]:
        """What was counted so far: ``count``, ``mean``, ``variance``; fit for JSON, which keeps it exactly."""
        return {"count": self._count, "mean": self._mean, "variance": self._variance}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what :meth:`state` gave.

        Raises:
            ValueError: Other keys, or numbers that cannot be such.
        """
        if not isinstance(state, Mapping) or set(state) != {"count", "mean", "variance"}:
            raise ValueError(expected("state", state, "a mapping with count, mean and variance"))
        count = number("count", state["count"], 0, math.inf, wanted="a whole number of at least 0")
        if not count.is_integer():
            raise ValueError(expected("count", state["count"], "a whole number of at least 0"))
        mean = number("mean", state["mean"], -math.inf, math.inf, wanted="a finite number")
        variance = number("variance", state["variance"], 0, math.inf, wanted="a finite number of at least 0")
        self._count, self._mean, self._variance = int(count), mean, variance

    def transform(self, scores: Numbers) -> Numbers:
        """See :meth:`Transformed.transform`."""
        if scores.size and not self.frozen:
            self._add(scores)
        return np.clip((scores - self._mean) / (math.sqrt(self._variance) + self.epsilon), -self.clip, self.clip)

    def _add(self, scores: Numbers) -> None:
        total = self._count + scores.size
        share = scores.size / total if self.momentum is None or not self._count else 1 - self.momentum
        mean, variance = float(scores.mean()), float(scores.var())
        step = mean - self._mean
        self._variance += share * (variance - self._variance) + share * (1 - share) * step * step
        self._count, self._mean = total, self._mean + share * step
