"""Exact match, token F1, accuracy, entities and coverage, against slow implementations of their own."""

from __future__ import annotations

import collections
import copy
import pickle
import re
import string
import time

import numpy as np
import pytest

from textgym.core import Completion
from textgym.metrics import (
    Accuracy,
    Coverage,
    EntityF1,
    ExactMatch,
    MetricError,
    TokenF1,
    normalize_answer,
    parse_entities,
)
from textgym.metrics.intervals import resampled
from textgym.rewards import REWARDS, as_reward

WORDS = "the a an The film, film was good-bad it's 1,000 A. Bern Bern. 电影 🎬 é - ' __ theatre AN. _a_ x".split()
LONG = ("Anna went to Bern, the city of bears. " * 530)[:20_000]
STRANGE = [
    "",
    " \n ",
    "这部电影非常好看，我很喜欢。",
    "👍🏽🎬❤️ 👨‍👩‍👧",
    "\x00\u200b\ufeff a\tb\r\n",
    "a \ud800 b",
    "x" * 20_000,
    "你好" * 10_000,
    LONG,
]


def some_text(rng, most=12):
    return " ".join(WORDS[k] for k in rng.integers(len(WORDS), size=rng.integers(most)))


def some_pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        references = [some_text(rng) for _ in range(rng.integers(1, 4))]
        words = references[0].split()
        rng.shuffle(words)
        text = [some_text(rng), " ".join(words[1:]), references[-1].upper() + " ", references[0], ""][i % 5]
        made.append(Completion(f"prompt {i}", text, tuple(references), {"words": ["film", "good", "Bern"][: i % 4]}))
    return made


def sentence_scores(metric, completions):
    return metric.sentence_scores(metric.statistics(completions))


def one(metric, text, *references, **meta):
    return float(sentence_scores(metric, [Completion("p", text, references, meta)])[0])


# ---- SQuAD: its evaluation script (version 2.0), written down from memory --------------------------------------------


def squad_normalize(s):
    def remove_articles(text):
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def squad_f1(a_gold, a_pred):
    gold_toks = squad_normalize(a_gold).split() if a_gold else []
    pred_toks = squad_normalize(a_pred).split() if a_pred else []
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(pred_toks)
    recall = 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


def squad_scores(completion):
    gold_answers = [a for a in completion.references if squad_normalize(a)]
    if not gold_answers:
        gold_answers = [""]
    exact = max(int(squad_normalize(a) == squad_normalize(completion.text)) for a in gold_answers)
    return exact, max(squad_f1(a, completion.text) for a in gold_answers)


def test_exact_match_and_f1_are_those_of_squad():
    completions = some_pairs(600)
    exact, f1 = np.array([squad_scores(c) for c in completions], dtype=float).T
    assert 0.1 < exact.mean() < 0.9 and np.std(f1) > 0.1 and len(set(f1)) > 20
    np.testing.assert_allclose(sentence_scores(ExactMatch(), completions), exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(sentence_scores(TokenF1(), completions), f1, rtol=0, atol=1e-9)
    assert ExactMatch().corpus_score(completions) == pytest.approx(exact.mean(), abs=1e-9)
    assert TokenF1().corpus_score(completions) == pytest.approx(f1.mean(), abs=1e-9)


@pytest.mark.parametrize("text", [*STRANGE, "The A an Theatre, a.n. it's _a_ a_b", "A'n't", "the-the"])
def test_normalization_is_that_of_squad(text):
    assert normalize_answer(text) == squad_normalize(text)


def test_squad_by_hand():
    assert normalize_answer(" The  film's an U.S. A-b! ") == "films us ab"
    assert one(ExactMatch(), "the Bern.", "Zürich", "bern") == 1
    assert one(TokenF1(), "in old Bern Bern", "Bern, the city") == pytest.approx(2 * (1 / 4) * (1 / 2) / (3 / 4))
    assert one(TokenF1(), "", "") == one(ExactMatch(), "the", "") == 1, "nothing to answer, and nothing answered"
    assert one(TokenF1(), "Bern", "") == one(TokenF1(), "", "Bern") == 0
    assert one(TokenF1(), "", "the", "Bern") == one(ExactMatch(), "", "the", "Bern") == 0, "some reference has a word"


def test_accuracy():
    completions = some_pairs(300)
    slow = [any(c.text.strip().casefold() == r.strip().casefold() for r in c.references) for c in completions]
    assert 0.2 < np.mean(slow) < 0.8
    np.testing.assert_array_equal(sentence_scores(Accuracy(), completions), slow)
    assert one(Accuracy(), " Positive\n", "positive") == one(Accuracy(), "STRASSE", "Straße") == 1
    assert one(Accuracy(), "positive.", "positive") == one(Accuracy(), "very positive", "positive") == 0


# ---- entities --------------------------------------------------------------------------------------------------------


def tagged(words, *entities):
    return tuple(words.split()), frozenset(entities)


@pytest.mark.parametrize(
    ("text", "words", "entities"),
    [
        ("[PER Anna Novak] visited [LOC Bern] .", "Anna Novak visited Bern .", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("visited [LOC Bern].", "visited Bern .", [("LOC", 1, 2)]),
        ("visited Bern.", "visited Bern .", []),
        ("[LOC Bern][LOC Basel]", "Bern Basel", [("LOC", 0, 1), ("LOC", 1, 2)]),
        ("  [ LOC\nBern ]  ", "Bern", [("LOC", 0, 1)]),
        ("[B-PER O'Neil, Jr.]", "O'Neil , Jr .", [("B-PER", 0, 4)]),
        ("wait ...[PER Anna]", "wait . . . Anna", [("PER", 4, 5)]),
        ("", "", []),
        ("no brackets", "no brackets", []),
        ("[PER]", "PER", []),
        ("[]", "", []),
        ("[ ]]][", "", []),
        ("[PER Anna", "PER Anna", []),
        ("Anna] Novak", "Anna Novak", []),
        ("[PER Anna [LOC Bern] Novak]", "PER Anna Bern Novak", [("LOC", 2, 3)]),
        ("[PER Anna [LOC Bern", "PER Anna LOC Bern", []),
        ("[LOC 东京] 🎬", "东京 🎬", [("LOC", 0, 1)]),
    ],
)
def test_parse_entities(text, words, entities):
    found = parse_entities(text)
    assert (found.words, found.entities) == tagged(words, *entities)


def slow_parse(text):
    """The same grammar, read character by character, with a list of (word, number of the open bracket)."""
    marks, spaced = ".,;:!?", ""
    for x in text:
        spaced += f" {x} " if x in "[]" else x
    words, opened, pieces = [], None, []
    for token in spaced.split():
        tail = []
        while token and token[-1] in marks and token not in "[]":
            tail.insert(0, token[-1])
            token = token[:-1]
        pieces += ([token] if token else []) + tail
    closing = {}
    for i, piece in enumerate(pieces):
        if piece == "[":
            opened = i
        elif piece == "]":
            if opened is not None and i - opened >= 3:
                closing[opened] = i
            opened = None
    entities, i = set(), 0
    inside = None
    while i < len(pieces):
        if i in closing:
            inside = (pieces[i + 1], len(words), closing[i])
            i += 1
        elif inside and i == inside[2]:
            entities.add((inside[0], inside[1], len(words)))
            inside = None
        elif pieces[i] not in ("[", "]"):
            words.append(pieces[i])
        i += 1
    return tuple(words), entities


PIECES = [
    "[PER ",
    "[LOC ",
    "[",
    "]",
    "] ",
    " ",
    "Anna",
    "Novak",
    "Bern",
    ".",
    " visited ",
    "[PER Anna] ",
    "[LOC Bern]",
    "电影",
]


def some_tagged(rng):
    return "".join(PIECES[k] for k in rng.integers(len(PIECES), size=rng.integers(12)))


def bracketed(rng, words):
    """The words with brackets at random places."""
    text, i = [], 0
    while i < len(words):
        size = int(rng.integers(1, 3))
        span = " ".join(words[i : i + size])
        text.append(f"[{('PER', 'LOC')[rng.integers(2)]} {span}]" if rng.random() < 0.5 else span)
        i += size
    return " ".join(text)


def tagged_pairs(n, seed=0):
    """Half of them with the same words on both sides."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        words = ["Anna", "Novak", "Bern", "电影", "in"][: rng.integers(6)] + ["sees", "it", "."][: rng.integers(4)]
        reference = bracketed(rng, words) if i % 3 else some_tagged(rng)
        text = [bracketed(rng, words), some_tagged(rng), bracketed(rng, words), reference + " [LOC Bern]", reference][
            i % 5
        ]
        made.append(Completion(f"p {i}", text, (reference,)))
    return made


def test_random_texts_are_parsed_as_by_the_slow_parser():
    rng = np.random.default_rng(1)
    entities = 0
    for _ in range(500):
        text = some_tagged(rng)
        found = parse_entities(text)
        assert (found.words, set(found.entities)) == slow_parse(text), text
        entities += len(found.entities)
    assert entities > 200


def slow_entity_counts(c, match, same_text):
    (ours, found), (theirs, wanted) = slow_parse(c.text), slow_parse(c.references[0])
    if not same_text:
        found = {(k, " ".join(ours[a:b]), 0) for k, a, b in found}
        wanted = {(k, " ".join(theirs[a:b]), 0) for k, a, b in wanted}
    if match == "boundary":
        found, wanted = {e[1:] for e in found}, {e[1:] for e in wanted}
    changed = same_text and ours != theirs
    return (0 if changed else len(found & wanted)), len(found), len(wanted), changed


def slow_entity_f1(counts):
    right, found, wanted = (sum(row[k] for row in counts) for k in range(3))
    if found == wanted == 0:
        return float(not any(row[3] for row in counts))
    if not right:
        return 0.0
    p, r = right / found, right / wanted
    return 2 * p * r / (p + r)


@pytest.mark.parametrize("same_text", [True, False])
@pytest.mark.parametrize("match", ["type", "boundary"])
def test_entity_f1_equals_a_slow_one(match, same_text):
    completions = tagged_pairs(400)
    metric = EntityF1(match, same_text)
    counts = [slow_entity_counts(c, match, same_text) for c in completions]
    slow = [slow_entity_f1([row]) for row in counts]
    assert np.std(slow) > 0.2 and len(set(slow)) > 5
    np.testing.assert_allclose(sentence_scores(metric, completions), slow, rtol=0, atol=1e-12)
    assert metric.corpus_score(completions) == pytest.approx(slow_entity_f1(counts), abs=1e-12)


def test_entity_f1_by_hand():
    gold = "[PER Anna Novak] visited [LOC Bern] ."
    both = EntityF1("type"), EntityF1("boundary")
    assert [one(m, gold, gold) for m in both] == [1, 1]
    assert [one(m, "[LOC Anna Novak] visited [LOC Bern].", gold) for m in both] == [0.5, 1]
    assert [one(m, "Anna Novak visited [LOC Bern] .", gold) for m in both] == pytest.approx([2 / 3, 2 / 3])
    assert [one(m, "Anna [PER Novak] visited [LOC Bern] .", gold) for m in both] == [0.5, 0.5]
    assert [one(m, "[LOC Bern]", gold) for m in both] == [0, 0], "the sentence was changed"
    assert [one(m, "", gold) for m in both] == [0, 0]
    assert [one(m, "It rains.", "It rains .") for m in both] == [1, 1]
    assert [one(m, "", "It rains .") for m in both] == [0, 0]
    assert one(EntityF1(same_text=False), "[LOC Bern]", gold) == pytest.approx(2 / 3)
    assert one(EntityF1(same_text=False), "", "It rains .") == 1
    one_of_each = [Completion("p", gold, (gold,)), Completion("p", "[LOC It] rains", ("It rains",))]
    assert EntityF1().corpus_score(one_of_each) == pytest.approx(4 / 5), "micro: 2 right of 3, 2 wanted"


def test_parsing_takes_linear_time():
    for text in (
        "[" * 20_000,
        "]" * 20_000,
        "[A b] " * 3_300,
        "[A " * 6_600,
        "[A " + "b " * 9_990 + "]",
        "." * 20_000,
        ".[" * 10_000,
    ):
        started = time.perf_counter()
        parse_entities(text)
        assert time.perf_counter() - started < 0.5


# ---- coverage --------------------------------------------------------------------------------------------------------


def slow_contains(text, phrase):
    """Compares words at every place; for phrases of Latin words."""
    words, wanted = (re.findall(r"[a-z0-9]+", t.lower()) for t in (text, phrase))
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1))


@pytest.mark.parametrize("key", ["words", "table"])
def test_coverage_equals_a_slow_one(key):
    rng = np.random.default_rng(0)
    vocabulary = "dog dogs Hot hotdog new york New film filmed a".split()
    completions, slow = [], []
    for i in range(300):
        text = " ".join(vocabulary[k] for k in rng.integers(10, size=rng.integers(12)))
        wanted = [" ".join(vocabulary[k] for k in rng.integers(10, size=rng.integers(1, 3))) for _ in range(i % 5)]
        value = wanted if key == "words" else [["attribute", phrase] for phrase in wanted]
        completions.append(Completion("p", text, meta={key: value}))
        slow.append((sum(slow_contains(text, phrase) for phrase in wanted), len(wanted)))
    metric = Coverage(key)
    each = [found / wanted if wanted else 1.0 for found, wanted in slow]
    assert np.std(each) > 0.2 and len(set(each)) > 5
    np.testing.assert_allclose(sentence_scores(metric, completions), each, rtol=0, atol=1e-12)
    found, wanted = np.sum(slow, axis=0)
    assert metric.corpus_score(completions) == pytest.approx(found / wanted)


@pytest.mark.parametrize(
    ("text", "phrase", "plain", "inflected"),
    [
        ("The DOG barks.", "dog", True, True),
        ("hotdog doghouse", "dog", False, False),
        ("two dogs", "dog", False, True),
        ("he catches", "catch", False, True),
        ("she walked", "walk", False, True),
        ("running", "run", False, True),
        ("stopped", "stop", False, True),
        ("chasing", "chase", False, True),
        ("chased", "chase", False, True),
        ("he carries and carried", "carry", False, True),
        ("a car, cars", "care", False, False),
        ("ran", "run", False, False),
        ("walker walkings", "walk", False, False),
        ("police  \nofficers", "police officer", False, True),
        ("NEW\nYork", "new york", True, True),
        ("it costs£20.", "£20", True, True),
        ("it costs £200.", "£20", False, False),
        ("C++ and a.b", "c++", True, True),
        ("axb", "a.b", False, False),
        ("这部电影很好", "电影", True, True),
        ("film电影", "film", True, True),
        ("nice🎬", "🎬", True, True),
        ("", "dog", False, False),
    ],
)
def test_contains(text, phrase, plain, inflected):
    assert Coverage().contains(text, phrase) == plain
    assert Coverage(inflected=True).contains(text, phrase) == inflected


def test_coverage_without_words_is_full():
    assert one(Coverage(), "anything", words=[]) == one(Coverage(), "", words=()) == 1
    assert one(Coverage(), "", words=["dog"]) == 0


@pytest.mark.parametrize("value", [None, "dog cat", 3, {"dog": 1}, [3], ["dog", ""], [["a", "b", "c"]], [["a", " "]]])
def test_coverage_needs_words(value):
    with pytest.raises(MetricError, match=r"'coverage'.*meta\['words'\].*prompt 'the prompt'"):
        Coverage()([Completion("the prompt", "a", meta={"words": value})])


# ---- all of them -----------------------------------------------------------------------------------------------------

NAMES = ["accuracy", "boundary_f1", "coverage", "entity_f1", "exact_match", "token_f1"]


@pytest.mark.parametrize("name", NAMES)
def test_interval_is_that_of_whole_scores_of_resampled_texts(name):
    metric = as_reward(name)
    completions = tagged_pairs(40) if name in ("boundary_f1", "entity_f1") else some_pairs(40)
    scores = [metric.corpus_score([completions[i] for i in row]) for row in next(iter(resampled(40, 60, 3)))]
    score, low, high = metric.interval(completions, confidence=0.8, n_resamples=60, seed=3)
    assert score == pytest.approx(metric.corpus_score(completions))
    assert (low, high) == pytest.approx(np.quantile(scores, [0.1, 0.9]))
    assert low < score < high


@pytest.mark.parametrize("text", STRANGE, ids=lambda t: ascii(t[:8]))
@pytest.mark.parametrize("name", NAMES)
def test_strange_texts(name, text):
    metric = as_reward(name)
    started = time.perf_counter()
    words = {"words": ["Bern", "city", "电影", "x"]}
    scores = [
        one(metric, a, b, **words) for a, b in [(text, "Anna [LOC Bern]"), ("Anna [LOC Bern]", text), (text, text)]
    ]
    assert time.perf_counter() - started < 2
    assert all(0 <= score <= 1 for score in scores)
    assert name == "coverage" or scores[-1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_names_copies_and_missing_references(name):
    metric, completions = as_reward(name), some_pairs(10)
    assert name in REWARDS and metric.name == name and metric.range == (0, 1) and metric.higher_is_better
    assert metric.signature().startswith(f"{name}|") and "|version:" in metric.signature()
    scores = metric(completions)
    assert scores.dtype == np.float32 and scores.shape == (10,) and metric([]).shape == (0,)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        np.testing.assert_array_equal(other(completions), scores)
        assert other.signature() == metric.signature()
    if name != "coverage":
        with pytest.raises(MetricError, match=f"'{name}' compares with references, but the prompt 'Hello' has none"):
            metric([Completion("Hello", "text")])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EntityF1("types"), "match"),
        (lambda: EntityF1(None), "match"),
        (lambda: EntityF1(["type"]), "match"),
        (lambda: Coverage(""), "key"),
        (lambda: Coverage(3), "key"),
    ],
)
def test_bad_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        make()
