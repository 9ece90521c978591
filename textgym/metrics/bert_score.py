"""BERTScore: texts compared by the contextual embeddings of their tokens."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, expected, whole_number
from textgym.metrics.base import MeanMetric
from textgym.rewards._transformers import load_model

Embedded = tuple[list[int], npt.NDArray[np.float32]]
"""Token ids of a text, and the embedding of each of length 1, shape ``(length, C)``."""

_KINDS = ("f1", "precision", "recall")
_LAYERS = {  # which agree best with people, as bert-score 0.3.13 has them
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "deberta-base-mnli": 9,
    "deberta-large-mnli": 18,
    "deberta-xlarge-mnli": 40,
}


class BERTScore(MeanMetric):
    """BERTScore of the text with its references, in [-1, 1] (in practice above 0); of several references, the best counts.

    Every token is matched with the token of the other text whose contextual embedding is nearest by cosine. Recall is the
    mean similarity of the reference's tokens, precision that of the text's, F1 their harmonic mean (Zhang et al. 2020,
    https://arxiv.org/abs/1904.09675). ``[CLS]`` and ``[SEP]`` may be matched with, but do not count themselves. A text without
    tokens, or with such a reference only, scores 0. Neither rescaled with a baseline nor, unless ``idf`` is given, weighted.
    It is the number of the package ``bert-score`` for the same model and layer.
    """

    name = "bert_score"
    range = (-1.0, 1.0)
    heavy = True
    needs_references = True

    def __init__(
        self,
        model: str | os.PathLike[str],
        layer: int | None = None,
        kind: Literal["f1", "precision", "recall"] = "f1",
        idf: Sequence[str] | None = None,
        batch_size: int = 64,
        device: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        """Loads the model, unless another metric or environment of this process has loaded it.

        Args:
            model: A folder or Hub id of an encoder of transformers, such as ``"roberta-large"``, the usual one for English.
            layer: After which layer embeddings are read, 0 being the word embeddings; ``None``: the one that agrees best
                with people, for models where bert-score knows it, else the last.
            kind: Which of the three numbers.
            idf: Texts (usually all references) from which each token's weight is learnt: ``log((n + 1) / (texts that have
                it + 1))``. ``None``: all tokens count alike.
            batch_size: Texts in a batch.
            device: Of torch; ``None``: the GPU if there is one.
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``None``: bfloat16 on a GPU.

        Raises:
            ImportError: torch or transformers is not installed.
            ModelError: The model cannot be loaded.
            ValueError: A bad argument.
        """
        if kind not in _KINDS:
            raise ValueError(expected("kind", kind, f"one of {_KINDS}"))
        if isinstance(idf, str):
            raise ValueError(expected("idf", idf, "None or a sequence of texts, not a single one"))
        self.kind, self.model_name = kind, str(model)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self._model = load_model("encoder", model, device, dtype)
        config = self._model.network.config.get_text_config()
        most = int(config.num_hidden_layers)
        if layer is None:
            layer = min(most, _LAYERS.get(Path(model).name, most))
        if whole_number("layer", layer, 0) > most:
            raise ValueError(expected("layer", layer, f"None or a whole number from 0 to {most}"))
        self.layer = layer
        tokenizer = self._model.tokenizer
        self._unweighted = {tokenizer.cls_token_id, tokenizer.sep_token_id} - {None}
        # These tell the first word of a text from others. It is read as any other, which is what bert-score asks for too
        # (by an option that transformers 5 ignores).
        self._prefix = " " if type(tokenizer).__name__.startswith(("Roberta", "GPT2")) else ""
        self._idf: Mapping[int, float] | None = None
        if idf is not None:
            rows = self._model.encode([self._clean(text) for text in idf])
            counts = Counter(i for row in rows for i in set(row["input_ids"]))
            self._idf = {i: math.log((len(rows) + 1) / (count + 1)) for i, count in counts.items()}
            self._unseen = math.log(len(rows) + 1)

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        weights = "none" if self._idf is None else "given"
        return f"{self.name}|kind:{self.kind}|model:{self.model_name}|layer:{self.layer}|idf:{weights}|version:1"

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        texts = [self._clean(text) for c in completions for text in (c.text, *c.references)]
        embedded = {
            text: (ids, states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12))
            for text, (ids, states) in self._model.hidden_states(texts, self.batch_size, self.layer).items()
        }
        return [
            max(self._compared(embedded[self._clean(c.text)], embedded[self._clean(other)]) for other in c.references)
            for c in completions
        ]

    def _clean(self, text: str) -> str:
        text = text.strip()
        return self._prefix + text if text else ""

    def _compared(self, text: Embedded, reference: Embedded) -> float:
        weights, others = self._weights(text[0]), self._weights(reference[0])
        if not weights.sum() or not others.sum():
            return 0.0
        similar = np.minimum(text[1] @ reference[1].T, 1.0)
        precision = float((similar.max(axis=1) * weights).sum() / weights.sum())
        recall = float((similar.max(axis=0) * others).sum() / others.sum())
        if self.kind != "f1":
            return precision if self.kind == "precision" else recall
        total = precision + recall
        # Of embeddings that point in opposite directions, a harmonic mean can be anything; those of trained models do not.
        return max(-1.0, min(1.0, 2 * precision * recall / total)) if total else 0.0

    def _weights(self, ids: Sequence[int]) -> npt.NDArray[np.float64]:
        if self._idf is not None:
            return np.array([self._idf.get(i, self._unseen) for i in ids])
        return np.array([0.0 if i in self._unweighted else 1.0 for i in ids])
