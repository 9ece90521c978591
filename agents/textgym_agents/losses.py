"""Losses, advantages and what they are made of: pure functions, most of them on ``[B, T]`` tensors with masks.

``mask`` is true where the policy chose the token. Other columns (padding, another speaker's words) never reach a result.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` over the true entries of ``mask`` (0 if there are none); scalar."""
    return torch.where(mask, x, torch.zeros_like(x)).sum() / mask.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """``x`` shifted and scaled to mean 0 and standard deviation 1 over ``mask``; 0 elsewhere. ``[B, T]``."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask) * mask.sum() / (mask.sum() - 1).clamp(min=1)
    return torch.where(mask, (x - mean) / (variance.sqrt() + eps), torch.zeros_like(x))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, last_values: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438) over whole episodes.

    ``A_t = delta_t + gamma * lambda * A_{t+1}`` with ``delta_t = r_t + gamma * V_{t+1} - V_t``, where ``t + 1`` is the next
    step of the policy: columns outside ``mask`` are stepped over.

    Args:
        rewards: ``[B, T]``.
        values: ``[B, T]``, of the state in which the token was chosen.
        mask: ``[B, T]`` bool.
        last_values: ``[B]``, value after the last step: 0 where the episode terminated.
        gamma: Discount, in [0, 1].
        gae_lambda: In [0, 1]; 1 gives Monte Carlo returns minus the value, 0 one-step temporal differences.

    Returns:
        Advantages and returns (advantage plus value), ``[B, T]`` each, 0 outside ``mask``.
    """
    advantages = torch.zeros_like(values)
    following, next_values = torch.zeros_like(last_values), last_values
    for t in range(values.shape[1] - 1, -1, -1):
        here = mask[:, t]
        current = rewards[:, t] + gamma * next_values - values[:, t] + gamma * gae_lambda * following
        following = torch.where(here, current, following)
        next_values = torch.where(here, values[:, t], next_values)
        advantages[:, t] = torch.where(here, current, torch.zeros_like(current))
    return advantages, torch.where(mask, advantages + values, torch.zeros_like(values))


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Its gradient is the policy gradient, ``-mean(A_t * grad log pi(a_t))`` over tokens (Williams 1992); scalar.

    Args:
        log_probs: ``[B, T]``, of the taken tokens under the policy being trained.
        advantages: ``[B, T]``, or returns.
        mask: ``[B, T]`` bool.
    """
    return -masked_mean(torch.where(mask, log_probs, torch.zeros_like(log_probs)) * advantages, mask)


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), a mean over tokens.

    Args:
        log_probs: ``[B, T]``, of the taken tokens under the policy being trained.
        old_log_probs: ``[B, T]``, under the distribution that they were sampled from.
        advantages: ``[B, T]``.
        mask: ``[B, T]`` bool.
        clip_range: Half-width ``c`` of the interval ``[1 - c, 1 + c]`` that the ratio is clipped to.

    Returns:
        The loss, the share of clipped tokens, and the estimate ``mean((ratio - 1) - log ratio)`` of ``KL(old || new)`` in
        nats a token (http://joschu.net/blog/kl-approx.html); scalars.
    """
    log_ratio = torch.where(mask, log_probs - old_log_probs, torch.zeros_like(log_probs))
    ratio = log_ratio.exp()
    surrogate = torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range))
    clip_fraction = masked_mean(((ratio - 1).abs() > clip_range).float(), mask)
    approx_kl = masked_mean((ratio - 1) - log_ratio, mask)
    return -masked_mean(surrogate, mask), clip_fraction.detach(), approx_kl.detach()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range_vf: float | None
) -> Tensor:
    """Mean squared error of the values, which are kept within ``clip_range_vf`` of the old ones if that is given.

    This is SB3's form: the clipped prediction is the prediction (no maximum with the unclipped one). ``[B, T]`` all; scalar.
    """
    if clip_range_vf is not None:
        values = old_values + (values - old_values).clamp(-clip_range_vf, clip_range_vf)
    # masked before squaring: the gradient of a square at NaN is NaN, even where nothing reads the square
    error = torch.where(mask, returns - values, torch.zeros_like(values))
    return masked_mean(error**2, mask)


def explained_variance(predictions: Tensor, targets: Tensor, mask: Tensor) -> float:
    """``1 - Var(targets - predictions) / Var(targets)`` over ``mask``: 1 perfect, 0 as good as a constant; NaN if constant."""
    y, error = targets[mask].double(), (targets - predictions)[mask].double()
    variance = y.var(unbiased=False)
    return float("nan") if variance == 0 else float(1 - error.var(unbiased=False) / variance)


def group_relative(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """How much better each reward is than the mean of its group (Shao et al. 2024, https://arxiv.org/abs/2402.03300, eq. 3).

    Args:
        rewards: ``[B]``, groups of ``group_size`` one after the other.
        group_size: ``G``, a divisor of ``B``.
        scale: ``"group"`` divides by the group's standard deviation, ``"batch"`` by that of all rewards, ``"none"`` by nothing
            (Liu et al. 2025, https://arxiv.org/abs/2503.20783: dividing prefers prompts on which all do alike).

    Returns:
        ``[B]``; 0 where all rewards of a group are the same.
    """
    groups = rewards.double().view(-1, group_size)  # or the mean of equal numbers may be another one
    centred = groups - groups.mean(-1, keepdim=True)
    if scale == "group":
        centred = centred / (groups.std(-1, keepdim=True) + 1e-4)
    elif scale == "batch":
        centred = centred / (groups.std() + 1e-4)
    return centred.flatten().to(rewards.dtype)


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Each reward less the mean of the *others* of its group (Kool et al. 2019; Ahmadian et al. 2024, section 3.2).

    Args:
        rewards: ``[B]``, groups of ``group_size`` one after the other.
        group_size: ``G``, at least 2, a divisor of ``B``.

    Returns:
        ``[B]``.
    """
    groups = rewards.double().view(-1, group_size)  # or the mean of equal numbers may be another one
    others = (groups.sum(-1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).flatten().to(rewards.dtype)


def sequence_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of every row of ``[B, T]`` over ``mask``; ``[B]``."""
    return torch.where(mask, x, torch.zeros_like(x)).sum(-1)


def sequence_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of every row of ``[B, T]`` over ``mask`` (0 if there is nothing); ``[B]``."""
    return sequence_sum(x, mask) / mask.sum(-1).clamp(min=1)


def k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """The estimate ``r - 1 - log r`` of ``KL(pi || pi_ref)``, with ``r = pi_ref / pi``; any shape, in nats.

    It is never negative (http://joschu.net/blog/kl-approx.html).
    """
    log_ratio = ref_log_probs - log_probs
    return log_ratio.exp() - 1 - log_ratio


def entropy_of(log_probs: Tensor) -> Tensor:
    """Entropy in nats of each row of ``[..., V]`` log-probabilities; tokens of probability 0 count nothing. ``[...]``."""
    # 0 * -1e30 is 0, and no sensible weight of the bonus makes -1e30 overflow in the gradient, as it would float32's minimum
    return -(log_probs.exp() * log_probs.clamp(min=-1e30)).sum(-1)


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``KL(q_T || pi_T)`` of the teacher's and the student's softened distributions (Hinton et al. 2015), summed over rows.

    Args:
        student_logits: ``[N, V]``.
        teacher_logits: ``[N, V]``, without gradient.
        temperature: ``T``, above 0, that both are divided by.

    Returns:
        Scalar, in nats.
    """
    log_pi, log_q = ((logits / temperature).log_softmax(-1) for logits in (student_logits, teacher_logits))
    return torch.nn.functional.kl_div(log_pi, log_q, reduction="sum", log_target=True)


def dpo_loss(margins: Tensor, beta: float, loss_type: str, label_smoothing: float) -> Tensor:
    """The loss of DPO (Rafailov et al. 2023, eq. 7) or IPO (Azar et al. 2023, eq. 17), a mean over pairs.

    Args:
        margins: ``[P]``, ``log(pi / pi_ref)`` of the chosen completion less that of the rejected one, in nats.
        beta: Above 0.
        loss_type: ``"sigmoid"``, or ``"ipo"``.
        label_smoothing: In [0, 0.5): the chance that a preference is wrong (Mitchell 2023,
            https://ericmitchell.ai/cdpo.pdf), with ``"sigmoid"``.

    Returns:
        Scalar.
    """
    if loss_type == "ipo":
        return ((margins - 1 / (2 * beta)) ** 2).mean()
    log_right, log_wrong = (torch.nn.functional.logsigmoid(sign * beta * margins) for sign in (1, -1))
    return -((1 - label_smoothing) * log_right + label_smoothing * log_wrong).mean()
