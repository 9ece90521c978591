"""TextGen-Copy-v0: repeat a sequence of symbols."""

from __future__ import annotations

from collections.abc import Sequence

from textgym.tasks._symbols import SymbolTask


class CopyTask(SymbolTask):
    """Repeat a sequence of symbols.

    ## Description

    The prompt shows letters from a to t; the policy writes the same letters in the same order and stops. The bundled
    model has seen this done, and done wrong in four of ten cases: it knows the game, but does not care about winning
    it. With a reward for the whole answer only, the task measures exploration: how soon an algorithm finds out which
    of the things that the model does is the one that pays.

    ## Starting State

    A sequence of letters, such as "Copy: d a k", drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `accuracy`: 1 if the text is the answer ("d a k" in the example), letter
    for letter with single spaces between, else 0.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the answer), `finish_reason`, `is_success` (the answer is
    right), `reward/accuracy`.

    ## Arguments

    `difficulty`: `"easy"` (3 letters), `"normal"` (5), `"hard"` (8). A text of your own is put behind "Copy: "; its
    reference is the answer.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Copy-v0"
    template = "Copy: {prompt}\nResult:"
    lengths = {"easy": 3, "normal": 5, "hard": 8}
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.64

    def answer(self, symbols: Sequence[str]) -> list[str]:
        """See :meth:`SymbolTask.answer`."""
        return list(symbols)
