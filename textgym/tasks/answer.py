"""TextGen-Answer-v0: answer a question on a short passage."""

from __future__ import annotations

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.answers import ExactMatch, TokenF1
from textgym.metrics.base import Metric
from textgym.rewards import Reward
from textgym.tasks._answer_words import HOLDERS, KINDS, LINKS, ROOMS, THINGS, WOMEN, Kind
from textgym.tasks._writing import NAMES, pick, pick_some
from textgym.tasks.base import Task

_EXACT, _F1 = ExactMatch(), TokenF1()
_REWARD = 0.5 * _F1 + 0.5 * _EXACT
_MIXTURE = ("easy", "easy", "normal", "normal", "normal", "normal", "hard")  # of the documents


class AnswerTask(Task):
    """Answer a question on a short passage.

    ## Description

    The prompt is a passage of two to four sentences and a question on it; the policy writes the answer, one to three words
    that occur in the passage just like that:

        Passage: Anna lives in Oslo. She has two cats. Ben lives in Rome.
        Question: Where does Anna live?
        Answer: Oslo

    This is extractive question answering, the family of SQuAD and NarrativeQA: understanding is measured by the answer alone.
    What stands in the way are the facts that nobody asked for, above all those of the same kind about somebody else.

    The passages are written by a generator of this repository: twelve kinds of facts about people (where they live, what
    they drink, when they arrived, ...) and, at the hard level, where things lie; about 200 different words.

    ## Starting State

    A prompt of the split (`train`, `dev` and `test` share none), drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `0.5 * token_f1 + 0.5 * exact_match`, in [0, 1]:

    * `token_f1`: F1 of the words of answer and reference, as SQuAD counts them (no case, punctuation, articles);
    * `exact_match`: 1 if they are the same text after the same normalisation.

    Naming everything that could be meant costs precision, and never matches.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the answer), `finish_reason`, `is_success` (an exact match),
    `reward/token_f1`, `reward/exact_match`. An example's `meta` has `kind` (of the question: `"fact"`, `"who"`, `"two-hop"`)
    and `candidates` (other answers that the passage could suggest).

    ## Arguments

    `difficulty`: `"easy"` (two facts of different kinds about one person), `"normal"` (three facts, two of them of the same
    kind about two persons; some questions ask for the person), `"hard"` (four sentences, and the answer takes two
    of them: "Anna's boss is Ben. Anna lives in Rome. Ben lives in Oslo. ... Where does Anna's boss live?").

    With `prompts=` it runs on anybody's own passages: `prompt` has passage and question, `references` the right answers;
    "Answer:" is put behind. `textgym.tasks.answer.passage_prompt` builds the whole prompt from passage and question.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Answer-v0"
    max_prompt_tokens = 72
    max_new_tokens = 8
    difficulties = ("easy", "normal", "hard")
    template = "{prompt}\nAnswer:"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.4

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the kind of the question and other answers that the passage suggests."""
        write = {"easy": _one_person, "normal": _two_people, "hard": _two_hops}[difficulty]
        sentences, question, answer, kind, candidates = write(rng)
        prompt = passage_prompt(" ".join(sentences), question)
        return Example(prompt, (answer,), {"kind": kind, "candidates": candidates})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in 70 of 100; else a candidate, half of the answer, or a whole sentence."""
        example = self.sample(rng, pick(rng, _MIXTURE))
        right, luck = example.references[0], rng.random()
        if luck < 0.7:
            answer = right
        elif luck < 0.9 or (luck < 0.95 and " " not in right):
            answer = pick(rng, example.meta["candidates"])
        elif luck < 0.95:
            answer = pick(rng, right.split())
        else:
            answer = pick(rng, example.prompt.split("\n")[0].removeprefix("Passage: ").split(". ")).removesuffix(".")
        return f"{example.prompt} {answer}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference; nothing where there is none."""
        return f" {example.references[0].strip()}" if example.references else ""

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`: the two of SQuAD."""
        return _EXACT, _F1

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the answer is right to the word; ``None`` without references."""
        return bool(_EXACT([completion])[0] == 1) if completion.references else None


def passage_prompt(passage: str, question: str) -> str:
    """The prompt that asks ``question`` on ``passage``: what this task's own prompts look like."""
    return f"Passage: {passage.strip()}\nQuestion: {question.strip()}\nAnswer:"


_Written = tuple[list[str], str, str, str, list[str]]  # sentences, question, answer, kind of question, candidates


def _fact(kind: Kind, who: str, value: str) -> str:
    return f"{who} {kind.says.replace('{value}', value)}."


def _pronoun(name: str) -> str:
    return "She" if name in WOMEN else "He"


def _values(rng: np.random.Generator, kind: Kind, count: int) -> list[str]:
    """``count`` different values of ``kind``."""
    found: list[str] = []
    while len(found) < count:
        value = pick(rng, kind.values)
        if value not in found:
            found.append(value)
    return found


def _one_person(rng: np.random.Generator) -> _Written:
    name, (asked, other) = pick(rng, NAMES), pick_some(rng, KINDS, 2)
    answer, wrong = pick(rng, asked.values), pick(rng, other.values)
    facts = [(asked, answer), (other, wrong)]
    if rng.random() < 0.5:
        facts.reverse()
    sentences = [_fact(*facts[0][:1], name, facts[0][1]), _fact(facts[1][0], _pronoun(name), facts[1][1])]
    return sentences, asked.asks.replace("{who}", name), answer, "fact", [wrong, name]


def _two_people(rng: np.random.Generator) -> _Written:
    (first, second), (asked, other) = pick_some(rng, NAMES, 2), pick_some(rng, KINDS, 2)
    one, two = _values(rng, asked, 2)
    extra = pick(rng, other.values)
    sentences = [_fact(asked, first, one), _fact(asked, second, two)]
    place = int(rng.random() * 2)  # who the third fact is about: it follows theirs, with a pronoun
    sentences.insert(place + 1, _fact(other, _pronoun((first, second)[place]), extra))
    luck = rng.random()
    who, value, not_who, not_value = (first, one, second, two) if luck < 0.5 else (second, two, first, one)
    if rng.random() < 0.15:
        question = f"Who {asked.says.replace('{value}', value)}?"
        return sentences, question, who, "who", [not_who, not_who, value]
    return sentences, asked.asks.replace("{who}", who), value, "fact", [not_value, not_value, extra]


def _two_hops(rng: np.random.Generator) -> _Written:
    return _things(rng) if rng.random() < 0.25 else _linked_people(rng)


def _linked_people(rng: np.random.Generator) -> _Written:
    (one, two, three), asked = pick_some(rng, NAMES, 3), pick(rng, KINDS)
    values, link = _values(rng, asked, 3), pick(rng, LINKS)
    sentences = [_fact(asked, who, value) for who, value in zip((one, two, three), values, strict=True)]
    sentences = [sentences[i] for i in rng.permutation(3)]
    sentences.insert(int(rng.random() * 4), f"{one}'s {link} is {two}.")
    question = asked.asks.replace("{who}", f"{one}'s {link}")
    return sentences, question, values[1], "two-hop", [values[0], values[0], values[2]]


def _things(rng: np.random.Generator) -> _Written:
    things, holders, rooms = pick_some(rng, THINGS, 2), pick_some(rng, HOLDERS, 2), pick_some(rng, ROOMS, 2)
    sentences = [f"The {things[i]} is in the {holders[i]}." for i in range(2)]
    sentences += [f"The {holders[i]} is in the {rooms[i]}." for i in range(2)]
    sentences = [sentences[i] for i in rng.permutation(4)]
    question = f"Which room is the {things[0]} in?"
    return sentences, question, rooms[0], "two-hop", [rooms[1], rooms[1], holders[0]]
