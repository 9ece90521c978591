"""The bundled reward model of TextGen-Reply-v0."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from textgym.core import Completion
from textgym.numpy_gpt2 import ModelError
from textgym.rewards.reply_preference import FOLDER, ReplyPreference, model_input
from textgym.tasks.reply import ReplyTask, preference
from textgym.tokenization import load_tokenizer


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
