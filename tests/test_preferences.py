"""DPO and best-of-n: pairs, losses, gradients, datasets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, toy_algorithm, toy_vector
from test_rollout import collect

from textgym import TextGymError
from textgym_agents import DPO, BestOfN
from textgym_agents.algorithms.preferences import read_preferences
from textgym_agents.losses import dpo_loss, sequence_sum

END = WORDS.index("<|endoftext|>")
PAIRS = [
    {"prompt": "a b", "chosen": "b d f", "rejected": "a"},
    {"prompt": "c", "chosen": "b", "rejected": "a c e a"},
    {"prompt": "d d d", "chosen": "f", "rejected": "e"},
]


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def test_the_loss_by_hand() -> None:
    margins = torch.tensor([0.0, 10.0])
    assert float(dpo_loss(margins[:1], 0.5, "sigmoid", 0.0)) == pytest.approx(math.log(2))
    right, wrong = -math.log(1 / (1 + math.exp(-5))), -math.log(1 / (1 + math.exp(5)))
    assert float(dpo_loss(margins[1:], 0.5, "sigmoid", 0.0)) == pytest.approx(right, rel=1e-5)
    assert float(dpo_loss(margins[1:], 0.5, "sigmoid", 0.1)) == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-5)
    assert float(dpo_loss(margins, 0.5, "ipo", 0.0)) == pytest.approx((1.0**2 + 9.0**2) / 2)


@pytest.mark.parametrize(
    "settings",
    [{}, {"label_smoothing": 0.2}, {"loss_type": "ipo"}, {"rpo_alpha": 0.7}],
    ids=["sigmoid", "smoothed", "ipo", "rpo"],
)
def test_the_gradient_is_that_of_a_loop_over_pairs(settings: dict[str, Any]) -> None:
    dpo = toy_algorithm(DPO, dataset=PAIRS, beta=0.3, micro_batch_tokens=9, **settings)
    with torch.no_grad():
        for parameter in dpo.policy.model.parameters():  # away from the reference, or all margins are 0
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    batch = dpo._dataset.draw(4, np.random.default_rng(0))
    batch = batch.with_(ref_log_probs=dpo._reference_log_probs(batch))
    numbers = dpo._accumulate(batch)
    found = {n: p.grad.clone() for n, p in dpo.policy.named_parameters() if p.grad is not None}
    dpo.policy.optimizer.zero_grad()

    def log_probs(model: Any, prompt: list[int], tokens: list[int]) -> list[torch.Tensor]:
        prefixes = (torch.tensor([prompt + tokens[:i]]) for i in range(len(tokens)))
        return [model(input_ids=p).logits[0, -1].log_softmax(-1)[t] for p, t in zip(prefixes, tokens, strict=True)]

    def log_ratio(prompt: list[int], tokens: list[int]) -> torch.Tensor:
        own, other = (torch.stack(log_probs(m, prompt, tokens)) for m in (dpo.policy.model, dpo.reference))
        return (own - other.detach()).sum()

    episodes = batch.episodes()
    margins = [
        log_ratio(good.prompt, good.tokens) - log_ratio(bad.prompt, bad.tokens)
        for good, bad in zip(episodes[::2], episodes[1::2], strict=True)
    ]
    losses = []
    for h in margins:
        if "loss_type" in settings:
            losses.append((h - 1 / (2 * 0.3)) ** 2)
        else:
            e = settings.get("label_smoothing", 0.0)
            losses.append(-(1 - e) * (0.3 * h).sigmoid().log() - e * (-0.3 * h).sigmoid().log())
    chosen = torch.stack([p for e in episodes[::2] for p in log_probs(dpo.policy.model, e.prompt, e.tokens)])
    loss = torch.stack(losses).mean() - settings.get("rpo_alpha", 0.0) * chosen.mean()
    loss.backward()
    assert numbers["nll"] == pytest.approx(-chosen.mean().item(), abs=1e-5)
    assert numbers["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert numbers["margin"] == pytest.approx(0.3 * torch.stack(margins).mean().item(), abs=1e-5)
    assert numbers["accuracy"] == np.mean([float(h > 0) for h in margins])
    for name, parameter in dpo.policy.named_parameters():
        if parameter.grad is not None and not name.startswith("value_head"):
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_pairs_are_the_best_and_the_worst_of_each_group() -> None:
    dpo = toy_algorithm(DPO, num_generations=4)
    collect(dpo)  # type: ignore[arg-type]
    sequences = dpo.rollout_buffer.sequences
    returns = sequence_sum(sequences.rewards, sequences.action_mask).tolist()
    groups = [list(range(i, i + 4)) for i in range(0, len(returns), 4)]
    wanted = [
        [max(g, key=returns.__getitem__), min(g, key=returns.__getitem__)]
        for g in groups
        if len({returns[i] for i in g}) > 1
    ]
    assert dpo._pairs.tolist() == wanted
    for chosen, rejected in wanted:
        assert sequences.episodes()[chosen].prompt == sequences.episodes()[rejected].prompt


def test_equal_rewards_make_no_pairs_and_no_update() -> None:
    def same(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [0.5] * len(completions)

    dpo = toy_algorithm(DPO, toy_vector(8, group_size=4, reward=same))
    before = {k: v.clone() for k, v in dpo.policy.state_dict().items()}
    dpo.learn(100)
    assert all(torch.equal(v, before[k]) for k, v in dpo.policy.state_dict().items())


def test_a_dataset_is_learned_and_the_environment_not_played(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    dpo = toy_algorithm(DPO, dataset=str(file), learning_rate=3e-3)
    dpo.learn(1500)
    assert not dpo.ep_info_buffer
    assert dpo.logger.name_to_value["train/accuracy"] == 1
    seen = {(tuple(e.prompt), tuple(e.tokens)) for e in dpo.rollout_buffer.episodes}
    assert seen <= {(tuple(ids(p["prompt"])), (*ids(p[s]), END)) for p in PAIRS for s in ("chosen", "rejected")}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"beta": 0}, ValueError, "Expected `beta` to be above 0"),
        ({"loss_type": "hinge"}, ValueError, "Expected `loss_type` to be one of"),
        ({"label_smoothing": 0.5}, ValueError, "below 0.5"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, ValueError, "0 without loss_type='sigmoid'"),
        ({"ent_coef": 0.1}, TypeError, "DPO takes no ent_coef: `beta` holds it"),
        ({"dataset": []}, TextGymError, "at least one record"),
        ({"dataset": 3}, TypeError, "a JSON Lines file or a list of records"),
        ({"dataset": "none.jsonl"}, TextGymError, "there is no file 'none.jsonl'"),
        ({"dataset": ["a"]}, TextGymError, "record 1 of dataset"),
        ({"dataset": [PAIRS[0], {"prompt": "a", "chosen": "b"}]}, TextGymError, "'rejected' of record 2 of dataset"),
        ({"dataset": [{"prompt": "a " * 9, "chosen": "b", "rejected": "c"}]}, TextGymError, "max_prompt_tokens"),
    ],
)
def test_bad_input(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        toy_algorithm(DPO, **settings)


def test_read_preferences_keeps_the_order() -> None:
    assert [p.chosen for p in read_preferences(PAIRS)] == ["b d f", "b", "f"]


# ---- best of n -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [1, 2])
def test_the_best_of_each_group_are_learned(best: int) -> None:
    algorithm = toy_algorithm(BestOfN, num_generations=4, num_best=best, kl_coef=0.0)
    scored: list[Any] = []
    give = algorithm._with_advantages
    algorithm._with_advantages = lambda s, p: scored.append(s) or give(s, p)  # type: ignore[method-assign,func-returns-value]
    collect(algorithm)  # type: ignore[arg-type]
    (played,) = scored
    returns = sequence_sum(played.rewards, played.action_mask).tolist()
    wanted = []
    for i in range(0, len(returns), 4):
        order = sorted(range(i, i + 4), key=lambda row: -returns[row])
        wanted += [played.episodes()[row].tokens for row in order[:best]]
    assert [e.tokens for e in algorithm.rollout_buffer.episodes] == wanted
    batch = algorithm.rollout_buffer.sequences
    numbers = algorithm._accumulate(batch)
    with torch.no_grad():
        log_probs, _, _ = algorithm.policy.evaluate_sequences(batch, 1.0)
    assert numbers["nll"] == pytest.approx(-float(log_probs[batch.action_mask].mean()), abs=1e-5)


def test_not_all_of_a_group_can_be_the_best() -> None:
    with pytest.raises(ValueError, match="less than num_generations=4"):
        toy_algorithm(BestOfN, num_generations=4, num_best=4)
