"""A person at the terminal as a reward."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from threading import Lock
from typing import Any, TextIO

import numpy as np

from textgym.core import Completion, expected
from textgym.rewards.base import Reward, RewardError, Scores


class Human(Reward):
    """Asks at the terminal for a score of every completion, a whole number of ``scale``; it becomes a reward in [0, 1].

    For a few dozen episodes, to see how a policy takes to a person. The same text after the same prompt is asked for once.
    To rate samples that are written already, use ``textgym rate``.
    """

    name = "human"
    range = (0.0, 1.0)
    heavy = True

    def __init__(
        self, scale: Sequence[int] = (1, 5), stream: TextIO | None = None, output: TextIO | None = None
    ) -> None:
        """Makes the reward.

        Args:
            scale: Lowest and highest answer; they become 0 and 1.
            stream: Where answers are read from, a line each; ``None``: the terminal (standard input).
            output: Where questions go; ``None``: standard error.

        Raises:
            ValueError: ``scale`` is not two whole numbers, the lower one first.
        """
        self.scale = checked_scale(scale)
        self._stream, self._output = stream, output
        self._known: dict[tuple[str, str], int] = {}
        self._lock = Lock()  # questions of two environments must not be mixed

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`.

        Raises:
            RewardError: Standard input is no terminal, or has ended.
        """
        low, high = self.scale
        with self._lock:
            answers = [self._answer(completion) for completion in completions]
        return (np.array(answers, dtype=np.float32) - low) / np.float32(high - low)

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which is no value."""
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def _answer(self, completion: Completion) -> int:
        from textgym.rendering import harmless  # what a policy writes may hold control characters

        text = completion.transcript or completion.text
        if (key := (completion.prompt, text)) not in self._known:
            self._write(f"\n{harmless(completion.prompt)}\x1b[1m{harmless(text)}\x1b[0m\n")
            self._known[key] = self._ask()
        return self._known[key]

    def _ask(self) -> int:
        low, high = self.scale
        stream = self._stream or sys.stdin
        if self._stream is None and not stream.isatty():
            raise RewardError(
                "Reward 'human' asks at the terminal, but standard input is none; run it there, give `stream`, or rate "
                "written samples with `textgym rate`"
            )
        while True:
            self._write(f"score {low} to {high}: ")
            line = stream.readline()
            if not line:
                raise RewardError("Reward 'human' needs another answer, but the input has ended")
            try:
                answer = int(line)
            except ValueError:
                continue
            if low <= answer <= high:
                return answer

    def _write(self, text: str) -> None:
        output = self._output or sys.stderr
        output.write(text)
        output.flush()


def checked_scale(scale: object) -> tuple[int, int]:
    """Lowest and highest score.

    Raises:
        ValueError: Not two whole numbers, the lower one first.
    """
    good = isinstance(scale, (tuple, list)) and len(scale) == 2
    if not good or any(type(n) is not int for n in scale) or not scale[0] < scale[1]:  # type: ignore[attr-defined,index]
        raise ValueError(expected("scale", scale, "two whole numbers, the lower one first"))
    return scale[0], scale[1]  # type: ignore[index]
