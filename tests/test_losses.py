"""Losses and advantages against loops, hand-computed numbers and Stable-Baselines3."""

from __future__ import annotations

import math

import agent_fixtures  # noqa: F401  (one thread)
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance as sb3_explained_variance

from textgym_agents.losses import clipped_policy_loss, explained_variance, gae, masked_mean, value_loss, whiten

NAN, INF = math.nan, math.inf


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def gae_by_loop(
    rewards: list[float], values: list[float], mask: list[bool], last_value: float, gamma: float, gae_lambda: float
) -> list[float]:
    """The definition, one episode at a time: drop what the policy did not choose, then go backwards."""
    steps = [t for t, chosen in enumerate(mask) if chosen]
    advantages, following = [0.0] * len(mask), 0.0
    next_value = last_value
    for t in reversed(steps):
        following = rewards[t] + gamma * next_value - values[t] + gamma * gae_lambda * following
        advantages[t], next_value = following, values[t]
    return advantages


# ---- generalised advantage estimation ------------------------------------------------------------------------------------


def test_gae_of_an_episode_computed_by_hand() -> None:
    # delta_2 = 1 - 0.5 = 0.5; delta_1 = 0 + 0.9 * 0.5 - 0.4 = 0.05; delta_0 = 2 + 0.9 * 0.4 - 1 = 1.36; gamma * lambda = 0.45
    advantages, returns = gae(
        tensor([2.0, 0.0, 1.0]),
        tensor([1.0, 0.4, 0.5]),
        torch.ones(1, 3, dtype=torch.bool),
        torch.zeros(1),
        gamma=0.9,
        gae_lambda=0.5,
    )
    assert advantages[0].tolist() == pytest.approx([1.36 + 0.45 * (0.05 + 0.45 * 0.5), 0.05 + 0.45 * 0.5, 0.5])
    assert returns[0].tolist() == pytest.approx([2.48375, 0.675, 1.0])


def test_gae_steps_over_what_another_speaker_said() -> None:
    with_gap, _ = gae(
        tensor([2.0, 77.0, -9.0, 1.0]),
        tensor([1.0, 55.0, NAN, 0.5]),
        torch.tensor([[True, False, False, True]]),
        torch.tensor([0.25]),
        gamma=0.9,
        gae_lambda=0.5,
    )
    last = 1.0 + 0.9 * 0.25 - 0.5
    assert with_gap[0].tolist() == pytest.approx([2.0 + 0.9 * 0.5 - 1.0 + 0.45 * last, 0.0, 0.0, last])


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0), (0.7, 0.0), (0.0, 0.3)])
def test_gae_equals_a_loop(gamma: float, gae_lambda: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(16, 11, generator=generator), torch.randn(16, 11, generator=generator)
    mask, last_values = torch.rand(16, 11, generator=generator) < 0.6, torch.randn(16, generator=generator)
    mask[0], mask[1] = False, True  # an episode without steps, and one without gaps
    advantages, returns = gae(rewards, values, mask, last_values, gamma, gae_lambda)
    for row in range(16):
        numbers = (rewards[row].tolist(), values[row].tolist(), mask[row].tolist(), last_values[row].item())
        assert advantages[row].tolist() == pytest.approx(gae_by_loop(*numbers, gamma, gae_lambda), abs=1e-5)
    assert torch.equal(returns, torch.where(mask, advantages + values, torch.zeros(())))


@pytest.mark.parametrize("bootstrapped", [False, True])
def test_gae_equals_the_rollout_buffer_of_sb3(bootstrapped: bool) -> None:
    steps, envs, gamma, gae_lambda = 7, 5, 0.97, 0.9
    rng = np.random.default_rng(0)
    buffer = RolloutBuffer(steps, spaces.Box(0, 1, (1,)), spaces.Discrete(2), "cpu", gae_lambda, gamma, envs)
    for t in range(steps):
        buffer.add(
            np.zeros((envs, 1)),
            np.zeros(envs),
            rng.normal(size=envs),
            np.full(envs, float(t == 0)),
            torch.tensor(rng.normal(size=envs)),
            torch.zeros(envs),
        )
    last = torch.tensor(rng.normal(size=envs), dtype=torch.float32)
    buffer.compute_returns_and_advantage(last, dones=np.full(envs, float(not bootstrapped)))
    advantages, returns = gae(
        torch.tensor(buffer.rewards.T),
        torch.tensor(buffer.values.T),
        torch.ones(envs, steps, dtype=torch.bool),
        last if bootstrapped else torch.zeros(envs),
        gamma,
        gae_lambda,
    )
    np.testing.assert_allclose(advantages.T, buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(returns.T, buffer.returns, atol=1e-5)


def test_lambda_1_gives_discounted_returns_and_padding_on_the_left_changes_nothing() -> None:
    rewards, values, last = tensor([0.0, 0.0, 3.0]), tensor([0.1, 0.2, 0.3]), torch.zeros(1)
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = gae(rewards, values, mask, last, 0.5, 1.0)
    assert returns[0].tolist() == pytest.approx([0.75, 1.5, 3.0])
    pad = tensor([NAN, INF])
    padded, _ = gae(
        torch.cat([pad, rewards], 1),
        torch.cat([pad, values], 1),
        torch.tensor([[False, False, True, True, True]]),
        last,
        0.5,
        1.0,
    )
    assert padded[0].tolist() == [0.0, 0.0, *advantages[0].tolist()]


# ---- means, whitening, explained variance --------------------------------------------------------------------------------


def test_masked_mean_reads_only_the_mask() -> None:
    x, mask = tensor([1.0, NAN, 4.0], [INF, -7.0, 1.0]), torch.tensor([[True, False, True], [False, False, True]])
    assert masked_mean(x, mask).item() == pytest.approx(2.0)
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0.0


def test_whiten_by_hand() -> None:
    # 1, 3, 8 have mean 4 and unbiased variance (9 + 1 + 16) / 2 = 13
    x, mask = tensor([1.0, 3.0], [NAN, 8.0]), torch.tensor([[True, True], [False, True]])
    root = 13**0.5
    assert whiten(x, mask).flatten().tolist() == pytest.approx([-3 / root, -1 / root, 0.0, 4 / root])
    assert whiten(x, mask)[mask].std().item() == pytest.approx(1.0)


def test_whiten_of_one_number_or_of_equal_numbers_is_0() -> None:
    mask = torch.tensor([[True, False]])
    assert whiten(tensor([5.0, 9.0]), mask).tolist() == [[0.0, 0.0]]
    assert whiten(tensor([5.0, 5.0]), torch.ones(1, 2, dtype=torch.bool)).tolist() == [[0.0, 0.0]]


def test_explained_variance_equals_sb3() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(6, 9, generator=generator)
    predictions = targets * 0.7 + 0.4 * torch.randn(6, 9, generator=generator)
    mask = torch.rand(6, 9, generator=generator) < 0.5
    predictions[~mask] = 1e6
    wanted = sb3_explained_variance(predictions[mask].numpy(), targets[mask].numpy())
    assert 0 < wanted < 1
    assert explained_variance(predictions, targets, mask) == pytest.approx(wanted, abs=1e-6)
    assert explained_variance(targets, targets, mask) == 1.0
    assert math.isnan(explained_variance(predictions, torch.ones_like(targets), mask))


# ---- losses ----------------------------------------------------------------------------------------------------------------


def test_clipped_policy_loss_by_hand() -> None:
    ratios = tensor([1.5, 1.5, 0.5, 0.5, 1.1, 9.9])
    advantages = tensor([1.0, -1.0, 1.0, -1.0, 2.0, 9.9])
    mask = torch.tensor([[True] * 5 + [False]])
    loss, clip_fraction, approx_kl = clipped_policy_loss(ratios.log(), torch.zeros(1, 6), advantages, mask, 0.2)
    # per token: min(1.5, 1.2); min(-1.5, -1.2); min(0.5, 0.8); min(-0.5, -0.8); 2.2
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 2.2) / 5)
    assert clip_fraction.item() == pytest.approx(4 / 5)
    by_hand = [r - 1 - math.log(r) for r in (1.5, 1.5, 0.5, 0.5, 1.1)]
    assert approx_kl.item() == pytest.approx(sum(by_hand) / 5, abs=1e-6)


def test_clipped_policy_loss_has_the_policy_gradient_at_ratio_1_and_none_where_clipped() -> None:
    old = tensor([-1.0, -2.0, -3.0])
    log_probs = (old + tensor([0.0, 1.0, 0.0])).requires_grad_()
    mask = torch.ones(1, 3, dtype=torch.bool)
    clipped_policy_loss(log_probs, old, tensor([2.0, 5.0, -4.0]), mask, 0.2)[0].backward()
    assert log_probs.grad is not None
    assert log_probs.grad[0].tolist() == pytest.approx([-2.0 / 3, 0.0, 4.0 / 3])


@pytest.mark.parametrize(
    ("clip_range_vf", "errors"),
    [(None, [3.0 - 1.0, 0.0 - 2.0, 1.0 - 0.9]), (0.5, [3.0 - 0.5, 0.0 - 1.5, 1.0 - 0.9])],
)
def test_value_loss_by_hand(clip_range_vf: float | None, errors: list[float]) -> None:
    # 1.0 was 0.0 and may rise to 0.5; 2.0 was 1.0 and may rise to 1.5; 0.9 was 1.0 and is within reach
    loss = value_loss(
        tensor([1.0, 2.0, 0.9, 7.0]),
        tensor([0.0, 1.0, 1.0, 7.0]),
        tensor([3.0, 0.0, 1.0, NAN]),
        torch.tensor([[True, True, True, False]]),
        clip_range_vf,
    )
    assert loss.item() == pytest.approx(sum(e * e for e in errors) / 3)


@pytest.mark.parametrize("garbage", [NAN, INF, -INF, 1e38])
@pytest.mark.parametrize("clip_range_vf", [None, 0.2])
def test_garbage_in_masked_columns_reaches_neither_a_result_nor_a_gradient(
    garbage: float, clip_range_vf: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, False, True], [False, True, True]])

    def numbers(seed_with_garbage: bool) -> list[torch.Tensor]:
        generator.manual_seed(0)
        made = [torch.randn(2, 3, generator=generator) for _ in range(6)]
        if seed_with_garbage:
            made = [torch.where(mask, x, torch.tensor(garbage)) for x in made]
        return made

    def loss_and_gradients(with_garbage: bool) -> list[torch.Tensor]:
        log_probs, old, advantages, values, old_values, returns = numbers(with_garbage)
        log_probs.requires_grad_()
        values.requires_grad_()
        loss, clipped, kl = clipped_policy_loss(log_probs, old, whiten(advantages, mask), mask, 0.2)
        unwhitened = clipped_policy_loss(log_probs, old, advantages, mask, 0.2)[0]
        total = loss + unwhitened + value_loss(values, old_values, returns, mask, clip_range_vf)
        total.backward()
        assert log_probs.grad is not None
        assert values.grad is not None
        return [total.detach(), clipped, kl, log_probs.grad, values.grad]

    for clean, dirty in zip(loss_and_gradients(False), loss_and_gradients(True), strict=True):
        assert torch.isfinite(dirty).all()
        torch.testing.assert_close(torch.where(mask, dirty, 0.0), torch.where(mask, clean, 0.0))
        if dirty.ndim:
            assert (dirty[~mask] == 0).all()
