"""The loop over epochs and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from textgym.core import expected, number, whole_number
from textgym.rewards._transformers import ScoringModel
from textgym_agents.algorithms.updates import TrainingError
from textgym_agents.reward_models.batches import Group, Judgements, Objective, epoch_of, loss_of

Progress = Callable[[int, float, float], None]
"""Called after every step with its number, the share of the training that is done, in (0, 1], and the loss."""
Validate = Callable[[], tuple[dict[str, float], float]]
"""Numbers to note, and the one of which the best epoch has most."""


@dataclass(frozen=True)
class Settings:
    """Arguments of the training, checked; see :class:`textgym_agents.reward_models.RewardModelTrainer`."""

    objective: Objective
    learning_rate: float
    num_train_epochs: int
    batch_size: int
    group_size: int
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    margin: float
    early_stopping_patience: int | None
    seed: int

    def __post_init__(self) -> None:
        """Raises: ValueError: A value is out of range."""
        for name, least in (("num_train_epochs", 1), ("batch_size", 1), ("group_size", 2), ("seed", 0)):
            whole_number(name, getattr(self, name), least)
        for name in ("learning_rate", "max_grad_norm", "margin"):
            number(name, getattr(self, name), 0, math.inf, above=True, wanted="a number above 0")
        number("weight_decay", self.weight_decay, 0, math.inf, wanted="a number of at least 0")
        if number("warmup_ratio", self.warmup_ratio, 0, 1) == 1:
            raise ValueError(expected("warmup_ratio", self.warmup_ratio, "a number from 0 to less than 1"))
        if self.early_stopping_patience is not None:
            whole_number("early_stopping_patience", self.early_stopping_patience, 1)


def fit(
    scorer: ScoringModel, data: Judgements, settings: Settings, validate: Validate | None, progress: Progress | None
) -> tuple[list[dict[str, float]], int]:
    """Trains the network, which then has the weights of the best epoch (the last without ``validate``).

    Args:
        scorer: Network and tokenizer.
        data: What is learnt; values of regression in units that the network is to give.
        settings: How.
        validate: Called after every epoch.
        progress: Called after every step.

    Returns:
        One entry an epoch, and the number of the best, from 1.

    Raises:
        TrainingError: The loss is NaN or infinite.
    """
    network, features = scorer.network, scorer.encode(data.texts)
    lengths = [len(row["input_ids"]) for row in features]
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(_parameters(network, settings.weight_decay), lr=settings.learning_rate, fused=True)
    history: list[dict[str, float]] = []
    best, best_epoch, kept, step = -math.inf, 0, None, 0
    for epoch in range(1, settings.num_train_epochs + 1):
        start, total, read = time.perf_counter(), 0.0, 0
        network.train()
        batches = list(epoch_of(data, lengths, settings.batch_size, settings.group_size, rng))
        for k, batch in enumerate(batches):
            step += 1
            done = [(epoch - 1 + i / len(batches)) / settings.num_train_epochs for i in (k, k + 1)]
            rate = settings.learning_rate * min(1.0, done[1] / max(settings.warmup_ratio, 1e-9))
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (1 - done[0]) / (1 - settings.warmup_ratio))
            loss = _loss(scorer, data, features, batch, settings)
            if not torch.isfinite(loss):
                texts = ", ".join(repr(data.texts[i][:40]) for i in batch[0][:2])
                raise TrainingError(
                    f"The loss is {loss.item()} at step {step} (epoch {epoch}, batch {k + 1} of {len(batches)}, of the texts "
                    f"{texts}, …); lower learning_rate, actual value: {settings.learning_rate:g}"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
            optimizer.step()
            size = sum(map(len, batch))
            total, read = total + float(loss.detach()) * size, read + size
            if progress is not None:
                progress(step, done[1], float(loss.detach()))
        network.eval()
        measured, quality = validate() if validate else ({}, float(epoch))
        history.append({"epoch": epoch, "loss": total / read, **measured, "seconds": time.perf_counter() - start})
        if quality > best:
            best, best_epoch = quality, epoch
            kept = (
                {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
                if validate
                else None
            )
        elif settings.early_stopping_patience is not None and epoch - best_epoch >= settings.early_stopping_patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    return history, best_epoch


def _loss(
    scorer: ScoringModel, data: Judgements, features: Sequence[Any], batch: list[Group], settings: Settings
) -> torch.Tensor:
    members = np.concatenate(batch)
    with scorer.inputs([features[i] for i in members]) as inputs:
        logits = scorer.network(**inputs).logits.float()  # [N, K]
    targets = None if data.targets is None else data.targets[members]
    sizes = [len(group) for group in batch]
    return loss_of(settings.objective, logits, data.values[members], targets, sizes, settings.margin)


def _parameters(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights, which decay, and biases and norms, which do not."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
