"""The reward protocol: a reward scores a batch of completions, has a name and a range, and composes by arithmetic."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, TextGymError, expected

Scores = npt.NDArray[np.float32]


class RewardError(TextGymError, ValueError):
    """A reward raised, or returned something that is not one finite number a completion."""


class Reward(ABC):
    """Scores completions.

    Subclasses set ``name`` and ``range`` and define ``__call__``. A dense reward also defines ``potential``: the
    environment then pays ``gamma * potential(s') - potential(s)`` on every step (see :mod:`textgym.rewards.shaping`).

    Attributes:
        name: Under ``reward/<name>`` the score appears in the ``info`` of a finished episode.
        range: Lowest and highest score that can come out, infinities allowed.
        dense: Whether ``potential`` is paid out step by step.
        gamma: Discount that the potential is shaped with; only read where ``dense``.
        heavy: Whether a score takes so long (a model, a network) that rollouts should go on meanwhile. Such a reward is called
            in another thread, never twice at a time.
    """

    name: str = "reward"
    range: tuple[float, float] = (-math.inf, math.inf)
    dense: bool = False
    gamma: float = 1.0
    heavy: bool = False

    @abstractmethod
    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """Scores of finished completions.

        Args:
            completions: ``n`` completions.

        Returns:
            Scores of shape ``(n,)``, float32, within ``range``.
        """

    def potential(self, completions: Sequence[Completion]) -> Scores:
        """Potential of unfinished completions, shape ``(n,)``; zero unless the reward is dense."""
        return np.zeros(len(completions), dtype=np.float32)

    def parts(self, completions: Sequence[Completion]) -> tuple[Scores, dict[str, Scores]]:
        """Scores together with every named part they are made of (for a simple reward: itself), each of shape ``(n,)``."""
        scores = checked_scores(self, completions)
        return scores, {self.name: scores}

    def __add__(self, other: Reward | float) -> Reward:
        return WeightedSum([(1.0, self), *_terms(other, 1.0)])

    def __sub__(self, other: Reward | float) -> Reward:
        return WeightedSum([(1.0, self), *_terms(other, -1.0)])

    def __rsub__(self, other: float) -> Reward:
        return WeightedSum([(-1.0, self), *_terms(other, 1.0)])

    def __mul__(self, other: Reward | float) -> Reward:
        if isinstance(other, Reward):
            return Product(self, other)
        return WeightedSum([(_number(other), self)])

    def __truediv__(self, other: float) -> Reward:
        if _number(other) == 0:
            raise ValueError(expected("divisor", other, "a finite number other than 0"))
        return WeightedSum([(1.0 / other, self)])

    def __neg__(self) -> Reward:
        return WeightedSum([(-1.0, self)])

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        low, high = self.range
        return f"{type(self).__name__}(name={self.name!r}, range=({low:g}, {high:g}))"


class Constant(Reward):
    """The same score for every completion."""

    def __init__(self, value: float) -> None:
        """Args: value: The score."""
        self.value = _number(value)
        self.name = "constant"
        self.range = (self.value, self.value)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return np.full(len(completions), self.value, dtype=np.float32)

    def parts(self, completions: Sequence[Completion]) -> tuple[Scores, dict[str, Scores]]:
        """See :meth:`Reward.parts`; a constant is no part worth naming."""
        return self(completions), {}


class WeightedSum(Reward):
    """``sum_i weight_i * reward_i``; nested sums are flattened, so that every leaf shows up as a part of its own.

    Dense terms stay dense: potentials add up with the same weights (all dense terms must share one ``gamma``).
    """

    def __init__(self, terms: Sequence[tuple[float, Reward]]) -> None:
        """Args: terms: Pairs of weight and reward.

        Raises:
            ValueError: No terms, a weight that is not finite, or dense terms with different ``gamma``.
        """
        if not terms:
            raise ValueError(expected("terms", terms, "at least one pair of weight and reward"))
        self.terms: list[tuple[float, Reward]] = []
        for weight, reward in terms:
            weight = _number(weight)
            if isinstance(reward, WeightedSum):
                self.terms += [(weight * inner, leaf) for inner, leaf in reward.terms]
            else:
                self.terms.append((weight, reward))
        self.name = " ".join(_signed(weight, reward, first=i == 0) for i, (weight, reward) in enumerate(self.terms))
        bounds = [sorted((_times(w, r.range[0]), _times(w, r.range[1]))) for w, r in self.terms]
        self.range = (sum(low for low, _ in bounds), sum(high for _, high in bounds))
        self.dense = any(reward.dense for _, reward in self.terms)
        self.heavy = any(reward.heavy for _, reward in self.terms)
        gammas = {reward.gamma for _, reward in self.terms if reward.dense}
        if len(gammas) > 1:
            raise ValueError(expected("gamma", sorted(gammas), "the same in all dense rewards that are added"))
        self.gamma = gammas.pop() if gammas else 1.0

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return self.parts(completions)[0]

    def potential(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.potential`."""
        total = np.zeros(len(completions), dtype=np.float32)
        for weight, reward in self.terms:
            if reward.dense:
                total += np.float32(weight) * checked_scores(reward, completions, potential=True)
        return total

    def parts(self, completions: Sequence[Completion]) -> tuple[Scores, dict[str, Scores]]:
        """See :meth:`Reward.parts`; a name that occurs twice gets a number behind it."""
        total = np.zeros(len(completions), dtype=np.float32)
        named: dict[str, Scores] = {}
        for weight, reward in self.terms:
            scores, inner = reward.parts(completions)
            with np.errstate(over="ignore", invalid="ignore"):
                total += np.float32(weight) * scores
            _put_parts(named, inner)
        return _finite(self, total, completions), named


class Product(Reward):
    """``left * right``, for one reward that gates another (a format that must hold for the score to count)."""

    def __init__(self, left: Reward, right: Reward) -> None:
        """Args: left, right: The factors.

        Raises:
            ValueError: A factor is dense; shaping must wrap the product instead.
        """
        if left.dense or right.dense:
            raise ValueError(
                f"Expected factors that are not dense, actual: {left.name!r} * {right.name!r}; shape the product instead"
            )
        self.left, self.right, self.heavy = left, right, left.heavy or right.heavy
        self.name = f"({left.name}) * ({right.name})"
        corners = [_times(a, b) for a in left.range for b in right.range]
        self.range = (min(corners), max(corners))

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return self.parts(completions)[0]

    def parts(self, completions: Sequence[Completion]) -> tuple[Scores, dict[str, Scores]]:
        """See :meth:`Reward.parts`; a name that occurs twice gets a number behind it."""
        left, left_parts = self.left.parts(completions)
        right, right_parts = self.right.parts(completions)
        named: dict[str, Scores] = {}
        _put_parts(named, left_parts)
        _put_parts(named, right_parts)
        with np.errstate(over="ignore"):
            return _finite(self, left * right, completions), named


def checked_scores(reward: Reward, completions: Sequence[Completion], *, potential: bool = False) -> Scores:
    """Calls ``reward`` (or its ``potential``) and makes sure that one finite number a completion came back.

    Raises:
        RewardError: The reward raised, or returned NaN, infinity, a wrong count or something that is not numeric. The
            message names the reward and shows the completion.
    """
    call = reward.potential if potential else reward
    try:
        raw: Any = call(completions)
    except RewardError:
        raise
    except Exception as error:
        culprit = _first_that_raises(call, completions)
        raise RewardError(
            f"Reward {reward.name!r} raised {type(error).__name__}: {error}; while scoring {culprit}"
        ) from error
    first = _show(completions[0]) if completions else "an empty batch"
    try:
        if hasattr(raw, "detach"):  # a tensor of torch, perhaps with a gradient, in bfloat16, on a GPU
            raw = raw.detach().float().cpu()
        if np.asarray(raw).dtype.kind in "USc":
            raise TypeError("texts or complex numbers")
        with np.errstate(over="ignore"):  # it becomes infinity, which is told below
            scores: Scores = np.asarray(raw, dtype=np.float32)
    except Exception as error:
        raise RewardError(
            f"Reward {reward.name!r} must return numbers, actual value: {raw!r}; while scoring {first}"
        ) from error
    if scores.shape != (len(completions),):
        raise RewardError(
            f"Reward {reward.name!r} must return one score a completion, expected shape ({len(completions)},), "
            f"actual shape {scores.shape}; while scoring {first}"
        )
    return _finite(reward, scores, completions)


def _finite(reward: Reward, scores: Scores, completions: Sequence[Completion]) -> Scores:
    finite = np.isfinite(scores)
    if not finite.all():
        worst = int(np.flatnonzero(~finite)[0])
        raise RewardError(
            f"Reward {reward.name!r} must return finite scores, actual score: {scores[worst]}; "
            f"while scoring {_show(completions[worst])}"
        )
    return scores


def _first_that_raises(call: Callable[[Sequence[Completion]], Scores], completions: Sequence[Completion]) -> str:
    for completion in completions:
        try:
            call([completion])
        except Exception:
            return _show(completion)
    return _show(completions[0]) if completions else "an empty batch"


def _put_parts(named: dict[str, Scores], parts: dict[str, Scores]) -> None:
    for name, scores in parts.items():
        unique, count = name, 2
        while unique in named:
            unique, count = f"{name}_{count}", count + 1
        named[unique] = scores


def _show(completion: Completion) -> str:
    return f"completion {completion.text!r} of prompt {completion.prompt!r}"


def _number(value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not math.isfinite(value)
    ):
        raise TypeError(expected("weight", value, "a finite number or a Reward"))
    return float(value)


def _terms(value: Reward | float, sign: float) -> list[tuple[float, Reward]]:
    return [(sign, value if isinstance(value, Reward) else Constant(value))]


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _signed(weight: float, reward: Reward, *, first: bool) -> str:
    size = abs(weight) * (reward.value if isinstance(reward, Constant) else 1.0)
    sign = ("-" if first else "- ") if (weight < 0) != (size < 0) else ("" if first else "+ ")
    if isinstance(reward, Constant):
        return f"{sign}{abs(size):g}"
    return f"{sign}{reward.name}" if abs(weight) == 1 else f"{sign}{abs(weight):g} * {reward.name}"
