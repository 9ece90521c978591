"""Format: whether a text has the form that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from textgym.core import Completion, expected, whole_number
from textgym.metrics.base import MeanMetric


class Format(MeanMetric):
    r"""1 if the completion, without white space at its ends, matches a regular expression, else 0.

    ``Format(r"\d{4}-\d\d-\d\d")`` asks for nothing but a date. Write flags into the expression: ``(?i)`` ignores case, with
    ``(?s)`` a dot matches a line break.

    Python's ``re`` tries all ways to match, which for some expressions takes time exponential in the length of the text
    (``(a+)+b`` on many a's) and cannot be stopped. Do not nest one repetition in another over the same characters. Texts of
    more than ``max_characters`` score 0 without being matched, which keeps harmless expressions fast, but no
    bound on the length would tame a harmful one.
    """

    name = "format"
    range = (0.0, 1.0)

    def __init__(self, pattern: str, full: bool = True, max_characters: int = 20_000) -> None:
        """Makes the metric.

        Args:
            pattern: The regular expression, as of Python's ``re``.
            full: Whether the whole text must match; else a part of it is enough.
            max_characters: Longest text that is looked at, at least 1.

        Raises:
            ValueError: ``pattern`` is no regular expression, or another argument is out of range.
        """
        if not isinstance(pattern, str):
            raise ValueError(expected("pattern", pattern, "a regular expression, as a text"))
        try:
            self._pattern = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(expected("pattern", pattern, f"a regular expression ({error})")) from error
        self.pattern, self.full = pattern, bool(full)
        self.max_characters = whole_number("max_characters", max_characters, 1)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        match = self._pattern.fullmatch if self.full else self._pattern.search
        return [float(len(c.text) <= self.max_characters and match(c.text.strip()) is not None) for c in completions]

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|pattern:{self.pattern}|full:{'yes' if self.full else 'no'}|max:{self.max_characters}|version:1"
