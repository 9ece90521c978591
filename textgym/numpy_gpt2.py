"""The forward pass of a small GPT-2 in numpy, so that the bundled models score text without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.core import TextGymError, expected

Floats = npt.NDArray[np.float32]

_CHUNK = 640  # tokens, padding included, that go through the layers together: as many as a cache holds
_BUCKET = 8  # rows are padded to a multiple of this many tokens


class ModelError(TextGymError, ValueError):
    """A model that scores text could not be loaded, or is not of the kind that was asked for."""


class NumpyGPT2:
    """A GPT-2 for short texts on a CPU, float32; a language model, or a classifier with one label.

    It computes what ``GPT2LMHeadModel`` and ``GPT2ForSequenceClassification`` of transformers compute. The numbers of a
    row depend on that row alone, to the last bit, not on the rows that are scored with it: a row is padded to a length
    of its own, and every product of matrices is one call a row. So a reward made of them is the same in an environment
    by itself and in one of a batch.

    An instance is never changed after it was made, so that threads may share it.

    Attributes:
        vocab_size: Number of tokens ``V``.
        max_positions: Longest row.
        width: Length ``C`` of a hidden state.
    """

    def __init__(self, config: dict[str, Any], weights: dict[str, Floats]) -> None:
        """Makes a model of a configuration and weights by the names that transformers stores; see :meth:`load`.

        Raises:
            ModelError: The configuration asks for something else than such a GPT-2, or a weight is missing.
        """
        wanted = {
            "model_type": ("gpt2",),
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
        }
        config = {"activation_function": "gelu_new", "scale_attn_weights": True, **config}
        config.setdefault("scale_attn_by_inverse_layer_idx", False)
        for key, values in wanted.items():
            if config.get(key) not in values:
                raise ModelError(expected(key, config.get(key), f"one of {values}"))
        self._epsilon = np.float32(config.get("layer_norm_epsilon", 1e-5))
        self._heads = int(config["n_head"])
        weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
        try:
            self._tokens, self._positions = weights["wte.weight"], weights["wpe.weight"]
            self._layers = [
                [(weights[f"h.{i}.{part}.weight"], weights[f"h.{i}.{part}.bias"]) for part in _PARTS]
                for i in range(int(config["n_layer"]))
            ]
            self._norm = (weights["ln_f.weight"], weights["ln_f.bias"])
        except KeyError as error:
            raise ModelError(f"Expected the weights of a GPT-2, but {error.args[0]!r} is missing") from error
        self._head = weights.get("lm_head.weight", self._tokens)  # (V, C)
        self._score = weights.get("score.weight")  # (labels, C)
        self.vocab_size, self.width = self._tokens.shape
        self.max_positions = len(self._positions)

    @classmethod
    def load(cls, folder: str | Path) -> NumpyGPT2:
        """The model of a folder with ``config.json`` and ``model.safetensors``, as ``save_pretrained`` writes them.

        Raises:
            ModelError: A file is missing or cannot be read, or it is not such a model; the message names the folder.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return cls(config, read_safetensors(folder / "model.safetensors"))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"Could not load a GPT-2 from the folder {str(folder)!r}: {error}") from error

    def log_probs(self, rows: Sequence[Sequence[int]], starts: Sequence[int] | None = None) -> list[Floats]:
        """Log-probabilities of tokens, each given those before it.

        Args:
            rows: ``n`` rows of token ids, of any lengths up to ``max_positions``.
            starts: Where in each row to begin, 1 (default) or more: tokens before are read, but not scored.

        Returns:
            One array a row, of shape ``(max(0, length - start),)``, in nats.

        Raises:
            ValueError: A row is too long, or has an id outside the vocabulary; a start below 1.
        """
        first = [1] * len(rows) if starts is None else [int(start) for start in starts]
        if len(first) != len(rows) or min(first, default=1) < 1:
            raise ValueError(expected("starts", starts, f"None or {len(rows)} numbers of at least 1"))
        found: list[Floats] = [np.zeros(0, dtype=np.float32)] * len(rows)
        for i, hidden in self._hidden(rows, [i for i, row in enumerate(rows) if len(row) > first[i]]):
            ids = np.asarray(rows[i][first[i] :])
            logits = hidden[first[i] - 1 : -1] @ self._head.T  # (k, V)
            logits -= logits.max(axis=1, keepdims=True)
            chosen = logits[np.arange(len(ids)), ids]
            found[i] = chosen - np.log(np.exp(logits, out=logits).sum(axis=1))
        return found

    def hidden_states(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Final hidden state (after the last norm) of the last token of every row, shape ``(n, C)``.

        Raises:
            ValueError: A row is empty or too long, or has an id outside the vocabulary.
        """
        if not all(len(row) for row in rows):
            raise ValueError(expected("rows", rows, "rows of at least one token"))
        found = np.zeros((len(rows), self.width), dtype=np.float32)
        for i, hidden in self._hidden(rows, range(len(rows))):
            found[i] = hidden[-1]
        return found

    def scores(self, rows: Sequence[Sequence[int]]) -> Floats:
        """What a classifier with one label (a reward model) gives for every row, read at its last token, shape ``(n,)``.

        Raises:
            ValueError: See :meth:`hidden_states`.
            ModelError: The folder holds a language model, or a classifier with several labels.
        """
        if self._score is None or len(self._score) != 1:
            labels = "no `score.weight`" if self._score is None else f"{len(self._score)} labels"
            raise ModelError(f"Expected a GPT2ForSequenceClassification with one label, but it has {labels}")
        return np.asarray((self.hidden_states(rows) * self._score[0]).sum(axis=1))

    def _hidden(self, rows: Sequence[Sequence[int]], wanted: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """Pairs of a row's index and its hidden states, shape ``(length, C)``, for every index in ``wanted``."""
        buckets: dict[int, list[int]] = {}
        for i in wanted:
            buckets.setdefault(-(-len(rows[i]) // _BUCKET) * _BUCKET, []).append(i)
        for length, members in sorted(buckets.items()):
            count = max(1, _CHUNK // length)
            for k in range(0, len(members), count):
                chunk = members[k : k + count]
                ids = np.zeros((len(chunk), length), dtype=np.int64)
                for row, i in zip(ids, chunk, strict=True):
                    row[: len(rows[i])] = rows[i]
                longest = max(len(rows[i]) for i in chunk)
                if longest > self.max_positions:
                    raise ValueError(expected("rows", longest, f"rows of at most {self.max_positions} tokens"))
                if ids.min() < 0 or ids.max() >= self.vocab_size:
                    bad = ids[(ids < 0) | (ids >= self.vocab_size)][0]
                    raise ValueError(expected("rows", bad, f"token ids in [0, {self.vocab_size})"))
                for i, hidden in zip(chunk, self._forward(ids), strict=True):
                    yield i, hidden[: len(rows[i])]

    def _forward(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Hidden states of rows that are padded on the right, shape ``(B, T)`` to ``(B, T, C)``.

        No mask for the padding: what stands to the right of a token has no effect on it.
        """
        batch, length = ids.shape
        x = self._tokens[ids]  # [B, T, C]
        x += self._positions[np.minimum(np.arange(length), self.max_positions - 1)]
        future = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
        scale = np.float32(1 / math.sqrt(self.width // self._heads))
        for norm_1, attention_in, attention_out, norm_2, inner, outer in self._layers:
            qkv = _affine(self._normed(x, norm_1), attention_in).reshape(batch, length, 3, self._heads, -1)
            query, key, value = qkv.transpose(2, 0, 3, 1, 4)  # [B, H, T, D] each
            weights = query @ key.swapaxes(2, 3)  # [B, H, T, T]
            weights *= scale
            weights += future
            weights -= weights.max(axis=-1, keepdims=True)
            np.exp(weights, out=weights)
            weights /= weights.sum(axis=-1, keepdims=True)
            mixed = (weights @ value).transpose(0, 2, 1, 3).reshape(batch, length, -1)
            x += _affine(mixed, attention_out)
            x += _affine(_gelu(_affine(self._normed(x, norm_2), inner)), outer)
        return self._normed(x, self._norm)

    def _normed(self, x: Floats, norm: tuple[Floats, Floats]) -> Floats:
        centred: Floats = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("btc,btc->bt", centred, centred)[..., None] / np.float32(x.shape[-1])
        centred /= np.sqrt(variance + self._epsilon)
        centred *= norm[0]
        centred += norm[1]
        return centred


_PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def _affine(x: Floats, layer: tuple[Floats, Floats]) -> Floats:
    weight, bias = layer
    y: Floats = x @ weight  # one product a row of the batch, see `NumpyGPT2`
    y += bias
    return y


def _gelu(x: Floats) -> Floats:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415), as GPT-2 has it."""
    inner: Floats = x * x
    inner *= np.float32(0.044715)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(0.5)
    return inner


_READERS: dict[str, Callable[[bytes], Floats]] = {
    "F32": lambda raw: np.frombuffer(raw, dtype="<f4").astype(np.float32),
    "F16": lambda raw: np.frombuffer(raw, dtype="<f2").astype(np.float32),
    "BF16": lambda raw: (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32),
}


def read_safetensors(path: str | Path) -> dict[str, Floats]:
    """The floating-point tensors of a safetensors file by name, as float32; those of another type are left out.

    The format is eight bytes with the length of a JSON header, the header, and the raw numbers
    (https://github.com/huggingface/safetensors#format).

    Raises:
        OSError: The file cannot be read.
        ModelError: It is not of this format.
    """
    raw = Path(path).read_bytes()
    try:
        (size,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + size])
        body = memoryview(raw)[8 + size :]
        found = {}
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] in _READERS:
                begin, end = entry["data_offsets"]
                found[name] = _READERS[entry["dtype"]](bytes(body[begin:end])).reshape(entry["shape"])
        return found
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise ModelError(f"Could not read {str(path)!r} as a safetensors file: {error}") from error
