"""Low-rank adapters (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685), and models that share weights.

A model with adapters is the model itself: its layers are replaced in place, its own weights are frozen. The model without
them needs no memory of its own, because it is a second tree of modules over the very same weights.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from textgym.core import expected
from textgym_agents.models.loading import ModelError

LORA_ARGUMENTS = (
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
)
"""Arguments of ``peft.LoraConfig`` that can be given. All of its others would change the frozen weights, train them, or disturb
log-probabilities (``lora_dropout``); or the policy would not start as the model that it adapts."""


def add_lora(model: PreTrainedModel, options: dict[str, Any] | bool) -> None:
    """Freezes a model and puts trainable adapters into its layers. At first they change nothing.

    Args:
        model: Changed in place.
        options: Arguments of ``peft.LoraConfig``, see :data:`LORA_ARGUMENTS`; ``True`` for its defaults.

    Raises:
        ModelError: peft is not installed, the model has adapters already or no such layers, or these are its embeddings or its
            output layer.
        ValueError: Another argument, or a bad value.
    """
    given = {} if options is True else options
    if not isinstance(given, dict) or not set(given) <= set(LORA_ARGUMENTS):
        raise ValueError(expected("lora", options, f"None, True, or a dict with keys of {LORA_ARGUMENTS}"))
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError("`lora` needs peft, which is not installed here: pip install 'textgym[lora]'") from error
    if hasattr(model, "peft_config"):
        raise ModelError(f"Expected a model without adapters with `lora`, actual: {type(model).__name__} with some")
    transposed = any(
        isinstance(module, Conv1D) for module in model.modules()
    )  # of GPT-2: peft warns where it has to guess
    try:
        inject_adapter_in_model(LoraConfig(fan_in_fan_out=transposed, **given), model)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"Could not put adapters into {type(model).__name__} with lora={options!r}: {error}"
        ) from error
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if hasattr(
            layer, "base_layer"
        ):  # logits are made of the output layer's weight, which is often the embeddings', too
            raise ModelError(
                expected(
                    "lora['target_modules']", given.get("target_modules"), "neither embeddings nor the output layer"
                )
            )


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it was before :func:`add_lora`: other modules, but the same weights and not a copy of them."""
    return _unwrapped(copy.deepcopy(model, {id(weight): weight for weight in model.parameters()}))


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model with its adapters added to its weights, as ``transformers`` knows it."""
    return _unwrapped(copy.deepcopy(model), merge=True)


def _unwrapped(model: PreTrainedModel, merge: bool = False) -> PreTrainedModel:
    from peft.tuners.lora import LoraLayer

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                if merge:
                    layer.merge()
                setattr(parent, name, layer.get_base_layer())
    del model.peft_config
    return model


def value_network_of(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model to read values with: it shares the weights that nothing trains, and those of an output layer.

    Nobody asks it for logits. An output layer that is the embeddings, too, is copied with these.
    """
    head: nn.Parameter = model.get_output_embeddings().weight
    embeddings = model.get_input_embeddings().weight
    shared = [weight for weight in model.parameters() if not weight.requires_grad]
    if head is not embeddings:
        shared.append(head)
    return copy.deepcopy(model, {id(weight): weight for weight in shared})
