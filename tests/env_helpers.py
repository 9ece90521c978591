"""What the tests of the environments share: a tiny tokenizer, a task of several turns, rewards that can be watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

import textgym  # noqa: F401  (registers the environments)
from textgym.core import Completion, Example
from textgym.envs import TextGenEnv
from textgym.rewards import Reward
from textgym.tasks import Task

ENV_IDS = sorted(name for name in gym.registry if name.startswith("TextGen-"))
WORDS = ("<pad>", "</s>", "|", "ok", "never", "hi", "you", "we", "say", "a", "b", "c")
PAD, END, BAR, OK, NEVER, HI, YOU, WE, SAY, A, B, C = range(len(WORDS))


def word_tokenizer() -> Tokenizer:
    """One token a word of ``WORDS``; decoding joins them with spaces."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="never"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(WORDS[PAD], special=True), AddedToken(WORDS[END], special=True)])
    return tokenizer


class Watched(Reward):
    """Scores 1 for each ``a`` in the text, and remembers the batches it was asked for."""

    name = "watched"
    range = (0.0, np.inf)

    def __init__(self) -> None:
        self.batches: list[list[Completion]] = []

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        self.batches.append(list(completions))
        return np.array([c.text.split().count("a") for c in completions], dtype=np.float32)


class Talk(Task):
    """A task of several turns: after each ``|`` the other speaker answers, unless nothing was said since the last one."""

    id = "Talk-v0"
    max_prompt_tokens = 3
    max_new_tokens = 6
    random_score = 0.0
    oracle_score = 6.0
    turn_end = "|"
    max_reply_tokens = 4

    def __init__(self, answer: str = "you say") -> None:
        self.answer = answer
        self.heard: list[Completion] = []

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        return Example(" ".join(rng.choice(["hi", "you", "we"], size=3)))

    def document(self, rng: np.random.Generator) -> str:
        return "hi a | you say b"

    def oracle(self, example: Example) -> str:
        return " a a a a a a"

    def reward(self) -> Reward:
        return Watched()

    def forbidden_words(self) -> tuple[str, ...]:
        return ("never",)

    def reply(self, completion: Completion) -> str | None:
        self.heard.append(completion)
        return None if completion.text.endswith("| |") else self.answer


def talk(**kwargs: Any) -> TextGenEnv:
    return TextGenEnv(**{"task": Talk(), "tokenizer": word_tokenizer(), **kwargs})


def shown(obs: dict[str, np.ndarray]) -> str:
    """An observation of the word tokenizer as text; what the policy wrote is in capitals, what is masked is a dot."""
    words = []
    for token, seen, own in zip(obs["input_ids"], obs["attention_mask"], obs["completion_mask"], strict=True):
        words.append((WORDS[token].upper() if own else WORDS[token]) if seen else ".")
    return " ".join(words)


def assert_same(left: Any, right: Any, where: str = "value") -> None:
    """Both are the same to the bit: types, shapes, and every entry of nested dicts, lists and arrays."""
    assert type(left) is type(right), f"{where}: {type(left)} is not {type(right)}: {left!r}, {right!r}"
    if isinstance(left, dict):
        assert left.keys() == right.keys(), f"{where}: {sorted(left)} is not {sorted(right)}"
        for key in left:
            assert_same(left[key], right[key], f"{where}[{key!r}]")
    elif isinstance(left, (list, tuple)) or (isinstance(left, np.ndarray) and left.dtype == object):
        assert len(left) == len(right), f"{where}: {len(left)} entries are not {len(right)}"
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype, f"{where}: {left.dtype} is not {right.dtype}"
        np.testing.assert_array_equal(left, right, err_msg=where)
    else:
        assert left == right, f"{where}: {left!r} is not {right!r}"


def play(env: gym.Env[Any, Any], tokens: Sequence[int]) -> tuple[list[float], dict[str, Any]]:
    """Steps through ``tokens`` until the episode ends; returns the rewards and the last info."""
    rewards: list[float] = []
    info: dict[str, Any] = {}
    for token in tokens:
        _, reward, terminated, truncated, info = env.step(token)
        rewards.append(float(reward))
        if terminated or truncated:
            return rewards, info
    raise AssertionError(f"the episode goes on after {len(tokens)} tokens")
