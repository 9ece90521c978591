"""Distinct-n, entropy, MSTTR and self-BLEU, against slow implementations and sacreBLEU."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections import Counter

import numpy as np
import pytest
import sacrebleu

from textgym.core import Completion
from textgym.metrics import MSTTR, DistinctN, Entropy, MetricError, SelfBLEU, distinct_n
from textgym.metrics.intervals import resampled
from textgym.rewards import REWARDS, as_reward

WORDS = "the The film was good bad, and a story 电影 🎬 é".split()
NAMES = ["distinct_1", "distinct_2", "entropy", "msttr", "self_bleu"]
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
]


def some_sets(n, seed=0):
    """Sets of 1 to 9 texts of 0 to 11 words, some of them equal."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        vocabulary = WORDS[: rng.integers(2, len(WORDS) + 1)]
        texts = [" ".join(rng.choice(vocabulary, rng.integers(12))) for _ in range(rng.integers(1, 9))]
        if rng.random() < 0.3:
            texts.append(texts[0])
        made.append([Completion("p", text) for text in texts])
    return made


def slow_ngrams(completions, n):
    grams = []
    for c in completions:
        words = c.text.lower().split()
        for i in range(len(words) - n + 1):
            grams.append(" ".join(words[i : i + n]))
    return grams


def slow_entropy(completions, n):
    grams = slow_ngrams(completions, n)
    shares = [count / len(grams) for count in Counter(grams).values()]
    return -sum(p * math.log2(p) for p in shares)


def slow_msttr(completions, segment):
    words = [word for c in completions for word in c.text.lower().split()]
    if not words:
        return 0.0
    if len(words) < segment:
        return len(set(words)) / len(words)
    ratios = [len(set(words[i : i + segment])) / segment for i in range(0, len(words) - segment + 1, segment)]
    return sum(ratios) / len(ratios)


def slow_self_bleu(completions, n):
    if len(completions) < 2:
        return 0.0
    bleu = sacrebleu.BLEU(tokenize="none", lowercase=True, effective_order=True, max_ngram_order=n)
    texts = [" ".join(c.text.lower().split()) for c in completions]
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores) / 100


@pytest.mark.parametrize(
    ("metric", "slow"),
    [
        *[(DistinctN(n), lambda cs, n=n: distinct_n([c.text for c in cs], n)) for n in (1, 2, 4)],
        *[(Entropy(n), lambda cs, n=n: slow_entropy(cs, n)) for n in (1, 3)],
        *[(MSTTR(s), lambda cs, s=s: slow_msttr(cs, s)) for s in (1, 5, 50)],
        *[(SelfBLEU(n), lambda cs, n=n: slow_self_bleu(cs, n)) for n in (4, 2)],
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_scores_equal_those_of_a_slow_implementation(metric, slow):
    sets = some_sets(250)
    slow_scores = [slow(completions) for completions in sets]
    assert np.std(slow_scores) > 0.1 or metric.signature().startswith("msttr|segment:1|")
    scores = [metric.corpus_score(completions) for completions in sets]
    np.testing.assert_allclose(scores, slow_scores, rtol=0, atol=1e-9)
    alone = [metric.corpus_score([c]) for completions in sets[:40] for c in completions]
    found = [score for completions in sets[:40] for score in metric.sentence_scores(metric.statistics(completions))]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-12)


def texts(*given):
    return [Completion("p", text) for text in given]


def test_by_hand():
    assert DistinctN(1).corpus_score(texts("a b c A", "c b a")) == 3 / 7
    assert DistinctN().corpus_score(texts("a b a", "b a")) == 2 / 3
    assert Entropy().corpus_score(texts("a b", "c d")) == 2.0
    assert Entropy().corpus_score(texts("a a a b")) == pytest.approx(2 - 0.75 * math.log2(3))
    assert Entropy(2).corpus_score(texts("a b", "a b")) == 0.0
    assert MSTTR(4).corpus_score(texts("a b", "a a c", "d e f x")) == (2 / 4 + 4 / 4) / 2, "the last x is left out"
    assert MSTTR().corpus_score(texts("a b a", "b")) == 0.5
    assert SelfBLEU().corpus_score(texts("a b c d e", "a b c d e", "v w x y z")) == pytest.approx(2 / 3)
    assert SelfBLEU().corpus_score(texts("a b c d e")) == 0.0
    assert SelfBLEU().corpus_score(texts("", "")) == 0.0
    assert SelfBLEU()(texts("a b", "a b")).tolist() == [0, 0], "a text alone"


def test_self_bleu_compares_with_every_other_text():
    # "a a b": of its a's two are matched by one other text, b by another; brevity by the closest other length, 2
    one = sacrebleu.BLEU(tokenize="none", effective_order=True)
    found = SelfBLEU().statistics(texts("a a b", "a a", "b c"))
    scores = [
        one.sentence_score(t, r).score / 100
        for t, r in [("a a b", ["a a", "b c"]), ("a a", ["a a b", "b c"]), ("b c", ["a a b", "a a"])]
    ]
    assert SelfBLEU().pooled(found) == pytest.approx(np.mean(scores))
    assert len(set(scores)) == 3


def test_tokenizers():
    chinese = texts("电影电影", "电影很好")
    assert DistinctN(1).corpus_score(chinese) == 1.0, "by white space two words"
    assert DistinctN(1, tokenize="words").corpus_score(chinese) == 4 / 8
    assert DistinctN(1, tokenize="punctuation").corpus_score(texts("a, b.", "a.")) == 4 / 6
    assert DistinctN(1, tokenize=list).corpus_score(texts("aab")) == 2 / 3
    assert "|tok:words|" in DistinctN(tokenize="words").signature()
    assert SelfBLEU(tokenize="words").corpus_score(chinese) > SelfBLEU().corpus_score(chinese) == 0


@pytest.mark.parametrize(
    "metric",
    [DistinctN(1), DistinctN(2), Entropy(), Entropy(2), MSTTR(7), MSTTR(), SelfBLEU(), SelfBLEU(2)],
    ids=lambda m: m.signature(),
)
def test_interval_is_that_of_resampled_scores_without_their_bias(metric):
    completions = [c for some in some_sets(8, seed=4) for c in some]
    n = len(completions)
    slow = np.array([metric.corpus_score([completions[i] for i in row]) for row in next(iter(resampled(n, 60, 3)))])
    score, low, high = metric.interval(completions, confidence=0.8, n_resamples=60, seed=3)
    assert score == pytest.approx(metric.corpus_score(completions))
    assert abs(slow.mean() - score) > 0.001, "resampling is biased here, or this tests nothing"
    slow = np.clip(slow - slow.mean() + score, *metric.range)
    assert (low, high) == pytest.approx(np.quantile(slow, [0.1, 0.9]), abs=1e-12)
    assert low < score < high


@pytest.mark.parametrize("name", NAMES)
def test_interval_of_one_text_or_equal_ones_is_a_point(name):
    metric = as_reward(name)
    for some in (texts("a b c"), texts("")):
        score, low, high = metric.interval(some, n_resamples=20)
        assert low == pytest.approx(score) == high
    score, low, high = metric.interval(texts("a b c d", "a b c d", "a b c d"), n_resamples=20)
    assert low == pytest.approx(score) == high


@pytest.mark.parametrize("name", NAMES)
def test_500_completions_take_seconds(name):
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 301)
    completions = texts(*(" ".join(map(str, rng.choice(300, p=share / share.sum(), size=20))) for _ in range(500)))
    started = time.perf_counter()
    score, low, high = as_reward(name).interval(completions)
    assert time.perf_counter() - started < 6
    assert low < score < high


@pytest.mark.parametrize("text", STRANGE, ids=lambda t: ascii(t[:8]))
@pytest.mark.parametrize("name", NAMES)
def test_strange_texts(name, text):
    metric = as_reward(name)
    started = time.perf_counter()
    for some in (texts(text), texts(text, "a film"), texts(text, text)):
        score = metric.corpus_score(some)
        assert math.isfinite(score) and metric.range[0] <= score <= metric.range[1] + 1e-9
        assert all(map(math.isfinite, metric.interval(some, n_resamples=5)))
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("name", NAMES)
def test_names_and_copies(name):
    metric, completions = as_reward(name), texts("a b c d e", "a b", "")
    assert name in REWARDS and metric.name == name and metric.higher_is_better == (name != "self_bleu")
    assert metric.signature().startswith(f"{name}|") and "|version:" in metric.signature()
    scores = metric(completions)
    assert scores.dtype == np.float32 and scores.shape == (3,) and metric([]).shape == (0,)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        np.testing.assert_array_equal(other(completions), scores)
        assert other.corpus_score(completions) == metric.corpus_score(completions)
        assert other.signature() == metric.signature()
    with pytest.raises(MetricError, match=f"'{name}'.*at least one completion"):
        metric.corpus_score([])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: DistinctN(0), "n"),
        (lambda: DistinctN(True), "n"),
        (lambda: DistinctN(tokenize="13a"), "tokenize"),
        (lambda: Entropy(1.5), "n"),
        (lambda: MSTTR(0), "segment"),
        (lambda: MSTTR(tokenize=3), "tokenize"),
        (lambda: SelfBLEU(0), "n"),
        (lambda: SelfBLEU(tokenize=None), "tokenize"),
    ],
)
def test_bad_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        make()
