"""Translation edit rate, sacreBLEU's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from textgym.core import Completion
from textgym.metrics.base import Statistics, SumMetric
from textgym.metrics.bleu import reference_count


class TER(SumMetric):
    """Edits (words inserted, deleted, replaced; phrases shifted) per word of reference: 0 is best, and there is no worst.

    Snover et al. 2006 (https://aclanthology.org/2006.amta-papers.25), computed by sacreBLEU; times 100 is its number.
    Lower is better, so a reward subtracts it: ``1 - TER()``, or ``Clipped(1 - TER(), 0, 1)`` to bound it. Each completion
    contributes the edits to the closest reference, and the mean length of the references. Sentence scores and corpus score
    are the same function of them; without a word in the reference that is 1, or 0 if there is none in the text either.

    The search for shifts is slow: for texts of 20 words 1 ms (a text much like its reference) to 10 ms (one that is not), for
    100 words up to a second, for 3,000 words minutes. Bound the length of what you score with it.
    """

    name = "ter"
    range = (0.0, math.inf)
    needs_references: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = False

    def __init__(
        self,
        normalized: bool = False,
        no_punct: bool = False,
        asian_support: bool = False,
        case_sensitive: bool = False,
    ) -> None:
        """Makes the metric; the arguments are those of Tercom's tokenizer, as in sacreBLEU.

        Args:
            normalized: Whether punctuation is split off.
            no_punct: Whether punctuation is left out.
            asian_support: Whether either also applies to Chinese and Japanese, and splits them into characters.
            case_sensitive: Whether case counts.
        """
        self._settings: dict[str, Any] = {
            "normalized": bool(normalized),
            "no_punct": bool(no_punct),
            "asian_support": bool(asian_support),
            "case_sensitive": bool(case_sensitive),
        }
        self._num_refs = -1

    def signature(self) -> str:
        """The signature that sacreBLEU prints, ``nrefs`` being that of the completions scored last."""
        self._sacrebleu.num_refs = self._num_refs
        return f"{self.name}|{self._sacrebleu.get_signature()}"

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: edits, and mean length of the references."""
        from sacrebleu.metrics.lib_ter import translation_edit_rate

        self.check(completions)
        rows = np.zeros((len(completions), 2))
        for row, completion in zip(rows, completions, strict=True):
            text = self._split(completion.text)
            pairs = [translation_edit_rate(text, self._split(reference)) for reference in completion.references]
            row[:] = min(edits for edits, _ in pairs), sum(length for _, length in pairs) / len(pairs)
        self._num_refs = reference_count(completions)
        return rows

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        edits, length = statistics[..., 0], statistics[..., 1]
        rate = edits / np.where(length > 0, length, 1.0)
        return np.asarray(np.where(length > 0, rate, np.where(edits > 0, 1.0, 0.0)))

    @cached_property
    def _sacrebleu(self) -> Any:
        from sacrebleu.metrics.ter import TER as SacreTER

        return SacreTER(**self._settings)

    def _split(self, text: str) -> list[str]:
        return self._sacrebleu.tokenizer(text.rstrip()).split()  # type: ignore[no-any-return]
