"""Metrics against numbers worked out by hand, and against a plain loop."""

import numpy as np
import pytest

from textgym.metrics import bootstrap_interval, distinct_n


def test_distinct_n_by_hand():
    texts = ["a b a b", "A b c"]
    assert distinct_n(texts, 1) == 3 / 7  # a b c of 4 + 3 words
    assert distinct_n(texts, 2) == 3 / 5  # ab ba bc of 3 + 2 pairs; no pair spans the two texts
    assert distinct_n(texts, 4) == 1.0
    assert distinct_n(texts, 5) == 0.0


def test_distinct_n_of_nothing():
    assert distinct_n([], 1) == 0.0
    assert distinct_n(["", "  "], 1) == 0.0


def test_distinct_n_falls_when_texts_are_alike():
    assert distinct_n(["the film was good"] * 10, 2) == pytest.approx(0.1)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_distinct_n_refuses_another_n(n):
    with pytest.raises(ValueError, match="Expected `n` to be a whole number of at least 1"):
        distinct_n(["a"], n)


def test_distinct_n_refuses_a_single_text():
    with pytest.raises(TypeError, match="not a single one"):
        distinct_n("a b c", 1)


def test_bootstrap_equals_a_loop():
    values = np.random.default_rng(1).normal(size=20)
    rng = np.random.default_rng(5)
    means = sorted(np.mean([values[i] for i in rng.integers(20, size=20)]) for _ in range(300))
    mean, low, high = bootstrap_interval(values, confidence=0.9, n_resamples=300, seed=5)
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(np.quantile(means, 0.05))
    assert high == pytest.approx(np.quantile(means, 0.95))


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for k in range(200):
        _, low, high = bootstrap_interval(rng.exponential(size=60), seed=k)
        hits += low <= 1.0 <= high
    assert 0.86 <= hits / 200 <= 0.99  # 95% in the limit; a little less for 60 skewed numbers


def test_bootstrap_narrows_with_more_values_and_less_confidence():
    values = np.random.default_rng(0).normal(size=1000)

    def width(v, confidence=0.95):
        _, low, high = bootstrap_interval(v, confidence)
        return high - low

    assert width(values) < width(values[:50])
    assert width(values, 0.5) < width(values, 0.95)


def test_bootstrap_of_one_value_and_of_equal_ones():
    assert bootstrap_interval([0.25]) == (0.25, 0.25, 0.25)
    assert bootstrap_interval([0.5] * 7) == (0.5, 0.5, 0.5)


def test_bootstrap_is_reproducible_and_leaves_the_global_generator_alone():
    values = np.arange(30.0)
    np.random.seed(3)
    expected_next = np.random.rand()
    np.random.seed(3)
    first = bootstrap_interval(values, seed=1)
    assert np.random.rand() == expected_next
    assert bootstrap_interval(values, seed=1) == first
    assert bootstrap_interval(values, seed=2) != first


def test_bootstrap_in_blocks_is_the_same(monkeypatch):
    from textgym.metrics import intervals

    values = np.arange(50.0)
    whole = bootstrap_interval(values, n_resamples=100)
    monkeypatch.setattr(intervals, "_NUMBERS_AT_ONCE", 120)
    assert bootstrap_interval(values, n_resamples=100) == whole


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"values": []}, "values"),
        ({"values": [1.0, np.nan]}, "values"),
        ({"values": [[1.0]]}, "values"),
        ({"values": [1.0], "confidence": 1.0}, "confidence"),
        ({"values": [1.0], "confidence": 0}, "confidence"),
        ({"values": [1.0], "n_resamples": 0}, "n_resamples"),
        ({"values": [1.0], "n_resamples": 2.5}, "n_resamples"),
    ],
)
def test_bootstrap_refuses_bad_arguments(kwargs, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        bootstrap_interval(**kwargs)
