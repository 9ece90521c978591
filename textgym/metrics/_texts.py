"""What the overlap metrics share: splitting text into words, counting n-grams, and remembering what was counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from textgym.core import expected

Tokenizer = Callable[[str], Sequence[str]]
T = TypeVar("T")

# Chinese and Japanese are written without spaces, so each of their characters is a word; so is each emoji.
_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_EMOJI = "\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_WORD = rf"[{_CJK}{_EMOJI}]|[^\W_{_CJK}{_EMOJI}]+"
_WORDS = re.compile(_WORD)
_WORDS_AND_PUNCTUATION = re.compile(rf"{_WORD}|[^\w\s\u200d\ufe0e\ufe0f]|_")


def words(text: str) -> list[str]:
    """Lower-cased words of any script, without punctuation; a Chinese or Japanese character or an emoji is a word each."""
    return _WORDS.findall(text.lower())


def words_and_punctuation(text: str) -> list[str]:
    """As :func:`words`, and each punctuation mark as a word."""
    return _WORDS_AND_PUNCTUATION.findall(text.lower())


def lower_split(text: str) -> list[str]:
    """Lower-cased text split at white space."""
    return text.lower().split()


TOKENIZERS: dict[str, Tokenizer] = {
    "words": words,
    "punctuation": words_and_punctuation,
    "whitespace": lower_split,
}


def tokenizer(value: object, named: dict[str, Tokenizer]) -> tuple[str, Tokenizer]:
    """Name (for the signature) and function of the tokenizer that ``value``, a name or a function, stands for.

    Raises:
        ValueError: An unknown name, or something else.
    """
    if isinstance(value, str) and value in named:
        return value, named[value]
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__name__)), value
    raise ValueError(expected("tokenize", value, f"one of {sorted(named)}, or a function of a text"))


def ngram_counts(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram of ``tokens`` occurs."""
    return Counter(zip(*(tokens[k:] for k in range(n)), strict=False))


def overlap(a: Counter[Any], b: Counter[Any]) -> int:
    """Size of the intersection of two multisets; ``(a & b).total()``, but several times faster."""
    if len(b) < len(a):
        a, b = b, a
    total = 0
    for key, count in a.items():
        other = b.get(key)
        if other:
            total += count if count < other else other
    return total


def bit_masks(tokens: Sequence[str]) -> dict[str, int]:
    """Where each token stands: bit ``i`` of a token's number is set if it is ``tokens[i]``."""
    masks: dict[str, int] = {}
    for i, token in enumerate(tokens):
        masks[token] = masks.get(token, 0) | 1 << i
    return masks


def lcs_rows(masks: dict[str, int], length: int, tokens: Sequence[str]) -> list[int]:
    """The table of the longest common subsequence, a whole row in one number.

    Hyyrö 2004, "Bit-parallel LCS-length computation revisited": the cost is ``len(tokens) * length / 64`` steps, so that a
    pair of texts of thousands of words takes milliseconds.

    Args:
        masks: :func:`bit_masks` of the one text.
        length: Its tokens.
        tokens: The other text.

    Returns:
        ``len(tokens) + 1`` numbers: the LCS of ``tokens[:i]`` and the first ``j`` tokens of the masked text is the number
        of bits among the lowest ``j`` of ``rows[i]`` that are *not* set.
    """
    full = (1 << length) - 1
    row = full
    rows = [row]
    for token in tokens:
        hits = row & masks.get(token, 0)
        if hits:
            row = ((row + hits) | (row - hits)) & full
        rows.append(row)
    return rows


def lcs_length(masks: dict[str, int], length: int, tokens: Sequence[str]) -> int:
    """Length of the longest common subsequence; arguments as for :func:`lcs_rows`."""
    return length - lcs_rows(masks, length, tokens)[-1].bit_count()


class Remembered(Generic[T]):
    """A function of one text that remembers its latest results, as references come again and again.

    What it keeps is bounded by the length of the texts, not by their number; a copy or pickle starts out empty.
    """

    def __init__(self, function: Callable[[str], T], characters: int = 100_000) -> None:
        """Args: function: What to compute. characters: Length of all texts that are remembered together, at most."""
        self.function, self.characters = function, characters
        self._results: dict[str, T] = {}
        self._size = 0

    def __call__(self, text: str) -> T:
        """``function(text)``."""
        if text in self._results:
            return self._results[text]
        result = self.function(text)
        size = len(text) + 1
        if size <= self.characters:
            if self._size + size > self.characters:  # forgets all at once: simple, and rare enough
                self._results, self._size = {}, 0
            self._results[text] = result
            self._size += size
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.characters)


@lru_cache(maxsize=1)
def _porter() -> Any:
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise ImportError("Stemming needs nltk: pip install 'textgym[metrics]'") from error
    return PorterStemmer()


@lru_cache(maxsize=2**16)
def stem(word: str) -> str:
    """Porter's stem, as nltk computes it.

    Raises:
        ImportError: nltk is missing.
    """
    return str(_porter().stem(word))
