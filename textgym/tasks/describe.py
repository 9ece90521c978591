"""TextGen-Describe-v0: write a sentence that says what a table of attributes and values says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import Metric, MetricError
from textgym.metrics.bleu import BLEU
from textgym.metrics.parent import PARENT
from textgym.rewards import Reward
from textgym.rewards.base import Scores
from textgym.tasks import _describe_words as words
from textgym.tasks._writing import capitalized, pick, pick_some, with_article
from textgym.tasks.base import Task

Table = list[list[str]]
"""Pairs of attribute and value."""

_SLOTS = {"easy": (2,), "normal": (3, 4), "hard": (5, 6)}
_PAIR = re.compile(r"(?:^|,)\s*([^\[\],]+?)\s*\[([^\]]*)\]")
_MEANINGS: dict[str, set[tuple[str, str]]] = {}
for _pair, _phrases in words.PHRASES.items():
    for _phrase in _phrases:
        _MEANINGS.setdefault(_phrase, set()).add(_pair)
_PHRASE = re.compile(f"(?<= )(?:{'|'.join(sorted(map(re.escape, _MEANINGS), key=len, reverse=True))})(?= )")


class SlotCoverage(Reward):
    """Share of the table's values that the text tells, in [0, 1].

    The table is ``meta["table"]``, pairs of attribute and value; where there is none, it is read from the prompt,
    ``name[Blue Spice], food[French]``. A value is told by its own words, in a row, or by a phrase that people use for it
    ("expensive" for ``priceRange[high]``), for the attributes of the E2E data.
    """

    name = "slot_coverage"
    range = (0.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`.

        Raises:
            MetricError: There is no table.
        """
        scores = np.zeros(len(completions), dtype=np.float32)
        for i, completion in enumerate(completions):
            table, text = _table_of(self, completion), words.plain(completion.text)
            scores[i] = sum(_tells(text, *pair) for pair in table) / len(table)
        return scores


class Faithful(Reward):
    """1 for a text that tells nothing the table does not have, 1/2 with one invented value, 1/4 with two, and so on.

    Only the values of restaurants are known, those of the E2E data and of this task: a table with an attribute that is none
    of theirs scores 1. See :class:`SlotCoverage`.
    """

    name = "faithful"
    range = (0.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`.

        Raises:
            MetricError: There is no table.
        """
        counts = [_invented(words.plain(c.text), _table_of(self, c)) for c in completions]
        return np.asarray(0.5 ** np.array(counts, dtype=np.float32), dtype=np.float32)


class TableParent(PARENT):
    """PARENT, which reads the table from the prompt where ``meta`` has none; see :class:`SlotCoverage`."""

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`PARENT.each`."""
        return super().each([replace(c, meta={**c.meta, self.key: _table_of(self, c)}) for c in completions])


_COVERAGE, _FAITHFUL, _BLEU, _PARENT = SlotCoverage(), Faithful(), BLEU(), TableParent()
_REWARD = _FAITHFUL * (0.3 * _COVERAGE + 0.7 * _BLEU)


class DescribeTask(Task):
    """Write a sentence that says what a table of attributes and values says.

    ## Description

    Data to text, in the form and with the attributes of the E2E restaurants (Novikova et al. 2017): the prompt lists what is
    known of a place, the policy says it all in a sentence, and nothing else:

        name[Blue Spice], eatType[pub], priceRange[high], area[riverside]
        Text: Blue Spice is an expensive pub by the riverside.

    Some values are said in other words than the table's (`priceRange[high]`, `familyFriendly[no]`). Each table has three
    references, which begin differently ("Blue Spice is ...", "There is ...", "By the riverside you can find ...").

    The tables are drawn from 196 names and 37 other values; about 120 different words.

    ## Starting State

    A prompt of the split (`train`, `dev` and `test` share none), drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `faithful * (0.3 * slot_coverage + 0.7 * bleu)`, in [0, 1]:

    * `slot_coverage`: the share of the values that the sentence tells;
    * `bleu`: sentence BLEU against the three references;
    * `faithful`: 1, halved by every value that is told but not in the table.

    Just listing the values covers them, but no reference reads like it.

    ## Information

    On the last step: `prompt`, `completion`, `references`, `finish_reason`, `is_success` (everything told, nothing invented,
    and a reward of at least 0.8), and the parts of the reward as above, under `reward/`. An example's `meta` has `table`, pairs
    of attribute and value; PARENT, one of the task's metrics, reads it.

    ## Arguments

    `difficulty`: `"easy"` (two values), `"normal"` (three or four), `"hard"` (five or six). With `prompts=` it runs on
    anybody's own tables: `prompt` is of the form above (the E2E data is), or `meta` has `table`; BLEU needs `references`.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Describe-v0"
    max_prompt_tokens = 48
    max_new_tokens = 32
    difficulties = ("easy", "normal", "hard")
    template = "{prompt}\nText:"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.67

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the table."""
        table = _draw(rng, pick(rng, _SLOTS[difficulty]))
        prompt = self.template.format(prompt=", ".join(f"{attribute}[{value}]" for attribute, value in table))
        return Example(prompt, tuple(form(dict(table)) for form in _FORMS[:3]), {"table": table})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in half of them, in five forms; else a value is missing, wrong or invented."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        told = dict(example.meta["table"])
        if rng.random() > 0.5:
            for attribute in told.copy():
                if rng.random() < 0.3 and attribute != "name":
                    told.pop(attribute)
            if rng.random() < 0.7:
                attribute = pick(rng, tuple(words.VALUES))
                told[attribute] = pick(rng, words.VALUES[attribute])
        return f"{example.prompt} {pick(rng, _FORMS)(told)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference; where there is none, the first form of sentence."""
        if example.references:
            return f" {example.references[0].strip()}"
        table = {**{"name": "It"}, **dict(example.meta.get("table") or parse_table(example.prompt))}
        others = [f" Its {key} is {value}." for key, value in table.items() if key not in words.VALUES]
        return f" {_sentence(table)}{''.join(others)}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`: BLEU and PARENT."""
        return _BLEU, _PARENT

    def is_success(self, completion: Completion) -> bool | None:
        """Whether all is told, nothing invented, and the reward is at least 0.8; ``None`` without references."""
        if not completion.references:
            return None
        whole = _COVERAGE([completion])[0] == 1 and _FAITHFUL([completion])[0] == 1
        return bool(whole and _REWARD([completion])[0] >= 0.8)


def parse_table(prompt: str) -> Table:
    """The pairs of attribute and value in a text like ``name[Blue Spice], food[French]``, E2E's meaning representation."""
    return [[attribute, value] for attribute, value in _PAIR.findall(prompt.split("\n")[0])]


def _table_of(reward: Reward, completion: Completion) -> Table:
    table = completion.meta.get("table") or parse_table(completion.prompt)
    if not table:
        raise MetricError(
            f"Reward {reward.name!r} needs `table` in meta, or a prompt like 'name[Blue Spice], food[French]', "
            f"actual prompt: {completion.prompt!r}"
        )
    return table


def _tells(text: str, attribute: str, value: str) -> bool:
    if attribute == "familyFriendly":
        return words.families(text) == value
    phrases = words.PHRASES.get((attribute, value), (words.plain(value).strip(),))
    return any(f" {phrase} " in text for phrase in phrases)


def _invented(text: str, table: Table) -> int:
    """How many attributes the text gives a value that is not the table's."""
    known = {(attribute, value) for attribute, value in table}
    if not {attribute for attribute, _ in known} <= set(words.VALUES):
        return 0
    guests = words.families(text)
    count = int(guests is not None and ("familyFriendly", guests) not in known)
    for _, value in table:  # names may have words in them that mean something elsewhere
        if (own := words.plain(value)) != "  ":
            text = text.replace(own, " | ")
    text = re.sub(r" restaurants?(?= )", "", text)  # what people call any place to eat
    meant = [_MEANINGS[phrase] for phrase in _PHRASE.findall(text)]
    return count + len({next(iter(pairs))[0] for pairs in meant if not pairs & known})


def _draw(rng: np.random.Generator, count: int) -> Table:
    others = pick_some(rng, tuple(words.VALUES)[1:], count - 1)
    return [[key, pick(rng, values)] for key, values in words.VALUES.items() if key == "name" or key in others]


def _place(table: dict[str, str]) -> str:
    """What kind of place it is: "a cheap French pub"."""
    price = words.PRICES.get(table.get("priceRange", ""), table.get("priceRange", ""))
    return with_article(" ".join(f"{price} {table.get('food', '')} {table.get('eatType', 'place')}".split()))


def _where(table: dict[str, str]) -> str:
    area = table.get("area", "")
    near = f"near {table['near']}" if "near" in table else ""
    return f"{words.AREAS.get(area, area and f'in {area}')} {near}".strip()


def _traits(table: dict[str, str]) -> str:
    guests = words.GUESTS.get(table.get("familyFriendly", ""), "")
    rating = f"with {with_article(table['customer rating'])} rating" if "customer rating" in table else ""
    return f"{guests} {rating}".strip()


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part) + "."


def _sentence(table: dict[str, str]) -> str:
    return _joined(table["name"], "is", _place(table), _traits(table), _where(table))


def _there_is(table: dict[str, str]) -> str:
    return _joined("There is", _place(table), _traits(table), "called", table["name"], _where(table))


def _where_first(table: dict[str, str]) -> str:
    start = capitalized(f"{_where(table)} you can find".strip())
    what = f"{_place(table)} {_traits(table)}".strip()
    return _joined(start, table["name"] if what == "a place" else f"{table['name']}, {what}")


def _in_parts(table: dict[str, str]) -> str:
    more = [part for part in (_where(table), _traits(table)) if part]
    return " ".join([_joined(table["name"], "is", _place(table)), *(f"It is a place {part}." for part in more)])


def _try(table: dict[str, str]) -> str:
    return _joined("Try", f"{table['name']},", _place(table), _where(table), _traits(table))


_FORMS = (_sentence, _there_is, _where_first, _in_parts, _try)
