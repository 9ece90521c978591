"""Loads language models, by name, from a folder or from a stored configuration, and never anybody's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.utils import logging as transformers_logging

from textgym.core import TextGymError, expected
from textgym.tokenization import ASSETS


class ModelError(TextGymError, ValueError):
    """A model could not be loaded, or does not fit the environment."""


def load_model(model: str | Path | PreTrainedModel, encoder_decoder: bool = False) -> PreTrainedModel:
    """The language model that ``model`` stands for, in float32 and evaluation mode.

    Args:
        model: ``"bundled"``, a local folder, a Hub id, or a ``PreTrainedModel`` (used itself, not copied).
        encoder_decoder: Whether to load an encoder-decoder model, rather than a causal one.

    Raises:
        ModelError: It cannot be loaded; the message names the offline choices.
        TypeError: Something else, or a model of the other kind.
    """
    if isinstance(model, PreTrainedModel):
        if model.get_output_embeddings() is None or bool(model.config.is_encoder_decoder) != encoder_decoder:
            raise TypeError(expected("model", type(model).__name__, _WANTED[encoder_decoder]))
        return fuse_activations(model.float().eval())
    if not isinstance(model, (str, Path)):
        raise TypeError(expected("model", model, "'bundled', a folder, a Hub id or a PreTrainedModel"))
    if encoder_decoder and model == "bundled":
        raise ModelError(
            expected("model", model, f"{_WANTED[True]}, or its folder or Hub id: the bundled one is causal")
        )
    name = str(ASSETS if model == "bundled" else model)
    bars = transformers_logging.is_progress_bar_enabled()
    try:
        transformers_logging.disable_progress_bar()
        auto = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
        loaded = auto.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:
        kind = (
            "folder"
            if Path(name).exists()
            else "local folder (there is none of this name) or Hub id (needs the network)"
        )
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(
            f"Could not load the model {name!r} as a {kind}: {first}. "
            "Offline choices: 'bundled', a folder that save_pretrained wrote, a PreTrainedModel"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    assert isinstance(loaded, PreTrainedModel)
    return fuse_activations(loaded.eval())


def policy_name_for(model: str) -> str:
    """The policy that takes the model of this name: ``"Seq2SeqLMPolicy"`` for an encoder-decoder model that can be found."""
    if model == "bundled":
        return "CausalLMPolicy"
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception:  # `load_model` says what is wrong
        return "CausalLMPolicy"
    return "Seq2SeqLMPolicy" if config.is_encoder_decoder else "CausalLMPolicy"


_WANTED = {
    False: "a causal language model, such as GPT2LMHeadModel (CausalLMPolicy)",
    True: "an encoder-decoder language model, such as T5ForConditionalGeneration (Seq2SeqLMPolicy)",
}


def fuse_activations(model: PreTrainedModel) -> PreTrainedModel:
    """Computes GPT-2's activation, ``gelu_new``, by PyTorch's one kernel for it in place of transformers' eight.

    It is the same function. On a CPU these eight passes over the widest layer cost a quarter of the time of a small model.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


_ATTENTION = ("sdpa", "eager")  # what every machine has; anything else may be a kernel that has to be fetched first


def config_of(model: PreTrainedModel) -> dict[str, Any]:
    """What :func:`model_from_config` makes the same architecture from; JSON-able."""
    attention = model.config._attn_implementation
    return {**model.config.to_dict(), "attention": attention if attention in _ATTENTION else None}


def model_from_config(config: dict[str, Any]) -> PreTrainedModel:
    """A model with random weights from what :func:`config_of` gave; only architectures of transformers itself.

    Raises:
        ModelError: The configuration names no architecture that transformers knows.
    """
    attention = {"attn_implementation": config["attention"]} if config.get("attention") in _ATTENTION else {}
    try:
        auto = AutoModelForSeq2SeqLM if config.get("is_encoder_decoder") else AutoModelForCausalLM
        made = auto.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.for_model(**_harmless(config)), trust_remote_code=False, dtype=torch.float32, **attention
        )
    except Exception as error:
        raise ModelError(f"Could not make a model of type {config.get('model_type')!r}: {error}") from error
    assert isinstance(made, PreTrainedModel)
    return fuse_activations(made.eval())


def _harmless(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what could make transformers import or fetch code."""
    return {
        key: _harmless(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in ("auto_map", "transformers_version", "attention", "quantization_config")
        and not str(key).endswith("_implementation")
    }


def check_fits(model: PreTrainedModel, vocab_size: int, length: int) -> None:
    """Makes sure that a model can read and score an environment's tokens.

    Raises:
        ModelError: Its vocabulary is smaller than the environment's, or its context shorter than an observation.
    """
    text = model.config.get_text_config()
    if text.vocab_size < vocab_size:
        raise ModelError(
            f"Expected a model whose vocabulary covers the environment's {vocab_size} tokens, actual: {text.vocab_size}. "
            "Give both the same tokenizer: gym.make(..., tokenizer=folder) and policy_kwargs={'model': folder}"
        )
    most = getattr(text, "max_position_embeddings", None)
    if most is not None and most < length:
        raise ModelError(
            f"Expected a model with room for {length} tokens (prompt, completion and replies), actual: {most}; "
            "lower max_prompt_tokens or max_new_tokens"
        )


def freeze_all_but_last(model: PreTrainedModel, layers: int) -> None:
    """Lets only the last ``layers`` transformer layers and what follows them inside the model (its final norm) train.

    Raises:
        ModelError: The layers cannot be found, or there are fewer.
    """
    text = model.config.get_text_config()
    base, names = model.base_model, ["num_hidden_layers"]
    if model.config.is_encoder_decoder:
        base, names = model.get_decoder(), ["num_decoder_layers", "decoder_layers", *names]
    depth = next(getattr(text, name) for name in names if hasattr(text, name))
    stack = next((m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)
    if stack is None:
        raise ModelError(f"Could not find the {depth} layers of {type(model).__name__}; use trainable_layers=None")
    if isinstance(layers, bool) or not isinstance(layers, int) or not 0 <= layers <= depth:
        raise ModelError(expected("trainable_layers", layers, f"None or a whole number from 0 to {depth}"))
    model.requires_grad_(False)
    for layer in list(stack)[depth - layers :]:
        layer.requires_grad_(True)
    for child in base.children():
        if layers and child is not stack and not isinstance(child, nn.Embedding):
            child.requires_grad_(True)


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout to 0: a log-probability that dropout disturbs is not the one that was sampled from."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():  # of Llama, BART and their kin: numbers, no modules
            if isinstance(value, float) and ("dropout" in name or name == "layerdrop"):
                setattr(module, name, 0.0)
