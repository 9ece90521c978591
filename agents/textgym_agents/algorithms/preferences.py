"""Pairs of completions of which one was preferred, as files and lists give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.core import Example, TextGymError, expected
from textgym.data.sources import given_rows
from textgym_agents.rollouts.buffers import Sequences

if TYPE_CHECKING:
    from textgym.envs.episodes import Setting

_FIELDS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Preference:
    """``chosen`` was preferred to ``rejected``; ``prompt + chosen`` reads as one text."""

    prompt: str
    chosen: str
    rejected: str


def read_preferences(dataset: str | Path | Sequence[Mapping[str, Any]]) -> list[Preference]:
    """The pairs of a JSON Lines file (also ``.gz``), or of a list of records, with ``prompt``, ``chosen`` and ``rejected``.

    Raises:
        TextGymError: No such file, or nothing in it; a record lacks a field, or one is not a text; the message has its number.
        TypeError: Neither a path nor a list.
    """
    return [_read(number, record) for number, record in given_rows(dataset)]


def _read(number: int, record: Any) -> Preference:
    if not isinstance(record, Mapping):
        raise TextGymError(expected(f"record {number} of dataset", record, f"an object with {_FIELDS}"))
    for name in _FIELDS:
        if not isinstance(record.get(name), str):
            raise TextGymError(expected(f"{name!r} of record {number} of dataset", record.get(name), "a text"))
    return Preference(*(record[name] for name in _FIELDS))


class PreferencePairs:
    """Encoded pairs, drawn uniformly."""

    def __init__(self, pairs: Sequence[Preference], setting: Setting) -> None:
        """Encodes the pairs; completions end with the end token, and are cut at the token budget.

        Raises:
            PromptError: A prompt has no token, or too many.
        """
        self.prompts = setting.encode_prompts([Example(pair.prompt) for pair in pairs])
        end, most = setting.tokenizer.eos_token_id, setting.max_new_tokens
        self.chosen, self.rejected = (
            [[*ids, end][:most] for ids in setting.tokenizer.encode_batch([getattr(pair, side) for pair in pairs])]
            for side in ("chosen", "rejected")
        )

    def draw(self, n: int, rng: np.random.Generator) -> Sequences:
        """``2 n`` completions: chosen and rejected ones of ``n`` pairs by turns."""
        picked = rng.integers(len(self.prompts), size=n)
        return Sequences.of(
            [self.prompts[i] for i in picked for _ in range(2)],
            [side[i] for i in picked for side in (self.chosen, self.rejected)],
            None,
        )
