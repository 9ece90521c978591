"""Named entities in text with brackets, such as ``[PER Anna Novak] visited [LOC Bern] .``; their F1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.core import Completion, expected
from textgym.metrics.base import Statistics, SumMetric

_PIECE = re.compile(r"\[|\]|[^\s\[\]]+")
_MARKS = ".,;:!?"


@dataclass(frozen=True, slots=True)
class Tagged:
    """A sentence with its entities.

    Attributes:
        words: The words without brackets and types.
        entities: Type, index of the first word, index behind the last.
    """

    words: tuple[str, ...]
    entities: frozenset[tuple[str, int, int]]


def parse_entities(text: str) -> Tagged:
    """Reads a text with brackets; any text can be read, in one pass.

    ``[``, then a type, then at least one word, then ``]`` is an entity. A bracket that is not closed, or closed
    without being open, or around another, makes no entity: its words count as words, brackets as nothing. What
    stands right before or behind a bracket without a space is a word of its own, and so is each mark of punctuation at
    the end of a word, so that "[LOC Bern].", "[LOC Bern] ." and "[LOC Bern.]" differ only in whether the full stop is
    a part of the name.
    """
    words: list[str] = []
    entities: set[tuple[str, int, int]] = set()
    start = -1  # index of the word behind the open bracket, where its type still stands; -1: none is open
    for piece in _PIECE.findall(text):
        if piece == "[":
            start = len(words)
        elif piece == "]":
            if 0 <= start < len(words) - 1:
                kind = words.pop(start)
                entities.add((kind, start, len(words)))
            start = -1
        else:
            word = piece.rstrip(_MARKS)
            words += [word, *piece[len(word) :]] if word else piece
    return Tagged(tuple(words), frozenset(entities))


class EntityF1(SumMetric):
    """Micro-averaged F1 of entities against the first reference, in [0, 1]: all of its words right, and its type.

    With ``match="boundary"`` the type does not matter. Where neither side has an entity it is 1. As CoNLL's (Tjong Kim
    Sang and De Meulder 2003, https://aclanthology.org/W03-0419). A completion whose words, brackets aside, are not
    those of the reference has no right entity, unless ``same_text=False``: then entities are compared by the words in
    them.
    """

    needs_references = True
    range = (0.0, 1.0)

    def __init__(self, match: str = "type", same_text: bool = True) -> None:
        """Args: match: ``"type"`` or ``"boundary"``. same_text: Whether the words must be those of the reference.

        Raises:
            ValueError: Another ``match``.
        """
        if match not in ("type", "boundary"):
            raise ValueError(expected("match", match, "'type' or 'boundary'"))
        self.match, self.same_text = match, bool(same_text)
        self.name = "entity_f1" if match == "type" else "boundary_f1"

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: right entities, those of the completion, those of the reference."""
        self.check(completions)
        return np.array([self._counts(c) for c in completions], dtype=np.float64).reshape(-1, 4)

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`: 2 right / (predicted + wanted); 1 where there are none, unless a text was changed."""
        right, predicted, wanted, changed = np.moveaxis(np.asarray(statistics), -1, 0)
        total = predicted + wanted
        return np.asarray(np.where(total > 0, 2 * right / np.maximum(total, 1), changed == 0))

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|match:{self.match}|text:{'same' if self.same_text else 'any'}|refs:first|version:1"

    def _counts(self, completion: Completion) -> tuple[int, int, int, int]:
        ours, theirs = parse_entities(completion.text), parse_entities(completion.references[0])
        found, wanted = self._keys(ours), self._keys(theirs)
        changed = self.same_text and ours.words != theirs.words
        return 0 if changed else len(found & wanted), len(found), len(wanted), int(changed)

    def _keys(self, tagged: Tagged) -> set[tuple[object, ...]]:
        keys: set[tuple[object, ...]] = set()
        for kind, start, end in tagged.entities:
            where = (start, end) if self.same_text else tagged.words[start:end]
            keys.add((kind, *where) if self.match == "type" else tuple(where))
        return keys


def boundary_f1() -> EntityF1:
    """``EntityF1("boundary")``, by its name in :data:`textgym.rewards.REWARDS`."""
    return EntityF1("boundary")
