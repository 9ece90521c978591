"""METEOR, nltk's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar

from textgym.core import Completion, expected, number
from textgym.metrics._texts import TOKENIZERS, Remembered, Tokenizer, stem, tokenizer
from textgym.metrics.base import MeanMetric


class METEOR(MeanMetric):
    """Harmonic mean of word precision and recall (which weighs 9 times as much), less if matches are scattered; in [0, 1].

    Lavie & Agarwal 2007 (https://aclanthology.org/W07-0734), computed by nltk's ``meteor_score``: words match if they are
    equal, then if their stems (Porter's) are, then, in the mode ``wordnet``, if WordNet has them as synonyms. nltk does not
    come with WordNet. Without it the mode is ``exact+stem``, whose scores are a little lower: never compare scores of
    different modes; :meth:`signature` tells which it was. Of several references the one with the highest score counts; the
    corpus score is the mean of the sentence scores.

    A text equal to its reference scores ``1 - gamma / words^beta``, a little less than 1.
    """

    name = "meteor"
    range = (0.0, 1.0)
    needs_references: ClassVar[bool] = True

    def __init__(
        self,
        synonyms: bool | None = None,
        tokenize: str | Tokenizer = "punctuation",
        alpha: float = 0.9,
        beta: float = 3.0,
        gamma: float = 0.5,
    ) -> None:
        """Makes the metric.

        Args:
            synonyms: Whether WordNet's synonyms match; None: if it is installed (``python -m nltk.downloader wordnet``).
            tokenize: ``"punctuation"``: words of any script and punctuation marks; ``"words"``, ``"whitespace"``; or a
                function of a text that returns its words, such as ``nltk.word_tokenize``.
            alpha: Weight of recall against precision, 0 to 1.
            beta: Exponent of the penalty.
            gamma: Largest penalty, 0 to 1.

        Raises:
            ImportError: nltk is missing.
            ValueError: An argument out of range, or ``synonyms`` is true and there is no WordNet.
        """
        if synonyms is not None and not isinstance(synonyms, bool):
            raise ValueError(expected("synonyms", synonyms, "True, False or None"))
        self.alpha = number("alpha", alpha, 0, 1)
        self.beta = number("beta", beta, 0, float("inf"))
        self.gamma = number("gamma", gamma, 0, 1)
        self._tokenizer_name, self._tokenize = tokenizer(tokenize, TOKENIZERS)
        if find_spec("nltk") is None:
            raise ImportError("METEOR needs nltk: pip install 'textgym[metrics]'")
        if synonyms and _wordnet() is None:
            wanted = "False or None, as nltk has no WordNet here (python -m nltk.downloader wordnet)"
            raise ValueError(expected("synonyms", synonyms, wanted))
        self._synonyms = synonyms
        self._reference = Remembered(self._tokens)

    @cached_property
    def synonyms(self) -> bool:
        """Whether WordNet's synonyms match."""
        return _wordnet() is not None if self._synonyms is None else self._synonyms

    def signature(self) -> str:
        """``meteor|match:exact+stem`` or ``exact+stem+wordnet``, the options, and nltk's version."""
        mode = "exact+stem+wordnet" if self.synonyms else "exact+stem"
        return (
            f"{self.name}|match:{mode}|refs:best|tok:{self._tokenizer_name}|alpha:{self.alpha:g}|beta:{self.beta:g}"
            f"|gamma:{self.gamma:g}|version:{version('nltk')}"
        )

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        from nltk.translate.meteor_score import meteor_score

        wordnet = _wordnet() if self.synonyms else _NoSynonyms
        return [
            meteor_score(
                [self._reference(text) for text in completion.references],
                self._tokens(completion.text),
                stemmer=_Stemmer,
                wordnet=wordnet,
                alpha=self.alpha,
                beta=self.beta,
                gamma=self.gamma,
            )
            for completion in completions
        ]

    def _tokens(self, text: str) -> list[str]:
        return list(self._tokenize(text))


class _Stemmer:
    """nltk's Porter stemmer, which takes most of the time otherwise, with a memory."""

    stem = staticmethod(stem)


class _NoSynonyms:
    """Stands in for WordNet: no word has a synonym."""

    @staticmethod
    def synsets(word: str) -> list[Any]:
        return []


def _wordnet() -> Any | None:
    """The WordNet of nltk, or None where its data are not installed."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet
