"""Advantages within groups, sums and means of sequences, and the estimate of the KL, against constants and loops."""

from __future__ import annotations

import math
import statistics

import agent_fixtures  # noqa: F401  (one thread)
import pytest
import torch

from textgym_agents.losses import group_relative, k3, leave_one_out, sequence_mean, sequence_sum

NAN, INF = math.nan, math.inf
SCALES = ["group", "batch", "none"]


def rewards_of(groups: int, size: int) -> torch.Tensor:
    return torch.randn(groups * size, generator=torch.Generator().manual_seed(groups + size))


def group_relative_by_loop(rewards: list[float], size: int, scale: str) -> list[float]:
    """One reward at a time, with Python's own statistics."""
    found = []
    for i, reward in enumerate(rewards):
        first = i - i % size
        group = rewards[first : first + size]
        divisor = {"group": statistics.stdev(group), "batch": statistics.stdev(rewards)}.get(scale, 1.0 - 1e-4) + 1e-4
        found.append((reward - statistics.fmean(group)) / divisor)
    return found


def leave_one_out_by_loop(rewards: list[float], size: int) -> list[float]:
    found = []
    for i, reward in enumerate(rewards):
        first = i - i % size
        others = [rewards[j] for j in range(first, first + size) if j != i]
        found.append(reward - sum(others) / len(others))
    return found


# ---- advantages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        # groups 1, 2, 6 and 0, 0, 3: means 3 and 1, deviations -2, -1, 3 and -1, -1, 2
        ("none", [-2.0, -1.0, 3.0, -1.0, -1.0, 2.0]),
        # variances (4 + 1 + 9) / 2 = 7 and (1 + 1 + 4) / 2 = 3
        ("group", [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5, -1 / 3**0.5, -1 / 3**0.5, 2 / 3**0.5]),
        # all six have mean 2 and variance (1 + 0 + 16 + 4 + 4 + 1) / 5 = 5.2
        ("batch", [x / 5.2**0.5 for x in (-2.0, -1.0, 3.0, -1.0, -1.0, 2.0)]),
    ],
)
def test_group_relative_by_hand(scale: str, wanted: list[float]) -> None:
    found = group_relative(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3, scale)
    assert found.shape == (6,)
    assert found.tolist() == pytest.approx(wanted, rel=2e-4)  # the divisor has 1e-4 added to it


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("groups", "size"), [(1, 2), (5, 3), (3, 8), (2, 16)])
def test_group_relative_equals_a_loop(scale: str, groups: int, size: int) -> None:
    rewards = rewards_of(groups, size)
    found = group_relative(rewards, size, scale)
    assert found.tolist() == pytest.approx(group_relative_by_loop(rewards.tolist(), size, scale), abs=1e-5)


def test_leave_one_out_by_hand() -> None:
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; then 0 - 3 / 2, 0 - 3 / 2, 3 - 0
    found = leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    assert found.tolist() == pytest.approx([-3.0, -1.5, 4.5, -1.5, -1.5, 3.0], abs=1e-6)
    assert leave_one_out(torch.tensor([5.0, 3.0]), 2).tolist() == [2.0, -2.0]


@pytest.mark.parametrize(("groups", "size"), [(1, 2), (5, 3), (3, 8), (2, 16)])
def test_leave_one_out_equals_a_loop(groups: int, size: int) -> None:
    rewards = rewards_of(groups, size)
    found = leave_one_out(rewards, size)
    assert found.tolist() == pytest.approx(leave_one_out_by_loop(rewards.tolist(), size), abs=1e-5)
    # the same direction as the deviation from the mean of all, G / (G - 1) times as long
    assert found.tolist() == pytest.approx(
        [size / (size - 1) * x for x in group_relative_by_loop(rewards.tolist(), size, "none")], abs=1e-5
    )


@pytest.mark.parametrize("size", [2, 3, 4])
def test_advantages_add_up_to_0_in_every_group_and_do_not_depend_on_other_groups(size: int) -> None:
    rewards = rewards_of(4, size)
    for scale in ("group", "none", "leave one out"):

        def advantages(x: torch.Tensor, scale: str = scale) -> torch.Tensor:
            return leave_one_out(x, size) if scale == "leave one out" else group_relative(x, size, scale)

        found = advantages(rewards)
        assert found.view(-1, size).sum(-1).tolist() == pytest.approx([0.0] * 4, abs=1e-5)
        assert torch.equal(found[size:], advantages(rewards[size:]))
        changed = torch.cat([rewards[:size] + 100, rewards[size:]])
        torch.testing.assert_close(advantages(changed), found, rtol=0, atol=1e-4)  # nor on what all have in common


@pytest.mark.parametrize("scale", [*SCALES, "leave one out"])
def test_a_group_in_which_all_do_alike_has_advantages_of_0(scale: str) -> None:
    """Exactly 0: an optimiser that divides by the gradient's size makes a whole step of a rounding error."""
    for size in (2, 3, 4, 6, 7, 8, 16):
        for value in (0.0, 1.0, -2.5, 0.1, 0.3, 1 / 3, 0.7, 1000.1):
            rewards = torch.full((2 * size,), value)
            found = leave_one_out(rewards, size) if scale == "leave one out" else group_relative(rewards, size, scale)
            assert found.tolist() == [0.0] * (2 * size), (size, value)


@pytest.mark.parametrize("scale", SCALES)
def test_a_group_in_which_all_do_alike_is_0_beside_one_in_which_they_do_not(scale: str) -> None:
    found = group_relative(torch.tensor([2.0, 2.0, 1.0, 3.0]), 2, scale)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] < 0 < found[3]


# ---- sums and means of sequences ---------------------------------------------------------------------------------------


def test_sums_and_means_of_sequences_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0], [NAN, 7.0, INF], [NAN, -INF, 3.0]])
    mask = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    assert sequence_sum(x, mask).tolist() == [7.0, 7.0, 0.0]
    assert sequence_mean(x, mask).tolist() == pytest.approx([7 / 3, 7.0, 0.0])


def test_sums_and_means_of_sequences_equal_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(9, 7, generator=generator), torch.rand(9, 7, generator=generator) < 0.5
    rows = [[v for v, here in zip(*pair, strict=True) if here] for pair in zip(x.tolist(), mask.tolist(), strict=True)]
    assert sequence_sum(x, mask).tolist() == pytest.approx([sum(row) for row in rows], abs=1e-5)
    assert sequence_mean(x, mask).tolist() == pytest.approx([sum(row) / max(1, len(row)) for row in rows], abs=1e-5)


@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
def test_garbage_outside_the_mask_does_not_reach_the_gradient(garbage: float) -> None:
    x = torch.tensor([[1.0, garbage], [3.0, 4.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    (2 * sequence_sum(x, mask).sum() + 3 * sequence_mean(x, mask).sum()).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[5.0, 0.0], [3.5, 3.5]]


# ---- the estimate of the KL --------------------------------------------------------------------------------------------


def test_k3_by_hand() -> None:
    # r = pi_ref / pi is 2, 1/2 and 1: r - 1 - log r
    log_probs = torch.tensor([0.25, 0.5, 0.5]).log()
    reference = torch.tensor([0.5, 0.25, 0.5]).log()
    wanted = [1 - math.log(2), -0.5 + math.log(2), 0.0]
    assert k3(log_probs, reference).tolist() == pytest.approx(wanted, abs=1e-6)


def test_k3_is_never_negative_and_its_expectation_is_the_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = (torch.randn(50, generator=generator).log_softmax(0).double() for _ in range(2))
    estimates = k3(policy, reference)
    assert (estimates >= 0).all()
    kl = float((policy.exp() * (policy - reference)).sum())
    assert float((policy.exp() * estimates).sum()) == pytest.approx(kl, abs=1e-6)
    assert kl > 0.1


def test_the_gradient_of_k3() -> None:
    # d/dx (exp(y - x) - 1 - (y - x)) = 1 - exp(y - x), and the opposite for y
    log_probs = torch.tensor([0.25, 0.5, 0.5, 0.1]).log().requires_grad_()
    reference = torch.tensor([0.5, 0.25, 0.5, 0.1]).log().requires_grad_()
    k3(log_probs, reference).sum().backward()
    assert log_probs.grad is not None
    assert reference.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([1 - 2.0, 1 - 0.5, 0.0, 0.0], abs=1e-6)
    assert reference.grad.tolist() == pytest.approx([1.0, -0.5, 0.0, 0.0], abs=1e-6)
    x = (torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) / 3).double().requires_grad_()
    assert torch.autograd.gradcheck(k3, (x, (x * 0.5).detach().requires_grad_()))
