"""The bundled reward model of TextGen-Reply-v0, and the script that trains it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from textgym.core import Completion
from textgym.numpy_gpt2 import ModelError
from textgym.rewards import as_reward
from textgym.rewards.reply_preference import FOLDER, ReplyPreference, model_input
from textgym.tasks import split_of
from textgym.tasks.reply import ReplyTask, preference, write_reply
from textgym.tokenization import ASSETS, load_tokenizer
from textgym_agents.pretrain import build_reply_reward as build


def drawn(count: int, seed: int = 0) -> list:
    task, rng = ReplyTask(), np.random.default_rng(seed)
    return [task.sample(rng, "normal") for _ in range(count)]


def of(examples, texts) -> list[Completion]:
    return [Completion(e.prompt, t, e.references, e.meta, (), "stop", t) for e, t in zip(examples, texts, strict=True)]


def test_transformers_scores_alike():
    examples, task = drawn(12), ReplyTask()
    completions = of(examples, [task.oracle(e) for e in examples])
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(str(FOLDER))
    found = ReplyPreference().logits(completions)
    for completion, score in zip(completions, found, strict=True):
        prompt, reply = tokenizer.encode(completion.prompt), tokenizer.encode(completion.text)
        ids = model_input(prompt, reply, tokenizer.eos_token_id, model.config.n_positions)
        with torch.no_grad():
            wanted = float(model(torch.tensor([ids])).logits[0, 0])
        assert score == pytest.approx(wanted, abs=1e-3)


def test_it_agrees_with_the_judge_more_often_than_not():
    examples, task = drawn(100, seed=3), ReplyTask()
    good = ReplyPreference()(of(examples, [task.oracle(e) for e in examples]))
    for other in ("", " No.", " Thank you for your message. Please wait a little longer."):
        assert (good > ReplyPreference()(of(examples, [other] * 100))).mean() > 0.95, other
    assert ((good > 0) & (good < 1)).all()


def test_the_judge_likes_the_oracle():
    examples, task = drawn(50, seed=4), ReplyTask()
    for example in examples:
        liked = preference(example.meta, task.oracle(example))
        assert liked > preference(example.meta, " Thank you for your message.") > preference(example.meta, "")
        assert task.is_success(of([example], [task.oracle(example)])[0])
        assert not task.is_success(of([example], [" I am happy to help."])[0])


def test_card_says_how_it_was_made():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "pairwise accuracy" in text and "calibration error" in text
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == ["GPT2ForSequenceClassification"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        ReplyPreference(tmp_path)([Completion("p", "t")])


# ---- what it pays for -----------------------------------------------------------------------------------------------


def held_out(count: int, levels=("easy", "normal"), seed: int = 11) -> list:
    task, rng, found = ReplyTask(), np.random.default_rng(seed), []
    while len(found) < count:
        example = task.sample(rng, levels[len(found) % len(levels)])
        if split_of(example.prompt) == "test":
            found.append(example)
    return found


def mean_reward(examples, texts) -> float:
    return float(ReplyPreference()(of(examples, texts)).mean())


@pytest.mark.parametrize("kind", build.CHEATS)
def test_cheats_of_reply(kind):
    examples, rng, tokenizer = held_out(80), np.random.default_rng(0), load_tokenizer()
    helpful = mean_reward(examples, [f" {write_reply(rng, e.meta, 'helpful')}" for e in examples])
    texts = [build.cheat(rng, e, kind, tokenizer) for e in examples]
    assert mean_reward(examples, [f" {text}" if text else "" for text in texts]) < helpful - 0.25


@pytest.mark.parametrize("kind", ["wrong product", "wrong intent", "generic", "rude", "off topic", "echo"])
def test_what_is_no_help_is_worth_less(kind):
    examples, rng = held_out(100), np.random.default_rng(0)
    helpful = [f" {write_reply(rng, e.meta, 'helpful')}" for e in examples]
    worse = [f" {write_reply(rng, e.meta, kind)}" for e in examples]
    assert mean_reward(examples, helpful) > 0.85
    assert mean_reward(examples, worse) < mean_reward(examples, helpful) - 0.35
    first, second = ReplyPreference()(of(examples, helpful)), ReplyPreference()(of(examples, worse))
    assert (first > second).mean() > 0.9


def test_on_hard_prompts_the_other_product_is_worth_less():
    examples, rng = held_out(100, ("hard",)), np.random.default_rng(0)
    helpful = [f" {write_reply(rng, e.meta, 'helpful')}" for e in examples]
    worse = [f" {write_reply(rng, e.meta, 'wrong product')}" for e in examples]
    assert (ReplyPreference()(of(examples, helpful)) > ReplyPreference()(of(examples, worse))).mean() > 0.8


def test_it_ranks_as_the_judge_does():
    groups = build.draw(np.random.default_rng(1), "test", 80, load_tokenizer(), replies=4)
    scores = np.array([ReplyPreference().logits([Completion(e.prompt, r.text) for r in rs]) for e, rs in groups])
    liked = np.array([[r.preference for r in rs] for _, rs in groups])
    first, second = np.triu_indices(4, 1)
    clear = np.abs(liked[:, first] - liked[:, second]) > 0.5
    agree = (scores[:, first] > scores[:, second]) == (liked[:, first] > liked[:, second])
    assert agree[clear].mean() > 0.9


def test_reward_contract():
    reward = as_reward("reply_preference")
    assert isinstance(reward, ReplyPreference) and reward([]).shape == (0,)
    examples, task = drawn(5), ReplyTask()
    done = of(examples, [task.oracle(e) for e in examples])
    done += [Completion("", ""), Completion("x " * 500, " y" * 500), Completion("你好", " 😀")]
    together = reward(done)
    assert together.dtype == np.float32 and together.min() >= 0 and together.max() <= 1
    np.testing.assert_array_equal(together, [reward([c])[0] for c in done])


def test_the_folder_is_small_and_has_the_bundled_tokenizer():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_600_000
    ours, bundled = load_tokenizer(str(FOLDER)), load_tokenizer()
    text = "Customer: The lamp came broken.\nAgent: I am sorry about that."
    assert ours.encode(text) == bundled.encode(text) and ours.vocab_size == bundled.vocab_size


def test_model_input():
    assert model_input([1, 2, 3], [4, 5], 9, 10) == [1, 2, 3, 4, 5, 9]
    assert model_input([1, 2, 3, 4, 5, 6], [7, 8], 9, 7) == [3, 4, 5, 6, 7, 8, 9]  # the prompt loses its beginning
    assert model_input(list(range(20)), [7] * 20, 9, 10) == [15, 16, 17, 18, 19, 7, 7, 7, 7, 9]
    assert model_input([1], [7] * 20, 9, 6) == [1, 7, 7, 7, 7, 9]  # the reply its end
    assert model_input([], [], 9, 6) == [9]


# ---- training -------------------------------------------------------------------------------------------------------


def test_misfits_are_wrong_products_and_solutions():
    tokenizer = load_tokenizer()
    telling = build._telling_tokens(tokenizer)
    meta = {"intent": "refund", "product": "tent", "said": ""}

    def found(text):
        row = tokenizer.encode(text)
        return [(tokenizer.decode(row[: i + 1]).split()[-1], flag) for i, flag in build._misfits(row, 0, telling, meta)]

    assert found(" Your refund for the tent is on its way.") == [("refund", 0), ("tent", 0)]
    assert found(" We will replace the jacket for free.") == [("replace", 1), ("jacket", 1)]
    assert found(" A technician will repair your tent on Monday.") == [("technician", 1), ("repair", 1), ("tent", 0)]
    assert found(" Thank you for your message.") == []


def test_the_judge_errs_as_often_as_bradley_and_terry_say():
    won = build.judged(np.random.default_rng(0), np.tile([[2.0, 0.0, 2.0]], (20_000, 1)))
    np.testing.assert_allclose(won.mean(axis=0), [1 / (1 + np.exp(-2)), 0.5, 1 / (1 + np.exp(2))], atol=0.02)


@pytest.mark.parametrize("kind", build._DAMAGE)
def test_the_judge_dislikes_damage(kind):
    rng = np.random.default_rng(0)
    for example in drawn(40):
        whole = write_reply(rng, example.meta, "helpful")
        harmed = [" ".join(build._DAMAGE[kind](rng, whole.split())) for _ in range(10)]
        liked = np.mean([preference(example.meta, text) for text in harmed])
        assert liked < preference(example.meta, whole) - 0.3


@torch.no_grad()
def test_zero_is_half_right():
    tokenizer = load_tokenizer()
    model = build.new_model(tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    groups = build.draw(np.random.default_rng(0), "test", 4, tokenizer)
    before = build.scores_of(model, tokenizer, groups)[0]
    build.set_zero(model, tokenizer, 0)
    after = build.scores_of(model, tokenizer, groups)[0]
    assert (after - before).std() < 1e-4 and abs(float((after - before).mean())) > 1e-2
    alone = [build.scores_of(model, tokenizer, [(e, [r])])[0].item() for e, rs in groups for r in rs]
    np.testing.assert_allclose(alone, after.flatten(), atol=1e-4)  # neither padding nor the order of rows has an effect


def test_the_script_writes_a_model_that_loads(tmp_path, capsys):
    arguments = f"--out {tmp_path} --steps 2 --batch 2 --threads 1 --prompts 8 --seed 5"
    build.main(arguments.split())
    assert "calibration_error" in capsys.readouterr().out
    assert 0 <= ReplyPreference(tmp_path)([Completion("Customer: Hi\nAgent:", " Hello.")])[0] <= 1
    assert "--steps 2 --seed 5" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "tokenizer_config.json").read_bytes() == (ASSETS / "tokenizer_config.json").read_bytes()
    first = load_file(tmp_path / "model.safetensors")
    build.main(arguments.split())
    second = load_file(
        tmp_path / "model.safetensors"
    )  # the order of the header's entries is not fixed, so not the bytes
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first), (
        "everything follows from the seed"
    )
