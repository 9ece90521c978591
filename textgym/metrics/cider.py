"""CIDEr and CIDEr-D."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from textgym.core import Completion, expected, number, whole_number
from textgym.metrics._texts import TOKENIZERS, Remembered, Tokenizer, ngram_counts, stem, tokenizer
from textgym.metrics.base import MeanMetric, Statistics

NGram = tuple[str, ...]


class CIDEr(MeanMetric):
    """Cosine similarity of TF-IDF vectors of n-grams, mean over references and orders, times 10: in [0, 10].

    Vedantam, Zitnick & Parikh 2015 (https://arxiv.org/abs/1411.5726), with the factor of 10 of the authors' code (papers
    print 100 times this number). An n-gram weighs ``log(documents / documents with it)``, where a document is all
    references of one prompt. Which documents they are is part of the metric, and of its signature:

    * ``corpus`` given (``df:corpus(n)``): these, always. Take this for rewards: a score depends on nothing but the
      completion.
    * else (``df:completions(n)``): the references of the completions that are scored together, each prompt once, as
      ``pycocoevalcap`` does. A score then depends on the others in the batch. If all have the same prompt there is
      nothing to tell common from rare n-grams by, and all weigh the same (``pycocoevalcap`` gives 0).

    Sentence scores, corpus score (their mean) and interval use the same document frequencies: the bootstrap resamples
    completions and leaves the weights as they are. With ``corpus``, the corpus score of one completion is its sentence
    score; without, it is another score, as there are fewer documents.

    ``d=True`` makes it CIDEr-D, which repeating words or padding does not raise: counts are clipped at the reference's, and
    a Gaussian penalises a difference in length. ``pycocoevalcap``'s "CIDEr" is this one.
    """

    name = "cider"
    range = (0.0, 10.0)
    needs_references: ClassVar[bool] = True

    def __init__(
        self,
        d: bool = False,
        corpus: Sequence[str | Sequence[str]] | None = None,
        n: int = 4,
        sigma: float = 6.0,
        use_stemmer: bool = False,
        tokenize: str | Tokenizer = "words",
    ) -> None:
        """Makes the metric.

        Args:
            d: Whether it is CIDEr-D.
            corpus: Documents that n-grams are looked up in: references (a text, or several) of at least two prompts.
            n: Longest n-grams that count; all orders weigh the same.
            sigma: Standard deviation, in words, of CIDEr-D's penalty.
            use_stemmer: Whether words are cut down to their stems (Porter's), as in the paper; the authors' code does not.
            tokenize: ``"words"``: of any script, without punctuation; ``"punctuation"``, ``"whitespace"``, or a function of
                a text that returns its words.

        Raises:
            ValueError: An argument out of range.
        """
        self.d, self.use_stemmer = bool(d), bool(use_stemmer)
        self.n = whole_number("n", n, 1)
        self.sigma = number("sigma", sigma, 0, math.inf, above=True, wanted="a number above 0")
        self._tokenizer_name, self._tokenize = tokenizer(tokenize, TOKENIZERS)
        self.name = "cider_d" if self.d else "cider"
        self._counts = Remembered(self._counted)
        self._frequencies: _Frequencies | None = None
        if corpus is not None:
            good = not isinstance(corpus, str) and isinstance(corpus, Sequence) and len(corpus) > 1
            documents = [(texts,) if isinstance(texts, str) else tuple(texts) for texts in corpus] if good else []
            if not good or not all(isinstance(text, str) for texts in documents for text in texts):
                raise ValueError(expected("corpus", corpus, "references (a text, or several) of at least two prompts"))
            self._frequencies = self._documents(documents)
        self._source = f"corpus({self._frequencies.documents})" if self._frequencies else "completions"

    def signature(self) -> str:
        """Name, document frequencies and options; the number of documents is that of the completions scored last."""
        sigma = f"|sigma:{self.sigma:g}" if self.d else ""
        stemmer = "yes" if self.use_stemmer else "no"
        return f"{self.name}|df:{self._source}|n:{self.n}{sigma}|stemmer:{stemmer}|tok:{self._tokenizer_name}|version:1"

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`MeanMetric.statistics`; documents are counted here, so that everything later uses the same."""
        self.check(completions)
        frequencies = self._frequencies
        if frequencies is None:
            distinct = {(completion.prompt, tuple(completion.references)) for completion in completions}
            frequencies = self._documents([references for _, references in distinct])
            self._source = f"completions({frequencies.documents})"
        scores = [self._score(completion, frequencies) for completion in completions]
        return np.stack([np.array(scores, dtype=np.float64), np.ones(len(scores))], axis=1)

    def each(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`MeanMetric.each`."""
        return self.sentence_scores(self.statistics(completions))

    def _score(self, completion: Completion, frequencies: _Frequencies) -> float:
        text = self._vector(self._counted(completion.text), frequencies)
        total = 0.0
        for reference in completion.references:
            total += self._similarity(text, self._vector(self._counts(reference), frequencies))
        return 10 * total / (self.n * len(completion.references))

    def _similarity(self, text: _Vector, reference: _Vector) -> float:
        """Sum of the cosines of all orders."""
        total = 0.0
        for a, b, a_norm, b_norm in zip(text.weights, reference.weights, text.norms, reference.norms, strict=True):
            shared = a.keys() & b.keys()
            if not shared or not a_norm or not b_norm:
                continue
            product = sum([(min(a[g], b[g]) if self.d else a[g]) * b[g] for g in shared])
            total += product / (a_norm * b_norm)
        if self.d:
            total *= math.exp(-((text.length - reference.length) ** 2) / (2 * self.sigma**2))
        return total

    def _vector(self, counted: tuple[int, list[Counter[NGram]]], frequencies: _Frequencies) -> _Vector:
        length, counts = counted
        idf, rarest = frequencies.idf, frequencies.rarest
        weights = [{gram: k * idf.get(gram, rarest) for gram, k in order.items()} for order in counts]
        norms = [math.sqrt(sum([w * w for w in order.values()])) for order in weights]
        return _Vector(weights, norms, length)

    def _documents(self, documents: Sequence[Sequence[str]]) -> _Frequencies:
        df: Counter[NGram] = Counter()
        for references in documents:
            df.update({gram for text in references for order in self._counts(text)[1] for gram in order})
        if len(documents) < 2:
            return _Frequencies(len(documents), {}, 1.0)
        log_n = math.log(len(documents))
        return _Frequencies(len(documents), {gram: log_n - math.log(k) for gram, k in df.items()}, log_n)

    def _counted(self, text: str) -> tuple[int, list[Counter[NGram]]]:
        tokens = self._tokenize(text)
        if self.use_stemmer:
            tokens = [stem(word) for word in tokens]
        return len(tokens), [ngram_counts(tokens, k + 1) for k in range(self.n)]


class _Frequencies(NamedTuple):
    documents: int
    idf: dict[NGram, float]
    rarest: float
    """Weight of an n-gram that no document has."""


class _Vector(NamedTuple):
    weights: list[dict[NGram, float]]
    """By order."""
    norms: list[float]
    length: int
    """Words."""
