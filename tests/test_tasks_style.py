"""What is special about Poem, Polite and Reply."""

from __future__ import annotations

import numpy as np
import pytest

from textgym.core import Completion, Example
from textgym.metrics.pronunciation import rhymes, syllables, words_of
from textgym.rewards.base import RewardError
from textgym.tasks._poem_words import FAMILIES
from textgym.tasks._polite_words import POLITE, RUDE, asks_politely, is_rude
from textgym.tasks.poem import CoupletRhyme, Line, PoemTask
from textgym.tasks.polite import Politeness, PoliteTask

BAY = "Topic: the sea\nThe boat drifts out across the bay"


def score(task, prompt: str, text: str, references: tuple[str, ...] = ()) -> float:
    return float(task.reward()([Completion(prompt, text, references)])[0])


# ---- Poem -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f[0])
def test_endings_of_a_family_rhyme(family):
    words = [words_of(ending)[-1] for ending in family]
    for word in words:
        assert sum(rhymes(word, other) for other in words) >= len(words) - 2, word


def test_lines_are_four_iambs():
    task, rng = PoemTask(), np.random.default_rng(0)
    counts = [
        sum(map(syllables, words_of(task.sample(rng, level).prompt.rpartition("\n")[2])))
        for level in task.difficulties
        for _ in range(100)
    ]
    assert np.mean(np.array(counts) == 8) > 0.9


@pytest.mark.parametrize(
    ("text", "rhyme"),
    [
        ("\nthe gull flies home again today", 1),
        ("\nthe gull flies home again tonight", 0),
        ("\nthe gull flies home across the bay", 0),  # the same word
        (" and flies away", 0),  # no new line
        ("\nthe gull\nflies far away", 0),  # two
        ("\n", 0),
        ("", 0),
    ],
)
def test_rhyme_of_a_couplet(text, rhyme):
    assert CoupletRhyme()([Completion(BAY, text)])[0] == rhyme


def test_line():
    line = Line()
    assert line([Completion(BAY, "\nthe gull flies home")])[0] == 1
    assert line([Completion(BAY, "\nthe boat flies home")])[0] == pytest.approx(3 / 4), "the boat was there before"
    assert line([Completion(BAY, "\nthe gull xqzt home")])[0] == pytest.approx(3 / 4), "no word"
    assert line([Completion(BAY, "\ngull wave ship gate")])[0] == 0, "a list"
    for text in ("", " the gull flies home", "\nthe gull\nflies home"):
        assert line([Completion(BAY, text)])[0] == 0


def test_a_poem_of_ones_own():
    task = PoemTask()
    example = Example("I never saw a purple cow, I never hope to see")
    assert score(task, example.prompt, task.oracle(example)) > 0.8
    assert score(task, BAY, "\nthe gull flies home again today") == pytest.approx(1.0)
    assert score(task, BAY, "\ntoday") < 0.7


# ---- Polite ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "politeness"),
    [
        ("Could you please bring me the keys?", 1.0),
        ("Bring me the keys, thank you.", 1.0),
        ("Bring me the keys.", 0.5),
        ("Please bring me the keys, you fool.", 0.0),
        ("Please bring me the keys!", 0.0),
        ("please please please please", 0.5),
        ("", 0.0),
    ],
)
def test_politeness(text, politeness):
    assert Politeness()([Completion("", text)])[0] == politeness


def test_messages_are_rude_and_references_are_not():
    task, rng = PoliteTask(), np.random.default_rng(0)
    for level in task.difficulties:
        for _ in range(200):
            example = task.sample(rng, level)
            assert is_rude(example.prompt) and len(example.references) == len(POLITE)
            for reference in example.references:
                assert asks_politely(reference) and not is_rude(reference)
                assert RUDE.isdisjoint(reference.lower().rstrip("?.").split())
            assert task.is_success(Completion(example.prompt, f" {example.references[1]}", example.references))
            assert not task.is_success(Completion(example.prompt, " Could you please help me?", example.references))


def test_meaning_has_to_be_kept():
    task, reference = PoliteTask(), ("Could you please bring me the keys today?",)
    full = score(task, "", " Could you please bring me the keys today?", reference)
    less = score(task, "", " Could you please bring me the keys?", reference)
    other = score(task, "", " Could you please close the window today?", reference)
    assert full == 1 > less > other
    assert score(task, "", " Bring me the keys today!", reference) == 0
    with pytest.raises(RewardError, match="reference"):
        score(task, "the prompt", " Could you please?")
