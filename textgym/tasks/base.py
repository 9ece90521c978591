"""What a task is: where prompts come from, what the best answer is, how answers are rewarded."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from textgym.core import Completion, Example, Split
from textgym.metrics.base import Metric
from textgym.rewards import Reward


class Task(ABC):
    """A family of prompts with a reward. One file a task; the class docstring is its documentation page.

    Attributes:
        id: The environment id, ``TextGen-<Task>-v<k>``.
        max_prompt_tokens: Default room for the prompt, in tokens of the bundled tokenizer.
        max_new_tokens: Default token budget of the policy.
        min_new_tokens: Default number of tokens before the end token is allowed.
        difficulties: Levels from easiest to hardest.
        default_difficulty: The level that ``id`` means.
        template: What a text of the user's own is put into, ``{prompt}`` standing for it.
        distinct_prompts: Number of prompts that the default level can write where they are fewer than 100,000; else ``None``.
        random_score: Mean return of uniformly random allowed tokens, measured; normalised score 0.
        oracle_score: Mean return of ``oracle``, measured; normalised score 1.
        base_score: Mean return of the bundled language model before any training, on held-out prompts, measured.
        turn_end: Text of the token with which the policy gives the word to the other speaker; ``None`` in tasks of one turn.
        max_reply_tokens: Room for all that the other speaker says in an episode, in tokens.
    """

    id: ClassVar[str]
    max_prompt_tokens: ClassVar[int] = 32
    max_new_tokens: ClassVar[int] = 32
    min_new_tokens: ClassVar[int] = 0
    difficulties: ClassVar[tuple[str, ...]] = ("normal",)
    default_difficulty: ClassVar[str] = "normal"
    template: ClassVar[str] = "{prompt}"
    distinct_prompts: ClassVar[int | None] = None
    random_score: ClassVar[float]
    oracle_score: ClassVar[float]
    base_score: ClassVar[float]
    turn_end: ClassVar[str | None] = None
    max_reply_tokens: ClassVar[int] = 0

    @abstractmethod
    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """An example of any split, drawn with ``rng`` alone."""

    @abstractmethod
    def document(self, rng: np.random.Generator) -> str:
        """A text that the bundled language model learns this task's language from: prompt and a *typical* answer."""

    @abstractmethod
    def oracle(self, example: Example) -> str:
        """A completion of ``example.prompt`` that earns the highest reward in reach; the same for the same example."""

    @abstractmethod
    def reward(self) -> Reward:
        """The task's own reward."""

    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that an evaluation reports as corpus scores, beside the reward; the usual ones of the field first."""
        return ()

    def is_success(self, completion: Completion) -> bool | None:
        """Whether a finished completion solves the task; ``None`` where the task has no such notion.

        An environment tells it only where it pays the task's own reward: with another one it is another problem.
        """
        return None

    def forbidden_words(self) -> tuple[str, ...]:
        """Texts of single tokens that the policy may not write in this task."""
        return ()

    def reply(self, completion: Completion) -> str | None:
        """What the other speaker says after the policy's turn (tasks with ``turn_end``); ``None``: nothing."""
        return None


def split_of(prompt: str) -> Split:
    """The split that a generated prompt belongs to: train 80%, dev 10%, test 10%, by a checksum of its text.

    So the splits are disjoint by construction, on every machine and in every version of the generator.
    """
    bucket = zlib.crc32(prompt.encode()) % 10
    return "train" if bucket < 8 else "dev" if bucket == 8 else "test"
