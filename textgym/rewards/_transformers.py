"""Models of transformers that score text: loaded once a process, run in batches of about equal length, never anybody's code."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from textgym.core import expected
from textgym.numpy_gpt2 import ModelError

if TYPE_CHECKING:
    import torch

Kind = Literal["causal", "classifier", "encoder"]
Features = Mapping[str, Sequence[int]]
"""What a tokenizer makes of one text: ``input_ids``, perhaps ``token_type_ids``."""

_AUTO = {
    "causal": "AutoModelForCausalLM",
    "classifier": "AutoModelForSequenceClassification",
    "encoder": "AutoModel",
}
_DTYPES = ("float32", "bfloat16", "float16")
_LOGITS = 2**27  # numbers in the logits of one batch of a language model: half a gigabyte in float32

_loaded: WeakValueDictionary[tuple[Any, ...], ScoringModel] = WeakValueDictionary()
_loading = threading.Lock()


def load_model(
    kind: Kind, name: str | os.PathLike[str], device: str | None = None, dtype: str | None = "float32"
) -> ScoringModel:
    """A model and its tokenizer; the same object for the same arguments, as long as anybody uses it.

    Args:
        kind: What is on top of the network.
        name: A local folder, or a Hub id.
        device: Of torch; ``None``: the GPU if there is one.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; ``None``: bfloat16 on a GPU, else float32.

    Raises:
        ImportError: torch or transformers is not installed.
        ModelError: It cannot be loaded, or has no trained weights for what ``kind`` asks; the message names it.
        ValueError: An argument of another kind.
    """
    if not isinstance(name, (str, os.PathLike)) or not str(name):
        raise ValueError(expected("model", name, "a folder or a Hub id"))
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(expected("dtype", dtype, f"None or one of {_DTYPES}"))
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Scoring with the model {str(name)!r} needs torch and transformers: {_EXTRA}") from error
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=where)
    except (RuntimeError, TypeError, AssertionError) as error:  # an unknown one; one that this torch was not built for
        raise ValueError(expected("device", device, f"None or a device of torch ({error})")) from error
    dtype = dtype or ("bfloat16" if where.type == "cuda" else "float32")
    folder = str(Path(name).resolve()) if Path(name).is_dir() else str(name)
    key = (kind, folder, str(where), dtype)
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    version = tuple(file.stat().st_mtime_ns for file in files)  # a model that was saved there anew is another one
    with _loading:
        found = _loaded.get((key, version))
        if found is None:
            found = _loaded[key, version] = ScoringModel(key, *_from_pretrained(*key))
        return found


_EXTRA = "pip install 'textgym[agents]'"


class ScoringModel:
    """A model with its tokenizer; what :func:`load_model` gives is in evaluation mode.

    Copies and pickles of that are the same model again, loaded at most once in every process. Threads take turns.

    Attributes:
        network: The model of transformers.
        tokenizer: Its tokenizer; cuts texts that are too long from the left.
        max_length: Most tokens that the model reads; ``None``: no limit.
        vocab_size: Number of tokens ``V``.
    """

    def __init__(self, key: tuple[Kind, str, str, str], network: Any, tokenizer: Any) -> None:
        """Args: key: Kind, name, device and dtype, see :func:`load_model`. network: On that device. tokenizer: Its own."""
        self._key = key
        self._lock = threading.RLock()
        _, self.name, self.device, _ = key
        self.network, self.tokenizer = network, tokenizer
        config = self.network.config.get_text_config()
        self.vocab_size = int(config.vocab_size)
        self.max_length = _max_length(self.network, self.tokenizer)
        self.tokenizer.truncation_side = "left"
        takes = inspect.signature(self.network.forward).parameters
        self._keeps_logits = "logits_to_keep" in takes
        self._takes_types = "token_type_ids" in takes

    def __reduce__(self) -> tuple[Any, ...]:
        return load_model, self._key

    def __deepcopy__(self, memo: dict[int, Any]) -> ScoringModel:
        return self

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, special: bool = True, cut: bool = True
    ) -> list[dict[str, list[int]]]:
        """What the tokenizer makes of each text, or of each text and its pair.

        Args:
            texts: ``n`` texts.
            pairs: As many.
            special: Whether the special tokens are put in that the model was trained with.
            cut: Whether it must fit into ``max_length`` tokens, and not be empty. It is cut from the left; of a
                pair, a prompt comes first, and an answer only if it is longer than half of what fits.
        """
        if not texts:
            return []
        tokenizer = self.tokenizer
        options: dict[str, Any] = {"add_special_tokens": special, "verbose": False}
        with self._lock:
            if cut and self.max_length is not None:
                options |= {"truncation": True, "max_length": self.max_length}  # of a pair, the longest first
            encoded = tokenizer(list(texts), None if pairs is None else list(pairs), **options)
        keys = [key for key in ("input_ids", "token_type_ids") if key in encoded]
        found = [
            {key: list(encoded[key][i]) for key in keys if key == "input_ids" or self._takes_types}
            for i in range(len(texts))
        ]
        if cut:
            ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
            one = next(i for i in ends if i is not None)
            found = [
                row if row["input_ids"] else {key: [one if key == "input_ids" else 0] for key in row} for row in found
            ]
        return found

    def outputs(
        self, features: Sequence[Features], batch_size: int, **options: Any
    ) -> Iterator[tuple[list[int], npt.NDArray[np.int64], Any]]:
        """Runs the network over texts, the longest first.

        Yields:
            Indices of ``B`` texts, their lengths ``(B,)``, and what the network gives for them, padded on the right.
        """
        import torch

        order = sorted(range(len(features)), key=lambda i: -len(features[i]["input_ids"]))
        for k in range(0, len(order), batch_size):
            members = order[k : k + batch_size]
            rows = [features[i] for i in members]
            lengths = np.array([len(row["input_ids"]) for row in rows])
            with self.inputs(rows) as inputs, torch.inference_mode():
                outputs = self.network(**inputs, **options)
            yield members, lengths, outputs

    def hidden_states(
        self, texts: Sequence[str], batch_size: int, layer: int = -1
    ) -> dict[str, tuple[list[int], npt.NDArray[np.float32]]]:
        """Token ids, and hidden states after ``layer`` of shape ``(length, C)``, of every different text."""
        unique = list(dict.fromkeys(texts))
        features = self.encode(unique)
        found = {}
        for members, lengths, outputs in self.outputs(features, batch_size, output_hidden_states=True):
            states = outputs.hidden_states[layer].float().cpu().numpy()
            for i, length, state in zip(members, lengths, states, strict=True):
                found[unique[i]] = (list(features[i]["input_ids"]), state[:length])
        return found

    def log_probs(
        self, rows: Sequence[Sequence[int]], starts: Sequence[int], batch_size: int
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of tokens, of a causal model; see :meth:`textgym.numpy_gpt2.NumpyGPT2.log_probs`."""
        import torch

        found = [np.zeros(0, dtype=np.float32)] * len(rows)
        wanted = [i for i, row in enumerate(rows) if len(row) > starts[i]]
        longest = max((len(rows[i]) for i in wanted), default=1)
        batch_size = max(1, min(batch_size, _LOGITS // (longest * self.vocab_size)))
        wanted.sort(key=lambda i: -len(rows[i]))  # the order of `outputs`, so that its batches are these
        for k in range(0, len(wanted), batch_size):
            chunk = wanted[k : k + batch_size]
            width = len(rows[chunk[0]])
            keep = width - min(starts[i] for i in chunk) + 1  # the last so many positions
            options = {"logits_to_keep": keep} if self._keeps_logits else {}
            (outputs,) = self.outputs([{"input_ids": rows[i]} for i in chunk], batch_size, **options)
            members, _, result = outputs
            shift = width - result.logits.shape[1]
            for member, logits in zip(members, result.logits, strict=True):
                i = chunk[member]
                ids = torch.tensor(rows[i][starts[i] :], device=logits.device)
                scored = logits[starts[i] - 1 - shift : len(rows[i]) - 1 - shift].float().log_softmax(-1)  # [k, V]
                found[i] = scored.gather(1, ids[:, None])[:, 0].cpu().numpy()
        return found

    @contextmanager
    def inputs(self, rows: Sequence[Features]) -> Iterator[dict[str, torch.Tensor]]:
        """What the network reads of ``B`` encoded texts, padded on the right: tensors ``[B, T]``, on its device.

        The network must be called inside; others wait.

        Raises:
            ModelError: The tokenizer has tokens that the model does not have.
        """
        import torch

        lengths = np.array([len(row["input_ids"]) for row in rows])
        with self._lock, self._padding(rows) as pad:
            padded = {"attention_mask": (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)}
            for key in rows[0]:
                padded[key] = np.full(padded["attention_mask"].shape, pad if key == "input_ids" else 0)
                for line, row in zip(padded[key], rows, strict=True):
                    line[: len(row[key])] = row[key]
            if padded["input_ids"].max(initial=0) >= self.vocab_size:
                raise ModelError(
                    f"Expected a tokenizer of the model's {self.vocab_size} tokens in {self.name!r}, "
                    f"actual: it gives the token {padded['input_ids'].max()}"
                )
            yield {key: torch.from_numpy(value).to(self.device) for key, value in padded.items()}

    @contextmanager
    def _padding(self, rows: Sequence[Features]) -> Iterator[int]:
        """The token to pad with.

        A classifier on top of a causal model is read at the last token that is no padding, so it has to know which one
        that is. Where its configuration does not say, any token will do that does not occur in the batch.
        """
        config = self.network.config.get_text_config()
        pad = getattr(config, "pad_token_id", None)
        if pad is not None and pad >= 0:
            yield int(pad)
            return
        used = {i for row in rows for i in row["input_ids"]}
        free = next(i for i in range(self.vocab_size + 1) if i not in used)
        config.pad_token_id = free if free < self.vocab_size else 0
        try:
            yield config.pad_token_id
        finally:
            config.pad_token_id = pad


def _from_pretrained(kind: Kind, name: str, device: str, dtype: str) -> tuple[Any, Any]:
    import torch
    import transformers
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    try:
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        architecture, config = getattr(transformers, _AUTO[kind]), {}
        if kind == "classifier":
            found = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            if found.architectures == ["MeanPooledClassifier"]:  # no architecture of transformers', but ours
                from textgym.rewards._pooled import MeanPooledClassifier

                architecture, config = MeanPooledClassifier, {"config": found}
        network, info = architecture.from_pretrained(
            name, dtype=getattr(torch, dtype), trust_remote_code=False, output_loading_info=True, **config
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if not tokenizer("text", add_special_tokens=False)["input_ids"]:  # what a folder without a tokenizer gives
            raise ValueError("it holds no tokenizer")
    except Exception as error:
        place = (
            "folder"
            if os.path.exists(name)
            else "local folder (there is none of this name) or Hub id (needs the network)"
        )
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(
            f"Could not load the model {name!r} as a {place}: {reason}. "
            "Without the network, give a folder that save_pretrained of the model and of its tokenizer wrote"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    missing = sorted(set(info["missing_keys"]) & {key for key, _ in network.named_parameters()})
    if kind != "encoder" and missing:
        raise ModelError(
            f"Expected {name!r} to hold a trained {type(network).__name__}, but these weights are missing: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        )
    if kind == "encoder" and network.config.is_encoder_decoder:
        network = network.get_encoder()
    return network.to(device).eval().requires_grad_(False), tokenizer


def _max_length(network: torch.nn.Module, tokenizer: Any) -> int | None:
    config: Any = network.config
    limits = [tokenizer.model_max_length]  # 1e30 where nobody said
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions > 0:
        for name, module in network.named_modules():
            padding = getattr(module, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None:
                positions -= padding + 1  # RoBERTa counts from there
        limits.append(positions)
    return int(min(limits)) if min(limits) < 1e9 else None
