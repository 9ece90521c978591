"""Reward models and classifiers of transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from textgym.core import Completion, expected, whole_number
from textgym.rewards._transformers import load_model
from textgym.rewards.base import Reward, Scores

_INPUTS = ("prompt+completion", "completion", "pair", "chat")
_ACTIVATIONS = (None, "none", "sigmoid", "softmax", "expected")


class RewardModel(Reward):
    """What a sequence-classification or reward model of transformers gives for a completion.

    * A model with one label (a reward model): its raw output, unbounded, or the sigmoid of it.
    * A model with several labels: the probability of ``label``, in [0, 1].
    * A model whose labels are numbers (ratings): the expected rating, ``sum_k p_k * rating_k``, or the probability of one.

    In tasks of several turns, the completion that the model reads is everything after the prompt, the other speaker's turns
    included. A text that is longer than the model reads is cut from its left. Nobody's code is run: only architectures of
    transformers itself.

    Environments and rewards with the same model share one copy of it.
    """

    heavy = True

    def __init__(
        self,
        model: str | os.PathLike[str],
        template: str | None = None,
        label: str | int | None = None,
        activation: Literal["none", "sigmoid", "softmax", "expected"] | None = None,
        input: Literal["prompt+completion", "completion", "pair", "chat"] = "prompt+completion",
        batch_size: int = 32,
        device: str | None = None,
        dtype: str | None = None,
        name: str = "reward_model",
    ) -> None:
        """Loads the model.

        Args:
            model: A folder or Hub id.
            template: Text that the model reads, with ``{prompt}`` and ``{completion}``, in place of ``input``.
            label: Name or index of the label whose probability is the score; needed where there are several, unless all of
                them are numbers.
            activation: Of the outputs: ``"none"``, ``"sigmoid"``, ``"softmax"``, or ``"expected"`` (the mean of labels that
                are numbers, under the softmax). ``None``: none for one label; for several, the expected one if they are
                numbers and ``label`` is not given, else the sigmoid if the model's ``problem_type`` is
                ``multi_label_classification``, else the softmax.
            input: What the model reads: prompt and completion as one text, the completion alone, the two as a pair of
                sentences, or a turn of a user and the answer, put together by the tokenizer's chat template.
            batch_size: Completions in a batch.
            device: Of torch; ``None``: the GPU if there is one.
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``None``: bfloat16 on a GPU, else float32.
            name: See :class:`Reward`.

        Raises:
            ImportError: torch or transformers is not installed.
            ModelError: The model cannot be loaded, or has no trained classifier on top.
            ValueError: A bad argument, such as a label that the model does not have; the message lists those that it has.
        """
        if template is not None and (not isinstance(template, str) or "{completion}" not in template):
            raise ValueError(expected("template", template, "None or a text with {completion} in it"))
        if input not in _INPUTS:
            raise ValueError(expected("input", input, f"one of {_INPUTS}"))
        if activation not in _ACTIVATIONS:
            raise ValueError(expected("activation", activation, f"one of {_ACTIVATIONS}"))
        self.template, self.input, self.name = template, input, str(name)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self._model = load_model("classifier", model, device, dtype)
        config = self._model.network.config
        labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        self.label: str | None
        self._values = _numbers(labels)
        if self._values is not None and label is activation is None:
            activation = "expected"
        if activation == "expected":
            if self._values is None or label is not None:
                wanted = (
                    "something else: 'expected' is for a model with several labels, all of them numbers, and no `label`"
                )
                raise ValueError(expected("activation", activation, wanted))
            self._column, self.label = 0, None
        else:
            self._column = _column(label, labels)
            self.label = labels[self._column]
        if activation is None:
            several = "sigmoid" if config.problem_type == "multi_label_classification" else "softmax"
            activation = "none" if len(labels) == 1 else several  # type: ignore[assignment]
        if activation == "softmax" and len(labels) == 1:
            raise ValueError(
                expected("activation", activation, "None, 'none' or 'sigmoid' for a model with a single label")
            )
        self.activation = activation
        self.range = (-np.inf, np.inf) if activation == "none" else (0.0, 1.0)
        if activation == "expected" and self._values is not None:
            self.range = (min(self._values), max(self._values))
        if input == "chat" and template is None and not self._model.tokenizer.chat_template:
            raise ValueError(
                expected("input", input, f"something else: the tokenizer of {str(model)!r} has no chat template")
            )

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`."""
        inputs = [(c.prompt, _written(c, self.input)) for c in completions]
        unique = list(dict.fromkeys(inputs))
        scores = np.zeros(len(unique), dtype=np.float32)
        for members, _, outputs in self._model.outputs(self._features(unique), self.batch_size):
            logits = outputs.logits.float()  # [B, labels]
            if self.activation == "expected":
                logits = logits.softmax(-1) @ logits.new_tensor(self._values)[:, None]  # [B, 1]
            elif self.activation == "softmax":
                logits = logits.softmax(-1)
            elif self.activation == "sigmoid":
                logits = logits.sigmoid()
            scores[members] = logits[:, self._column].cpu().numpy()
        known = dict(zip(unique, scores, strict=True))
        return np.array([known[pair] for pair in inputs], dtype=np.float32)

    def _features(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
        if self.template is not None:
            parts = re.split(r"(\{prompt\}|\{completion\})", self.template)
            return self._model.encode(
                ["".join({"{prompt}": p, "{completion}": t}.get(part, part) for part in parts) for p, t in pairs]
            )
        if self.input == "pair":
            return self._model.encode([p for p, _ in pairs], [t for _, t in pairs])
        if self.input == "chat":
            turns: list[Any] = [[{"role": "user", "content": p}, {"role": "assistant", "content": t}] for p, t in pairs]
            chats = [self._model.tokenizer.apply_chat_template(chat, tokenize=False) for chat in turns]
            return self._model.encode(chats, special=False)  # the template writes special tokens itself
        return self._model.encode([p + t if self.input == "prompt+completion" else t for p, t in pairs])


def _written(completion: Completion, input: str) -> str:
    return completion.text if input == "completion" else completion.transcript or completion.text


def _numbers(labels: list[str]) -> list[float] | None:
    """Several labels as finite numbers, if all of them are."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return None
    return numbers if len(numbers) > 1 and np.isfinite(numbers).all() else None


def _column(label: str | int | None, labels: list[str]) -> int:
    if label is None and len(labels) == 1:
        return 0
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
        return label
    if isinstance(label, str):
        exact = [i for i, name in enumerate(labels) if name == label]
        close = [i for i, name in enumerate(labels) if name.lower() == label.lower()]
        if exact or len(close) == 1:
            return (exact or close)[0]
    shown = ", ".join(map(repr, labels[:20])) + (", …" if len(labels) > 20 else "")
    raise ValueError(expected("label", label, f"one of the model's labels ({shown}) or its index"))
