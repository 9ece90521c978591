"""The metric protocol, intervals, and the slips of word order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from textgym.core import Completion
from textgym.metrics import (
    MeanMetric,
    Metric,
    MetricError,
    SumMetric,
    bootstrap_interval,
    interquartile_mean,
    stratified_interval,
)
from textgym.rewards import Sentiment, Slips, WeightedSum


class Vowels(SumMetric):
    """Share of letters that are vowels."""

    name = "vowels"
    range = (0.0, 1.0)

    def statistics(self, completions: Sequence[Completion]) -> np.ndarray:
        return np.array([[sum(x in "aeiou" for x in c.text), len(c.text)] for c in completions], dtype=np.float64)

    def score(self, statistics: np.ndarray) -> np.ndarray:
        return statistics[..., 0] / np.maximum(statistics[..., 1], 1)


class Distinct(Metric):
    """Number of different texts: a metric of a set, whose statistics do not add up."""

    name = "distinct"

    def statistics(self, completions: Sequence[Completion]) -> list[str]:
        return [c.text for c in completions]

    def pooled(self, statistics: Sequence[str]) -> float:
        return float(len(set(statistics)))


class Words(MeanMetric):
    """Number of words."""

    name = "words"
    needs_references = True

    def each(self, completions: Sequence[Completion]) -> list[int]:
        return [len(c.text.split()) for c in completions]


TEXTS = ["aeb", "b", "eeeee cc", "", "xyz", "aeb", "o u i", "b"]
COMPLETIONS = [Completion("p", text, ("r",)) for text in TEXTS]


def test_sums_are_pooled_before_they_are_scored():
    metric = Vowels()
    assert metric.corpus_score(COMPLETIONS) == sum(x in "aeiou" for x in "".join(TEXTS)) / len("".join(TEXTS))
    assert metric(COMPLETIONS).dtype == np.float32
    np.testing.assert_allclose(metric(COMPLETIONS), [2 / 3, 0, 5 / 8, 0, 0, 2 / 3, 3 / 5, 0], rtol=1e-6)
    assert Words().corpus_score(COMPLETIONS) == np.mean([len(t.split()) for t in TEXTS])


@pytest.mark.parametrize("metric", [Vowels(), Distinct(), Words()], ids=lambda m: m.name)
def test_interval_is_that_of_whole_scores_of_resampled_texts(metric):
    score, low, high = metric.interval(COMPLETIONS, confidence=0.8, n_resamples=200, seed=3)
    rng = np.random.default_rng(3)
    resamples = [[COMPLETIONS[i] for i in row] for row in rng.integers(8, size=(200, 8))]
    slow = [metric.corpus_score(resample) for resample in resamples]
    assert score == metric.corpus_score(COMPLETIONS)
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.1, 0.9])), rel=1e-12)
    assert low < high


def test_interval_of_a_mean_is_the_old_one():
    found = Words().interval(COMPLETIONS, seed=1)
    assert found == pytest.approx(bootstrap_interval([len(t.split()) for t in TEXTS], seed=1))


def test_a_metric_is_a_reward():
    reward = 0.5 * Vowels() + Sentiment()
    assert isinstance(reward, WeightedSum) and reward.name == "0.5 * vowels + sentiment"
    np.testing.assert_allclose(reward(COMPLETIONS), 0.5 * Vowels()(COMPLETIONS), rtol=1e-6)
    assert Vowels()([]).shape == (0,)


def test_missing_references_and_empty_sets_are_named():
    with pytest.raises(MetricError, match="'words' compares with references, but the prompt 'second' has none"):
        Words()([COMPLETIONS[0], Completion("second", "text")])
    for call in (Vowels().corpus_score, Vowels().interval):
        with pytest.raises(MetricError, match=r"'vowels'.*at least one completion"):
            call([])
    with pytest.raises(ValueError, match="confidence"):
        Vowels().interval(COMPLETIONS, confidence=1.0)
    with pytest.raises(ValueError, match="n_resamples"):
        Vowels().interval(COMPLETIONS, n_resamples=0)


# ---- summaries of runs ----------------------------------------------------------------------------------------------


def test_interquartile_mean():
    assert interquartile_mean([5.0]) == 5
    assert interquartile_mean([1.0, 2.0, 9.0]) == 4, "a quarter of three, rounded down, is none"
    assert interquartile_mean([[-100.0, 1.0], [3.0, 100.0]]) == 2
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]) == 3.5
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="at least one finite number"):
            interquartile_mean(bad)


def test_stratified_interval_resamples_within_tasks():
    table = np.array([[0.0, 0.0, 0.0], [10.0, 11.0, 12.0]])
    low, high = stratified_interval(table, lambda t: float(t[1].mean() - t[0].max()), n_resamples=500)
    assert 10.0 <= low < 11.0 < high <= 12.0, "a task keeps its own runs"
    assert stratified_interval([[1.0], [2.0]], interquartile_mean) == (1.5, 1.5)
    rng = np.random.default_rng(0)
    columns = [rng.integers(3, size=(2, 3)) for _ in range(50)]
    slow = [np.mean([[table[i, c[i, j]] for j in range(3)] for i in range(2)]) for c in columns]
    found = stratified_interval(table, lambda t: float(t.mean()), confidence=0.5, n_resamples=50)
    assert found == pytest.approx(tuple(np.quantile(slow, [0.25, 0.75])))
    with pytest.raises(ValueError, match="tasks by runs"):
        stratified_interval([1.0, 2.0], interquartile_mean)
    with pytest.raises(ValueError, match="confidence"):
        stratified_interval(table, interquartile_mean, confidence=0)


# ---- slips ----------------------------------------------------------------------------------------------------------

FLUENT = [
    "I loved the music, and the ending was a joy.",
    "It was an honest film about a university in a one-horse town.",
    "What do you think of it? We had had enough, very very much so.",
    "Wait... what a film! Those that that man made, and, above all, this one, are fine.",
    "Not bad at all: he turned it on, and that was that",
    "",
    "好电影 🎬",
]
SLIPS = [
    ("the of it", 1), ("a and b", 1), ("It was of the.", 2), ("and .", 1), ("a apple", 1), ("an pear", 1), ("fine fine day", 1),
    ("Good. but no", 1), ("is was here", 1), ("I of you", 1), ("with are we", 1), ("Fine ,, so", 1),
]  # fmt: skip


@pytest.mark.parametrize("text", FLUENT)
def test_fluent_text_has_no_slips(text):
    assert Slips()([Completion("", text)])[0] == 0


@pytest.mark.parametrize(("text", "slips"), SLIPS)
def test_slips_are_counted(text, slips):
    words = sum(any(x.isalpha() for x in word) for word in text.split())
    assert Slips()([Completion("", text)])[0] == pytest.approx(min(1.0, 4 * slips / words))


def test_shuffled_text_slips():
    rng = np.random.default_rng(0)
    text = "The music was a joy, and I loved the end of it. We had seen the film in an old house with the children."
    shuffled = [Completion("", " ".join(rng.permutation(text.split()))) for _ in range(50)]
    assert Slips()(shuffled).mean() > 0.3
