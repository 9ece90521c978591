"""Gradient checkpointing (Chen et al. 2016, https://arxiv.org/abs/1604.06174): layers are computed twice to save memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from textgym_agents.models.loading import ModelError


def enable_recomputation(model: PreTrainedModel) -> None:
    """Prepares all layers of a model for :func:`recomputing`.

    The model's own method would let the embeddings ask for gradients too, which frozen ones do not need.

    Raises:
        ModelError: It has no layers that can.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            "Expected a model whose layers can be computed again with gradient_checkpointing=True, "
            f"actual: {type(model).__name__}"
        )
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing is random: dropout is off
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = again  # type: ignore[assignment]  # what torch lets modules hold


def recomputed_layers(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The layers that :func:`enable_recomputation` has prepared."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]


@contextmanager
def recomputing(layers: Sequence[GradientCheckpointingLayer]) -> Iterator[None]:
    """Where there are gradients, keeps only the inputs of these layers for them.

    ``transformers`` does so in training mode. Our training runs in evaluation mode, and so does everything with a cache, which
    does not go with it; so only the layers' own flags are set, and only meanwhile.
    """
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = layer.training or torch.is_grad_enabled()
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.training = mode
