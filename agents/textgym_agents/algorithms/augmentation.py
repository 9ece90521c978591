"""Noisy copies of prompts and references, so that a few examples teach more."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textgym.core import Example, expected, number

SIDES = ("prompts", "references", "both")


@dataclass(frozen=True)
class Augmentation:
    """How texts are varied, word by word ("easy data augmentation", Wei and Zou 2019, https://arxiv.org/abs/1901.11196).

    Words that are inserted or put in another's place come from the texts of the same batch, so from the task's own language.

    Attributes:
        insertion: Chance that a word is inserted behind a word, in [0, 1].
        deletion: Chance that a word is left out, in [0, 1); at least one word stays.
        substitution: Chance that a word is replaced, in [0, 1].
        sides: ``"prompts"``, ``"references"`` or ``"both"``.
        back_translation: From a list of texts to as many paraphrases, such as a translation there and back; is asked before
            words are varied. ``None``: none.

    Raises:
        ValueError: A value is out of range.
    """

    insertion: float = 0.0
    deletion: float = 0.0
    substitution: float = 0.0
    sides: str = "prompts"
    back_translation: Callable[[list[str]], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        for name in ("insertion", "deletion", "substitution"):
            number(f"augmentation[{name!r}]", getattr(self, name), 0, 1)
        if self.deletion == 1:
            raise ValueError(expected("augmentation['deletion']", self.deletion, "below 1: no word would be left"))
        if self.sides not in SIDES:
            raise ValueError(expected("augmentation['sides']", self.sides, f"one of {SIDES}"))
        if self.back_translation is not None and not callable(self.back_translation):
            wanted = "a function from a list of texts to a list of texts"
            raise TypeError(expected("augmentation['back_translation']", self.back_translation, wanted))

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> Augmentation | None:
        """From keyword arguments; ``None`` stays ``None``.

        Raises:
            ValueError, TypeError: A setting is unknown or bad.
        """
        if settings is None:
            return None
        known = ("insertion", "deletion", "substitution", "sides", "back_translation")
        if not isinstance(settings, Mapping) or not set(settings) <= set(known):
            raise ValueError(expected("augmentation", settings, f"None, or a dict with some of {known}"))
        return cls(**settings)

    def __call__(self, examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
        """Varied copies of examples.

        Raises:
            ValueError: ``back_translation`` did not give as many texts as it got.
        """
        found = list(examples)
        if self.sides != "references":
            prompts = self._varied([e.prompt for e in found], rng)
            found = [replace(e, prompt=p) for e, p in zip(found, prompts, strict=True)]
        if self.sides != "prompts":
            texts = iter(self._varied([r for e in found for r in e.references], rng))
            found = [replace(e, references=tuple(next(texts) for _ in e.references)) for e in found]
        return found

    def _varied(self, texts: list[str], rng: np.random.Generator) -> list[str]:
        if self.back_translation is not None:
            answered = list(self.back_translation(list(texts)))
            if len(answered) != len(texts) or not all(isinstance(t, str) for t in answered):
                raise ValueError(expected("back_translation's answer", answered, f"{len(texts)} texts"))
            texts = answered
        words = [w for text in texts for w in text.split()]
        return [vary(text, words, self.insertion, self.deletion, self.substitution, rng) for text in texts]


def vary(
    text: str, words: Sequence[str], insertion: float, deletion: float, substitution: float, rng: np.random.Generator
) -> str:
    """A text with some words left out, replaced by others of ``words`` or followed by one; white space stays as it was."""
    kept: list[str] = []
    pieces = re.findall(r"\s*\S+|\s+$", text)  # a word with the white space before it
    for piece in pieces:
        word = piece.lstrip()
        if not word:
            kept.append(piece)
            continue
        drop, change, add = rng.random(3) < (deletion, substitution, insertion)
        space = piece[: len(piece) - len(word)]
        if not drop:
            kept.append(space + (_one_of(words, rng) if change else word))
        if add:
            kept.append((space or " ") + _one_of(words, rng))
    changed = "".join(kept)
    if not changed.strip() and pieces:  # nothing is left: one word stays
        return pieces[int(rng.integers(len(pieces)))] or text
    return changed.lstrip() if text[:1] and not text[0].isspace() else changed


def _one_of(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
