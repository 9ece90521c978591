"""Temporal-difference targets and losses of action values over tokens: pure functions on ``[B, T]`` tensors with masks.

As in :mod:`textgym_agents.losses`, ``mask`` is true where the policy chose the token, and nothing else reaches a result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textgym_agents.losses import masked_mean


def n_step_targets(
    rewards: Tensor, bootstrap: Tensor, mask: Tensor, last_values: Tensor, gamma: float, n_step: int
) -> Tensor:
    """``y_t = r_t + gamma r_{t+1} + ... + gamma^(n-1) r_{t+n-1} + gamma^n B_{t+n}``, without a correction for who chose.

    ``t + 1`` is the next step of the policy: columns outside ``mask`` are stepped over. An episode that ends earlier than ``n``
    steps on ends the sum, with its last value behind it.

    Args:
        rewards: ``[B, T]``.
        bootstrap: ``[B, T]``, ``B``: what the state is worth in which the token was chosen, ``max_a Q(s_t, a)`` for one.
        mask: ``[B, T]`` bool.
        last_values: ``[B]``, value after the last step: 0 where the episode terminated.
        gamma: Discount, in [0, 1].
        n_step: ``n``, at least 1.

    Returns:
        ``[B, T]``, 0 outside ``mask``.
    """
    width = mask.shape[1]
    nothing = torch.zeros_like(rewards)
    columns = torch.where(mask, torch.arange(width, device=mask.device), width)
    after = torch.nn.functional.pad(columns[:, 1:], (0, 1), value=width)
    following = after.flip(1).cummin(1).values.flip(1)  # column of the next step, `width` behind the last
    rewards, targets = torch.where(mask, rewards, nothing), bootstrap
    for _ in range(min(n_step, width)):
        targets = rewards + gamma * torch.cat([targets, last_values[:, None]], dim=1).gather(1, following)
    return torch.where(mask, targets, nothing)


def huber_loss(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean over tokens of ``u^2 / 2`` for errors ``|u| < 1`` and of ``|u| - 1 / 2`` beyond (Mnih et al. 2015); scalar."""
    nothing = torch.zeros_like(targets)
    error = torch.where(mask, predictions - targets, nothing)
    return masked_mean(torch.nn.functional.smooth_l1_loss(error, nothing, reduction="none"), mask)


def expectile_loss(values: Tensor, targets: Tensor, mask: Tensor, expectile: float) -> Tensor:
    """Mean over tokens of ``|tau - 1(u < 0)| u^2`` with ``u = target - value`` (Kostrikov et al. 2022, eq. 5); scalar.

    Its minimum is the mean of the targets for ``tau = 0.5`` and approaches their maximum as ``tau`` approaches 1.
    """
    error = torch.where(mask, targets - values, torch.zeros_like(values))
    weight = torch.where(error < 0, 1 - expectile, expectile)
    return masked_mean(weight * error**2, mask)
