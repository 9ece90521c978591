"""Rewards: arithmetic, the bundled ones, functions as they are, shaping."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np
import pytest
import torch
from env_helpers import END, A, B, Talk, Watched, play, word_tokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from textgym import Completion
from textgym.envs import TextGenEnv
from textgym.rewards import (
    REWARDS,
    Constant,
    FunctionReward,
    Length,
    Product,
    Repetition,
    Reward,
    RewardError,
    Sentiment,
    Shaped,
    WeightedSum,
    as_reward,
    checked_scores,
)

TEXTS = ["", " one", " one two three", " a b a b", "\n\tx  y ", " so GOOD!!!", " not bad at all, but sad"]
BATCH = [Completion("p", text, token_ids=tuple(range(len(text)))) for text in TEXTS]
WORDS = [0, 1, 3, 4, 2, 2, 6]
CHARACTERS = [len(text) for text in TEXTS]


class Given(Reward):
    """Scores that were given beforehand."""

    def __init__(self, name: str, scores: list[float], span: tuple[float, float] = (-1.0, 1.0)) -> None:
        self.name, self.scores, self.range = name, scores, span

    def __call__(self, completions):
        return np.array(self.scores, dtype=np.float32)


X = Given("x", [0.5, -1.0], (-1.0, 1.0))
Y = Given("y", [2.0, 4.0], (0.0, 4.0))
TWO = BATCH[:2]


# ---- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reward", "scores", "name", "span"),
    [
        (X + Y, [2.5, 3.0], "x + y", (-1, 5)),
        (X - Y, [-1.5, -5.0], "x - y", (-5, 1)),
        (2 * X, [1.0, -2.0], "2 * x", (-2, 2)),
        (X * -2, [-1.0, 2.0], "-2 * x", (-2, 2)),
        (Y / 4, [0.5, 1.0], "0.25 * y", (0, 1)),
        (-Y, [-2.0, -4.0], "-y", (-4, 0)),
        (1 - X, [0.5, 2.0], "-x + 1", (0, 2)),
        (X + 1, [1.5, 0.0], "x + 1", (0, 2)),
        (X - 1, [-0.5, -2.0], "x - 1", (-2, 0)),
        (X * Y, [1.0, -4.0], "(x) * (y)", (-4, 4)),
        (0.8 * X + 0.2 * Y - 0.5, [0.3, -0.5], "0.8 * x + 0.2 * y - 0.5", (-1.3, 1.1)),
        (2 * (X - 3 * (Y - X)), [-8.0, -32.0], "2 * x - 6 * y + 6 * x", (-32, 8)),
        (X * (1 - Y), [-0.5, 3.0], "(x) * (-y + 1)", (-3, 3)),
        ((X + Y) * (X + Y) - 1, [5.25, 8.0], "(x + y) * (x + y) - 1", (-6, 24)),
        (-(X * Y), [-1.0, 4.0], "-(x) * (y)", (-4, 4)),
        (np.float64(0.5) * X, [0.25, -0.5], "0.5 * x", (-0.5, 0.5)),
        (np.float32(2) + X, [2.5, 1.0], "x + 2", (1, 3)),
        (functools.reduce(operator.add, [X, Y, X]), [3.0, 2.0], "x + y + x", (-2, 6)),
        (sum([X, Y]), [2.5, 3.0], "x + 0 + y", (-1, 5)),
        (0 * X, [0.0, 0.0], "0 * x", (0, 0)),
        (-1 * Constant(3) + X, [-2.5, -4.0], "-3 + x", (-4, -2)),
    ],
    ids=lambda value: value.name.replace(" ", "") if isinstance(value, Reward) else "",
)
def test_arithmetic(reward, scores, name, span):
    found = reward(TWO)
    assert found.dtype == np.float32 and found.shape == (2,)
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    assert reward.name == name
    assert reward.range == pytest.approx(span)
    assert not reward.dense


def test_ranges_that_do_not_end():
    assert (Length() - 2 * Sentiment()).range == (-2, math.inf)
    assert (-0.01 * Length()).range == (-math.inf, 0)
    assert (0 * Length()).range == (0, 0)
    assert (Sentiment() * Length()).range == (-math.inf, math.inf)
    assert Length(target=3).range == (-math.inf, 0)


def test_parts_are_the_unweighted_leaves():
    reward = 2 * (X - 0.5 * Y) + 7
    scores, parts = reward.parts(TWO)
    np.testing.assert_allclose(scores, [6.0, 1.0])
    assert {name: value.tolist() for name, value in parts.items()} == {"x": [0.5, -1.0], "y": [2.0, 4.0]}


@pytest.mark.parametrize("reward", [X + Given("x", [3, 3]), X * Given("x", [3, 3]), 1 + X * Given("x", [3, 3])])
def test_parts_of_one_name_are_numbered(reward):
    _, parts = reward.parts(TWO)
    assert {name: value.tolist() for name, value in parts.items()} == {"x": [0.5, -1.0], "x_2": [3, 3]}


def test_part_that_is_called_constant():
    """Only real constants are left out."""
    _, parts = (Given("constant", [1, 2]) + 3).parts(TWO)
    assert list(parts) == ["constant"]


def test_nested_sums_are_flat():
    reward = X + (Y - (X + Constant(1)))
    assert [(weight, part.name) for weight, part in reward.terms] == [(1, "x"), (1, "y"), (-1, "x"), (-1, "constant")]
    assert isinstance(reward, WeightedSum) and isinstance(X * Y, Product)


def test_repr_tells_name_and_range():
    assert repr(Sentiment() - Repetition()) == "WeightedSum(name='sentiment - repetition', range=(-2, 1))"
    assert repr(Length()) == "Length(name='length', range=(0, inf))"


def test_empty_batch():
    for reward in (Sentiment(), Length(), Repetition(), Sentiment() - 0.1 * Length() * Repetition() + 1):
        assert reward([]).shape == (0,)


# ---- bundled rewards ------------------------------------------------------------------------------------------------


def test_sentiment_is_vaders_compound_score():
    analyzer = SentimentIntensityAnalyzer()
    wanted = [analyzer.polarity_scores(text)["compound"] for text in TEXTS]
    assert max(wanted) > 0.5 and min(wanted) < -0.4
    for _ in range(2):  # the second time from the cache
        np.testing.assert_allclose(Sentiment()(BATCH), wanted, atol=1e-6)
    assert Sentiment().range == (-1, 1)


def test_sentiment_does_not_read_the_prompt():
    assert Sentiment()([Completion("awful terrible", " fine"), Completion("great", " fine")]).std() == 0


@pytest.mark.parametrize(
    ("text", "n", "score"),
    [
        ("", 3, 0.0),
        ("one two", 3, 0.0),
        ("one two three", 3, 0.0),
        ("a b c a b c", 3, 1 / 4),  # abc bca cab abc
        ("good good good good good", 3, 2 / 3),  # one of three
        ("Good good GOOD", 1, 2 / 3),
        ("a b a b a b", 2, 3 / 5),  # ab ba ab ba ab
        ("so, so so,", 1, 1 / 3),  # punctuation belongs to its word
        ("x\n x\tx", 2, 1 / 2),
    ],
)
def test_repetition(text, n, score):
    assert Repetition(n)([Completion("a b c", text)])[0] == pytest.approx(score)


def test_length():
    assert Length()(BATCH).tolist() == WORDS
    assert Length("words")(BATCH).tolist() == WORDS
    assert Length("characters")(BATCH).tolist() == CHARACTERS
    assert Length("tokens")([Completion("p", " a", token_ids=(5, 6, 1))]).tolist() == [3]
    assert Length(target=2)(BATCH).tolist() == [-abs(n - 2) for n in WORDS]
    assert Length("characters", target=0)(BATCH).tolist() == [-n for n in CHARACTERS]


# ---- names, weights, functions --------------------------------------------------------------------------------------


def test_names():
    assert {"length", "repetition", "sentiment", "slips"} <= set(REWARDS)
    for name in REWARDS:
        assert as_reward(name).name == name
    assert as_reward(X) is X


def test_weights():
    reward = as_reward({"sentiment": 1.0, "length": -0.01})
    np.testing.assert_allclose(reward(BATCH), (Sentiment() - 0.01 * Length())(BATCH))
    assert reward.name == "sentiment - 0.01 * length"


def count_words(text: str) -> int:
    return len(text.split())


def with_completion(completion: str, scale: float = 2.0) -> float:
    return scale * len(completion)


def with_everything(prompt: str, completion: str, references: list[str], meta: dict[str, Any]) -> float:
    return len(prompt) + 10 * len(completion) + 100 * len(references) + 1000 * meta["level"]


def keyword_only(*, prompt: str) -> float:
    return len(prompt)


class Scorer:
    def __call__(self, text: str) -> float:
        return 7.0


EXAMPLES = [
    Completion("pp", " a", ("r",), {"level": 1, "answer": "x"}, (4, 5), "stop", " a"),
    Completion("p", " a b", (), {"level": 2}, (6,), "length", " a b"),
]


@pytest.mark.parametrize(
    ("function", "scores", "name"),
    [
        (count_words, [1, 2], "count_words"),
        (lambda text: len(text), [2, 4], "<lambda>"),
        (lambda anything: np.float32(0.5), [0.5, 0.5], "<lambda>"),
        (lambda completion: True, [1, 1], "<lambda>"),
        (len, [2, 4], "len"),
        (str.isspace, [0, 0], "isspace"),
        (with_completion, [4, 8], "with_completion"),
        (with_everything, [2 + 20 + 100 + 1000, 1 + 40 + 2000], "with_everything"),
        (keyword_only, [2, 1], "keyword_only"),
        (functools.partial(with_completion, scale=1.0), [2, 4], "partial"),
        (Scorer(), [7, 7], "Scorer"),
        (lambda text: torch.tensor(1.5), [1.5, 1.5], "<lambda>"),
    ],
)
def test_functions_of_one_completion(function, scores, name):
    reward = as_reward(function)
    assert checked_scores(reward, EXAMPLES).tolist() == scores
    assert reward.name == name


def trl_plain(completions, **kwargs):
    assert set(kwargs) == {"prompts", "completion_ids", "references", "level", "answer"}
    return [float(len(c)) for c in completions]


def trl_columns(prompts, completions, level):
    return [len(p) + len(c) + level_ for p, c, level_ in zip(prompts, completions, level, strict=True)]


def trl_missing(completions, answer):
    return [float(a == "x") for a in answer]  # None where an example has no such column


def trl_ids(completion_ids, **kwargs):
    return [sum(ids) for ids in completion_ids]


def trl_prompts_only(prompts, **kwargs):
    return [len(p) for p in prompts]


@pytest.mark.parametrize(
    ("function", "scores"),
    [
        (trl_plain, [2, 4]),
        (trl_columns, [2 + 2 + 1, 1 + 4 + 2]),
        (trl_missing, [1, 0]),
        (trl_ids, [9, 6]),
        (trl_prompts_only, [2, 1]),
        (lambda completions, **kwargs: torch.ones(len(completions), requires_grad=True) / 2, [0.5, 0.5]),
        (lambda completions, **kwargs: torch.ones(len(completions), dtype=torch.bfloat16), [1, 1]),
        (lambda completions, **kwargs: np.arange(len(completions)), [0, 1]),
    ],
)
def test_functions_as_written_for_trl(function, scores):
    assert checked_scores(as_reward(function), EXAMPLES).tolist() == scores


def test_trl_function_is_called_once_for_all():
    calls = []

    def reward(completions, **kwargs):
        calls.append(len(completions))
        return [0.0] * len(completions)

    checked_scores(as_reward(reward), BATCH)
    assert calls == [len(BATCH)]


def test_function_cannot_change_the_completion():
    def spoil(references, meta):
        references.append("x")
        meta["level"] = 100
        return 0.0

    as_reward(spoil)(EXAMPLES)
    assert EXAMPLES[0].references == ("r",) and EXAMPLES[0].meta["level"] == 1


def test_functions_compose():
    reward = as_reward(count_words) - 0.5 * FunctionReward(len, name="characters")
    assert reward(EXAMPLES).tolist() == [0, 0]
    assert list(reward.parts(EXAMPLES)[1]) == ["count_words", "characters"]


# ---- what goes wrong is told ----------------------------------------------------------------------------------------


def test_the_completion_at_fault_is_shown():
    def fussy(text: str) -> float:
        if text == " a b a b":
            raise KeyError("b")
        return 0.0

    with pytest.raises(
        RewardError, match=r"Reward 'fussy' raised KeyError: 'b'; while scoring completion ' a b a b'"
    ) as e:
        (1 + 2 * as_reward(fussy))(BATCH)
    assert isinstance(e.value.__cause__, KeyError)


def test_interrupts_are_not_swallowed():
    def stop(text: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked_scores(as_reward(stop), BATCH)


# ---- shaping --------------------------------------------------------------------------------------------------------


def rewards_of(reward: Any, tokens: list[int], **kwargs: Any) -> tuple[list[float], dict[str, Any]]:
    class Alone(Talk):
        turn_end = None
        max_reply_tokens = 0

    env = TextGenEnv(Alone(), tokenizer=word_tokenizer(), reward=reward, **kwargs)
    env.reset(options={"example": "hi a"})
    return play(env, tokens)


def test_shaped_rewards_by_hand():
    # Potential 3 + number of "a", so 3 for the bare prompt; final reward: number of "a".
    reward = Shaped(Watched(), potential=Watched() + 3, gamma=0.5)
    rewards, info = rewards_of(reward, [A, B, A, END])
    assert rewards == [0.5 * 4 - 3, 0.5 * 4 - 4, 0.5 * 5 - 4, 2 + 0 - 5]
    assert info["reward/watched"] == 2
    assert reward.name == "watched" and reward.range == (0, math.inf) and reward.dense


@pytest.mark.parametrize("gamma", [1.0, 0.99, 0.5, 0.01])
@pytest.mark.parametrize("tokens", [[A, A, B, END], [END], [A, B, A, B, A, A]])
@pytest.mark.parametrize("potential", [None, lambda text: len(text) ** 0.5 - 1.0])
def test_discounted_return_is_the_unshaped_one_minus_the_first_potential(gamma, tokens, potential):
    final = Watched() - 0.3 * Length("characters")
    shaped = Shaped(final + 2, potential=potential, gamma=gamma)
    plain, _ = rewards_of(final + 2, tokens)
    dense, _ = rewards_of(shaped, tokens)
    first = -1.0 if potential else 2.0
    discounts = gamma ** np.arange(len(tokens))
    assert discounts @ dense == pytest.approx(discounts @ plain - first, abs=1e-5)
    assert sum(map(abs, dense[:-1])) > 0 or len(tokens) == 1


def test_dense_and_sparse_add_up():
    rewards, info = rewards_of(2 * Shaped(Watched()) - Length("tokens") + 0.5, [A, B, A, END])
    assert rewards == [2, 0, 2, 2 * (2 - 2) - 4 + 0.5]
    assert (info["reward/watched"], info["reward/length"]) == (2, 4)


def test_dense_rewards_of_one_discount_add_up():
    both = Shaped(Watched(), gamma=0.5) + Shaped(Length("characters"), gamma=0.5)
    assert both.dense and both.gamma == 0.5
    rewards, _ = rewards_of(both, [A, B, END])
    assert rewards == [0.5 * 3, 0.5 * 5 - 3, 5 - 5]


def test_potential_sees_an_unfinished_completion():
    potential = Watched()
    rewards_of(Shaped("length", potential=potential), [A, B, END])
    assert [[c.finish_reason for c in batch] for batch in potential.batches] == [[None]] * 3
    assert [batch[0].text for batch in potential.batches] == ["", " a", " a b"]
    assert [batch[0].token_ids for batch in potential.batches] == [(), (A,), (A, B)]


def test_sparse_reward_has_no_potential():
    assert Sentiment().potential(BATCH).tolist() == [0] * len(BATCH)
    assert not (Sentiment() - Length()).dense
