"""A policy is optimised against a reward model, and measured on the way by what it never sees: the true reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback
from transformers import PreTrainedModel

from textgym.core import Example
from textgym.envs.episodes import Setting
from textgym.metrics import bootstrap_interval
from textgym.rewards import RewardModel
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.rlhf.judgements import scores_of
from textgym_agents.runs.callbacks import Observer
from textgym_agents.runs.evaluation import evaluate

Array = npt.NDArray[np.float64]
Rated = tuple[str, str, float]
"""Prompt, all that was written after it, and its true reward."""
_SEED = 0  # of the draws: the same at all points, so that they compare


@dataclass(frozen=True)
class Point:
    """A policy on held-out prompts; a row of ``overoptimization.csv``.

    Attributes:
        round: From 1.
        timesteps: Tokens of this round's optimisation so far.
        kl: Mean over episodes of the sum over tokens of ``log pi - log pi_0``, in nats; ``pi_0``: the model of the very start.
        true: Mean true reward; ``true_low``, ``true_high``: its 95% bootstrap interval.
        proxy: Mean score of the round's reward model, and its interval.
        true_z: ``true`` in standard deviations of the true reward over the texts of ``pi_0``, from their mean.
        proxy_z: The same of ``proxy``.
    """

    round: int
    timesteps: int
    kl: float
    true: float
    true_low: float
    true_high: float
    proxy: float
    proxy_low: float
    proxy_high: float
    true_z: float
    proxy_z: float

    @classmethod
    def read(cls, row: dict[str, str]) -> Point:
        """From a row of the file."""
        whole = ("round", "timesteps")
        return cls(**{f.name: (int if f.name in whole else float)(row[f.name]) for f in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Measured:
    """A point and what it was computed from: ``true`` and ``proxy`` of ``n`` texts, shapes ``(n,)``."""

    point: Point
    rated: list[Rated]
    true: Array
    proxy: Array


class Judge:
    """Measures policies on the same held-out prompts."""

    def __init__(
        self,
        setting: Setting,
        examples: Sequence[Example],
        reference: PreTrainedModel,
        proxy: RewardModel,
        base: Sequence[Rated],
        round_: int,
    ) -> None:
        """Args: setting: With the true reward. examples: The prompts. reference: ``pi_0``. proxy: The round's reward model.

        base: What ``pi_0`` wrote after the prompts. round_: Number of the round.
        """
        self.setting, self.examples, self.reference = setting, examples, reference
        self.proxy, self.round = proxy, round_
        self._true = _scale(np.array([reward for *_, reward in base]))
        self._proxy = _scale(scores_of(proxy, [(prompt, text) for prompt, text, _ in base]))

    def measure(self, model: TextAlgorithm, timesteps: int) -> Measured:
        """Where a policy stands; takes nothing from the training's random numbers."""
        found = evaluate(model, self.setting, examples=self.examples, seed=_SEED, reference=self.reference)
        rated = [(s.prompt, s.transcript, s.reward) for s in found.samples]
        true = np.array([reward for *_, reward in rated])
        proxy = scores_of(self.proxy, [(prompt, text) for prompt, text, _ in rated])
        assert found.kl is not None
        values = [
            (float(x) - mean) / std for x, (mean, std) in ((true.mean(), self._true), (proxy.mean(), self._proxy))
        ]
        intervals = (*bootstrap_interval(true), *bootstrap_interval(proxy))
        return Measured(Point(self.round, timesteps, found.kl, *intervals, *values), rated, true, proxy)


class MeasureCallback(BaseCallback):
    """Measures between rollouts, about every ``every`` tokens; the first and the last measurements are the caller's.

    Attributes:
        found: In order.
    """

    def __init__(self, judge: Judge, every: float, observer: Observer) -> None:
        """Args: judge: Measures. every: Tokens between two measurements. observer: Is told how far the training is."""
        super().__init__()
        self.judge, self.every, self.observer = judge, every, observer
        self.found: list[Measured] = []
        self._next = every

    def _on_rollout_start(self) -> None:
        now = self.model.num_timesteps
        if now >= self._next:
            self.found.append(self.judge.measure(self.model, now))  # type: ignore[arg-type]
            self._next = (now // self.every + 1) * self.every

    def _on_step(self) -> bool:
        self.observer.advance(self.num_timesteps)
        return True


def conclusions(found: Sequence[Measured]) -> dict[str, Any]:
    """What a round's measurements say, JSON-able.

    Returns:
        ``before``, ``after`` and ``peak`` (the point of highest true reward); ``true_change`` and ``proxy_change`` from before
        to after, ``true_since_peak`` and ``proxy_since_peak``: mean differences over prompts with 95% bootstrap intervals;
        ``fell_while_proxy_rose``: whether true reward ended below its beginning and the proxy above;
        ``overoptimised``: whether since the peak the true reward fell and the proxy rose, both intervals without 0. The peak
        is the highest of several noisy means, so a small fall since is to be expected of any policy.
    """
    first, last = found[0], found[-1]
    peak = max(found, key=lambda measured: measured.point.true)
    changes = {
        "true_change": bootstrap_interval(last.true - first.true),
        "proxy_change": bootstrap_interval(last.proxy - first.proxy),
        "true_since_peak": bootstrap_interval(last.true - peak.true),
        "proxy_since_peak": bootstrap_interval(last.proxy - peak.proxy),
    }
    points = {"before": first, "after": last, "peak": peak}
    return {
        **{name: asdict(measured.point) for name, measured in points.items()},
        **{name: list(interval) for name, interval in changes.items()},
        "fell_while_proxy_rose": changes["true_change"][0] < 0 < changes["proxy_change"][0],
        "overoptimised": changes["true_since_peak"][2] < 0 < changes["proxy_since_peak"][1],
    }


def _scale(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0
