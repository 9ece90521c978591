"""Slips of word order that no English sentence makes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from textgym.core import Completion
from textgym.rewards.base import Reward, Scores

_ARTICLES = frozenset("a an the my your its our their every".split())
_PREPOSITIONS = frozenset("of from with into at between among during without".split())
_CONJUNCTIONS = frozenset("and or but".split())
_VERBS = frozenset("is are was were be been has had have will would could should".split())
_PRONOUNS = frozenset("i he she we they it you".split())
_MAY_DOUBLE = frozenset("that had very so really much".split())
# What cannot come right after a word of the first kind. "," and "." stand for the end of a clause and of a sentence.
_NEVER_AFTER = (
    (_ARTICLES, _ARTICLES | _PREPOSITIONS | _CONJUNCTIONS | _VERBS | _PRONOUNS | {",", "."}),
    (_PREPOSITIONS, _PREPOSITIONS | _CONJUNCTIONS | _VERBS | {"i", "he", "she", "we", "they", ",", "."}),
    (_CONJUNCTIONS, _CONJUNCTIONS | {"of", "."}),
    (frozenset({"i", "we", "they", "he", "she"}), _ARTICLES | _PREPOSITIONS | _PRONOUNS),
    (_VERBS, _VERBS - {"be", "been", "had", "have"}),
)
_PIECES = re.compile(r"\w+(?:['’-]\w+)*|\.\.+|[.!?,;:]")
_MARKS = {**dict.fromkeys(".!?", "."), **dict.fromkeys(",;:", ",")}
_WORST = 0.25
_UNSURE = ("h", "u", "eu", "one", "once", "x")  # a or an: it depends on how they are spoken


class Slips(Reward):
    """How much of a text is out of order, in [0, 1]: 0 is good, 1 means that a quarter of the words or more are slips.

    A slip is a word that no English sentence has in its place. Usually subtracted.

    It knows closed classes of words only: "the of", "and .", "with was", "a apple", a word twice in a row, a new sentence
    in lower case. Fluent text has next to none; the same words in random order have many. A completion that simply stops
    is no slip: its budget may have been spent.
    """

    name = "slips"
    range = (0.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        return np.array([_badness(c.text) for c in completions], dtype=np.float32)


def _badness(text: str) -> float:
    pieces = _PIECES.findall(text)
    words = sum(piece[0] not in ".!?,;:" for piece in pieces)
    slips = sum(_is_slip(one, two) for one, two in pairwise(pieces))
    return min(1.0, slips / words / _WORST) if words else 0.0


def _is_slip(one: str, two: str) -> bool:
    if one[0] in ".!?,;:":
        return two in _MARKS or (one in (".", "!", "?") and two[0].islower())
    first, second = one.lower(), _MARKS.get(two[0], two.lower())
    if first == second:
        return first not in _MAY_DOUBLE
    sure = first in ("a", "an") and second[0].isalpha() and not second.startswith(_UNSURE)
    if sure and (second[0] in "aeio") != (first == "an"):
        return True
    return any(first in kind and second in never for kind, never in _NEVER_AFTER)
