"""How probable a language model finds what was written."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, expected, whole_number
from textgym.metrics.base import Statistics, SumMetric
from textgym.numpy_gpt2 import NumpyGPT2
from textgym.tokenization import ASSETS, load_tokenizer

_LARGEST = 88.0  # e to this power is a float32; e to the next is not


class LanguageModel(Protocol):
    """What gives log-probabilities of tokens."""

    vocab_size: int
    max_length: int
    bos: int | None
    """What stands for the beginning of a text, if anything does."""
    always_bos: bool
    """Whether every row begins with it; otherwise only those of an empty prompt."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens."""

    def log_probs(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[npt.NDArray[np.float32]]:
        """See :meth:`textgym.numpy_gpt2.NumpyGPT2.log_probs`; rows of at most ``max_length`` tokens."""


class _LanguageModelMetric(SumMetric):
    """What the metrics of this module share: the model, and the log-probabilities of a text's own tokens."""

    heavy = True
    label = ""

    def __init__(
        self,
        model: str | os.PathLike[str] = "bundled",
        conditional: bool = True,
        max_length: int = 1024,
        batch_size: int = 32,
        device: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        """Loads the model, unless another metric or environment of this process has loaded it.

        Args:
            model: ``"bundled"`` (computed in numpy, without torch); a folder or Hub id of a causal model of transformers.
            conditional: Whether the model reads the prompt; else the text stands by itself.
            max_length: Most tokens that the model reads at once, at least 2; its own limit, if that is lower.
            batch_size: Texts in a batch.
            device: Of torch; ``None``: the GPU if there is one.
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``None``: bfloat16 on a GPU.

        Raises:
            ImportError: torch or transformers is not installed, and the model is not the bundled one.
            ModelError: The model cannot be loaded, or is no causal one.
            ValueError: A bad argument.
        """
        self.model_name = str(model)
        if not isinstance(conditional, bool):
            raise ValueError(expected("conditional", conditional, "True or False"))
        self.conditional, self.name = conditional, self.label
        self.max_length = whole_number("max_length", max_length, 2)
        batch_size = whole_number("batch_size", batch_size, 1)
        self._model: LanguageModel
        self._model = bundled() if model == "bundled" else _Transformer(model, batch_size, device, dtype)

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        given = "prompt" if self.conditional else "nothing"
        return f"{self.name}|model:{self.model_name}|given:{given}|context:{self._context}|version:1"

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """Sum of the log-probabilities (nats) and number of the tokens of each text, shape ``(n, 2)``."""
        rows, starts = generated_tokens(self._model, completions, self.conditional)
        found = log_probs_in_windows(self._model, rows, starts, self._context)
        return np.array([[x.sum(dtype=np.float64), len(x)] for x in found]).reshape(-1, 2)

    @property
    def _context(self) -> int:
        return min(self.max_length, self._model.max_length)

    def _mean(self, statistics: Statistics) -> Statistics:
        """Mean log-probability per token, where there is none that of a guess among all tokens."""
        total, count = statistics[..., 0], statistics[..., 1]
        guess = -np.log(self._model.vocab_size)
        return np.where(count > 0, total / np.maximum(count, 1), guess)


class LMScore(_LanguageModelMetric):
    """Mean log-probability per token (nats, 0 at most) of the text under a causal language model: higher, more probable.

    Only the tokens of the *generated* text count, each given the prompt and what was written before it; end tokens do not. The
    text is encoded anew with the model's own tokenizer, together with the prompt, and begins at the first token in which
    that differs from the prompt by itself. Of a set, all log-probabilities are summed and divided by the number of all
    tokens. A text without a token, about which the model says nothing, scores as one guessed among all ``V`` tokens:
    ``-log(V)``.

    A text that is longer than the model reads is cut from the left of the prompt; one that is still longer is scored in
    windows, in which every token sees at least the half of a window that stands before it.

    As a reward it is easily gamed: language models find repetition probable. Combine it with
    :class:`textgym.rewards.Repetition`.
    """

    label = "lm_score"
    range = (-np.inf, 0.0)

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        return self._mean(statistics)


class Perplexity(_LanguageModelMetric):
    """Perplexity of the texts under a causal language model: ``exp(-log-probabilities / tokens)``, 1 at least; lower is better.

    Pooled over a set, as usual: all log-probabilities are summed before they are divided by the number of all tokens. What
    counts, and how long texts are read, is said at :class:`LMScore`. A text without a token has that of a guess, ``V``. It
    stays below ``e**88``, so that it is a finite float32.
    """

    label = "perplexity"
    range = (1.0, np.inf)
    higher_is_better = False

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        return np.asarray(np.exp(np.minimum(-self._mean(statistics), _LARGEST)))


def generated_tokens(
    model: LanguageModel, completions: Sequence[Completion], conditional: bool = True
) -> tuple[list[list[int]], list[int]]:
    """Rows of token ids of prompt and text, and where in each the generated text begins.

    That is at the first token in which prompt and text together differ from the prompt by itself: where a token spans the
    border, it counts as generated.
    """
    prompts = [c.prompt if conditional else "" for c in completions]
    unique = list(dict.fromkeys(prompts))  # a group of completions shares its prompt
    alone = dict(zip(unique, model.encode(unique), strict=True))
    whole = model.encode([prompt + c.text for prompt, c in zip(prompts, completions, strict=True)])
    rows, starts = [], []
    for prompt, ids, completion in zip(prompts, whole, completions, strict=True):
        before = alone[prompt]
        same = next(
            (k for k, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids))
        )
        start = same if completion.text else len(ids)
        if model.bos is not None and (model.always_bos or not start):
            ids, start = [model.bos, *ids], start + 1
        rows.append(ids)
        starts.append(max(1, start))  # nothing gives the probability of a first token
    return rows, starts


def log_probs_in_windows(
    model: LanguageModel, rows: Sequence[list[int]], starts: Sequence[int], most: int
) -> list[npt.NDArray[np.float32]]:
    """Log-probabilities of the tokens of each row from its start on, read ``most`` tokens at a time; see :func:`windows`."""
    pieces: list[list[int]] = []
    firsts: list[int] = []
    counts: list[int] = []
    for row, start in zip(rows, starts, strict=True):
        cuts = windows(len(row), start, most)
        counts.append(len(cuts))
        pieces += [row[begin:end] for begin, end, _ in cuts]
        firsts += [first - begin for begin, _, first in cuts]
    found = iter(model.log_probs(pieces, firsts))
    nothing = np.zeros(0, dtype=np.float32)
    return [np.concatenate([nothing, *(next(found) for _ in range(count))]) for count in counts]


def windows(length: int, start: int, most: int) -> list[tuple[int, int, int]]:
    """How a row of ``length`` tokens is read ``most`` at a time: triples of begin, end and first token to score.

    Every token from ``start`` is scored once. It sees at least ``most // 2`` tokens, or all that there are.
    """
    found = []
    while start < length:
        end = min(length, max(most, start + most - most // 2))
        found.append((max(0, end - most), end, start))
        start = end
    return found


class _Bundled:
    """The bundled model in numpy."""

    def __init__(self) -> None:
        self.tokenizer, self.network = load_tokenizer("bundled"), NumpyGPT2.load(ASSETS)
        self.vocab_size, self.max_length = self.network.vocab_size, self.network.max_positions
        self.bos: int | None = self.tokenizer.eos_token_id  # documents stood between end tokens when it was trained
        self.always_bos = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.encode_batch(texts)

    def log_probs(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[npt.NDArray[np.float32]]:
        return self.network.log_probs(rows, starts)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Bundled:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return bundled, ()


@functools.cache
def bundled() -> _Bundled:
    """The bundled language model, loaded once a process."""
    return _Bundled()


class _Transformer:
    """A causal model of transformers."""

    def __init__(self, model: str | os.PathLike[str], batch_size: int, device: str | None, dtype: str | None) -> None:
        from textgym.rewards._transformers import load_model

        self.model, self.batch_size = load_model("causal", model, device, dtype), batch_size
        self.vocab_size, self.max_length = self.model.vocab_size, self.model.max_length or 2**62
        tokenizer = self.model.tokenizer
        self.bos: int | None = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.always_bos: bool = self.bos is not None and tokenizer("a")["input_ids"][:1] == [self.bos]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [row["input_ids"] for row in self.model.encode(texts, special=False, cut=False)]

    def log_probs(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[npt.NDArray[np.float32]]:
        return self.model.log_probs(rows, starts, self.batch_size)
