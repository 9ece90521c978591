"""The network of a reward model: any encoder or causal model of transformers, with one linear layer on top."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from textgym.core import expected
from textgym.rewards._pooled import MeanPooledClassifier
from textgym.rewards._transformers import ScoringModel, load_model
from textgym.tokenization import ASSETS
from textgym_agents.models.loading import ModelError

Model = str | os.PathLike[str] | PreTrainedModel | PreTrainedConfig
Pooling = Literal["mean", "native"]


def make_scorer(
    model: Model,
    tokenizer: Any,
    labels: list[str],
    pooling: Pooling | None,
    max_length: int,
    seed: int,
    device: str | None,
) -> tuple[ScoringModel, bool]:
    """A network that gives one number a label, in float32, and whether its last layer has been trained before.

    Args:
        model: See :class:`textgym_agents.reward_models.RewardModelTrainer`.
        tokenizer: A tokenizer of transformers, its folder or Hub id, or ``None``: that of the model's folder.
        labels: Names of the outputs; one for a reward.
        pooling: What the last layer reads; ``None``: the mean over tokens of encoders; the last token of causal models.
        max_length: Longer texts are cut from the left.
        seed: Of new weights.
        device: Of torch; ``None``: the GPU if there is one.

    Raises:
        ModelError: The model or its tokenizer cannot be loaded, or it is no encoder and no causal model.
        TypeError: ``model`` is something else.
    """
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        network, trained = _network(str(ASSETS) if model == "bundled" else model, labels, pooling)
    if tokenizer is None and not isinstance(model, (str, os.PathLike)):
        raise ModelError(expected("tokenizer", tokenizer, "given with a model that is not a folder or Hub id"))
    source = tokenizer if tokenizer is not None else model
    if isinstance(source, (str, os.PathLike)):
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                ASSETS if source == "bundled" else source, trust_remote_code=False
            )
        except Exception as error:
            raise ModelError(f"Could not load the tokenizer {str(source)!r}: {_first_line(error)}") from error
    else:
        tokenizer = copy.deepcopy(tokenizer)  # what is set below is nobody else's business
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    config: Any = network.config
    config.pad_token_id = config.get_text_config().pad_token_id = tokenizer.pad_token_id
    where = str(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    name = str(model) if isinstance(model, (str, os.PathLike)) else type(network).__name__
    network.to(where).float()
    tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
    scorer = ScoringModel(("classifier", name, where, "float32"), network, tokenizer)
    tokenizer.model_max_length = scorer.max_length  # positions that the network has limit it too
    return scorer, trained


def _network(model: Model, labels: list[str], pooling: Pooling | None) -> tuple[Any, bool]:
    config = _config_of(model)
    if _is_classifier(config) and config.num_labels == len(labels):
        if isinstance(model, PreTrainedConfig):
            config.architectures = None
            return _with_head(AutoModel.from_config(_labelled(config, labels)), labels, pooling), False
        network = model if isinstance(model, PreTrainedModel) else load_model("classifier", model, "cpu").network
        if not isinstance(model, PreTrainedModel):
            network = copy.deepcopy(network).requires_grad_(True)  # the loaded one may be an environment's reward too
        _labelled(network.config, labels)
        return network, True
    if isinstance(model, PreTrainedModel):
        return _with_head(model.base_model, labels, pooling), False
    try:
        if isinstance(model, PreTrainedConfig):
            base = AutoModel.from_config(config, trust_remote_code=False)
        else:
            base = AutoModel.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"Could not load the model {str(model)!r}: {_first_line(error)}") from error
    return _with_head(base, labels, pooling), False


def _config_of(model: Model) -> Any:
    if isinstance(model, PreTrainedModel):
        return model.config
    if isinstance(model, PreTrainedConfig):
        return copy.deepcopy(model)
    if not isinstance(model, (str, os.PathLike)) or not str(model):
        raise TypeError(
            expected("model", model, "a folder, a Hub id, a PreTrainedModel or a configuration of transformers")
        )
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:
        kind = (
            "folder"
            if Path(model).exists()
            else "local folder (there is none of this name) or Hub id (needs the network)"
        )
        raise ModelError(f"Could not load the model {str(model)!r} as a {kind}: {_first_line(error)}") from error


def _is_classifier(config: Any) -> bool:
    names = config.architectures or [""]
    return str(names[0]) == MeanPooledClassifier.__name__ or str(names[0]).endswith("ForSequenceClassification")


def _with_head(base: Any, labels: list[str], pooling: Pooling | None) -> Any:
    config = _labelled(copy.deepcopy(base.config), labels)
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    if config.is_encoder_decoder:
        raise ModelError(expected("model", type(base).__name__, "an encoder or a causal model"))
    network: Any
    if pooling == "native" or (causal and pooling is None):
        network = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        own = getattr(network, network.base_model_prefix)
        if set(base.state_dict()) >= set(own.state_dict()):
            setattr(network, network.base_model_prefix, base)
        else:  # a pooler that the given model does not have
            own.load_state_dict(base.state_dict(), strict=False)
    else:
        network = MeanPooledClassifier(config)
        network.encoder = base
        if getattr(base, "pooler", None) is not None:
            base.pooler = None
    network.config.architectures = [type(network).__name__]
    return network


def _labelled(config: Any, labels: list[str]) -> Any:
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = "regression" if len(labels) == 1 else "single_label_classification"
    return config


def _last_layer(network: Any) -> nn.Linear:
    found = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == network.config.num_labels]
    if not found:
        raise ModelError(f"Could not find the last layer of {type(network).__name__}")
    return found[-1]


def has_bias(network: Any) -> bool:
    """Whether the last layer of a network from :func:`make_scorer` has a bias."""
    return _last_layer(network).bias is not None


@torch.no_grad()
def rescale(network: Any, shift: float, scale: float) -> None:
    """Changes the last layer so that every output ``x`` becomes ``shift + scale * x``; without a bias ``shift`` must be 0."""
    layer = _last_layer(network)
    layer.weight *= scale
    if layer.bias is not None:
        layer.bias.mul_(scale).add_(shift)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and remarks of transformers; heads that are new or not needed are what is asked for here."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    try:
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
