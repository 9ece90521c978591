"""Evaluation of tasks in which somebody replies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, tiny_gpt2, toy_ppo, toy_single, toy_vector

from textgym.core import Example
from textgym_agents.runs.evaluation import evaluate, setting_of
from textgym_agents.runs.inspection import record_episodes

EXAMPLES = [Example("no"), Example("a b"), Example("well no a"), Example("b"), Example("a")] * 3


@pytest.fixture(scope="module")
def chatty():
    return toy_ppo(toy_vector(task=Chat(), max_new_tokens=9), seed=3)


@pytest.mark.parametrize("deterministic", [True, False])
def test_equals_stepping_the_environment(chatty, deterministic):
    env = toy_single(Chat(), max_new_tokens=9)
    measured = evaluate(chatty, env, examples=EXAMPLES, seed=4, batch_size=7, deterministic=deterministic)
    for example, sample in zip(EXAMPLES, measured.samples, strict=True):
        observation, _ = env.reset(options={"example": example})
        prompt, total = int(observation["attention_mask"].sum()), 0.0
        for k, token in enumerate(sample.tokens):
            if deterministic:
                assert chatty.predict(observation, deterministic=True)[0] == token
            observation, reward, terminated, _, info = env.step(token)
            total += reward
            assert terminated == (k == len(sample.tokens) - 1)
        after = int(observation["attention_mask"].sum()) - prompt
        assert sample.all_tokens == observation["input_ids"][-after:].tolist()
        assert sample.chosen == observation["completion_mask"][-after:].astype(bool).tolist()
        assert sample.transcript == info["transcript"]
        assert (sample.completion, sample.finish_reason) == (info["completion"], info["finish_reason"])
        assert sample.reward == pytest.approx(total, abs=1e-6)
    if not deterministic:
        assert any(False in s.chosen for s in measured.samples), "somebody replied"
        assert len({len(s.tokens) for s in measured.samples}) > 1


def test_kl_equals_a_loop_over_prefixes(chatty):
    setting, reference = setting_of(toy_single(Chat(), max_new_tokens=9)), tiny_gpt2(seed=9, vocab_size=len(WORDS))
    measured = evaluate(chatty, setting, examples=EXAMPLES, seed=4, reference=reference)
    allowed, kls = torch.tensor(setting.always_allowed), []
    for example, sample in zip(EXAMPLES, measured.samples, strict=True):
        ids, kl = setting.tokenizer.encode(example.prompt), 0.0
        for token, own in zip(sample.all_tokens, sample.chosen, strict=True):
            if own:
                with torch.no_grad():
                    both = [m(input_ids=torch.tensor([ids])).logits[0, -1] for m in (chatty.policy.model, reference)]
                one, other = (float(x.masked_fill(~allowed, -torch.inf).log_softmax(-1)[token]) for x in both)
                kl += one - other
            ids = [*ids, token]
        kls.append(kl)
    assert measured.kl == pytest.approx(np.mean(kls), abs=1e-4)


def test_records_show_the_replies(chatty):
    env = toy_single(Chat(), max_new_tokens=9)
    records = record_episodes(chatty, env, EXAMPLES, seed=4)
    texts = ["".join(t["text"] for t in record["tokens"]) for record in records]
    assert any("well" in text.split("!", 1)[-1] for text in texts if "!" in text)
    assert all(len(record["tokens"]) <= 9 for record in records)


def test_beam_search_is_refused(chatty):
    with pytest.raises(ValueError, match="`num_beams` to be 1 in TextGen-Chat-v0"):
        evaluate(chatty, toy_single(Chat()), examples=EXAMPLES, num_beams=2)
