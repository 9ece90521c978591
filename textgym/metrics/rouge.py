"""ROUGE, the numbers of the rouge-score package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar

from textgym.core import Completion, expected
from textgym.metrics._texts import (
    TOKENIZERS,
    Remembered,
    Tokenizer,
    bit_masks,
    lcs_length,
    lcs_rows,
    ngram_counts,
    overlap,
    stem,
    tokenizer,
)
from textgym.metrics.base import MeanMetric

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class ROUGE(MeanMetric):
    """F1 of what a text shares with a reference, in [0, 1]: words, pairs of words, or the longest common subsequence.

    Lin 2004 (https://aclanthology.org/W04-1013), the numbers of the ``rouge-score`` package. ``rougeLsum`` takes one
    sentence of the reference at a time; sentences are lines, so put a newline between them. Of several references the one
    with the highest F1 counts (the package's ``score_multi``). The corpus score is the mean of the sentence scores.

    The package's tokenizer knows ASCII letters and digits only, and gives a Chinese text, or one of emoji, 0:
    ``tokenize="words"`` knows the words of any script, with each Chinese or Japanese character and each emoji as a word.
    """

    range = (0.0, 1.0)
    needs_references: ClassVar[bool] = True

    def __init__(
        self, kind: str = "rougeL", use_stemmer: bool = False, tokenize: str | Tokenizer = "rouge_score"
    ) -> None:
        """Makes the metric.

        Args:
            kind: ``"rouge1"``, ``"rouge2"``, ``"rougeL"`` or ``"rougeLsum"``.
            use_stemmer: Whether words of more than three letters are cut down to their stem (Porter's).
            tokenize: ``"rouge_score"``, the package's own; ``"words"``, see above; ``"punctuation"``, which adds punctuation
                marks; ``"whitespace"``; or a function of a text that returns its words.

        Raises:
            ValueError: An unknown kind or tokenizer.
        """
        if kind not in KINDS:
            raise ValueError(expected("kind", kind, f"one of {KINDS}"))
        self.name = self.kind = kind
        self.use_stemmer = bool(use_stemmer)
        self._tokenizer_name, self._tokenize = tokenizer(tokenize, {**TOKENIZERS, "rouge_score": _package_tokenize})
        self._reference = Remembered(self._analysed)

    def signature(self) -> str:
        """``name|refs:best|stemmer:...|tok:...|version:`` that of the package."""
        stemmer = "yes" if self.use_stemmer else "no"
        return f"{self.name}|refs:best|stemmer:{stemmer}|tok:{self._tokenizer_name}|version:{version('rouge-score')}"

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [self._best(completion) for completion in completions]

    def _best(self, completion: Completion) -> float:
        references = [self._reference(text) for text in completion.references]
        if self.kind == "rougeLsum":
            return max(_summary_f1(self._sentences(completion.text), *reference) for reference in references)
        tokens = self._tokens(completion.text)
        if self.kind == "rougeL":
            return max(_f1(lcs_length(masks, n, tokens), len(tokens), n) for masks, n in references)
        order = int(self.kind[-1])
        counts, total = ngram_counts(tokens, order), max(0, len(tokens) - order + 1)
        return max(_f1(overlap(counts, others), total, n) for others, n in references)

    def _analysed(self, text: str) -> tuple[Any, int]:
        """What is compared with of a reference, and how much of that there is."""
        if self.kind == "rougeLsum":
            sentences = self._sentences(text)
            return sentences, sum(map(len, sentences))
        tokens = self._tokens(text)
        if self.kind == "rougeL":
            return bit_masks(tokens), len(tokens)
        order = int(self.kind[-1])
        return ngram_counts(tokens, order), max(0, len(tokens) - order + 1)

    def _sentences(self, text: str) -> list[Sequence[str]]:
        return [self._tokens(line) for line in text.split("\n") if line]

    def _tokens(self, text: str) -> Sequence[str]:
        tokens = self._tokenize(text)
        return [stem(word) if len(word) > 3 else word for word in tokens] if self.use_stemmer else tokens


def _package_tokenize(text: str) -> Sequence[str]:
    from rouge_score.tokenize import tokenize

    return tokenize(text, None)  # type: ignore[no-any-return]


def _f1(matches: int, hypothesis: int, reference: int) -> float:
    return 2 * matches / (hypothesis + reference) if matches else 0.0


def _summary_f1(text: Sequence[Sequence[str]], reference: Sequence[Sequence[str]], n: int) -> float:
    """Union LCS of each sentence of the reference with all of the text; a word of the text is counted once (Lin, 3.2)."""
    masked = [(bit_masks(sentence), sentence) for sentence in text]
    union: Counter[str] = Counter()
    for sentence in reference:
        found: set[int] = set()
        for masks, other in masked:
            found |= _lcs_indices(sentence, other, masks)
        union.update(sentence[i] for i in found)
    words = Counter(word for sentence in text for word in sentence)
    return _f1(overlap(union, words), words.total(), n)


def _lcs_indices(reference: Sequence[str], text: Sequence[str], masks: dict[str, int]) -> set[int]:
    """Positions in ``reference`` of a longest common subsequence: of several, the one that rouge-score reads off."""
    rows = lcs_rows(masks, len(text), reference)

    def length(i: int, j: int) -> int:
        return j - (rows[i] & ((1 << j) - 1)).bit_count()

    found = set()
    i, j = len(reference), len(text)
    while i and j:
        if reference[i - 1] == text[j - 1]:
            i, j = i - 1, j - 1
            found.add(i)
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return found


def rouge1() -> ROUGE:
    """ROUGE-1, words."""
    return ROUGE("rouge1")


def rouge2() -> ROUGE:
    """ROUGE-2, pairs of words."""
    return ROUGE("rouge2")


def rougeL() -> ROUGE:
    """ROUGE-L, the longest common subsequence."""
    return ROUGE("rougeL")


def rougeLsum() -> ROUGE:
    """ROUGE-Lsum, the longest common subsequence sentence by sentence."""
    return ROUGE("rougeLsum")
