"""Which texts are read together, and what a batch of scores costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textgym_agents.reward_models.data import DataError, Judged
from textgym_agents.reward_models.losses import (
    bradley_terry_loss,
    classification_loss,
    margin_loss,
    plackett_luce_loss,
    regression_loss,
)

Objective = Literal["regression", "classification", "bradley-terry", "plackett-luce", "margin"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
POINTWISE: tuple[Objective, ...] = ("regression", "classification")
"""Objectives that look at one text at a time."""
_WINDOW = 16  # batches whose texts are sorted by length: little padding, and yet ever new company
_MOST_CLASSES = 32

Group = npt.NDArray[np.int64]
"""Indices of texts that are compared with one another; a single one for the pointwise objectives."""


@dataclass
class Judgements:
    """A data set as an objective sees it.

    Attributes:
        texts: ``n`` texts.
        values: ``(n,)``; ratings, or any numbers that order the texts of a group.
        targets: ``(n, K)``, shares of the votes that each class got; of classification only.
        groups: Which texts are compared; ``None``: of a data set of scores, any, drawn anew in every epoch.
    """

    texts: list[str]
    values: npt.NDArray[np.float64]
    targets: npt.NDArray[np.float64] | None
    groups: list[Group] | None


def default_objective(judged: Sequence[Judged]) -> Objective:
    """Regression for scores, Bradley and Terry for comparisons, Plackett and Luce for rankings."""
    defaults: dict[str, Objective] = {
        "scores": "regression",
        "comparisons": "bradley-terry",
        "rankings": "plackett-luce",
    }
    return defaults[judged[0].kind]


def rating_classes(judged: Sequence[Judged]) -> list[float]:
    """The different votes of a data set, in order: the classes of a classification.

    Raises:
        DataError: There are fewer than two, or too many to be classes.
    """
    votes = sorted({vote for item in judged for vote in (item.votes or item.values)})
    if not 2 <= len(votes) <= _MOST_CLASSES:
        raise DataError(
            f"Expected ratings of 2 to {_MOST_CLASSES} different values for the objective 'classification', actual: "
            f"{len(votes)}; give the single votes as `ratings`, or take 'regression'"
        )
    return votes


def arrange(judged: Sequence[Judged], objective: Objective, classes: Sequence[float] = ()) -> Judgements:
    """The data set for an objective.

    Raises:
        DataError: It has no ratings, where the objective needs them; no text is better than another, where it compares them;
            or a vote is none of the ``classes``.
    """
    texts = [text for item in judged for text in item.texts]
    values = np.array([value for item in judged for value in item.values])
    if objective in POINTWISE:
        bad = next((item for item in judged if not item.rated), None)
        if bad is not None:
            raise DataError(
                f"{bad.where}: expected ratings, which the objective {objective!r} learns, actual: {bad.kind}"
            )
        targets = _shares(judged, classes) if objective == "classification" else None
        return Judgements(texts, values, targets, [np.array([i]) for i in range(len(texts))])
    if judged[0].kind == "scores":
        groups = None
    else:
        ends = np.cumsum([len(item.texts) for item in judged])
        groups = [np.arange(end - len(item.texts), end) for end, item in zip(ends, judged, strict=True)]
        groups = [group for group in groups if np.ptp(values[group]) > 0]
    if groups == [] or np.ptp(values) == 0:
        raise DataError(
            f"Expected {judged[0].kind} in which a text is better than another, actual: all of them are ties"
        )
    return Judgements(texts, values, None, groups)


def _shares(judged: Sequence[Judged], classes: Sequence[float]) -> npt.NDArray[np.float64]:
    rows = []
    for item in judged:
        for votes in [item.votes] if item.votes else [(value,) for value in item.values]:
            if strange := set(votes) - set(classes):
                raise DataError(f"{item.where}: expected ratings among {list(classes)}, actual: {sorted(strange)}")
            rows.append([votes.count(value) / len(votes) for value in classes])
    return np.array(rows)


def epoch_of(
    judgements: Judgements, lengths: Sequence[int], batch_size: int, group_size: int, rng: np.random.Generator
) -> Iterator[list[Group]]:
    """Batches of one epoch: groups of together about ``batch_size`` texts, of like length, in random order.

    Args:
        judgements: The data set.
        lengths: Tokens of each text.
        batch_size: Most texts of a batch; a larger group is a batch of its own.
        group_size: Texts that are compared with one another, where the data set does not say which.
        rng: Draws the order, and the company where that is free.
    """
    groups = judgements.groups
    if groups is None:
        order = rng.permutation(len(judgements.texts))
        drawn = [order[k : k + group_size] for k in range(0, len(order), group_size)]
        groups = [group for group in drawn if np.ptp(judgements.values[group]) > 0]
    order = rng.permutation(len(groups))
    size = max(1, _WINDOW * batch_size // max(1, len(groups[0])))
    batches: list[list[Group]] = []
    for k in range(0, len(order), size):
        window = sorted((groups[i] for i in order[k : k + size]), key=lambda group: max(lengths[i] for i in group))
        batch: list[Group] = []
        for group in window:
            if batch and sum(map(len, batch)) + len(group) > batch_size:
                batches.append(batch)
                batch = []
            batch.append(group)
        batches.append(batch)
    for i in rng.permutation(len(batches)):
        yield batches[i]


def loss_of(
    objective: Objective,
    logits: Tensor,
    values: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64] | None,
    sizes: Sequence[int],
    margin: float,
) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        objective: Which one.
        logits: ``[N, K]``, of the texts of all groups one after the other.
        values: ``(N,)``, in units of the scores for regression.
        targets: ``(N, K)``, of classification.
        sizes: Texts of each group; all pairs of a group whose values differ are compared.
        margin: Of the objective ``margin``.
    """
    tensor: Any = lambda array: torch.as_tensor(array, dtype=logits.dtype, device=logits.device)  # noqa: E731
    if objective == "classification":
        return classification_loss(logits, tensor(targets))
    scores = logits[:, 0]
    if objective == "regression":
        return regression_loss(scores, tensor(values))
    ends = np.cumsum(sizes)
    if objective == "plackett-luce":
        column = np.arange(max(sizes))
        mask = column < np.array(sizes)[:, None]  # [B, K]
        places = np.where(mask, (ends - sizes)[:, None] + column, 0)
        return plackett_luce_loss(
            scores[torch.from_numpy(places)], tensor(values[places]), torch.from_numpy(mask).to(scores.device)
        )
    group = np.repeat(np.arange(len(sizes)), sizes)
    better, worse = np.nonzero((group[:, None] == group) & (values[:, None] > values))
    chosen, rejected = scores[torch.from_numpy(better)], scores[torch.from_numpy(worse)]
    return margin_loss(chosen, rejected, margin) if objective == "margin" else bradley_terry_loss(chosen, rejected)
