"""Coverage: how many of the words that were asked for a text has."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.core import Completion, expected
from textgym.metrics._texts import _CJK
from textgym.metrics.base import MetricError, Statistics, SumMetric

_UNSPACED = re.compile(f"([{_CJK}])")  # characters of scripts without spaces; each is a word of its own


class Coverage(SumMetric):
    """Share of the words or phrases in ``meta[key]`` that the completion contains, in [0, 1].

    They are looked for as whole words (Chinese and Japanese ones anywhere, as these are written without spaces), whatever
    their case. Where ``meta[key]`` has pairs (attribute, value), the values are looked for. The corpus score counts all
    words together. Where none is asked for, it is 1.
    """

    name = "coverage"
    range = (0.0, 1.0)

    def __init__(self, key: str = "words", inflected: bool = False) -> None:
        """Args: key: Of ``meta``. inflected: Whether "chases", "chased", "chasing" count for "chase".

        The rule is light (-s, -es, -ed, -ing; a final e dropped, y to i, a final consonant doubled): it knows nothing of "ran".

        Raises:
            ValueError: ``key`` is not a text, or is empty.
        """
        if not isinstance(key, str) or not key:
            raise ValueError(expected("key", key, "the name of a column"))
        self.key, self.inflected = key, bool(inflected)

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: found, wanted.

        Raises:
            MetricError: A completion's ``meta`` has no list of texts, or of pairs of texts, under the key.
        """
        rows = []
        for c in completions:
            wanted = _wanted(c, self.key)
            rows.append([sum(self.contains(c.text, phrase) for phrase in wanted), len(wanted)])
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        found, wanted = statistics[..., 0], statistics[..., 1]
        return np.asarray(np.where(wanted > 0, found / np.maximum(wanted, 1), 1.0))

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|key:{self.key}|inflected:{'yes' if self.inflected else 'no'}|version:1"

    def contains(self, text: str, phrase: str) -> bool:
        """Whether ``text`` has ``phrase`` as whole words."""
        return _pattern(phrase, self.inflected).search(_spaced(text)) is not None


def _spaced(text: str) -> str:
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", text)


@functools.lru_cache(maxsize=4096)
def _pattern(phrase: str, inflected: bool) -> re.Pattern[str]:
    *before, last = _spaced(phrase).split()
    ways = [re.escape(last)]
    if inflected and last.isalpha():
        stem = last[:-1]
        ways[0] += "(?:s|es|ed|ing)?"  # walks, catches, walked, walking
        if last[-1] in "eE":
            ways.append(f"{stem}(?:ed|ing)")  # chased, chasing
        elif last[-1] in "yY":
            ways.append(f"{stem}(?:ies|ied)")
        else:
            ways.append(f"{last}{last[-1]}(?:ed|ing)")  # running
    words = r"\s+".join([*map(re.escape, before), f"(?:{'|'.join(ways)})"])
    # "£20" may stand right behind a letter, but "dog" not in "hotdogs"
    left = r"(?<!\w)" if re.match(r"\w", (before or [last])[0]) else ""
    right = r"(?!\w)" if re.match(r"\w", last[-1]) else ""
    return re.compile(left + words + right, flags=re.IGNORECASE)


def _wanted(completion: Completion, key: str) -> list[str]:
    values: Any = completion.meta.get(key)
    if isinstance(values, (list, tuple)):
        phrases = [v[1] if isinstance(v, (list, tuple)) and len(v) == 2 else v for v in values]
        if all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
            return phrases
    raise MetricError(
        f"Metric 'coverage' needs a list of texts (or of pairs) in meta[{key!r}], actual: {values!r} of the prompt "
        f"{completion.prompt!r}"
    )
