"""Poem, Polite and Reply: what is special about them."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from textgym.core import Completion, Example
from textgym.metrics.pronunciation import fit, pronunciations, rhymes
from textgym.tasks import PoemTask, PoliteTask, ReplyTask, Task
from textgym.tasks._poem_words import DEEDS, FAMILIES, PLURAL_THING, TOPICS
from textgym.tasks._polite_words import is_rude
from textgym.tasks._reply_words import GOODS, INTENTS
from textgym.tasks.poem import Line
from textgym.tasks.reply import KINDS, preference, write_reply


def drawn(task: Task, count: int, difficulty: str = "normal") -> list[Example]:
    rng = np.random.default_rng(3)
    return [task.sample(rng, difficulty) for _ in range(count)]


def mean_reward(task: Task, examples: list[Example], texts: list[str]) -> float:
    done = [Completion(e.prompt, text, e.references, e.meta) for e, text in zip(examples, texts, strict=True)]
    return float(task.reward()(done).mean())


# ---- poem -----------------------------------------------------------------------------------------------------------


def test_families_rhyme_and_scan():
    for family in FAMILIES:
        last = [ending.split()[-1] for ending in family]
        assert len(set(last)) == len(last)
        for word in last:  # but for pairs such as "day" and "today", which sound the same
            assert sum(rhymes(word, other) for other in last) >= len(last) - 2, word
    assert [e for family in FAMILIES for e in family if fit(e.split(), "0101") < 1] == [
        "in bright sunshine"
    ]  # nearly does
    for one, other in combinations(FAMILIES, 2):
        assert not rhymes(one[0].split()[-1], other[0].split()[-1])
    assert all(fit(deed.split(), "01") == 1 for deeds in DEEDS.values() for deed in deeds)
    things = {thing for things in TOPICS.values() for thing in things}
    assert all(fit([word], "1") == 1 for thing in things for word in (thing, PLURAL_THING.get(thing, thing + "s")))


def test_first_lines_scan():
    for example in drawn(PoemTask(), 200):
        assert fit(example.prompt.split("\n")[1].lower().split(), "01010101") >= 0.75


def rhyming_words(example: Example) -> list[str]:
    words = [ending.split()[-1] for ending in FAMILIES[example.meta["family"]]]
    return [word for word in words if word != example.prompt.split()[-1]]


CHEATS = {
    "one rhyme": lambda e: f"\n{rhyming_words(e)[0]}",
    "one rhyme over and over": lambda e: "\n" + " ".join([rhyming_words(e)[0]] * 8),
    "all rhymes": lambda e: "\n" + " ".join(rhyming_words(e)),
    "all rhymes with articles": lambda e: "\n" + " ".join(f"the {word}" for word in rhyming_words(e)[:4]),
    "a list of nouns": lambda e: f"\nboat tree stone light moon hill king {rhyming_words(e)[0]}",
    "the line again": lambda e: "\n" + e.prompt.rsplit("\n", 1)[1],
    "the line with another last word": lambda e: (
        "\n" + " ".join([*e.prompt.rsplit("\n", 1)[1].split()[:-1], rhyming_words(e)[0]])
    ),
    "two lines": lambda e: PoemTask().oracle(e) * 2,
    "no new line": lambda e: f" {PoemTask().oracle(e).strip()}",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_of_poem(cheat):
    task, examples = PoemTask(), drawn(PoemTask(), 60)
    assert mean_reward(task, examples, [task.oracle(e) for e in examples]) > 0.98
    assert mean_reward(task, examples, [CHEATS[cheat](e) for e in examples]) < 0.75


def test_lines():
    def score(text, prompt="Topic: the sea\nThe boat sets out upon the bay"):
        return Line()([Completion(prompt, text)])[0]

    assert score("\nand rocks its sailors on the way") == 1
    assert score("and rocks its sailors on the way") == 0
    assert score("\nand rocks its sailors\non the way") == 0
    assert score("") == score("\n") == 0
    assert score("\nand rocks its boat on the way") == pytest.approx(6 / 7)  # "boat" is no new word
    assert score("\nand rocks its qwxyz on the way") == pytest.approx(6 / 7)
    assert score("\nwaves rock ships") == 0  # no function word
    assert score("\nthe of to and in") == 0  # nothing else
    assert score("\nand day by day it went away") == pytest.approx(5 / 7)  # a word before the last rhymes with it


def test_poem_of_a_users_own():
    task = PoemTask()
    example = Example("Roses are red and my shirt is gold")
    done = Completion(example.prompt, task.oracle(example))
    assert rhymes(done.text.split()[-1], "gold") and task.is_success(done)
    assert task.oracle(Example("")).startswith("\n")
    assert not task.is_success(Completion(example.prompt, "\nand that is all"))


def test_documents_of_poem_are_of_both_kinds():
    rng, task = np.random.default_rng(0), PoemTask()
    found = []
    for _ in range(300):
        first, second = task.document(rng).rsplit("\n", 1)
        found.append(rhymes(first.split()[-1], second.split()[-1]))
        assert all(pronunciations(word) for word in second.split())
    assert 0.3 < np.mean(found) < 0.7


# ---- polite ---------------------------------------------------------------------------------------------------------


POLITE_CHEATS = {
    "please": lambda e: " please" * 8,
    "the message": lambda e: " " + e.prompt.removeprefix("Rude: ").removesuffix("\nPolite:"),
    "the message with a prefix": lambda e: " Could you please " + e.prompt.removeprefix("Rude: ").removesuffix("\nPolite:"),
    "the content alone": lambda e: f" {e.meta['request']}",
    "something generic": lambda e: " Could you please help me with this today?",
    "another request": lambda e: " Could you please close the window after lunch?",
    "in random order": lambda e: " " + " ".join(np.random.default_rng(0).permutation(e.references[0].split())),
}  # fmt: skip


@pytest.mark.parametrize("cheat", POLITE_CHEATS)
def test_cheats_of_polite(cheat):
    task, examples = PoliteTask(), drawn(PoliteTask(), 60)
    assert mean_reward(task, examples, [task.oracle(e) for e in examples]) > 0.98
    assert mean_reward(task, examples, [POLITE_CHEATS[cheat](e) for e in examples]) < 0.75


@pytest.mark.parametrize("difficulty", PoliteTask.difficulties)
def test_messages_are_rude_and_references_are_not(difficulty):
    for example in drawn(PoliteTask(), 200, difficulty):
        assert is_rude(example.prompt)
        assert not any(is_rude(reference) for reference in example.references)
        asked, said = (re.findall(r"\w+", text.lower()) for text in (example.meta["request"], example.prompt))
        assert set(asked) <= {*said, "a", "and"}
        assert all(example.meta["request"] in reference for reference in example.references)
        assert (" and " in example.meta["request"]) == (difficulty == "hard")


# ---- reply ----------------------------------------------------------------------------------------------------------


def test_words_tell_problems_apart():
    keys = [key for intent in INTENTS.values() for key in intent.keys]
    assert len(set(keys)) == len(keys) and not set(keys) & set(GOODS)
    rng = np.random.default_rng(0)
    for name, intent in INTENTS.items():
        for action in intent.actions + intent.bare_actions:
            words = set(action.lower().strip(".").split())
            assert words & set(intent.keys), action
            assert not words & (set(keys) - set(intent.keys)), action
        for kind in ("helpful", "good"):
            meta = {"intent": name, "product": intent.goods[0], "said": "", "other_product": ""}
            text = write_reply(rng, meta, kind)
            assert ReplyTask().is_success(Completion("", f" {text}", meta=meta)), text


def test_the_judge_likes_help():
    rng, liked = np.random.default_rng(0), {}
    examples = drawn(ReplyTask(), 100) + drawn(ReplyTask(), 100, "hard")
    for kind in KINDS:
        liked[kind] = np.array([preference(e.meta, write_reply(rng, e.meta, kind)) for e in examples])
    assert liked["helpful"].min() > 5 and liked["good"].min() > 4.5
    assert liked["helpful"].mean() > liked["good"].mean() > liked["half"].mean() > liked["wrong product"].mean() > 1
    for kind in ("generic", "off topic", "rude", "echo"):
        assert liked[kind].mean() < 1, kind
    shuffled = [" ".join(rng.permutation(ReplyTask().oracle(e).split())) for e in examples]
    assert np.mean([preference(e.meta, text) for e, text in zip(examples, shuffled, strict=True)]) < 1
    assert all(preference(e.meta, "") < -2 for e in examples)


def test_success_needs_problem_and_product():
    meta = {
        "intent": "refund",
        "product": "lamp",
        "said": "I want my money back for the lamp.",
        "other_product": "desk",
    }

    def success(text, **changes):
        return ReplyTask().is_success(Completion("", text, meta={**meta, **changes}))

    good = " I am sorry about that. We will refund the lamp on Monday."
    assert success(good) is True
    assert success(good, product="desk") is False
    assert success(good, intent="repair") is False
    assert success(good + " Do not be so stupid.") is False
    assert success(" We will refund it on Monday.") is False
    assert success(good + " We will refund the desk on Monday.") is False
    assert success(" lamp refund the sorry Monday I on about will") is False
    assert success("") is False
    assert success(" I want my money back for the lamp.") is False
    assert ReplyTask().is_success(Completion("Customer: Hello\nAgent:", good)) is None


@pytest.mark.parametrize("difficulty", ReplyTask.difficulties)
def test_dialogues_name_the_product(difficulty):
    for example in drawn(ReplyTask(), 200, difficulty):
        named = {word.strip(".?,") for word in example.prompt.split()} & set(GOODS)
        assert named == {example.meta["product"], example.meta["other_product"]} - {""}
        assert bool(example.meta["other_product"]) == (difficulty == "hard")
        assert example.prompt.endswith("\nAgent:") and example.meta["said"] in example.prompt
        assert example.prompt.count("Customer:") == example.prompt.count("Agent:")


def test_oracle_of_a_dialogue_without_meta():
    task = ReplyTask()
    assert task.oracle(Example("Customer: Hi\nAgent:", ("Good morning.",))) == " Good morning."
    assert task.oracle(Example("Customer: Hi\nAgent:")).startswith(" I am sorry")
