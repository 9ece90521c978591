"""The single environment, mostly on a task of twelve words, so that everything can be worked out by hand."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from env_helpers import BAR, END, HI, NEVER, PAD, SAY, WORDS, YOU, A, B, Talk, Watched, assert_same, play, shown, talk
from gymnasium.wrappers import TimeLimit
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from textgym import Example, load_tokenizer
from textgym.core import TextGymError
from textgym.envs import TextGenEnv
from textgym.rewards import Length, Sentiment, Shaped
from textgym.tokenization import ASSETS, TextTokenizer

START = {"example": "hi we"}


class Monologue(Talk):
    """The same words, but nobody answers."""

    turn_end = None
    max_reply_tokens = 0
    min_new_tokens = 2

    def is_success(self, completion):
        return completion.text.count("a") > 1


def monologue(**kwargs: Any) -> TextGenEnv:
    return talk(**{"task": Monologue(), **kwargs})


# ---- observations ---------------------------------------------------------------------------------------------------


def test_observations_grow_to_the_left():
    env = monologue()
    obs, _ = env.reset(options=START)
    seen = [shown(obs)]
    for token in (A, B, BAR, A, A, A):
        obs, *_ = env.step(token)
        seen.append(shown(obs))
    assert seen == [
        ". . . . . . . hi we",
        ". . . . . . hi we A",
        ". . . . . hi we A B",
        ". . . . hi we A B |",
        ". . . hi we A B | A",
        ". . hi we A B | A A",
        ". hi we A B | A A A",
    ]


def test_observation_is_in_its_space():
    env = monologue()
    assert {key: (space.shape, space.dtype) for key, space in env.observation_space.items()} == {
        "input_ids": ((9,), np.int64),
        "attention_mask": ((9,), np.int8),
        "completion_mask": ((9,), np.int8),
    }
    obs, _ = env.reset(options={"example": "hi hi hi"})
    assert obs in env.observation_space
    assert all(env.step(A)[0] in env.observation_space for _ in range(6))
    assert env.action_space == gym.spaces.Discrete(len(WORDS))


def test_observation_equals_left_padding_by_transformers():
    env = gym.make("TextGen-Sentiment-v0").unwrapped
    tokenizer = AutoTokenizer.from_pretrained(ASSETS)
    for seed in range(5):
        obs, info = env.reset(seed=seed)
        wanted = tokenizer(info["prompt"], padding="max_length", max_length=env.setting.width, padding_side="left")
        assert obs["input_ids"].tolist() == wanted["input_ids"]
        assert obs["attention_mask"].tolist() == wanted["attention_mask"]
        assert not obs["completion_mask"].any()


def test_model_reads_observation_as_it_reads_the_text():
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**size, vocab_size=3072, initializer_range=0.3)).eval()
    env = gym.make("TextGen-Sentiment-v0").unwrapped
    obs, info = env.reset(seed=0)
    ids = env.setting.tokenizer.encode(info["prompt"])
    for token in (50, 60, 70):
        ids.append(token)
        obs, *_ = env.step(token)
    batch = {key: torch.from_numpy(obs[key])[None] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        padded, bare = model(**batch).logits[0, -1], model(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(padded, bare, atol=1e-4, rtol=1e-4)


def test_observations_are_fresh_arrays():
    env = monologue()
    first, _ = env.reset(options=START)
    kept = copy.deepcopy(first)
    second, *_ = env.step(A)
    assert_same(first, kept)
    for obs in (first, second):
        for value in obs.values():
            value[:] = 1  # whoever writes into an observation does not write into the episode
    third, *_ = env.step(B)
    assert shown(third) == ". . . . . hi we A B"


# ---- actions --------------------------------------------------------------------------------------------------------


def test_action_masks():
    env = monologue()
    env.reset(options=START)
    for written in range(4):
        mask = env.action_masks()
        assert mask.dtype == np.bool_ and mask.shape == (len(WORDS),)
        forbidden = {PAD, NEVER, END} if written < 2 else {PAD, NEVER}
        assert set(np.flatnonzero(~mask)) == forbidden
        mask[:] = False  # must not reach the next one
        env.step(A)


def test_masks_where_end_and_padding_are_one_token():
    tokenizer = load_tokenizer("bundled")
    same = TextTokenizer(tokenizer.source)
    same.pad_token_id = same.eos_token_id
    env = gym.make("TextGen-Sentiment-v0", tokenizer=same).unwrapped
    env.reset(seed=0)
    assert env.action_masks()[same.eos_token_id]


def test_end_token_before_min_new_tokens_does_not_end():
    env = monologue()
    env.reset(options=START)
    rewards, info = play(env, [END, END, END])
    assert rewards == [0, 0, 0]
    assert info["finish_reason"] == "stop"
    assert info["completion"] == ""


@pytest.mark.parametrize("action", [A, np.int64(A), np.array(A), np.array([A]), [A], np.int8(A)])
def test_kinds_of_actions(action):
    env = monologue()
    env.reset(options=START)
    assert shown(env.step(action)[0]).endswith("hi we A")


# ---- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "reason", "text"),
    [
        ([A, B, A, END], "stop", " a b a"),
        ([A, B, A, B, A, B], "length", " a b a b a b"),
        ([A, B, A, B, A, END], "stop", " a b a b a"),  # the last token of the budget
    ],
)
def test_finish_reasons(tokens, reason, text):
    env = monologue()
    env.reset(options=START)
    for token in tokens[:-1]:
        _, reward, terminated, truncated, info = env.step(token)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    _, reward, terminated, truncated, info = env.step(tokens[-1])
    assert type(reward) is float and type(terminated) is bool and type(truncated) is bool
    assert (terminated, truncated) == (True, False)
    assert reward == text.count("a")
    assert info == {
        "prompt": "hi we",
        "completion": text,
        "references": [],
        "finish_reason": reason,
        "is_success": True,
        "reward/watched": float(text.count("a")),
    }


def test_what_a_reward_sees():
    reward = Watched()
    env = monologue(reward=reward)
    env.reset(options={"example": Example("hi", ("a b", "b a"), {"level": 3})})
    _, info = play(env, [A, PAD, B, END])
    (((completion,),)) = reward.batches
    assert (completion.prompt, completion.text, completion.transcript) == ("hi", " a b", " a b")
    assert completion.token_ids == (A, PAD, B, END)
    assert (completion.references, completion.meta, completion.finish_reason) == (("a b", "b a"), {"level": 3}, "stop")
    assert info["references"] == ["a b", "b a"]


@pytest.mark.parametrize(("tokens", "success"), [([A, B, B, END], False), ([A, B, A, END], True)])
def test_success(tokens, success):
    env = monologue()
    env.reset(options=START)
    assert play(env, tokens)[1]["is_success"] is success


@pytest.mark.parametrize("env", [talk(), monologue(reward=Watched())], ids=["task without success", "another reward"])
def test_no_success(env):
    env.reset(options=START)
    assert "is_success" not in play(env, [A, B, A, END])[1]


def test_infos_share_nothing():
    example = Example("hi", ("a b",))
    env = monologue(prompts=[example])
    env.reset()
    _, info = play(env, [A] * 6)
    info["references"].append("x")
    env.reset()
    assert play(env, [A] * 6)[1]["references"] == ["a b"]


def test_parts_of_the_reward():
    env = monologue(reward=2 * Length() - Length("characters") + 1)
    env.reset(options=START)
    rewards, info = play(env, [A, B, END])
    assert rewards == [0, 0, 2 * 2 - 4 + 1]
    assert info["reward/length"] == 2 and info["reward/length_2"] == 4
    assert "reward/constant" not in info


def test_time_limit_truncates_from_outside():
    env = TimeLimit(monologue(), 3)
    env.reset(options=START)
    outcomes = [env.step(A)[1:4] for _ in range(3)]
    assert outcomes == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
    obs, _ = env.reset(options=START)
    assert shown(obs) == ". . . . . . . hi we"


def test_render_shows_the_return_so_far():
    env = monologue(reward=Shaped(Watched()), render_mode="ansi")
    for _ in range(2):
        env.reset(options=START)
        assert "+0.00" in env.render()
        env.step(A)
        env.step(A)
        assert "+2.00" in env.render() and "2/6" in env.render()


def test_budget_of_one_token():
    env = monologue(max_new_tokens=1, min_new_tokens=1)
    env.reset(options=START)
    assert not env.action_masks()[END]
    assert env.step(A)[2] is True


# ---- work -----------------------------------------------------------------------------------------------------------


class Counting:
    """Counts the texts that tokenizers decode."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = 0
        plain = TextTokenizer.decode_rows

        def decode_rows(tokenizer: TextTokenizer, ids: Any, lengths: Any) -> list[str]:
            self.decoded += len(ids)
            return plain(tokenizer, ids, lengths)

        monkeypatch.setattr(TextTokenizer, "decode_rows", decode_rows)
        monkeypatch.setattr(TextTokenizer, "decode_batch", None)  # calling it would fail


def test_nothing_is_decoded_before_the_end(monkeypatch):
    env = gym.make("TextGen-Sentiment-v0", max_new_tokens=32).unwrapped
    counting = Counting(monkeypatch)
    env.reset(seed=0)
    for _ in range(31):
        env.step(60)
        env.action_masks()
    assert counting.decoded == 0
    assert env.step(60)[2]
    assert counting.decoded == 1


def test_dense_rewards_decode_on_every_step(monkeypatch):
    env = gym.make("TextGen-Sentiment-v0", reward=Shaped(Sentiment())).unwrapped
    counting = Counting(monkeypatch)
    env.reset(seed=0)
    assert counting.decoded == 1
    for _ in range(5):
        env.step(60)
    assert counting.decoded == 6


def test_step_makes_no_text_of_the_prompt(monkeypatch):
    env = gym.make("TextGen-Sentiment-v0").unwrapped
    env.reset(seed=0)
    monkeypatch.setattr(TextTokenizer, "encode_batch", None)  # calling it would fail
    assert env.step(60)[0]["input_ids"][-1] == 60


# ---- options, hold, state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["we you", Example("we you", ("ref",), {"k": 1})])
def test_reset_from_an_example(example):
    env = monologue()
    obs, info = env.reset(seed=0, options={"example": example})
    assert info == {"prompt": "we you"}
    assert shown(obs) == ". . . . . . . we you"
    state = env.get_state()
    env.reset(options={"example": example})
    assert env.get_state() == state, "no prompt was drawn"


def test_hold():
    env = monologue()
    env.reset(options=START)
    env.step(A)
    env.hold()
    for token in (B, END, 999):
        obs, reward, terminated, truncated, info = env.step(token)
        assert (shown(obs), reward, terminated, truncated, info) == (". . . . . . hi we A", 0.0, False, False, {})
    env.reset(options=START)
    assert shown(env.step(B)[0]) == ". . . . . . hi we B"


def test_hold_before_the_first_reset():
    env = monologue()
    env.hold()
    assert shown(env.step(A)[0]) == " ".join("." * env.setting.width)


def test_hold_after_the_end():
    env = monologue()
    env.reset(options=START)
    play(env, [A, A, END])
    env.hold()
    obs, reward, terminated, _, info = env.step(B)
    assert (shown(obs), reward, terminated, info) == (". . . . hi we A A </S>", 0.0, False, {})


def test_state_decides_the_episodes_to_come():
    env = gym.make("TextGen-Sentiment-v0").unwrapped
    env.reset(seed=4)
    state = env.get_state()
    wanted = [env.reset()[1]["prompt"] for _ in range(3)]
    assert len(set(wanted)) == 3
    other = gym.make("TextGen-Sentiment-v0").unwrapped
    other.set_state(json.loads(json.dumps(state)))
    assert [other.reset()[1]["prompt"] for _ in range(3)] == wanted
    env.set_state(state)
    assert [env.reset()[1]["prompt"] for _ in range(3)] == wanted


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_copies_go_on_by_themselves(clone):
    """As tree search needs it."""
    env = monologue()
    env.reset(seed=0, options=START)
    env.step(A)
    twin = clone(env)
    assert shown(twin.step(B)[0]) == ". . . . . hi we A B"
    assert shown(env.step(A)[0]) == ". . . . . hi we A A"
    assert play(twin, [A, END])[1]["completion"] == " a b a"
    assert play(env, [A, END])[1]["completion"] == " a a a"
    assert_same(twin.reset(), env.reset())


# ---- several turns --------------------------------------------------------------------------------------------------


def test_replies_are_not_the_policys():
    env = talk()
    env.reset(options=START)
    seen = [shown(env.step(token)[0]) for token in (A, BAR, B, BAR)]
    assert seen == [
        ". . . . . . . . . . hi we A",
        ". . . . . . . hi we A | you say",
        ". . . . . . hi we A | you say B",
        ". . . hi we A | you say B | you say",
    ]
    obs, reward, terminated, _, info = env.step(END)
    assert shown(obs) == ". . hi we A | you say B | you say </S>"
    assert (reward, terminated, info["completion"]) == (1.0, True, " a | b |")


def test_transcript_has_both_speakers():
    task, reward = Talk(), Watched()
    env = talk(task=task, reward=reward)
    env.reset(options=START)
    play(env, [A, BAR, B, END])
    (heard,), ((final,),) = task.heard, reward.batches
    assert (heard.text, heard.transcript, heard.finish_reason) == (" a |", " a |", None)
    assert (final.text, final.transcript) == (" a | b", " a | you say b")
    assert final.token_ids == (A, BAR, B, END)


def test_budget_counts_only_the_policys_tokens():
    env = talk()
    env.reset(options={"example": "hi hi hi"})
    obs, info = None, {}
    for token in (A, BAR, A, BAR, A, A):
        obs, _, terminated, _, info = env.step(token)
    assert terminated and info["finish_reason"] == "length"
    assert shown(obs) == "hi hi hi A | you say A | you say A A"
    assert info["completion"] == " a | a | a a"


def test_no_reply_after_the_last_token():
    task = Talk()
    env = talk(task=task, max_new_tokens=2)
    env.reset(options=START)
    play(env, [A, BAR])
    assert task.heard == []


def test_speaker_may_say_nothing():
    env = talk()
    env.reset(options=START)
    assert shown(env.step(BAR)[0]).endswith("hi we | you say")
    assert shown(env.step(BAR)[0]).endswith("hi we | you say |")


def test_replies_do_not_leak_into_the_next_episode():
    env = talk()
    env.reset(options=START)
    env.step(BAR)
    obs, _ = env.reset(options=START)
    assert shown(obs) == ". " * 11 + "hi we"
    assert shown(env.step(A)[0]) == ". " * 10 + "hi we A"
    assert obs["input_ids"].tolist()[:11] == [PAD] * 11


def test_own_tokens_do_not_leak_into_later_replies():
    env = talk()
    env.reset(options=START)
    for token in (A, B, A, B):
        env.step(token)
    env.reset(options=START)
    assert shown(env.step(BAR)[0]).endswith(". hi we | you say")


def test_reply_that_does_not_fit():
    env = talk(task=Talk(answer="you say you say you"))
    env.reset(options=START)
    with pytest.raises(TextGymError, match=r"'Talk-v0' replied with 5 tokens, expected at most 4 more"):
        env.step(BAR)


def test_dense_reward_after_a_reply():
    """The potential is that of the state after the reply."""
    env = talk(reward=Shaped(Watched(), potential=lambda completion: float(len(completion.split()))))
    env.reset(options=START)
    rewards = [env.step(token)[1] for token in (A, BAR, B, END)]
    assert rewards == [1.0, 1.0, 1.0, 1.0 - 3.0]


def test_word_tokenizer_of_these_tests_is_what_it_seems():
    tokenizer = talk().setting.tokenizer
    assert isinstance(tokenizer.source, Tokenizer)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.vocab_size) == (PAD, END, len(WORDS))
    assert tokenizer.encode("hi you say") == [HI, YOU, SAY]
