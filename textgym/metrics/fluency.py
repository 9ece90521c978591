"""How well a text reads by the bundled language model; needs neither torch nor a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, expected, number
from textgym.metrics.base import MeanMetric
from textgym.metrics.language_model import bundled, generated_tokens, log_probs_in_windows


class Fluency(MeanMetric):
    """How well the text goes on from the prompt by the bundled language model, in [0, 1].

    The mean log-probability per token (nats) of the text, given the prompt, on a straight line that is 0 at ``low`` and 1 at
    ``high``, cut off at both ends. The end token counts as one more where the policy ended the text itself
    (``finish_reason`` ``"stop"``), so that a sentence broken off scores less. Prompt and text are encoded together with the
    bundled tokenizer, whatever tokenizer the policy has. An empty text scores 0.

    The line ends at ``high`` because text that is probable enough is fluent: no reward for writing ever more of the most
    probable. With the default ends, reviews by the grammar of ``TextGen-Sentiment`` score 0.93 on average, the same with
    their words in random order 0.01, a copy of the prompt (which is fluent) 0.78.

    It says whether a text is like what the tasks' generators write, no more: the model knows no other English, so that a
    perfect sentence of other words scores 0. For other text take :class:`LMScore` with a model that knows it.
    """

    name = "fluency"
    range = (0.0, 1.0)

    def __init__(self, low: float = -6.0, high: float = -1.0) -> None:
        """Loads the bundled model, once a process.

        Args:
            low: Mean log-probability (nats) that scores 0, and all below it.
            high: Mean log-probability (nats) that scores 1, and all above it; 0 at most, more than ``low``.

        Raises:
            ValueError: Bad ends.
        """
        self.low = number("low", low, -100.0, 0.0)
        self.high = number("high", high, -100.0, 0.0)
        if not self.low < self.high:
            raise ValueError(expected("high", high, f"more than `low` ({low:g})"))
        self._model = bundled()

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|model:bundled|low:{self.low:g}|high:{self.high:g}|version:1"

    def each(self, completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """See :meth:`MeanMetric.each`."""
        rows, starts = generated_tokens(self._model, completions)
        end = self._model.tokenizer.eos_token_id
        rows = [[*row, end] if c.finish_reason == "stop" else row for row, c in zip(rows, completions, strict=True)]
        found = log_probs_in_windows(self._model, rows, starts, self._model.max_length)
        means = np.array([x.mean(dtype=np.float64) if len(x) else -np.inf for x in found])
        scores = np.clip((means - self.low) / (self.high - self.low), 0.0, 1.0)
        return np.where([bool(c.text.strip()) for c in completions], scores, 0.0)
