"""Losses of reward models: pure functions of scores, each a scalar that is a mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def regression_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """Mean squared error.

    Args:
        scores: ``[N]``.
        ratings: ``[N]``.
    """
    return ((scores - ratings) ** 2).mean()


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy in nats with the shares of the votes that each class got, a mean over texts.

    With one vote a text it is the usual cross entropy. With several, its minimum is the entropy of the votes, reached where
    the model gives each class the probability that a rater picked at random votes for it (Peterson et al. 2019,
    https://arxiv.org/abs/1908.07086).

    Args:
        logits: ``[N, K]``.
        targets: ``[N, K]``, rows of at least 0 that add up to 1.
    """
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``-log sigmoid(chosen - rejected)``, a mean over comparisons; ``log 2`` where all scores are alike.

    The negative log-likelihood of the comparisons under Bradley and Terry 1952 (https://doi.org/10.2307/2334029), as reward
    models are trained by Ouyang et al. 2022 (https://arxiv.org/abs/2203.02155, eq. 1).

    Args:
        chosen: ``[N]``, scores of the texts that were preferred.
        rejected: ``[N]``, scores of those that they were compared with.
    """
    return -logsigmoid(chosen - rejected).mean()


def margin_loss(chosen: Tensor, rejected: Tensor, margin: float) -> Tensor:
    """``max(0, margin - (chosen - rejected))``, a mean over comparisons: the hinge of Herbrich et al. 2000's ranking SVM.

    Args:
        chosen: ``[N]``, scores of the texts that were preferred.
        rejected: ``[N]``, scores of those that they were compared with.
        margin: Difference of scores, above 0, that is enough.
    """
    return (margin - (chosen - rejected)).clamp(min=0).mean()


def plackett_luce_loss(scores: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of rankings, a mean over the choices that they consist of.

    Plackett 1975 (https://doi.org/10.2307/2346567) reads a ranking as choices one after the other: each text is picked, with
    probability ``exp(score) / sum exp(scores)``, among those that are not better than it; see Xia et al. 2008 (ListMLE) for
    it as a loss. With two texts it is the loss of Bradley and Terry. Texts of equal value are choices among the same texts
    (Breslow 1974), and nothing is said of those that nothing is worse than: so of "the best of K" only that one choice counts.

    Args:
        scores: ``[B, K]``.
        values: ``[B, K]``, higher is better.
        mask: ``[B, K]`` bool, false where a ranking has fewer texts.

    Returns:
        Scalar; 0 where no text is better than another.
    """
    both = mask[:, :, None] & mask[:, None, :]  # [B, K, K]: text, other text
    others = both & (values[:, None, :] <= values[:, :, None])
    chosen = (both & (values[:, None, :] < values[:, :, None])).any(-1)  # [B, K]
    # the large number, rather than infinity: the gradient of logsumexp over infinities alone is NaN
    rivals = torch.where(others, scores[:, None, :], torch.full_like(scores[:, None, :], -1e30)).logsumexp(-1)  # [B, K]
    return torch.where(chosen, rivals - scores, torch.zeros_like(scores)).sum() / chosen.sum().clamp(min=1)
