"""What must hold for every task: its scores, its splits and levels, and that cheats do not pay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import ENV_IDS

from textgym import Example, make_task
from textgym.core import SPLITS, TextGymError
from textgym.prompts import GeneratedPrompts
from textgym.tasks import Task, split_of
from textgym.tokenization import load_tokenizer

pytestmark = pytest.mark.parametrize("env_id", ENV_IDS)


def drawn(env_id: str, count: int, difficulty: str | None = None) -> list[Example]:
    task, rng = make_task(env_id), np.random.default_rng(0)
    return [task.sample(rng, difficulty or task.default_difficulty) for _ in range(count)]


def played(env_id: str, examples: Sequence[Example], rows: Sequence[Sequence[int]] | None) -> tuple[np.ndarray, dict]:
    """Returns and last infos of one episode from each example: given tokens and an end token, or random allowed ones."""
    envs = gym.make_vec(env_id, num_envs=len(examples), autoreset_mode="Disabled").unwrapped
    envs.reset(seed=0, options={"examples": list(examples)})
    rng, eos = np.random.default_rng(0), envs.setting.tokenizer.eos_token_id
    allowed = np.flatnonzero(envs.action_masks()[0])
    returns, running, last, step = np.zeros(len(examples)), np.ones(len(examples), dtype=bool), {}, 0
    while running.any():
        if rows is None:
            actions = rng.choice(allowed, len(examples))
        else:
            actions = np.array([row[step] if step < len(row) else eos for row in rows])
        _, rewards, ended, _, infos = envs.step(actions)
        returns += rewards
        for i in np.flatnonzero(ended):
            last[int(i)] = {k: infos[k][i] for k in infos if not k.startswith("_") and infos[f"_{k}"][i]}
        running &= ~ended
        envs.hold(ended)
        step += 1
    return returns, last


def texts_played(env_id: str, examples: Sequence[Example], texts: Sequence[str]) -> tuple[np.ndarray, dict]:
    return played(env_id, examples, load_tokenizer().encode_batch(list(texts)))


def oracle_texts(task: Task, examples: Sequence[Example]) -> list[str]:
    return [task.oracle(e) for e in examples]


def margin(returns: np.ndarray) -> float:
    """Four standard errors, and rounding to two decimals."""
    return 0.005 + 4 * float(returns.std()) / len(returns) ** 0.5


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_oracle_score(env_id):
    task, examples = make_task(env_id), drawn(env_id, 300)
    returns, last = texts_played(env_id, examples, oracle_texts(task, examples))
    assert returns.mean() == pytest.approx(task.oracle_score, abs=min(0.02, margin(returns)))
    assert all(last[i]["finish_reason"] == "stop" for i in last), "the oracle fits into the budget"
    low, high = task.reward().range
    assert low <= returns.min() and returns.max() <= high + 1e-6
    if "is_success" in last[0]:
        assert np.mean([last[i]["is_success"] for i in last]) >= 0.99


JUDGED = {"TextGen-Reply-v0"}
"""Tasks whose reward is a trained model, which misjudges a good answer now and then."""


def test_oracle_masters_every_level(env_id):
    task = make_task(env_id)
    for level in task.difficulties:
        examples = drawn(env_id, 60, level)
        returns, _ = texts_played(env_id, examples, oracle_texts(task, examples))
        gap = task.oracle_score - task.random_score
        wanted = task.random_score + 0.8 * gap
        assert returns.mean() > wanted, level
        assert returns.min() > wanted - 0.25 or env_id in JUDGED, level


def test_oracle_is_a_function_of_the_example(env_id):
    task = make_task(env_id)
    for example in drawn(env_id, 20):
        again = Example(example.prompt, example.references, json.loads(json.dumps(dict(example.meta))))
        assert task.oracle(example) == make_task(env_id).oracle(again)


def test_random_score(env_id):
    task, examples = make_task(env_id), drawn(env_id, 500)
    returns, _ = played(env_id, examples, None)
    assert returns.mean() == pytest.approx(task.random_score, abs=margin(returns))


def test_base_score_is_between(env_id):
    task = make_task(env_id)
    assert task.random_score - 0.02 <= task.base_score <= task.oracle_score


def shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    return f" {' '.join(rng.permutation(words))}"


def commonest_word(texts: Sequence[str]) -> str:
    words = [word for text in texts for word in text.split()]
    return max(sorted(set(words)), key=words.count)


CHEATS: dict[str, Callable[[Sequence[Example], Sequence[str], np.random.Generator], list[str]]] = {
    "nothing": lambda examples, oracle, rng: [""] * len(examples),
    "the prompt": lambda examples, oracle, rng: [f" {e.prompt}" for e in examples],
    "a word over and over": lambda examples, oracle, rng: [f" {commonest_word(oracle)}" * 12] * len(examples),
    "its own word over and over": lambda examples, oracle, rng: [f" {t.split()[-1]}" * 12 for t in oracle],
    "the answer to another prompt": lambda examples, oracle, rng: [*oracle[1:], oracle[0]],
    "the right words in random order": lambda examples, oracle, rng: [shuffled(t, rng) for t in oracle],
    "the answer twice": lambda examples, oracle, rng: [t + t for t in oracle],
}
MAY_BE_RIGHT = {
    "the answer to another prompt": {"TextGen-Sentiment-v0", "TextGen-Dates-v0", "TextGen-Numbers-v0"},
    "the answer twice": {"TextGen-Sentiment-v0", "TextGen-Dates-v0", "TextGen-Numbers-v0", "TextGen-Delay-v0"},
}
"""Tasks in which this is no cheat: the answer does not depend on the prompt, or need not end."""


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_do_not_pay(env_id, cheat):
    if env_id in MAY_BE_RIGHT.get(cheat, ()):
        pytest.skip("no cheat here: what it writes is a right answer")
    task, examples = make_task(env_id), drawn(env_id, 100)
    oracle = oracle_texts(task, examples)
    texts = CHEATS[cheat](examples, oracle, np.random.default_rng(0))
    changed = [i for i in range(len(examples)) if texts[i].split() != oracle[i].split()]
    if len(changed) < 20:
        pytest.skip("answers of one word: there is nothing to shuffle")
    returns, _ = texts_played(env_id, [examples[i] for i in changed], [texts[i] for i in changed])
    assert returns.mean() < task.oracle_score - 0.25 * (task.oracle_score - task.random_score)


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_splits_are_disjoint(env_id):
    task, prompts = make_task(env_id), {}
    for split in SPLITS:
        rng = np.random.default_rng(0)  # the same for all, to make it hard
        levels = [GeneratedPrompts(task, split, level) for level in task.difficulties]
        prompts[split] = {levels[i % len(levels)].draw(rng).prompt for i in range(300)}
        assert len(prompts[split]) > 200, "there are many different prompts"
    for one, other in combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]
    assert {split_of(p) for p in prompts["dev"]} == {"dev"}


def test_there_are_many_prompts(env_id):
    task, prompts = make_task(env_id), [e.prompt for e in drawn(env_id, 5000)]
    if task.distinct_prompts is None:
        counts = Counter(Counter(prompts).values())
        # Chao's lower bound of the number of kinds (1984), from those seen once and twice
        least = len(set(prompts)) + counts[1] ** 2 / (2 * max(1, counts[2]))
        assert least > 100_000
    else:
        assert len(set(prompts)) <= task.distinct_prompts


def test_prompts_fit(env_id):
    task, tokenizer = make_task(env_id), load_tokenizer()
    for level in task.difficulties:
        lengths = [len(ids) for ids in tokenizer.encode_batch([e.prompt for e in drawn(env_id, 1500, level)])]
        assert min(lengths) > 0 and max(lengths) <= task.max_prompt_tokens


def test_prompts_are_ready_to_be_continued(env_id):
    task = make_task(env_id)
    for level in task.difficulties:
        for example in drawn(env_id, 50, level):
            answer = task.oracle(example)
            assert (
                example.prompt == example.prompt.rstrip() and answer[0] in " \n" and answer[1:] == answer[1:].lstrip()
            )
            assert json.loads(json.dumps(dict(example.meta))) is not None


def test_levels_differ(env_id):
    task = make_task(env_id)
    assert task.default_difficulty in task.difficulties and len(task.difficulties) >= 3
    prompts = {
        level: {task.sample(np.random.default_rng(i), level).prompt for i in range(300)} for level in task.difficulties
    }
    for one, other in combinations(task.difficulties, 2):
        assert len(prompts[one] & prompts[other]) < 150, f"{one} and {other} are much the same"


def test_documents(env_id):
    task, rng = make_task(env_id), np.random.default_rng(0)
    documents = [task.document(rng) for _ in range(300)]
    assert len(set(documents)) > 250
    assert all(text.strip() == text and text for text in documents)


# ---- data of one's own ----------------------------------------------------------------------------------------------


def test_data_of_ones_own(env_id):
    task = make_task(env_id)
    record = {"prompt": "The house is old.", "references": ["old house"]}
    env = gym.make(env_id, prompts=[record], max_prompt_tokens=64)
    _, info = env.reset(seed=0)
    assert info["prompt"] == task.template.format(prompt=record["prompt"])
    tokens = [
        *load_tokenizer().encode(task.oracle(env.unwrapped.setting.prompts.examples[0])),
        load_tokenizer().eos_token_id,
    ]
    try:
        ended = False
        for token in tokens:
            if not ended:
                _, reward, ended, _, info = env.step(token)
        assert ended and np.isfinite(reward)
    except TextGymError as error:  # what the task cannot know of a stranger's record is said
        assert "meta" in str(error) or "column" in str(error) or "reference" in str(error)
