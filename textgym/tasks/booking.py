"""TextGen-Booking-v0: talk with a customer until their table is booked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.core import Completion, Example, expected
from textgym.metrics.base import MeanMetric, MetricError
from textgym.rewards import Reward
from textgym.tasks._booking_words import (
    CHANGES,
    DAYS,
    FIRST_TURNS,
    GREETINGS,
    KINDS,
    NAMES_ASKED,
    OCCASIONS,
    PEOPLE,
    QUESTIONS,
    SAID,
    TIMES,
    TOLD,
)
from textgym.tasks._writing import NAMES, pick, pick_some
from textgym.tasks.base import Task

_SLOTS = ("people", "day", "time")
_VALUES = {"people": PEOPLE, "day": DAYS, "time": TIMES, "name": NAMES_ASKED}
_PATIENCE = 4
_TURN_COST = 0.1
_VALUE = r"(\w(?:[\w:'’./&+ -]{0,28}\w)?)"  # 30 characters at most, so that no text takes long to match
_BOOKED = re.compile(rf"\s*Booked: {_VALUE} at {_VALUE} for {_VALUE}(?:, {_VALUE})?\.\s*")
_ASKED = {
    "people": re.compile(r"\b(?:many|people|persons|guests)\b", re.I),
    "day": re.compile(r"\b(?:day|date)\b", re.I),
    "time": re.compile(r"\b(?:time|when|hour)\b", re.I),
    "name": re.compile(r"\bname\b", re.I),
}


class Booked(MeanMetric):
    """Whether the table is booked as the customer wants it, in [0, 1]: half the share of right slots, half for all right.

    What counts is the last line that the agent wrote, which must be a booking and nothing else, such as "Booked: Friday
    at seven for four." or, where ``meta`` has a name, "Booked: Friday at seven for four, Novak."; else it is 0. It is
    also 0 once the agent has given the word to the customer more than four times: then they have hung up.
    """

    name = "booking"
    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`.

        Raises:
            MetricError: ``meta`` does not say what the customer wants.
        """
        return [self._score(c) for c in completions]

    def _score(self, completion: Completion) -> float:
        goal = goal_of(completion)
        *turns, last = _turns(completion.text)
        if len(turns) > _PATIENCE:
            return 0.0
        while turns and not last.strip():
            last = turns.pop()
        booked = _slots_of(last)
        if booked is None or set(booked) - set(goal):
            return 0.0
        right = sum(booked.get(slot, "").lower() == value.lower() for slot, value in goal.items())
        return 0.5 * right / len(goal) + 0.5 * (right == len(goal))


class Turns(MeanMetric):
    """How often the agent gave the word to the customer; more than five count as five."""

    name = "turns"
    range = (0.0, _PATIENCE + 1.0)
    higher_is_better = False

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [float(min(len(_turns(c.text)) - 1, _PATIENCE + 1)) for c in completions]


def _turns(text: str) -> list[str]:
    """What the agent said, turn by turn; the last one is not given away (or not yet)."""
    return text.split("\n")


def _slots_of(line: str) -> dict[str, str] | None:
    """What a line books, ``None`` if it is not a booking."""
    found = _BOOKED.fullmatch(line)
    if found is None:
        return None
    slots = dict(zip(("day", "time", "people", "name"), found.groups(), strict=True))
    return {slot: value for slot, value in slots.items() if value is not None}


def goal_of(example: Example | Completion) -> dict[str, str]:
    """What the customer wants: ``people``, ``day``, ``time`` and, where ``meta`` has it, ``name``, as they are written.

    Raises: MetricError: ``meta`` lacks one of the first three, or has one that cannot stand in a booking; the message
    names it.
    """
    missing = [slot for slot in _SLOTS if example.meta.get(slot) in (None, "")]
    if missing:
        raise MetricError(
            "Expected the columns 'people', 'day' and 'time' (and 'name', if it is to be asked for), which say what "
            f"the customer wants, such as 'four', 'Friday', 'seven'; missing in meta: {missing}, of prompt {example.prompt!r}"
        )
    slots = (*_SLOTS, "name") if example.meta.get("name") else _SLOTS
    goal = {slot: str(example.meta[slot]).strip() for slot in slots}
    for slot, value in goal.items():
        if not re.fullmatch(_VALUE, value):
            raise MetricError(
                f"Column {slot!r}: "
                + expected(f"meta[{slot!r}]", value, "1 to 30 letters, digits, spaces and marks between them")
            )
    return goal


def _change_of(meta: Mapping[str, Any]) -> tuple[str, str] | None:
    """Slot and first value of what the customer changes their mind about."""
    change = meta.get("change")
    if not change:
        return None
    if not isinstance(change, Mapping) or change.get("slot") not in _SLOTS or not change.get("from"):
        raise MetricError(
            "Column 'change': "
            + expected("meta['change']", change, f"a mapping with 'slot', one of {_SLOTS}, and 'from'")
        )
    return str(change["slot"]), str(change["from"])


_REWARD = Booked() - _TURN_COST * Turns()
_BOOKING = Booked()


class BookingTask(Task):
    """Talk with a customer until their table is booked.

    ## Description

    A customer calls a restaurant. The policy is the agent: it asks for what is missing, one question a turn, hears the
    answer and ends with a line that books the table.

        Customer: Hello, this is Anna. I need a quiet table for four.
        Agent: On which day?
        Customer: On Friday at seven.
        Agent: Booked: Friday at seven for four.

    The customer follows a script: they answer the first question of a turn that they understand. A third of them
    volunteer the next thing that they have not said yet, so that a good agent listens before it asks. Who books
    something wrong and gives the word back is corrected ("No, on Friday."). After four turns the customer hangs up. It
    stands for dialogues of several turns: what to ask, in as few turns as possible, and to remember what was said.

    The bundled model has read such dialogues, half of them clumsy: agents that ask what they have
    been told, forget to ask and guess, or get something wrong.

    ## Starting State

    The customer's first line, drawn with the environment's own random generator. It may tell some of what they want.

    ## Rewards

    0 on every step but the last. On the last, `booking - 0.1 * turns`:

    * `booking`: if the agent's last line is a booking, half the share of its slots (people, day, time, at the hard
      level the name) that are right, and another half if all are, in [0, 1]; 0 if it is none, or after more than four
      turns;
    * `turns`: how often the agent gave the word to the customer, from 0 to 5.

    A policy that asks only what it has to gets 0.7 to 0.9; one that guesses without asking, about 0.2.

    ## Information

    On the last step: `prompt`, `completion` (what the agent said), `transcript` (the whole dialogue), `references`
    (none here), `finish_reason`, `is_success` (everything is booked right), `reward/booking`, `reward/turns`. An
    example's `meta` has `people`, `day`, `time`, at the hard level `name`; `told` (the slots of the first line),
    `chatty` (whether the customer volunteers) and `change` (slot and first value of what the customer changes their
    mind about, or nothing).

    ## Arguments

    `difficulty`: `"easy"` (one thing is missing), `"normal"` (two or three), `"hard"` (two, and a name to ask for; half
    of the customers change their mind after the first turn).

    Your own prompts are put behind "Customer: " and need the columns `people`, `day` and `time`: the values as the
    customer says them and as the booking must name them ("four", "Friday", "7 pm"). The columns `name`, `told` (a list
    of slots), `chatty` and `change` (`{"slot": "day", "from": "Monday"}`) may be left out.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Booking-v0"
    max_prompt_tokens = 56
    max_new_tokens = 48
    difficulties = ("easy", "normal", "hard")
    template = "Customer: {prompt}\nAgent:"
    turn_end = "\n"
    max_reply_tokens = 96
    random_score = 0.0
    oracle_score = 0.81
    base_score = 0.55

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the customer's script."""
        goal: dict[str, Any] = {slot: pick(rng, _VALUES[slot]) for slot in _SLOTS}
        if difficulty == "easy":
            count = 2
        elif difficulty == "normal":
            count = int(rng.random() < 0.75)
        else:
            count = 1
            goal["name"] = pick(rng, NAMES_ASKED)
        told = pick_some(rng, _SLOTS, count)
        change = None
        said = dict(goal)
        if difficulty == "hard" and rng.random() < 0.5:
            said[told[0]] = _another(rng, told[0], goal[told[0]])
            change = {"slot": told[0], "from": said[told[0]]}
        prompt = self.template.format(prompt=_first_line(rng, [(slot, said[slot]) for slot in told]))
        return Example(prompt, (), {**goal, "told": told, "chatty": bool(rng.random() < 1 / 3), "change": change})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: a dialogue; right and without a wasted turn in four of ten."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        goal, known = goal_of(example), set(example.meta["told"])
        asks = [slot for slot in _questions(example) if rng.random() < 0.85]
        if rng.random() < 0.2 and len(asks) < _PATIENCE:
            asks.insert(int(rng.random() * (len(asks) + 1)), pick(rng, tuple(goal)))
        elif rng.random() < 0.2:
            asks = [asks[i] for i in rng.permutation(len(asks))]
        text = said = ""
        for slot in asks:
            turn = f" {pick(rng, QUESTIONS[slot])}\n"
            text, said = text + turn, said + turn
            answer = self.reply(Completion(example.prompt, said, (), example.meta)) or ""
            known |= {slot, *(s for s in goal if _mentions(answer, s, goal[s]))}
            text += answer
        booked = {s: v if s in known else pick(rng, _VALUES[s]) for s, v in goal.items()}
        if example.meta["change"] and rng.random() < 0.3:
            booked[example.meta["change"]["slot"]] = example.meta["change"]["from"]
        if rng.random() < 0.2:
            wrong = pick(rng, tuple(goal))
            booked[wrong] = _another(rng, wrong, goal[wrong])
        return f"{example.prompt}{text} {_booking(booked)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: a question for each thing that will not be said unasked, then the booking."""
        if not any(example.meta.get(slot) for slot in _SLOTS):
            return f" {example.references[0].strip()}" if example.references else ""
        turns = [QUESTIONS[slot][0] for slot in _questions(example)]
        return "".join(f" {turn}\n" for turn in turns) + f" {_booking(goal_of(example))}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether everything is booked right."""
        return bool(_BOOKING([completion])[0] == 1)

    def reply(self, completion: Completion) -> str | None:
        """See :meth:`Task.reply`: an answer, a correction or thanks; nothing more after four turns.

        Raises:
            MetricError: ``meta`` does not say what the customer wants.
        """
        turns = _turns(completion.text)[:-1]
        if not 0 < len(turns) <= _PATIENCE:
            return None
        goal, told = goal_of(completion), set(completion.meta.get("told") or ())
        for turn in turns:  # what has been said decides what is volunteered
            answer = _answer(turn, goal, told, bool(completion.meta.get("chatty")))
        change = _change_of(completion.meta)
        if change and len(turns) == 1:
            slot, old = change
            answer += f" {CHANGES[slot].format(new=goal[slot], old=old)}"
        return f"Customer: {answer}\nAgent:"


def _answer(turn: str, goal: Mapping[str, str], told: set[str], chatty: bool) -> str:
    """What the customer says to a turn; adds to ``told`` what they tell."""
    booked = _slots_of(turn)
    if booked is not None:
        wrong = [slot for slot, value in goal.items() if booked.get(slot, "").lower() != value.lower()]
        return f"No, {SAID[wrong[0]].format(goal[wrong[0]])}." if wrong else "Thank you."
    places = {slot: found.start() for slot in goal if (found := _ASKED[slot].search(turn))}
    if not places:
        return "Sorry?"
    asked = min(places, key=lambda slot: places[slot])
    told.add(asked)
    said = [asked]
    if chatty and asked != "name":
        said += [slot for slot in _SLOTS if slot not in told][:1]
        told.update(said)
    text = " ".join(SAID[slot].format(goal[slot]) for slot in said)
    return f"{text[:1].upper()}{text[1:]}."


def _questions(example: Example) -> list[str]:
    """The slots to ask for, in the order of their usual mention, so that everything gets said."""
    goal, told = goal_of(example), set(example.meta.get("told") or ())
    questions = []
    for slot in goal:
        if slot not in told:
            questions.append(slot)
            _answer(QUESTIONS[slot][0], goal, told, bool(example.meta.get("chatty")))
    return questions


def _booking(slots: Mapping[str, str]) -> str:
    name = f", {slots['name']}" if "name" in slots else ""
    return f"Booked: {slots['day']} at {slots['time']} for {slots['people']}{name}."


def _first_line(rng: np.random.Generator, told: Sequence[tuple[str, str]]) -> str:
    wish = pick(rng, FIRST_TURNS).format(pick(rng, KINDS))
    wish += "".join(f" {TOLD[slot].format(value)}" for slot, value in told)
    return f"{pick(rng, GREETINGS)}, this is {pick(rng, NAMES)}. {wish}.{pick(rng, OCCASIONS)}"


def _another(rng: np.random.Generator, slot: str, value: str) -> str:
    while True:
        other = pick(rng, _VALUES[slot])
        if other != value:
            return other


def _mentions(answer: str, slot: str, value: str) -> bool:
    return re.search(rf"\b{re.escape(SAID[slot].format(value))}\b", answer, re.I) is not None
