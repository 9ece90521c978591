"""The losses of reward models, against slow loops and constants that were worked out by hand."""

import math

import numpy as np
import pytest
import torch

from textgym_agents.reward_models.batches import loss_of
from textgym_agents.reward_models.losses import (
    bradley_terry_loss,
    classification_loss,
    margin_loss,
    plackett_luce_loss,
    regression_loss,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_constants():
    zero = torch.zeros(3)
    assert regression_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])) == pytest.approx(2.5)
    assert classification_loss(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0, 0]])) == pytest.approx(math.log(4))
    assert bradley_terry_loss(zero, zero) == pytest.approx(math.log(2))
    assert bradley_terry_loss(torch.tensor([1.0]), zero[:1]) == pytest.approx(0.31326168751822286)  # log(1 + e^-1)
    assert margin_loss(torch.tensor([0.0, 2.0, 0.5]), zero, 1.0) == pytest.approx((1 + 0 + 0.5) / 3)
    # three alike: log 3 for the first choice, log 2 for the second, nothing is left to choose for the last
    alike = plackett_luce_loss(torch.zeros(1, 3), torch.tensor([[3.0, 1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
    assert alike == pytest.approx((math.log(3) + math.log(2)) / 2)


def test_soft_cross_entropy_is_least_at_the_shares_of_the_votes():
    shares = torch.tensor([[0.2, 0.3, 0.5]])
    entropy = -(shares * shares.log()).sum()
    assert classification_loss(shares.log(), shares) == pytest.approx(float(entropy))
    assert classification_loss(shares.log() + torch.tensor([[0.1, 0, 0]]), shares) > entropy


def test_cross_entropy_of_single_votes_is_torchs():
    logits, labels = normal(7, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    targets = torch.nn.functional.one_hot(labels, 4).double()
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(classification_loss(logits, targets), wanted)


def plackett_luce_by_loop(scores, values, mask):
    """Best first; each is chosen among those that are not better; ties among the same; the worst ones are no choice."""
    terms = []
    for row, value, there in zip(scores.tolist(), values.tolist(), mask.tolist(), strict=True):
        members = [i for i, here in enumerate(there) if here]
        for i in members:
            if any(value[j] < value[i] for j in members):
                rivals = [row[j] for j in members if value[j] <= value[i]]
                terms.append(math.log(sum(math.exp(s) for s in rivals)) - row[i])
    return sum(terms) / len(terms)


@pytest.mark.parametrize("ties", [False, True])
def test_plackett_luce_is_the_loop(ties):
    rng = np.random.default_rng(0)
    scores = normal(5, 6)
    values = torch.tensor(
        rng.integers(0, 3, (5, 6)) if ties else rng.permuted(np.tile(np.arange(6), (5, 1)), axis=1)
    ).double()
    mask = torch.arange(6) < torch.tensor([6, 2, 3, 6, 5])[:, None]
    assert float(plackett_luce_loss(scores, values, mask)) == pytest.approx(plackett_luce_by_loop(scores, values, mask))


def test_plackett_luce_of_two_is_bradley_terry():
    scores = normal(9, 2)
    values = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(9, 2)
    mask = torch.ones(9, 2, dtype=torch.bool)
    torch.testing.assert_close(plackett_luce_loss(scores, values, mask), bradley_terry_loss(scores[:, 0], scores[:, 1]))


def test_a_ranking_without_a_better_text_costs_nothing():
    scores = normal(2, 3).requires_grad_()
    loss = plackett_luce_loss(scores, torch.zeros(2, 3), torch.tensor([[True] * 3, [False] * 3]))
    loss.backward()
    assert loss == 0 and (scores.grad == 0).all()


def test_large_scores_stay_finite():
    big = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = bradley_terry_loss(big[1:], big[:1]) + plackett_luce_loss(
        big[None], torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
    )
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(big.grad).all()


@pytest.mark.parametrize("objective", ["regression", "bradley-terry", "margin", "plackett-luce", "classification"])
def test_gradients(objective):
    """Against finite differences, and of a whole batch of groups."""
    sizes, values = [3, 2, 4], np.array([2.0, 1, 1, 0, 1, 3, 2, 1, 0])
    targets = np.random.default_rng(0).dirichlet(np.ones(2), size=9)
    logits = normal(9, 2 if objective == "classification" else 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(objective, x, values, targets, sizes, 0.7), (logits,))


@pytest.mark.parametrize("objective", ["bradley-terry", "margin"])
def test_pairs_of_a_batch_are_those_of_its_groups(objective):
    sizes, values, scores = [3, 2], [2.0, 1, 1, 0, 1], normal(5, 1)
    s = scores[:, 0].tolist()
    pairs = [(0, 1), (0, 2), (4, 3)]  # of different value, in one group
    cost = (lambda d: math.log1p(math.exp(-d))) if objective == "bradley-terry" else (lambda d: max(0.0, 0.7 - d))
    wanted = sum(cost(s[i] - s[j]) for i, j in pairs) / len(pairs)
    assert float(loss_of(objective, scores, np.array(values), None, sizes, 0.7)) == pytest.approx(wanted)
