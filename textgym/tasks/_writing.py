"""What generators of text share: drawing, filling templates, articles, names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

NAMES = tuple(
    """Anna Ben Clara David Emma Felix Grace Hugo Ines Jonas Karin Leo Maria Nina Oscar Paul Rosa Sam Tom Vera""".split()
)
SURNAMES = tuple("Adams Brown Carter Diaz Ellis Foster Green Hall Keller Lopez Meyer Novak Rossi Smith Young".split())
CITIES = tuple("Berlin Boston Cairo Lima Lisbon London Madrid Oslo Paris Rome Tokyo Vienna".split())
MONTHS = tuple("January February March April May June July August September October November December".split())
WEEKDAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
_SLOT = re.compile(r"\{(\w+)\}")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of ``choices``, each as likely as the other."""
    return choices[int(rng.random() * len(choices))]


def pick_some(rng: np.random.Generator, choices: Sequence[T], count: int) -> list[T]:
    """``count`` different ones of ``choices``, in random order."""
    return [choices[int(i)] for i in rng.permutation(len(choices))[:count]]


def fill(rng: np.random.Generator, text: str, tables: Mapping[str, Sequence[str]]) -> str:
    """``text`` with every ``{name}`` replaced by one of ``tables[name]``, which may have slots of their own."""
    while "{" in text:
        text = _SLOT.sub(lambda found: pick(rng, tables[found[1]]), text)
    return text


def with_article(noun: str) -> str:
    """``noun`` with "a" or "an", by its first letter."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def capitalized(text: str) -> str:
    """``text`` with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]
