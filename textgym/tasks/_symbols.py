"""Tasks on sequences of symbols: what copying, reversing and sorting have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.answers import Accuracy
from textgym.rewards import Reward
from textgym.tasks._writing import pick, pick_some
from textgym.tasks.base import Task

SYMBOLS = tuple("abcdefghijklmnopqrst")
_REWARD = Accuracy()


class SymbolTask(Task):
    """Symbols in, symbols out: one answer is right, and nothing else pays."""

    max_prompt_tokens = 24
    max_new_tokens = 12
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    lengths: ClassVar[dict[str, int]]
    distinct_symbols: ClassVar[bool] = False

    @abstractmethod
    def answer(self, symbols: Sequence[str]) -> list[str]:
        """The right answer."""

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; the one reference is the answer."""
        count = self.lengths[difficulty]
        symbols = (
            pick_some(rng, SYMBOLS, count) if self.distinct_symbols else [pick(rng, SYMBOLS) for _ in range(count)]
        )
        prompt = self.template.format(prompt=" ".join(symbols))
        return Example(prompt, (" ".join(self.answer(symbols)),), {"symbols": symbols})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: in four of ten the answer has a symbol wrong, missing or out of place."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        answer = example.references[0].split()
        if rng.random() < 0.4:
            mistake, place = rng.random(), int(rng.integers(len(answer)))
            if mistake < 0.4:
                answer[place] = pick(rng, SYMBOLS)
            elif mistake < 0.7:
                del answer[place]
            else:
                answer[place], answer[place - 1] = answer[place - 1], answer[place]
        return f"{example.prompt} {' '.join(answer)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the reference."""
        return f" {example.references[0]}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the answer is right."""
        return bool(_REWARD([completion])[0] == 1)
