"""TextGen-Numbers-v0: go on counting, each number larger than the one before."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MeanMetric
from textgym.rewards import Reward, Shaped
from textgym.tasks.base import Task

_WANTED = 6
_LARGEST = 999
_NUMBER = re.compile(r"[1-9]\d{0,2}")


class Increasing(MeanMetric):
    """Share of the wanted numbers that the text gives before its first mistake, in [0, 1].

    A mistake is a word that is no number from 1 to 999, or a number that is not larger than the one before it; the
    first one is compared with the last number of the prompt, if it has one. ``meta["count"]`` says how many are
    wanted, 6 by default. While a text is not finished its last word, to which digits may come, does not count.
    """

    name = "increasing"
    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [_share(c) for c in completions]


def _share(completion: Completion) -> float:
    words = completion.text.split()
    if completion.finish_reason is None and completion.text[-1:].isdigit():
        words = words[:-1]
    given = re.findall(r"\d+", completion.prompt)
    last, count, wanted = int(given[-1]) if given else 0, 0, int(completion.meta.get("count", _WANTED))
    for word in words:
        if not _NUMBER.fullmatch(word) or int(word) <= last:
            break
        last, count = int(word), count + 1
    return min(1.0, count / wanted)


_REWARD = Shaped(Increasing())


class NumbersTask(Task):
    """Go on counting, each number larger than the one before.

    ## Description

    The prompt shows a few increasing numbers; the policy goes on with six more. Which ones does not matter, as long as
    each is larger than the one before. A diagnostic for dense rewards: every number pays as soon as it is complete, so
    credit is easy to assign; the trap is to jump ahead too fast, because 999 is the end.

    ## Starting State

    Three increasing numbers, such as "Count: 12 40 41", drawn with the environment's own random generator.

    ## Rewards

    `increasing` is the share of the six wanted numbers that stand before the first mistake, in [0, 1]. It is paid as
    it grows (potential-based shaping with a discount of 1): a sixth for each right number, on the step that completes
    it. Nothing is taken back for a mistake, but nothing after it counts.

    ## Information

    On the last step: `prompt`, `completion`, `references` (none here), `finish_reason`, `is_success` (all six are right),
    `reward/increasing`.

    ## Arguments

    `difficulty`: `"easy"` (the prompt's numbers are below 100), `"normal"` (below 500), `"hard"` (below 980, so that
    there is little room). A column `count` in your own data says how many numbers are wanted.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Numbers-v0"
    max_prompt_tokens = 24
    max_new_tokens = 32
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.39

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`."""
        top = {"easy": 100, "normal": 500, "hard": 980}[difficulty]
        numbers = sorted(rng.choice(np.arange(1, top), 3, replace=False).tolist())
        return Example(f"Count: {' '.join(map(str, numbers))}", meta={"count": _WANTED})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: from three to seven further numbers, one in five smaller than the last one."""
        example = self.sample(rng, ("easy", "normal", "normal", "hard")[int(rng.integers(4))])
        last = int(example.prompt.split()[-1])
        words = []
        for _ in range(int(rng.integers(3, 8))):
            step = int(rng.integers(1, 1 + max(2, min(60, (_LARGEST - last) // 3))))
            last = max(1, last - step) if rng.random() < 0.2 else min(_LARGEST, last + step)
            words.append(str(last))
        return f"{example.prompt} {' '.join(words)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: in steps of one."""
        given = re.findall(r"\d+", example.prompt)
        last = int(given[-1]) if given else 0
        return "".join(f" {last + i}" for i in range(1, 1 + int(example.meta.get("count", _WANTED))))

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether all wanted numbers are right."""
        return bool(_REWARD([completion])[0] == 1)
