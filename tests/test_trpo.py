"""TRPO: the curvature against an explicit matrix, the bound, and steps that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, tiny_gpt2, toy_algorithm, toy_vector
from test_ppo import Keep, differ
from test_rollout import collect

from textgym_agents import TRPO
from textgym_agents.algorithms.trust_region import (
    RolloutPart,
    conjugate_gradient,
    fisher_products,
    flat_grad,
    mean_over,
)
from textgym_agents.algorithms.updates import TrainingError
from textgym_agents.rollouts.buffers import Sequences


def collected(algorithm: Any) -> Sequences:
    collect(algorithm)
    found: Sequences = algorithm.rollout_buffer.sequences
    return found


def part_of(algorithm: TRPO, sequences: Sequences) -> RolloutPart:
    return RolloutPart(algorithm.policy, algorithm._old_head(), sequences, algorithm.decoding.temperature)


@torch.no_grad()
def exact_kl(algorithm: TRPO, old: Any, new: Any) -> float:
    """Mean over own tokens of the KL between two models, token by token."""
    total, count = 0.0, 0
    for episode in algorithm.rollout_buffer.episodes:
        rows = [model(torch.tensor([episode.prompt + episode.tokens])).logits[0].double() for model in (old, new)]
        written = 0
        for t, chosen in enumerate(episode.chosen):
            if chosen:
                mask = algorithm.limits.mask(torch.tensor([written]))[0]  # type: ignore[union-attr]
                at = len(episode.prompt) + t - 1
                p, q = ((r[at] / algorithm.temperature)[mask].log_softmax(-1) for r in rows)
                total, count, written = total + float((p.exp() * (p - q)).sum()), count + 1, written + 1
    return total / count


def test_conjugate_gradients_solve_a_system() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(12), torch.randn(12, generator=generator, dtype=torch.float64)
    x = conjugate_gradient(lambda v: matrix @ v, b, steps=30, tolerance=1e-24)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b))
    assert not conjugate_gradient(lambda v: matrix @ v, torch.zeros(12), 5).any()
    rough = conjugate_gradient(lambda v: matrix @ v, b, steps=4)
    assert float((matrix @ rough - b).norm()) < float(b.norm())


@pytest.mark.parametrize("decoding", [{}, {"top_p": 0.8, "temperature": 0.7}], ids=["plain", "narrow"])
@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
def test_the_product_is_with_the_fisher_matrix(task: Any, decoding: dict[str, Any]) -> None:
    """Against ``mean_t sum_a p_a grad log p_a grad log p_a^T``, written out for the last norm's weights."""
    algorithm = toy_algorithm(TRPO, toy_vector(4, task, max_new_tokens=4), **decoding)
    sequences = collected(algorithm)
    part, model = part_of(algorithm, sequences), algorithm.policy.model
    weights = [model.transformer.ln_f.bias, model.transformer.ln_f.weight]
    with torch.enable_grad():
        log_probs = part._log_probs(part.hidden(), algorithm.policy.backbone.head)
    wanted = torch.zeros(64, 64)
    for row in log_probs:
        for log_p in row[torch.isfinite(row)]:
            slope = flat_grad(log_p, weights, retain_graph=True)
            wanted += log_p.detach().exp() * torch.outer(slope, slope) / len(log_probs)
    vector = torch.randn(64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fisher_products([part], weights)(vector), wanted @ vector, rtol=1e-3, atol=1e-4)


def test_parts_add_up_to_the_whole() -> None:
    algorithm = toy_algorithm(TRPO)
    sequences = collected(algorithm)
    sequences = sequences.with_(advantages=torch.randn(sequences.advantages.shape))
    weights = list(algorithm.policy.model.parameters())
    vector = torch.randn(sum(w.numel() for w in weights), generator=torch.Generator().manual_seed(1))
    whole = [part_of(algorithm, sequences)]
    halves = [part_of(algorithm, sequences.select(torch.arange(k, len(sequences), 2))) for k in (0, 1)]
    gradients, products = (
        [of(parts) for parts in (halves, whole)]
        for of in (
            lambda parts: mean_over(lambda p: flat_grad(p.objective(), weights), parts),
            lambda parts: fisher_products(parts, weights)(vector),
        )
    )
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(*products, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("target_kl", [0.002, 0.02])
@pytest.mark.parametrize("decoding", [{}, {"top_k": 5, "temperature": 0.8}], ids=["plain", "narrow"])
def test_the_step_keeps_the_bound(target_kl: float, decoding: dict[str, Any]) -> None:
    algorithm, keep = toy_algorithm(TRPO, toy_vector(32), target_kl=target_kl, **decoding), Keep()
    algorithm.set_logger(keep)
    steps = 0
    for _ in range(4):
        collect(algorithm)  # type: ignore[arg-type]
        old = tiny_gpt2(vocab_size=len(WORDS))
        old.load_state_dict(algorithm.policy.model.state_dict())
        algorithm.train()
        logged = keep.name_to_value
        if not decoding:  # with a narrowed support the KL is that on the support
            found = exact_kl(algorithm, old, algorithm.policy.model)
            assert found == pytest.approx(logged["train/kl_divergence_loss"], abs=1e-5)
        assert 0 < logged["train/kl_divergence_loss"] <= target_kl
        assert logged["train/kl_divergence_loss"] > 0.2 * target_kl, "the bound is used"
        assert logged["train/policy_objective"] > 0
        steps += logged["train/line_search_success"]
    assert steps == 4


def test_a_step_that_helps_nothing_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, keep = toy_algorithm(TRPO, line_search_max_iter=3), Keep()
    algorithm.set_logger(keep)
    collect(algorithm)  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in algorithm.policy.model.state_dict().items()}
    monkeypatch.setattr(RolloutPart, "_kl", lambda self, log_probs: torch.tensor(1.0))
    monkeypatch.setattr("textgym_agents.algorithms.trpo.fisher_products", lambda parts, weights: lambda vector: vector)
    algorithm.train()
    assert not differ(before, algorithm.policy.model.state_dict())
    assert algorithm.policy.value_head.weight.any(), "the values are learned all the same"
    logged = keep.name_to_value
    assert (logged["train/line_search_success"], logged["train/policy_objective"]) == (0, 0)
    assert (logged["train/kl_divergence_loss"], logged["train/line_search_tries"]) == (0, 3)


def test_rewards_that_are_all_the_same_teach_nothing() -> None:
    algorithm = toy_algorithm(TRPO, normalize_advantage=False, kl_coef=0.0)
    collect(algorithm)  # type: ignore[arg-type]
    sequences = algorithm.rollout_buffer.sequences
    algorithm.rollout_buffer.sequences = sequences.with_(advantages=torch.zeros_like(sequences.advantages))
    before = {k: v.clone() for k, v in algorithm.policy.model.state_dict().items()}
    algorithm.train()
    assert not differ(before, algorithm.policy.model.state_dict())


def test_the_value_head_learns_and_the_policy_does_not_feel_it() -> None:
    algorithm = toy_algorithm(TRPO, toy_vector(32), n_critic_updates=200, learning_rate=1e-2)
    sequences = collected(algorithm)
    parts = [part_of(algorithm, sequences)]
    before = {k: v.clone() for k, v in algorithm.policy.model.state_dict().items()}
    algorithm._fit_values(parts)
    assert not differ(before, algorithm.policy.model.state_dict())
    states, returns = parts[0].hidden().detach().numpy(), parts[0].returns.numpy()
    best = np.linalg.lstsq(np.c_[states, np.ones(len(states))], returns, rcond=None)[0]
    least = np.mean((np.c_[states, np.ones(len(states))] @ best - returns) ** 2)
    error = np.mean((algorithm.policy.value_head(parts[0].hidden()).detach().numpy()[:, 0] - returns) ** 2)
    assert least <= error < 0.5 * np.var(returns) + 1.5 * least


def test_weights_that_are_frozen_stay() -> None:
    algorithm = toy_algorithm(TRPO, policy_kwargs={"trainable_layers": 1})
    before = {k: v.clone() for k, v in algorithm.policy.model.state_dict().items()}
    algorithm.learn(100)
    moved = differ(before, algorithm.policy.model.state_dict())
    assert moved
    assert not any("wte" in name or ".h.0." in name for name in moved)


def test_a_gradient_that_is_not_finite_stops_training() -> None:
    algorithm = toy_algorithm(TRPO)
    collect(algorithm)  # type: ignore[arg-type]
    sequences = algorithm.rollout_buffer.sequences
    algorithm.rollout_buffer.sequences = sequences.with_(advantages=sequences.advantages * torch.nan)
    before = {k: v.clone() for k, v in algorithm.policy.state_dict().items()}
    with pytest.raises(TrainingError, match="The gradient is not finite"):
        algorithm.train()
    assert not differ(before, algorithm.policy.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_kl": 0}, "Expected `target_kl` to be above 0"),
        ({"cg_max_steps": 0}, "Expected `cg_max_steps`"),
        ({"cg_damping": -1}, "Expected `cg_damping`"),
        ({"line_search_shrinking_factor": 1.0}, "Expected `line_search_shrinking_factor` to be"),
        ({"line_search_max_iter": 0}, "Expected `line_search_max_iter`"),
        ({"n_critic_updates": 0}, "Expected `n_critic_updates`"),
        ({"sub_sampling_factor": 0}, "Expected `sub_sampling_factor`"),
        ({"ent_coef": 0.1}, "Expected `ent_coef` to be 0: TRPO has no entropy bonus"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_algorithm(TRPO, **settings)
