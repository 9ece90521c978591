"""Rewards that bring other rewards' scores to a scale."""

from __future__ import annotations

import copy
import json
import math
import pickle

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401  (registers the environments)
from textgym.core import Completion
from textgym.metrics import TER
from textgym.rewards import (
    Clipped,
    FunctionReward,
    Length,
    Normalized,
    Repetition,
    Reward,
    RewardError,
    Shaped,
    Whitened,
)


class Numbers(Reward):
    """The number that is the text."""

    name = "numbers"

    def __init__(self, span=(-math.inf, math.inf)):
        self.range = span

    def __call__(self, completions):
        return np.array([float(c.text) for c in completions], dtype=np.float32)


def batch(*numbers):
    return [Completion("p", str(number)) for number in numbers]


def some_numbers(n, seed=0):
    return np.random.default_rng(seed).normal(3, 5, n).astype(np.float32)


# ---- clipped and normalized ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1, 4), (None, 2.5), (0, None)])
def test_clipped(low, high):
    numbers = some_numbers(250)
    reward = Clipped(Numbers(), low, high)
    slow = [max(x, low) if low is not None else x for x in numbers]
    slow = [min(x, high) if high is not None else x for x in slow]
    np.testing.assert_allclose(reward(batch(*numbers)), slow, rtol=1e-6)
    assert reward.range == (-math.inf if low is None else low, math.inf if high is None else high)
    assert reward.name == "clipped(numbers)"


def test_ranges_of_clipped():
    assert Clipped(Numbers((0.0, 1.0)), low=0.5).range == (0.5, 1)
    assert Clipped(Numbers((0.0, 1.0)), -3, 3).range == (0, 1)
    assert Clipped(Numbers((0.0, 1.0)), 2, 3).range == (2, 2)


@pytest.mark.parametrize(("low", "high"), [(-1, 4), (6, -2)])
def test_normalized(low, high):
    numbers = some_numbers(250)
    reward = Normalized(Numbers(), low, high)
    slow = [min(max((float(x) - low) / (high - low), 0), 1) for x in numbers]
    assert 0 < np.mean(slow) < 1 and min(slow) == 0 and max(slow) == 1
    np.testing.assert_allclose(reward(batch(*numbers)), slow, atol=1e-6)
    assert reward.range == (0, 1) and reward.name == "normalized(numbers)"


def test_normalized_takes_the_range_of_the_reward():
    assert Normalized(Numbers((-1.0, 3.0)))(batch(-1, 0, 3)).tolist() == [0, 0.25, 1]
    assert Normalized(Numbers((-math.inf, 3.0)), low=1)(batch(-5, 2, 3)).tolist() == [0, 0.5, 1]
    assert Normalized(TER(), low=1, high=0)(
        [Completion("p", "a b", ("a b",)), Completion("p", "a c d e", ("a b",))]
    ).tolist() == [1, 0]


# ---- whitened --------------------------------------------------------------------------------------------------------


def test_whitened_by_the_moments_of_all_scores_so_far():
    numbers = np.concatenate([some_numbers(150), some_numbers(150, 1) * 3 + 1000])
    rng = np.random.default_rng(0)
    reward, start, worst = Whitened(Numbers(), clip=2.0), 0, 0
    while start < len(numbers):
        end = min(len(numbers), start + int(rng.integers(1, 20)))
        found = reward(batch(*numbers[start:end]))
        seen = numbers[:end].astype(np.float64)
        slow = np.clip((seen[start:] - seen.mean()) / (seen.std() + 1e-8), -2, 2)
        np.testing.assert_allclose(found, slow, atol=1e-5)
        worst, start = max(worst, np.abs(slow).max()), end
    assert worst == 2, "clipping has been seen"
    assert reward.state() == {
        "count": 300,
        "mean": pytest.approx(numbers.astype(float).mean()),
        "variance": pytest.approx(numbers.astype(float).var()),
    }
    assert reward.range == (-2, 2) and reward.name == "whitened(numbers)"


def test_moments_do_not_cancel_out():
    reward = Whitened(Numbers())
    for _ in range(50):
        reward([Completion("p", "10000000"), Completion("p", "10000002")])
    assert reward.state() == {"count": 100, "mean": pytest.approx(10_000_001), "variance": pytest.approx(1.0)}


def test_whitened_with_momentum():
    reward = Whitened(Numbers(), momentum=0.9, clip=None)
    first, second = some_numbers(20).astype(np.float64), some_numbers(30, 1).astype(np.float64) + 9
    reward(batch(*first))
    assert reward.state()["mean"] == pytest.approx(first.mean()) and reward.range == (-math.inf, math.inf)
    reward(batch(*second))
    mean = 0.9 * first.mean() + 0.1 * second.mean()
    # the variance of a mixture: mean of the squares minus square of the mean
    variance = 0.9 * (first**2).mean() + 0.1 * (second**2).mean() - mean**2
    assert (reward.state()["mean"], reward.state()["variance"]) == pytest.approx((mean, variance))


def test_first_and_equal_scores_become_0():
    reward = Whitened(Numbers())
    assert reward(batch(7)).tolist() == [0]
    assert reward(batch(7, 7)).tolist() == [0, 0]
    assert reward([]).shape == (0,) and reward.state()["count"] == 3
    assert reward(batch(8))[0] > 0


def test_frozen_whitening_counts_nothing():
    reward = Whitened(Numbers(), clip=None)
    reward(batch(0, 2))
    reward.freeze()
    assert reward(batch(5, 1)).tolist() == pytest.approx([4, 0]) and reward.state()["count"] == 2
    reward.freeze(False)
    reward(batch(5))
    assert reward.state()["count"] == 3


def test_state_survives_json_exactly():
    reward, other = Whitened(Numbers()), Whitened(Numbers())
    reward(batch(*some_numbers(77)))
    other.load_state(json.loads(json.dumps(reward.state())))
    assert other.state() == reward.state()
    more = batch(*some_numbers(9, 3))
    for copied in (other, copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        np.testing.assert_array_equal(copied(more), copy.deepcopy(reward)(more))


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {"count": 1, "mean": 0.0},
        {"count": 1.5, "mean": 0.0, "variance": 1.0},
        {"count": -1, "mean": 0.0, "variance": 1.0},
        {"count": 1, "mean": math.nan, "variance": 1.0},
        {"count": 1, "mean": 0.0, "variance": -1.0},
        {"count": 1, "mean": 0.0, "variance": "1"},
    ],
)
def test_a_bad_state_is_named_and_changes_nothing(state):
    reward = Whitened(Numbers())
    reward(batch(1, 2))
    before = reward.state()
    with pytest.raises(ValueError, match=r"Expected `(state|count|mean|variance)` to be"):
        reward.load_state(state)
    assert reward.state() == before


# ---- all three -------------------------------------------------------------------------------------------------------

TRANSFORMS = {
    "clipped": lambda reward: Clipped(reward, -1, 1),
    "normalized": lambda reward: Normalized(reward, 0, 10),
    "whitened": Whitened,
}
every = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)


@every
def test_parts_are_those_of_the_inner_reward(make):
    completions = [Completion("p", text) for text in ("a a a a", "a b", "")]
    inner = Length() - 0.5 * Repetition(1)
    scores, named = make(inner).parts(completions)
    assert {name: part.tolist() for name, part in named.items()} == {"length": [4, 2, 0], "repetition": [0.75, 0, 0]}
    np.testing.assert_array_equal(scores, make(inner)(completions))
    assert scores.dtype == np.float32 and scores.shape == (3,)
    total, named = (2 * make(inner) + Length()).parts(completions)
    np.testing.assert_allclose(total, 2 * make(inner)(completions) + [4, 2, 0], rtol=1e-6)
    assert sorted(named) == ["length", "length_2", "repetition"]


@every
def test_names_functions_and_weights_are_taken(make):
    assert make("length").reward.name == "length"
    assert make({"length": 2.0}).reward.name == "2 * length"
    assert make(len)([Completion("p", "abc")]).shape == (1,)
    with pytest.raises(TypeError, match="Expected `reward` to be"):
        make(3)
    with pytest.raises(ValueError, match="Expected `reward` to be one of"):
        make("nonsense")


@every
def test_heavy_is_passed_on_and_dense_refused(make):
    assert not make(Length()).heavy
    assert make(FunctionReward(len, heavy=True)).heavy
    with pytest.raises(ValueError, match="not dense, actual: 'length'; shape the transformed reward instead"):
        make(Shaped(Length()))
    shaped = Shaped(make(Length()), potential=Length())
    assert shaped.dense and shaped.potential([Completion("p", "a b")]).tolist() == [2]


@every
def test_errors_of_the_inner_reward_come_through(make):
    with pytest.raises(RewardError, match=r"'bad' must return finite scores.*while scoring completion 'x'"):
        make(FunctionReward(lambda text: math.nan, name="bad"))([Completion("p", "x")])


def test_a_score_too_large_is_told():
    reward = Whitened(Numbers(), clip=None)
    reward(batch(1, 1))
    reward.freeze()
    with pytest.raises(RewardError, match=r"'whitened\(numbers\)' must return finite scores"):
        reward(batch("1e35"))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Clipped(Length()), "low"),
        (lambda: Clipped(Length(), 1, 1), "high"),
        (lambda: Clipped(Length(), 2, 1), "high"),
        (lambda: Clipped(Length(), "0", 1), "low"),
        (lambda: Clipped(Length(), 0, math.inf), "high"),
        (lambda: Clipped(Length(), math.nan, 1), "low"),
        (lambda: Normalized(Length()), "high"),
        (lambda: Normalized(Length(), high=0), "high"),
        (lambda: Normalized(Length(), None, True), "high"),
        (lambda: Normalized(Numbers()), "low"),
        (lambda: Whitened(Length(), momentum=1), "momentum"),
        (lambda: Whitened(Length(), momentum=0), "momentum"),
        (lambda: Whitened(Length(), epsilon=0), "epsilon"),
        (lambda: Whitened(Length(), epsilon=math.inf), "epsilon"),
        (lambda: Whitened(Length(), clip=0), "clip"),
        (lambda: Whitened(Length(), clip=-1), "clip"),
    ],
)
def test_bad_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        make()


# ---- in environments, together with the metrics of the other tests --------------------------------------------------

METRICS = ["distinct_1", "distinct_2", "entropy", "metre", "msttr", "readability", "rhyme", "self_bleu", "toxicity"]


def test_transforms_and_metrics_as_rewards_of_an_environment():
    seen = []

    def watched(text):
        seen.append(text)
        return float(len(text))

    reward = (
        Clipped(Normalized("length", 0, 8), 0.0, 0.75) + Whitened({name: 0.1 for name in METRICS}) + Whitened(watched)
    )
    envs = gym.make_vec("TextGen-Sentiment-v0", num_envs=4, reward=reward, max_new_tokens=6)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    ends = 0
    for _ in range(20):
        _, rewards, terminated, _, infos = envs.step(envs.action_space.sample())
        assert np.isfinite(rewards).all()
        for i in np.flatnonzero(terminated):
            ends += 1
            assert {f"reward/{name}" for name in (*METRICS, "length", "watched")} <= set(infos)
            assert all(infos[f"_reward/{name}"][i] for name in METRICS)
            assert infos["reward/self_bleu"][i] == 0
    envs.close()
    assert ends >= 4 and len(seen) == ends, "each finished episode was scored once"


def test_metrics_with_references_as_rewards_of_an_environment():
    prompts = [{"prompt": "[PER Anna] went to", "references": ["Bern", "[LOC Bern]"], "words": ["Bern"]}] * 3
    reward = {name: 1.0 for name in ("exact_match", "token_f1", "accuracy", "entity_f1", "boundary_f1", "coverage")}
    env = gym.make("TextGen-Sentiment-v0", prompts=prompts, reward=reward, max_new_tokens=3)
    env.reset(seed=0)
    env.action_space.seed(0)
    done = False
    while not done:
        _, score, done, _, info = env.step(int(env.action_space.sample()))
    assert score == pytest.approx(sum(info[f"reward/{name}"] for name in reward))
