"""The text that the bundled tokenizer and model are trained on: endless, fresh, a function of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from textgym.tasks import TASKS, make_task

TASK_WEIGHTS: dict[str, float] = {
    "sentiment": 1.5, "classify": 1.5, "translate": 2.5, "answer": 2.5, "entities": 1.5, "arithmetic": 2.0, "program": 1.5,
    "reverse": 1.5, "sort": 2.0, "numbers": 0.7, "dates": 0.7, "delay": 0.6,
}  # fmt: skip
"""Share of a task's documents relative to the others; a task that is not listed counts 1."""

LETTERS_SHARE = 0.01
"""Share of lines of German letters in the tokenizer's text, so that each becomes one token. The language model reads none."""

# The parts of a seed, so that no two streams draw the same numbers.
TOKENIZER, TRAINING, HELD_OUT, PROMPTS = range(4)


PAD, END = "<|pad|>", "<|endoftext|>"
PAD_ID, END_ID = 0, 1


def stream(seed: int, part: int) -> np.random.Generator:
    """The random generator of one part of the work (`TOKENIZER`, `TRAINING`, `HELD_OUT` or `PROMPTS`)."""
    return np.random.default_rng([seed, part])


def task_documents(rng: np.random.Generator) -> Iterator[str]:
    """Documents of all tasks, mixed by `TASK_WEIGHTS`, without end."""
    tasks = [make_task(name) for name in TASKS]
    weights = np.array([TASK_WEIGHTS.get(name, 1.0) for name in TASKS])
    while True:
        for index in rng.choice(len(tasks), size=256, p=weights / weights.sum()):
            yield tasks[index].document(rng)


def tokenizer_documents(rng: np.random.Generator, count: int) -> Iterator[str]:
    """``count`` texts for the tokenizer: the tasks' documents, and every so often a line of letters."""
    for document in islice(task_documents(rng), count):
        yield _letters(rng) if rng.random() < LETTERS_SHARE else document


def _letters(rng: np.random.Generator) -> str:
    """The German letters alone.

    A line each, so that nothing stands before them: their first bytes are alike, and would merge with a space.
    """
    return "\n".join(rng.permutation(list("äöüßÄÖÜ" * 4)))
