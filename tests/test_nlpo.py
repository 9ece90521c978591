"""NLPO: what the mask allows, when it is refreshed, and what it costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, toy_algorithm, toy_vector
from test_ppo import Keep, differ
from test_rollout import assert_ratio_1, collect, supports_of

from textgym_agents import NLPO, PPO
from textgym_agents.rollouts.buffers import Sequences

V = len(WORDS)


def collected(algorithm: Any) -> Sequences:
    collect(algorithm)
    found: Sequences = algorithm.rollout_buffer.sequences
    return found


def nuclei(algorithm: NLPO, model: Any) -> list[np.ndarray]:
    """Which tokens belong to the top-p of ``model`` at every own token of the last rollout, by definition."""
    found = []
    for episode in algorithm.rollout_buffer.episodes:
        logits = model(torch.tensor([episode.prompt + episode.tokens])).logits[0]
        rows, written = [], 0
        for t, chosen in enumerate(episode.chosen):
            if not chosen:
                continue
            mask = algorithm.limits.mask(torch.tensor([written]))[0]  # type: ignore[union-attr]
            p = logits[len(episode.prompt) + t - 1].masked_fill(~mask, -torch.inf).softmax(-1).tolist()
            kept, total = np.zeros(V, dtype=bool), 0.0
            for token in sorted(range(V), key=lambda i: -p[i]):
                if total >= algorithm.mask_top_p:
                    break
                kept[token], total = True, total + p[token]
            rows.append(kept)
            written += 1
        found.append(np.array(rows))
    return found


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
def test_tokens_come_from_the_nucleus_of_the_masking_policy(task: Any) -> None:
    algorithm = toy_algorithm(NLPO, toy_vector(8, task, min_new_tokens=2), mask_top_p=0.6, mask_update_interval=100)
    algorithm.learn(300)  # away from the mask, which stays
    sequences = collected(algorithm)
    wanted = nuclei(algorithm, algorithm.mask_model)
    assert all(np.array_equal(a, b) for a, b in zip(supports_of(sequences, V), wanted, strict=True))
    sizes = np.concatenate([rows.sum(1) for rows in wanted])
    assert 1 <= sizes.min() < sizes.max() < V
    own = nuclei(algorithm, algorithm.policy.model)
    assert any(not np.array_equal(a, b) for a, b in zip(own, wanted, strict=True)), "the policy's own would be another"
    assert_ratio_1(algorithm)


def test_a_refresh_changes_the_mask_that_is_used_for_sampling() -> None:
    """The same prefixes, the same policy, the mask before and after a refresh: other tokens can be drawn."""
    algorithm = toy_algorithm(NLPO, mask_top_p=0.6, mask_update_interval=4, learning_rate=1e-2, kl_coef=0.0)
    first = {k: v.clone() for k, v in algorithm.mask_model.state_dict().items()}
    for rollout in range(1, 5):
        collect(algorithm)  # type: ignore[arg-type]
        old = nuclei(algorithm, algorithm.mask_model)
        assert all(
            np.array_equal(a, b) for a, b in zip(supports_of(algorithm.rollout_buffer.sequences, V), old, strict=True)
        )
        algorithm.train()
        refreshed = rollout == 4
        assert bool(differ(first, algorithm.mask_model.state_dict())) == refreshed
        assert (algorithm.mask_age == 0) == refreshed
    assert not differ(dict(algorithm.policy.model.state_dict()), algorithm.mask_model.state_dict())
    new = nuclei(algorithm, algorithm.mask_model)
    assert any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True))
    collect(algorithm)  # type: ignore[arg-type]
    used = supports_of(algorithm.rollout_buffer.sequences, V)
    assert all(np.array_equal(a, b) for a, b in zip(used, nuclei(algorithm, algorithm.mask_model), strict=True))


def test_a_nucleus_of_everything_is_ppo() -> None:
    def run(cls: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        algorithm = toy_algorithm(cls, seed=3, batch_size=4, n_epochs=2, **kwargs)
        return dict(algorithm.learn(200).policy.state_dict())

    assert not differ(run(PPO), run(NLPO, mask_top_p=1.0))
    assert differ(run(PPO), run(NLPO, mask_top_p=0.5))


def test_the_age_of_the_mask_is_logged() -> None:
    algorithm, keep = toy_algorithm(NLPO, mask_update_interval=2), Keep()
    algorithm.set_logger(keep)
    algorithm.learn(400)
    ages = [d["train/mask_age"] for d in keep.dumped if "train/mask_age" in d]
    assert ages[:4] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_top_p": 0}, "Expected `mask_top_p` to be in \\(0, 1]"),
        ({"mask_top_p": 1.2}, "Expected `mask_top_p`"),
        ({"mask_update_interval": 0}, "Expected `mask_update_interval` to be a whole number of at least 1"),
        ({"rollout_backend": "vllm"}, "Expected `rollout_backend` to be 'transformers' with NLPO"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_algorithm(NLPO, **settings)


def test_the_mask_loss_is_minus_the_log_of_the_probability_inside_and_keeps_it_there() -> None:
    algorithm = toy_algorithm(NLPO, mask_top_p=0.6, mask_update_interval=100, mask_loss_coef=0.5)
    sequences = collected(algorithm)
    _, numbers = algorithm._loss(sequences)
    inside = nuclei(algorithm, algorithm.mask_model)
    masses = []
    for episode, kept in zip(sequences.episodes(), inside, strict=True):
        with torch.no_grad():
            logits = algorithm.policy.model(torch.tensor([episode.prompt + episode.tokens])).logits[0]
        for t, allowed in enumerate(kept):
            mask = algorithm.limits.mask(torch.tensor([t]))[0]  # type: ignore[union-attr]
            p = logits[len(episode.prompt) + t - 1].masked_fill(~mask, -torch.inf).softmax(-1)
            masses.append(float(p[torch.from_numpy(allowed)].sum()))
    assert numbers["mask_loss"] == pytest.approx(-np.mean(np.log(masses)), abs=1e-4)

    def lost(coef: float) -> float:
        trained = toy_algorithm(NLPO, mask_top_p=0.6, mask_update_interval=100, mask_loss_coef=coef)
        trained.learn(1500)
        trained.mask_loss_coef = 1.0
        return trained._loss(collected(trained))[1]["mask_loss"]

    assert lost(0.5) < 0.5 * lost(0.0)
