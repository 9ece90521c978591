"""How varied a set of texts is."""

from __future__ import annotations

from collections.abc import Sequence

from textgym.core import expected


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of different word n-grams among all word n-grams of ``texts``: ``distinct / total``, in [0, 1].

    Li et al. 2016, section 5.2 (https://arxiv.org/abs/1510.03055). Words are split at white space and lower-cased; an n-gram
    never spans two texts. The share falls as more text is counted, so compare sets of about the same number of words.

    Args:
        texts: The texts that are counted together.
        n: Words in an n-gram, at least 1.

    Returns:
        1 if no n-gram comes twice, near 0 if all texts are alike; 0 if no text has ``n`` words.

    Raises:
        ValueError: ``n`` is not a whole number of at least 1.
        TypeError: ``texts`` is a single text.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(expected("n", n, "a whole number of at least 1"))
    if isinstance(texts, str):
        raise TypeError(expected("texts", texts, "a sequence of texts, not a single one"))
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0
