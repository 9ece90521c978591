"""TextGen-Sort-v0: put symbols into alphabetical order."""

from __future__ import annotations

from collections.abc import Sequence

from textgym.tasks._symbols import SymbolTask


class SortTask(SymbolTask):
    """Put symbols into alphabetical order.

    ## Description

    The prompt shows different letters from a to t; the policy writes them in alphabetical order and stops. Every token
    depends on all of the prompt. It pays for the whole answer only.

    ## Starting State

    A sequence of letters, such as "Sort: d a k", drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `accuracy`: 1 if the text is the answer ("a d k" in the example), letter
    for letter with single spaces between, else 0.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the answer), `finish_reason`, `is_success` (the answer is
    right), `reward/accuracy`.

    ## Arguments

    `difficulty`: `"easy"` (3 letters), `"normal"` (4), `"hard"` (6). A text of your own is put behind "Sort: "; its
    reference is the answer.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Sort-v0"
    template = "Sort: {prompt}\nResult:"
    lengths = {"easy": 3, "normal": 4, "hard": 6}
    distinct_symbols = True
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.62

    def answer(self, symbols: Sequence[str]) -> list[str]:
        """See :meth:`SymbolTask.answer`."""
        return sorted(symbols)
