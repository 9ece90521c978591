"""Turns whatever a user calls a reward (a name, weights, a function, a function written for TRL) into a ``Reward``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from textgym.core import Completion, expected
from textgym.rewards.base import Reward, Scores, WeightedSum

REWARDS: dict[str, str] = {
    "accuracy": "textgym.metrics.answers:Accuracy",
    "bleu": "textgym.metrics.bleu:BLEU",
    "boundary_f1": "textgym.metrics.entities:boundary_f1",
    "chrf": "textgym.metrics.chrf:CHRF",
    "cider": "textgym.metrics.cider:CIDEr",
    "coverage": "textgym.metrics.coverage:Coverage",
    "distinct_1": "textgym.metrics.diversity:distinct_1",
    "distinct_2": "textgym.metrics.diversity:distinct_2",
    "entity_f1": "textgym.metrics.entities:EntityF1",
    "entropy": "textgym.metrics.diversity:Entropy",
    "exact_match": "textgym.metrics.answers:ExactMatch",
    "fluency": "textgym.metrics.fluency:Fluency",
    "human": "textgym.rewards.human:Human",
    "length": "textgym.rewards.length:Length",
    "lm_score": "textgym.metrics.language_model:LMScore",
    "meteor": "textgym.metrics.meteor:METEOR",
    "metre": "textgym.metrics.pronunciation:Metre",
    "msttr": "textgym.metrics.diversity:MSTTR",
    "parent": "textgym.metrics.parent:PARENT",
    "readability": "textgym.metrics.readability:Readability",
    "perplexity": "textgym.metrics.language_model:Perplexity",
    "repetition": "textgym.rewards.repetition:Repetition",
    "reply_preference": "textgym.rewards.reply_preference:ReplyPreference",
    "rhyme": "textgym.metrics.pronunciation:Rhyme",
    "rouge1": "textgym.metrics.rouge:rouge1",
    "rouge2": "textgym.metrics.rouge:rouge2",
    "rougeL": "textgym.metrics.rouge:rougeL",
    "rougeLsum": "textgym.metrics.rouge:rougeLsum",
    "self_bleu": "textgym.metrics.diversity:SelfBLEU",
    "sentiment": "textgym.rewards.sentiment:Sentiment",
    "slips": "textgym.rewards.word_order:Slips",
    "ter": "textgym.metrics.ter:TER",
    "token_f1": "textgym.metrics.answers:TokenF1",
    "toxicity": "textgym.metrics.toxicity:Toxicity",
}
"""Rewards and metrics that can be asked for by name, as ``module:class``; a module is imported when it is asked for."""

_OWN = ("prompt", "completion", "references", "meta")


class FunctionReward(Reward):
    """A plain function as a reward.

    Two forms are accepted as they are:

    * one completion a call, with any of the parameters ``completion`` (text), ``prompt``, ``references``, ``meta``; a
      function of a single parameter of any other name gets the completion's text; returns a number;
    * a batch a call, as written for TRL: parameters among ``prompts``, ``completions``, ``completion_ids``, any column of
      ``meta`` and ``**kwargs``, all passed by name as lists; returns a list of numbers. A function with a parameter
      named ``prompts``, ``completions`` or ``completion_ids`` is taken to be of this form.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None, heavy: bool = False) -> None:
        """Makes the reward.

        Args:
            function: See above.
            name: Defaults to the function's own.
            heavy: See :class:`Reward`; for a function that asks a model or a network.

        Raises:
            TypeError: The function's parameters fit neither form.
        """
        self.function, self.heavy = function, heavy
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:  # a builtin without a signature gets the text
            parameters = [inspect.Parameter("text", inspect.Parameter.POSITIONAL_ONLY)]  # type: ignore[assignment]
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._keywords = named
        self._takes_all = any(p.kind == p.VAR_KEYWORD for p in parameters)
        required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self._batched = bool(named & {"prompts", "completions", "completion_ids"})
        self._positional = not self._batched and not set(_OWN) & named
        fits = len(required) == 1 if self._positional else self._batched or {p.name for p in required} <= set(_OWN)
        if not fits:
            raise TypeError(
                f"Expected a reward function of one text, of names among {_OWN}, or of TRL's form "
                f"(prompts=, completions=, **columns), actual: {self.name}{inspect.signature(function)}"
            )

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        if self._batched:
            return self.function(**self._columns(completions))  # type: ignore[no-any-return]
        if self._positional:
            return np.array([self.function(c.text) for c in completions])
        scores = []
        for c in completions:
            known = {"prompt": c.prompt, "completion": c.text, "references": list(c.references), "meta": dict(c.meta)}
            scores.append(self.function(**{k: v for k, v in known.items() if k in self._keywords}))
        return np.array(scores)

    def _columns(self, completions: Sequence[Completion]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            "prompts": [c.prompt for c in completions],
            "completions": [c.text for c in completions],
            "completion_ids": [list(c.token_ids) for c in completions],
            "references": [list(c.references) for c in completions],
        }
        for key in {key for c in completions for key in c.meta}:
            columns.setdefault(key, [c.meta.get(key) for c in completions])
        return {k: v for k, v in columns.items() if self._takes_all or k in self._keywords}


def as_reward(value: object) -> Reward:
    """The ``Reward`` that ``value`` stands for.

    Args:
        value: A :class:`Reward`; a name in :data:`REWARDS`; a mapping of names to weights, such as
            ``{"sentiment": 1.0, "length": -0.01}``; or a function (see :class:`FunctionReward`).

    Raises:
        TypeError: Something else.
        ValueError: An unknown name, or an empty mapping.
    """
    if isinstance(value, Reward):
        return value
    if isinstance(value, str):
        if value not in REWARDS:
            raise ValueError(expected("reward", value, f"one of {sorted(REWARDS)}"))
        module, _, name = REWARDS[value].partition(":")
        return getattr(importlib.import_module(module), name)()  # type: ignore[no-any-return]
    if isinstance(value, Mapping):
        if not value:
            raise ValueError(expected("reward", value, "a mapping of at least one reward name to its weight"))
        return WeightedSum([(weight, as_reward(name)) for name, weight in value.items()])
    if isinstance(value, type) and issubclass(value, Reward):
        raise TypeError(expected("reward", value, f"a reward, not its class; write {value.__name__}()"))
    if callable(value):
        return FunctionReward(value)
    raise TypeError(expected("reward", value, "a Reward, a name, a mapping of names to weights, or a function"))
