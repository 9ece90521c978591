"""The two records that everything passes around: what an episode starts from, and what a policy wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

FinishReason = Literal["stop", "length"]
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """What an episode starts from.

    Attributes:
        prompt: The text that the policy continues.
        references: Texts that a metric may compare with; empty where a task has none.
        meta: Anything else that the task or a reward function wants to know of this example.
    """

    prompt: str
    references: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote after a prompt; the unit that a reward scores.

    Attributes:
        prompt: The text of the prompt.
        text: The policy's own tokens as text, without special tokens. ``prompt + text`` reads as one text.
        references: See :class:`Example`.
        meta: See :class:`Example`.
        token_ids: The policy's own tokens, the end token included.
        finish_reason: ``"stop"`` (end token), ``"length"`` (token budget spent) or ``None`` (not finished yet, as dense
            rewards see it).
        transcript: Everything after the prompt, the other speaker's turns included; equal to ``text`` in tasks of one
            turn.
    """

    prompt: str
    text: str
    references: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    transcript: str = ""


class TextGymError(Exception):
    """Base class of the errors that textgym raises on its own account."""


def expected(what: str, value: object, wanted: object) -> str:
    """Message of a bad argument in Gymnasium's style: names the argument, what was wanted, and the value that came."""
    shown = repr(value)
    if len(shown) > 200:
        shown = shown[:197] + "..."
    return f"Expected `{what}` to be {wanted}, actual value: {shown} (type {type(value).__name__})"


def number(
    name: str, value: object, low: float, high: float, *, above: bool = False, wanted: str | None = None
) -> float:
    """``value`` as a float from ``low`` to ``high``; more than ``low`` with ``above``.

    Raises:
        ValueError: It is out of range, not finite, or not a number (``True`` is none).
    """
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not low <= value <= high or (above and value == low):  # type: ignore[arg-type,operator]
        raise ValueError(expected(name, value, wanted or f"a number from {low:g} to {high:g}"))
    return float(value)  # type: ignore[arg-type]


def whole_number(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least``.

    Raises:
        ValueError: It is less, or not a whole number (``True`` is none).
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(expected(name, value, f"a whole number of at least {least}"))
    return int(value)
