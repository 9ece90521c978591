"""TextGen-Reverse-v0: write a sequence of symbols from back to front."""

from __future__ import annotations

from collections.abc import Sequence

from textgym.tasks._symbols import SymbolTask


class ReverseTask(SymbolTask):
    """Write a sequence of symbols from back to front.

    ## Description

    The prompt shows letters from a to t; the policy writes them in the opposite order and stops. Like Copy it pays for
    the whole answer only, but the token that is needed next lies ever farther back: it asks more of the model's memory.

    ## Starting State

    A sequence of letters, such as "Reverse: d a k", drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `accuracy`: 1 if the text is the answer ("k a d" in the example), letter
    for letter with single spaces between, else 0.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the answer), `finish_reason`, `is_success` (the answer is
    right), `reward/accuracy`.

    ## Arguments

    `difficulty`: `"easy"` (3 letters), `"normal"` (4), `"hard"` (6). A text of your own is put behind "Reverse: "; its
    reference is the answer.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Reverse-v0"
    template = "Reverse: {prompt}\nResult:"
    lengths = {"easy": 3, "normal": 4, "hard": 6}
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.64

    def answer(self, symbols: Sequence[str]) -> list[str]:
        """See :meth:`SymbolTask.answer`."""
        return list(reversed(symbols))
