"""TextGen-Dates-v0: finish a sentence with dates that exist, in their order."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MeanMetric
from textgym.rewards import Reward, Shaped
from textgym.tasks._writing import CITIES, MONTHS, NAMES, SURNAMES, pick
from textgym.tasks.base import Task

_WANTED = 2
_MOST_WORDS = 10
"""Words of a completion for every date that is wanted; what comes after them does not count."""
_DATE = re.compile(rf"\b(on|until|by|before) (\d{{1,2}}) ({'|'.join(MONTHS)}) (\d{{4}})(?!\d)")
_STARTS = (
    "opened a {size} shop", "rented a {size} house", "started a {size} company", "wrote a {size} book",
    "built a {size} boat", "painted a {size} picture", "bought a {size} car", "planted a {size} garden",
    "borrowed a {size} sum", "founded a {size} school", "planned a {size} trip", "signed a {size} contract",
)  # fmt: skip
_SIZES = ("small", "large", "new", "old", "blue", "cheap", "long", "short")
_ENDS = {1: (".",), 2: (" and stayed {two}.", " and sold it {two}.", " and finished {two}.", " and came back {two}."),
         3: (" and stayed {two} and left {three}.", " and met Anna {two} and Ben {three}.")}  # fmt: skip


class ValidDates(MeanMetric):
    """How many of the wanted dates the text gives, as a share in [0, 1].

    A date counts if it reads like "on 3 May 2011" (on, until, by or before; day, month, year), exists in the calendar,
    lies between 1900 and 2099 and after the date before it. A date that does not exist takes one away.
    ``meta["count"]`` says how many are wanted, 2 by default; only the first ten words for each of these count.
    """

    name = "dates"
    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [_share(c) for c in completions]


def _share(completion: Completion) -> float:
    wanted = int(completion.meta.get("count", _WANTED))
    words = re.findall(r"\s*\S+", completion.text)[: _MOST_WORDS * wanted]
    last, count = datetime.date(1899, 12, 31), 0
    for _, day, month, year in _DATE.findall("".join(words)):
        try:
            date = datetime.date(int(year), MONTHS.index(month) + 1, int(day))
        except ValueError:
            count -= 1
            continue
        if last < date < datetime.date(2100, 1, 1):
            last, count = date, count + 1
    return min(1.0, max(0, count) / wanted)


_REWARD = Shaped(ValidDates())


class DatesTask(Task):
    """Finish a sentence with dates that exist, in their order.

    ## Description

    The prompt says what somebody did; the policy says when. Two dates are wanted, the second after the first, both of
    them real days: no 31 June, no 29 February 2023. A diagnostic for dense rewards: each date pays as soon as it is
    complete.

    The bundled model has read sentences with real dates, with days that do not exist and with no date at all.

    ## Starting State

    The beginning of a sentence, such as "Two dates: Anna Novak rented a small house in Oslo", drawn with the
    environment's own random generator.

    ## Rewards

    `dates` is the share of the wanted dates that the text gives, in [0, 1]: a date counts if it stands behind on,
    until, by or before, exists and comes after the one before it; one that does not exist takes one away. It is paid
    as it changes (potential-based shaping with a discount of 1), on the step that completes a date.

    ## Information

    On the last step: `prompt`, `completion`, `references` (none here), `finish_reason`, `is_success` (all dates are
    there), `reward/dates`.

    ## Arguments

    `difficulty`: `"easy"` (one date), `"normal"` (two), `"hard"` (three). A column `count` in your own
    data says how many dates are wanted.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Dates-v0"
    max_prompt_tokens = 28
    max_new_tokens = 44
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.46

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the number of dates."""
        count = {"easy": 1, "normal": 2, "hard": 3}[difficulty]
        start = pick(rng, _STARTS).format(size=pick(rng, _SIZES))
        sentence = f"{pick(rng, NAMES)} {pick(rng, SURNAMES)} {start} in {pick(rng, CITIES)}"
        lead = ("One date: ", "Two dates: ", "Three dates: ")[count - 1]
        return Example(lead + sentence, meta={"count": count})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: every date is real, impossible, without a year or missing."""
        count = int(rng.choice([1, 2, 2, 3]))
        example = self.sample(rng, self.difficulties[count - 1])
        year = int(rng.integers(1950, 2020))
        years = np.sort(rng.integers(year, year + 6, count)) if rng.random() < 0.8 else rng.integers(1950, 2026, count)
        return example.prompt + _sentence(rng, [_typical(rng, int(y)) for y in years])

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first days of May, a year apart."""
        count = int(example.meta.get("count", _WANTED))
        dates = [f"on {i + 1} May {2000 + i}" for i in range(count)]
        return f" {', then '.join(dates)}."

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether all wanted dates are there."""
        return bool(_REWARD([completion])[0] == 1)


def _typical(rng: np.random.Generator, year: int) -> str:
    """A date as people write them: half of the time a real day."""
    word, month, kind = pick(rng, ("on", "on", "until", "by", "before")), pick(rng, MONTHS), rng.random()
    if kind < 0.6:
        return f"{word} {int(rng.integers(1, 29))} {month} {year}"
    if kind < 0.75:
        return f"{word} {int(rng.integers(29, 45))} {month} {year}"
    return f"{word} {int(rng.integers(1, 29))} {month}" if kind < 0.9 else f"in {month} {year}"


def _sentence(rng: np.random.Generator, dates: Sequence[str]) -> str:
    names = dict(zip(("one", "two", "three"), dates, strict=False))
    return f" {dates[0]}" + pick(rng, _ENDS[len(dates)]).format(**names)
