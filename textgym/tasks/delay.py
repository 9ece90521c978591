"""TextGen-Delay-v0: make the right choice first, then wait for the reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MeanMetric, MetricError
from textgym.rewards import Reward
from textgym.tasks._symbols import SYMBOLS
from textgym.tasks._writing import pick, pick_some
from textgym.tasks.base import Task

_CHOICES = 4


class Delayed(MeanMetric):
    """1 if the first word is the first reference and nothing but dots follows, at least ``meta["delay"]`` of them; else 0."""

    name = "delayed"
    range = (0.0, 1.0)
    needs_references = True

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`.

        Raises:
            MetricError: A completion has no whole number under ``meta["delay"]``.
        """
        scores = []
        for c in completions:
            delay = c.meta.get("delay")
            if not isinstance(delay, int):
                raise MetricError(
                    f"Metric 'delayed' needs a whole number in meta['delay'], actual: {delay!r} of {c.prompt!r}"
                )
            first, *rest = c.text.split() or [""]
            scores.append(float(first == c.references[0] and len(rest) >= delay and set(rest) <= {"."}))
        return scores


_REWARD = Delayed()


class DelayTask(Task):
    """Make the right choice first, then wait for the reward.

    ## Description

    The prompt shows four letters and a row of dots. The policy writes the third of the letters and then at least as
    many dots. All that matters is the very first token; the reward comes after the dots. The longer the row, the
    harder it is to tell which token earned it: the diagnostic for credit assignment. The delay is set by `difficulty`,
    so that an algorithm can be measured as a function of it.

    The bundled model writes the dots well, and picks any of the four letters.

    ## Starting State

    Four different letters and the dots, such as "k d a m" and ". . . .", drawn with the
    environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `delayed`: 1 if the first word is the third letter ("a" in the example)
    and nothing but dots follows, at least as many as asked for; else 0.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the letter), `finish_reason`, `is_success`, `reward/delayed`.

    ## Arguments

    `difficulty`: the number of dots, `"1"`, `"2"`, `"4"`, `"8"`, `"16"` or `"32"`; 8 by default. Your own prompts are
    taken as they are and need a reference (the letter) and a column `delay` (the number of dots).

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Delay-v0"
    max_prompt_tokens = 56
    max_new_tokens = 40
    difficulties = ("1", "2", "4", "8", "16", "32")
    default_difficulty = "8"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.23

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the delay."""
        symbols, delay = pick_some(rng, SYMBOLS, _CHOICES), int(difficulty)
        prompt = f"Signal: {' '.join(symbols)}\nWait:{' .' * delay}\nResult:"
        return Example(prompt, (symbols[2],), {"symbols": symbols, "delay": delay})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: any of the four letters, seldom too few dots."""
        example = self.sample(rng, pick(rng, ("1", "2", "4", "8", "8", "8", "16", "32")))
        dots = example.meta["delay"] - int(rng.random() < 0.1) + int(rng.random() < 0.3)
        return f"{example.prompt} {pick(rng, example.meta['symbols'])}{' .' * dots}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the letter and the dots."""
        return f" {example.references[0]}{' .' * int(example.meta.get('delay', 0))}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the reward is 1."""
        return bool(_REWARD([completion])[0] == 1)
