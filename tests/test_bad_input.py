"""Bad input gets an error that names the value and says what was expected, at construction wherever it can be known.

A case is a line: its name, the call, the type of the error, and a regular expression for its text.
"""

# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import END, A, Talk, Watched, word_tokenizer
from tokenizers import Tokenizer, models

from textgym import Completion, load_tokenizer, make_task
from textgym.core import TextGymError
from textgym.envs import InvalidActionError, TextGenEnv, TextGenVectorEnv
from textgym.prompts import PromptError, load_prompts
from textgym.rewards import Constant, Length, Repetition, RewardError, Sentiment, Shaped, WeightedSum, as_reward
from textgym.tokenization import TokenizerError

ID = "TextGen-Sentiment-v0"
Case = tuple[str, Callable[..., Any], type[Exception], str]


def make(**kwargs: Any) -> gym.Env:
    return gym.make(ID, **kwargs)


def make_vec(num_envs: Any = 4, **kwargs: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(ID, num_envs=num_envs, **kwargs)


def begun(**kwargs: Any) -> TextGenEnv:
    env = TextGenEnv("sentiment", **kwargs)
    env.reset(seed=0)
    return env


def begun_vec(num_envs: int = 2, **kwargs: Any) -> TextGenVectorEnv:
    envs = TextGenVectorEnv("sentiment", num_envs=num_envs, **kwargs)
    envs.reset(seed=0)
    return envs


def ended() -> TextGenEnv:
    env = begun()
    env.step(env.setting.tokenizer.eos_token_id)
    return env


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def prompts(given: Any, split: Any = "train") -> Any:
    return load_prompts(given, make_task("sentiment"), split, "normal")


def check(cases: list[Case]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrises a test by cases of readable name, call, type of the error, and its text (a regular expression)."""
    return pytest.mark.parametrize(
        ("call", "error", "text"), [case[1:] for case in cases], ids=[case[0].replace(" ", "-") for case in cases]
    )


# ---- making an environment ------------------------------------------------------------------------------------------

MAKING: list[Case] = [
    ("unknown task", lambda: TextGenEnv("sentimental"), ValueError, r"Expected `task` to be one of \[.*'sentiment'.*\] or an id of \[.*'TextGen-Sentiment-v0'.*\], actual value: 'sentimental'"),
    ("task class", lambda: TextGenEnv(Talk), TypeError, r"`task` to be the name of a task or a Task, actual value: <class .*Talk'>"),
    ("split", lambda: make(split="valid"), ValueError, r"`split` to be one of \('train', 'dev', 'test'\), actual value: 'valid'"),
    ("difficulty", lambda: make(difficulty="impossible"), ValueError, r"`difficulty` to be one of \('easy', 'normal', 'hard'\), actual value: 'impossible'"),
    ("max_prompt_tokens 0", lambda: make(max_prompt_tokens=0), ValueError, r"`max_prompt_tokens` to be a whole number of at least 1, actual value: 0"),
    ("max_new_tokens -1", lambda: make(max_new_tokens=-1), ValueError, r"`max_new_tokens` to be a whole number of at least 1, actual value: -1"),
    ("max_new_tokens float", lambda: make(max_new_tokens=2.5), ValueError, r"`max_new_tokens` to be a whole number .* 2.5 \(type float\)"),
    ("max_new_tokens true", lambda: make(max_new_tokens=True), ValueError, r"`max_new_tokens` to be a whole number .* True \(type bool\)"),
    ("min_new_tokens -1", lambda: make(min_new_tokens=-1), ValueError, r"`min_new_tokens` to be a whole number of at least 0, actual value: -1"),
    ("min_new_tokens above max", lambda: make(min_new_tokens=9, max_new_tokens=8), ValueError, r"`min_new_tokens` to be at most max_new_tokens=8, actual value: 9"),
    ("render_mode", lambda: TextGenEnv("sentiment", render_mode="html"), ValueError, r"`render_mode` to be None or one of \['human', 'ansi', 'rgb_array'\], actual value: 'html'"),
    ("render_mode of a vector", lambda: TextGenVectorEnv("sentiment", render_mode="human"), ValueError, r"`render_mode` to be None or one of \['ansi', 'rgb_array'\], actual value: 'human'"),
    ("num_envs 0", lambda: make_vec(0), ValueError, r"`num_envs` to be a whole number of at least 1, actual value: 0"),
    ("num_envs float", lambda: TextGenVectorEnv("sentiment", num_envs=2.0), ValueError, r"`num_envs` to be a whole number .* 2.0"),
    ("group_size 0", lambda: make_vec(group_size=0), ValueError, r"`group_size` to be a whole number of at least 1, actual value: 0"),
    ("group_size no divisor", lambda: make_vec(4, group_size=3), ValueError, r"`group_size` to be a divisor of num_envs=4, actual value: 3"),
    ("autoreset_mode", lambda: make_vec(autoreset_mode="Never"), ValueError, r"`autoreset_mode` to be one of \['NextStep', 'SameStep', 'Disabled'\], actual value: 'Never'"),
    ("word that is no token", lambda: TextGenEnv(Talk()), TextGymError, r"Expected 'never' to be a single token of the tokenizer, actual: \d tokens"),
]  # fmt: skip


@check(MAKING)
def test_making_an_environment(call, error, text):
    with pytest.raises(error, match=text):
        call()


# ---- resetting and stepping -----------------------------------------------------------------------------------------

PLAYING: list[Case] = [
    ("step before reset", lambda: TextGenEnv("sentiment").step(5), TextGymError, r"Expected `reset` before this `step`"),
    ("step after the end", lambda: ended().step(5), TextGymError, r"Expected `reset` before this `step`: the episode has ended"),
    ("action too large", lambda: begun().step(3072), InvalidActionError, r"Expected a token id in \[0, 3072\), actual: 3072 in slot 0"),
    ("action negative", lambda: begun().step(-1), InvalidActionError, r"Expected a token id in \[0, 3072\), actual: -1"),
    ("action float", lambda: begun().step(3.0), InvalidActionError, r"Expected integer token ids, actual dtype: float64"),
    ("action text", lambda: begun().step(" the"), InvalidActionError, r"Expected integer token ids, actual dtype: <U4, actions: \[' the'\]"),
    ("action none", lambda: begun().step(None), InvalidActionError, r"Expected integer token ids, actual dtype: object"),
    ("action bool", lambda: begun().step(True), InvalidActionError, r"Expected integer token ids, actual dtype: bool"),
    ("two actions for one", lambda: begun().step([1, 2]), InvalidActionError, r"Expected actions of shape \(1,\), actual shape: \(2,\)"),
    ("one action for two", lambda: begun_vec().step([1]), InvalidActionError, r"Expected actions of shape \(2,\), actual shape: \(1,\)"),
    ("scalar for two", lambda: begun_vec().step(1), InvalidActionError, r"Expected actions of shape \(2,\), actual shape: \(\)"),
    ("ragged actions", lambda: begun_vec().step([[1], [2, 3]]), InvalidActionError, r"Expected actions of shape \(2,\), actual: \[\[1\], \[2, 3\]\]"),
    ("second action too large", lambda: begun_vec().step([1, 9999]), InvalidActionError, r"actual: 9999 in slot 1"),
    ("vector step before reset", lambda: TextGenVectorEnv("sentiment", num_envs=2).step([1, 2]), TextGymError, r"Expected `reset` before the first `step`"),
    ("example number", lambda: begun().reset(options={"example": 3}), PromptError, r"`options\['example'\]` to be a text or an Example, actual value: 3"),
    ("example empty", lambda: begun(max_prompt_tokens=50).reset(options={"example": ""}), PromptError, r"Expected a prompt of 1 to max_prompt_tokens=50 tokens, actual: 0 tokens in ''"),
    ("example too long", lambda: begun(max_prompt_tokens=50).reset(options={"example": "film " * 51}), PromptError, r"Expected a prompt of 1 to max_prompt_tokens=50 tokens, actual: \d+ tokens in 'film film"),
    ("example of half a letter", lambda: begun().reset(options={"example": "a\ud800"}), PromptError, r"`prompt` to be a text without halves of surrogate pairs, actual value: 'a\\ud800'"),
    ("examples too few", lambda: begun_vec().reset(options={"examples": ["a"]}), PromptError, r"`options\['examples'\]` to be a list of 2 texts or Examples, one an environment, actual value: \['a'\]"),
    ("examples one text", lambda: begun_vec().reset(options={"examples": "ab"}), PromptError, r"`options\['examples'\]` to be a list of 2 texts or Examples.*actual value: 'ab'"),
    ("reset_mask list", lambda: begun_vec().reset(options={"reset_mask": [True, False]}), TypeError, r"`options\['reset_mask'\]` to be a numpy bool array of shape \(2,\).*actual value: \[True, False\]"),
    ("reset_mask of ints", lambda: begun_vec().reset(options={"reset_mask": np.array([1, 0])}), TypeError, r"numpy bool array .* array\(\[1, 0\]\)"),
    ("reset_mask shape", lambda: begun_vec().reset(options={"reset_mask": np.ones(3, bool)}), ValueError, r"numpy bool array of shape \(2,\) .* True,  True,  True"),
    ("reset_mask nothing", lambda: begun_vec().reset(options={"reset_mask": np.zeros(2, bool)}), ValueError, r"with at least one true, actual value: array\(\[False, False\]\)"),
    ("reset_mask first", lambda: TextGenVectorEnv("sentiment", num_envs=2).reset(options={"reset_mask": np.array([True, False])}), TextGymError, r"Expected a reset of all slots before the first one with a reset_mask"),
    ("seed negative", lambda: begun_vec().reset(seed=-1), ValueError, r"`seed` to be a whole number of at least 0, actual value: -1"),
    ("seed text", lambda: begun_vec().reset(seed="42"), ValueError, r"`seed` to be a whole number of at least 0, actual value: '42'"),
    ("seed float", lambda: begun_vec().reset(seed=1.5), ValueError, r"`seed` to be a whole number of at least 0, actual value: 1.5"),
    ("seeds too few", lambda: begun_vec().reset(seed=[1]), ValueError, r"`seed` to be one number, or a list of num_envs=2, actual value: \[1\]"),
    ("seeds not numbers", lambda: begun_vec().reset(seed=[1, "b"]), ValueError, r"`seed` to be a whole number of at least 0, actual value: 'b'"),
    ("seeds differ in a group", lambda: begun_vec(group_size=2).reset(seed=[1, 2]), ValueError, r"`seed` to be the same in each group of 2 slots, actual value: \[1, 2\]"),
    ("hold without a mask", lambda: begun_vec().hold([0, 1]), ValueError, r"`mask` to be a bool array of shape \(2,\), actual value: \[0, 1\]"),
    ("states too few", lambda: begun_vec().set_state([{}]), ValueError, r"Expected 2 states, one a slot, actual: 1"),
]  # fmt: skip


@check(PLAYING)
def test_resetting_and_stepping(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_episode_is_unharmed_by_a_refused_action():
    env = begun()
    with pytest.raises(InvalidActionError):
        env.step(3072)
    obs, *_ = env.step(60)
    assert obs["completion_mask"].sum() == 1


# ---- prompts --------------------------------------------------------------------------------------------------------

PROMPTS: list[Case] = [
    ("number", lambda tmp: prompts(3), TypeError, r"`prompts` to be None, a list, the path of a JSON Lines file, a dataset or a mapping, actual value: 3"),
    ("no file", lambda tmp: prompts("nowhere.jsonl"), PromptError, r"there is no file 'nowhere.jsonl'"),
    ("a prompt for a path", lambda tmp: prompts("The film was " * 1000), PromptError, r"to be the path of a JSON Lines file, but there is no file 'The film"),
    ("folder", lambda tmp: prompts(tmp), PromptError, r"there is no file '.*'"),
    ("no file of this split", lambda tmp: prompts(str(tmp / "{split}.jsonl"), "dev"), PromptError, r"there is no file '.*dev\.jsonl'"),
    ("not json", lambda tmp: prompts(written(tmp / "p.jsonl", '{"prompt": "a"}\n{"prompt": \n')), PromptError, r"Line 2 of '.*p\.jsonl' is not JSON: Expecting value"),
    ("not utf-8", lambda tmp: prompts(written(tmp / "p.jsonl", '{"prompt": "ä"}'.encode("latin-1"))), PromptError, r"'.*p\.jsonl' is not UTF-8 text"),
    ("not gzip", lambda tmp: prompts(written(tmp / "p.jsonl.gz", '{"prompt": "a"}')), PromptError, r"Could not read '.*p\.jsonl\.gz': Not a gzipped file"),
    ("cut gzip", lambda tmp: prompts(written(tmp / "p.jsonl.gz", gzip.compress(b'{"prompt": "a"}')[:-9])), PromptError, r"Could not read '.*gz': Compressed file ended"),
    ("broken gzip", lambda tmp: prompts(written(tmp / "p.jsonl.gz", gzip.compress(b"")[:10] + b"\xff" * 40)), PromptError, r"Could not read '.*gz': Error -3 while decompressing"),
    ("empty file", lambda tmp: prompts(written(tmp / "p.jsonl", "\n\n")), PromptError, r"Expected at least one prompt for the split 'train', but .*p\.jsonl has none"),
    ("empty list", lambda tmp: prompts([]), PromptError, r"Expected at least one prompt for the split 'train', but prompts has none"),
    ("nothing of this split", lambda tmp: prompts([{"prompt": "a", "split": "test"}], "dev"), PromptError, r"Expected at least one prompt for the split 'dev'"),
    ("unknown split", lambda tmp: prompts([{"prompt": "a", "split": "holdout"}]), PromptError, r"record 0 of prompts: Expected `split` to be one of \('train', 'dev', 'test'\), actual value: 'holdout'"),
    ("split that is a list", lambda tmp: prompts([{"prompt": "a", "split": ["train"]}]), PromptError, r"`split` to be one of .*, actual value: \['train'\]"),
    ("no prompt column", lambda tmp: prompts(written(tmp / "p.jsonl", '\n{"text": "a", "id": 1}')), PromptError, r"record 2 of .*p\.jsonl has no column 'prompt', only \['id', 'text'\]"),
    ("no such column", lambda tmp: prompts({"path": written(tmp / "p.jsonl", '{"text": "a"}'), "columns": {"prompt": "txt"}}), PromptError, r"record 1 of .* has no column 'txt', only \['text'\]"),
    ("no references column", lambda tmp: prompts({"path": written(tmp / "p.jsonl", '{"prompt": "a"}'), "columns": {"references": "r"}}), PromptError, r"has no column 'r', only \['prompt'\]"),
    ("empty prompt", lambda tmp: prompts(["a", " \n"]), PromptError, r"record 1 of prompts: Expected `prompt` to be a text that is not empty, actual value: ' \\n'"),
    ("prompt is a number", lambda tmp: prompts([{"prompt": 7}]), PromptError, r"`prompt` to be a text that is not empty, actual value: 7"),
    ("record is a number", lambda tmp: prompts([7]), PromptError, r"record 0 of prompts: Expected `prompt` to be a text, an Example or a mapping with 'prompt', actual value: 7"),
    ("bytes", lambda tmp: prompts(b"abc"), PromptError, r"`prompt` to be a text, an Example or a mapping"),
    ("references are numbers", lambda tmp: prompts([{"prompt": "a", "references": [1]}]), PromptError, r"`references` to be a text or a list of texts, actual value: \[1\]"),
    ("mapping without this split", lambda tmp: prompts({"train": ["a"]}, "dev"), PromptError, r"`prompts` to be a mapping with 'path', or with the split 'dev', actual value: \['train'\]"),
    ("mapping with an unknown key", lambda tmp: prompts({"path": "p", "column": "text"}), PromptError, r"`prompts` to be a mapping with keys among \['columns', 'labels', 'path', 'prompt_words', 'template'\], actual value: \['column'\]"),
    ("unknown field of columns", lambda tmp: prompts({"path": "p", "columns": {"text": "prompt"}}), PromptError, r"`columns` to be a mapping of 'prompt' and 'references' to column names, actual value: \{'text': 'prompt'\}"),
    ("prompt_words", lambda tmp: prompts({"path": "p", "prompt_words": 0}), PromptError, r"`prompt_words` to be None or a whole number of at least 1, actual value: 0"),
    ("prompt too long", lambda tmp: make(prompts=["ok", "film " * 9], max_prompt_tokens=8), PromptError, r"Expected a prompt of 1 to max_prompt_tokens=8 tokens, actual: \d+ tokens in 'film film"),
    ("data frame", lambda tmp: prompts(Frame()), TypeError, r"`prompts` to be None, a list, .* a dataset or a mapping, actual value: a frame"),
]  # fmt: skip


class Frame:
    """A data frame of pandas iterates the names of its columns, which would make strange prompts."""

    columns = ("prompt", "stars")

    def __iter__(self):
        return iter(self.columns)

    def __repr__(self):
        return "a frame"


@check(PROMPTS)
def test_prompts(call, error, text, tmp_path):
    with pytest.raises(error, match=text):
        call(tmp_path)


# ---- rewards --------------------------------------------------------------------------------------------------------

BATCH = [Completion("Once", " upon"), Completion("The film", " was good")]
SHOWN = r"; while scoring completion ' was good' of prompt 'The film'"


def at_second(value: Any) -> Callable[..., Any]:
    def odd(completion: str) -> Any:
        return value if completion == " was good" else 0.5

    return odd


def raising(text: str) -> float:
    if text == " was good":
        raise RuntimeError("the server is down")
    return 0.0


def two_texts(one: str, other: str) -> float:
    return 0.0


def needs_more(completion: str, weight: float) -> float:
    return weight


def score(reward: Any) -> Any:
    return as_reward(reward).parts(BATCH)


REWARDS: list[Case] = [
    ("unknown name", lambda: make(reward="sentimnet"), ValueError, r"`reward` to be one of \[.*'length', .*'repetition', .*'sentiment'.*\], actual value: 'sentimnet'"),
    ("unknown name in weights", lambda: make(reward={"flow": 1}), ValueError, r"`reward` to be one of .*, actual value: 'flow'"),
    ("no weights", lambda: make(reward={}), ValueError, r"`reward` to be a mapping of at least one reward name to its weight, actual value: \{\}"),
    ("weight text", lambda: make(reward={"length": "big"}), TypeError, r"`weight` to be a finite number or a Reward, actual value: 'big'"),
    ("weight nan", lambda: float("nan") * Length(), TypeError, r"`weight` to be a finite number or a Reward, actual value: nan"),
    ("weight true", lambda: Length() * True, TypeError, r"`weight` to be a finite number or a Reward, actual value: True"),
    ("list", lambda: make(reward=["length"]), TypeError, r"`reward` to be a Reward, a name, a mapping of names to weights, or a function, actual value: \['length'\]"),
    ("class", lambda: make(reward=Sentiment), TypeError, r"`reward` to be a reward, not its class; write Sentiment\(\), actual value"),
    ("add a text", lambda: Length() + "1", TypeError, r"`weight` to be a finite number or a Reward, actual value: '1'"),
    ("divide by zero", lambda: Length() / 0, ValueError, r"`divisor` to be a finite number other than 0, actual value: 0"),
    ("infinite constant", lambda: Constant(float("inf")), TypeError, r"`weight` to be a finite number or a Reward, actual value: inf"),
    ("no terms", lambda: WeightedSum([]), ValueError, r"`terms` to be at least one pair of weight and reward, actual value: \[\]"),
    ("length of lines", lambda: Length("lines"), ValueError, r"`unit` to be 'words', 'tokens' or 'characters', actual value: 'lines'"),
    ("target -1", lambda: Length(target=-1), ValueError, r"`target` to be a whole number of at least 0, actual value: -1"),
    ("0-grams", lambda: Repetition(0), ValueError, r"`n` to be a whole number of at least 1, actual value: 0"),
    ("gamma 0", lambda: Shaped("length", gamma=0), ValueError, r"`gamma` to be a number in \(0, 1\], actual value: 0"),
    ("gamma 1.01", lambda: Shaped("length", gamma=1.01), ValueError, r"`gamma` to be a number in \(0, 1\], actual value: 1.01"),
    ("gamma text", lambda: Shaped("length", gamma="1"), ValueError, r"`gamma` to be a number in \(0, 1\], actual value: '1'"),
    ("shaped twice", lambda: Shaped(Shaped("length")), ValueError, r"`reward` to be a reward that is not dense already, actual value: Shaped\(name='length'"),
    ("dense potential", lambda: Shaped("length", potential=Shaped("sentiment")), ValueError, r"`potential` to be a reward that is not dense already, actual value: Shaped\(name='sentiment'"),
    ("two gammas", lambda: Shaped("length", gamma=0.9) + Shaped("sentiment", gamma=0.5), ValueError, r"`gamma` to be the same in all dense rewards that are added, actual value: \[0.5, 0.9\]"),
    ("dense factor", lambda: Shaped("length") * Sentiment(), ValueError, r"Expected factors that are not dense, actual: 'length' \* 'sentiment'; shape the product instead"),
    ("function of two texts", lambda: make(reward=two_texts), TypeError, r"Expected a reward function of one text, .*TRL's form.*actual: two_texts\(one: 'str', other: 'str'\) -> 'float'"),
    ("function of nothing", lambda: as_reward(lambda: 0.0), TypeError, r"Expected a reward function of one text, .* actual: <lambda>\(\)"),
    ("function of unknown names", lambda: make(reward=needs_more), TypeError, r"of names among \('prompt', 'completion', 'references', 'meta'\).*actual: needs_more\(completion: 'str', weight"),
    ("raises", lambda: score(raising), RewardError, r"Reward 'raising' raised RuntimeError: the server is down" + SHOWN),
    ("nan", lambda: score(at_second(float("nan"))), RewardError, r"Reward 'odd' must return finite scores, actual score: nan" + SHOWN),
    ("infinity", lambda: score(at_second(-np.inf)), RewardError, r"Reward 'odd' must return finite scores, actual score: -inf" + SHOWN),
    ("none", lambda: score(at_second(None)), RewardError, r"Reward 'odd' must return finite scores, actual score: nan" + SHOWN),
    ("too large for a float32", lambda: score(at_second(1e39)), RewardError, r"Reward 'odd' must return finite scores, actual score: inf" + SHOWN),
    ("text", lambda: score(lambda text: "0.5"), RewardError, r"Reward '<lambda>' must return numbers, actual value: array\(\['0.5', '0.5'\].*while scoring completion ' upon'"),
    ("lists of different lengths", lambda: score(lambda completions: [[1], [2, 3]]), RewardError, r"Reward '<lambda>' must return numbers, actual value: \[\[1\], \[2, 3\]\]"),
    ("wrong count", lambda: score(lambda completions: [1.0]), RewardError, r"Reward '<lambda>' must return one score a completion, expected shape \(2,\), actual shape \(1,\)"),
    ("one number for all", lambda: score(lambda completions: 1.0), RewardError, r"expected shape \(2,\), actual shape \(\); while scoring completion ' upon' of prompt 'Once'"),
    ("nothing returned", lambda: score(lambda completions: None), RewardError, r"expected shape \(2,\), actual shape \(\)"),
    ("missing column", lambda: score(lambda completions, answer: answer), RewardError, r"Reward '<lambda>' raised TypeError: .*missing 1 required positional argument: 'answer'"),
    ("overflowing sum", lambda: score(3e38 * Length() + 1), RewardError, r"Reward '3e\+38 \* length \+ 1' must return finite scores, actual score: inf" + SHOWN),
    ("overflowing product", lambda: score((3e38 * Length(target=0)) * (1 * Length())), RewardError, r"must return finite scores, actual score: -inf"),
    ("failing leaf", lambda: score(2 * (as_reward(raising) - Length())), RewardError, r"^Reward 'raising' raised RuntimeError"),
]  # fmt: skip


@check(REWARDS)
def test_rewards(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_reward_at_the_end_of_an_episode(value):
    env = TextGenEnv(Talk(), tokenizer=word_tokenizer(), reward=at_second(value))
    env.reset(options={"example": "hi"})
    env.step(A)
    assert env.step(END)[1] == 0.5
    spoiled = TextGenEnv(Talk(), tokenizer=word_tokenizer(), reward=lambda completion: value)
    spoiled.reset(options={"example": "hi"})
    with pytest.raises(RewardError, match=rf"'<lambda>' must .* {value}; while scoring completion '' of prompt 'hi'"):
        spoiled.step(END)


def test_potential_that_fails():
    env = TextGenEnv(Talk(), tokenizer=word_tokenizer(), reward=Shaped(Watched(), potential=lambda text: 1 / len(text)))
    with pytest.raises(RewardError, match=r"'<lambda>' raised ZeroDivisionError.* completion '' of prompt 'hi'"):
        env.reset(options={"example": "hi"})


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def without_end() -> Tokenizer:
    return Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))


def folder_with(tmp: Path, **files: str) -> str:
    for name, text in files.items():
        written(tmp / name.replace("_json", ".json"), text)
    return str(tmp)


TOKENIZERS: list[Case] = [
    ("number", lambda tmp: make(tokenizer=3), TypeError, r"`tokenizer` to be 'bundled', a folder, a Hub id, a tokenizers.Tokenizer or a PreTrainedTokenizerBase, actual value: 3"),
    ("function", lambda tmp: load_tokenizer(str.split), TypeError, r"`tokenizer` to be 'bundled', .*actual value: <method 'split'"),
    ("no end token", lambda tmp: make(tokenizer=without_end()), TokenizerError, r"Expected a tokenizer with an end token, one of .*'<\|endoftext\|>'.*; it has none"),
    ("no network", lambda tmp: make(tokenizer="someone/some-model"), TokenizerError, r"Could not load the tokenizer 'someone/some-model' as a local folder \(there is none of this name\) or Hub id \(needs the network\): .*Offline choices: 'bundled', a folder"),
    ("empty folder", lambda tmp: load_tokenizer(tmp), TokenizerError, r"Could not load the tokenizer '.*' as a folder: .*Offline choices: 'bundled'"),
    ("broken file", lambda tmp: load_tokenizer(folder_with(tmp, tokenizer_json="{}")), TokenizerError, r"Could not read '.*tokenizer\.json' as a tokenizer: "),
    ("broken configuration", lambda tmp: load_tokenizer(folder_with(tmp, tokenizer_json="{}", tokenizer_config_json=json.dumps({"eos_token": "x"}))), TokenizerError, r"Could not load the tokenizer '.*' as a folder: "),
    ("long name", lambda tmp: load_tokenizer("x" * 5000), TokenizerError, r"Could not load the tokenizer 'xxx.* as a local folder"),
]  # fmt: skip


@check(TOKENIZERS)
def test_tokenizers(call, error, text, tmp_path):
    with pytest.raises(error, match=re.compile(text, re.DOTALL)):
        call(tmp_path)


def test_errors_are_of_one_family():
    for error in (InvalidActionError, PromptError, RewardError, TokenizerError):
        assert issubclass(error, TextGymError) and issubclass(error, ValueError)


def test_long_values_are_cut():
    with pytest.raises(TypeError, match=r"actual value: \[0, 0, .*\.\.\. \(type list\)$") as error:
        as_reward([0] * 10_000)
    assert len(str(error.value)) < 400


def test_there_are_many():
    texts = {text for _, _, _, text in (*MAKING, *PLAYING, *PROMPTS, *REWARDS, *TOKENIZERS)}
    assert len(texts) >= 100
