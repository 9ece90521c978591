"""Semantic similarity by a sentence encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

from textgym.core import Completion, expected, whole_number
from textgym.metrics.base import MeanMetric
from textgym.rewards._transformers import load_model

_POOLINGS = ("mean", "cls")


class SemanticSimilarity(MeanMetric):
    """Cosine between the sentence embeddings of the text and of its nearest reference, in [-1, 1].

    The embedding of a text is the mean of its tokens' last hidden states, special tokens included (Reimers and Gurevych
    2019, https://arxiv.org/abs/1908.10084), as ``sentence-transformers`` computes it for its models of mean pooling. An
    empty text, or one with empty references only, scores 0.
    """

    name = "semantic_similarity"
    range = (-1.0, 1.0)
    heavy = True
    needs_references = True

    def __init__(
        self,
        model: str | os.PathLike[str],
        pooling: Literal["mean", "cls"] = "mean",
        batch_size: int = 64,
        device: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        """Loads the model, unless another metric or environment of this process has loaded it.

        Args:
            model: A folder or Hub id of an encoder of transformers, such as ``"sentence-transformers/all-MiniLM-L6-v2"``.
            pooling: ``"mean"`` of all tokens, or the first token alone (``"cls"``): what the encoder was trained with.
            batch_size: Texts in a batch.
            device: Of torch; ``None``: the GPU if there is one.
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``None``: bfloat16 on a GPU.

        Raises:
            ImportError: torch or transformers is not installed.
            ModelError: The model cannot be loaded.
            ValueError: A bad argument.
        """
        if pooling not in _POOLINGS:
            raise ValueError(expected("pooling", pooling, f"one of {_POOLINGS}"))
        self.pooling, self.model_name = pooling, str(model)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self._model = load_model("encoder", model, device, dtype)

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|model:{self.model_name}|pooling:{self.pooling}|version:1"

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        texts = [text.strip() for c in completions for text in (c.text, *c.references)]
        embedded = {}
        for text, (_, states) in self._model.hidden_states(texts, self.batch_size).items():
            pooled = states.mean(axis=0, dtype=np.float64) if self.pooling == "mean" else states[0].astype(np.float64)
            embedded[text] = pooled / max(float(np.linalg.norm(pooled)), 1e-12) if text else np.zeros_like(pooled)
        return [
            max(float(np.clip(embedded[c.text.strip()] @ embedded[other.strip()], -1.0, 1.0)) for other in c.references)
            for c in completions
        ]
