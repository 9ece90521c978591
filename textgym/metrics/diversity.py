"""How varied a set of texts is.

Each of these depends on how much text is counted, so compare sets of about the same size. A bootstrap sample, drawn with
replacement, holds copies and is therefore less varied than the set that it was drawn from; :class:`SetMetric` takes this
bias out of the intervals.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from textgym.core import Completion, expected, whole_number
from textgym.metrics._texts import TOKENIZERS, Tokenizer, ngram_counts, tokenizer
from textgym.metrics.base import Contributions, Metric, Statistics
from textgym.metrics.bleu import BLEU
from textgym.metrics.intervals import resampled

Integers = npt.NDArray[np.int64]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of different word n-grams among all word n-grams of ``texts``: ``distinct / total``, in [0, 1].

    Li et al. 2016, section 5.2 (https://arxiv.org/abs/1510.03055). Words are split at white space and lower-cased; an n-gram
    never spans two texts. The share falls as more text is counted, so compare sets of about the same number of words.

    Args:
        texts: The texts that are counted together.
        n: Words in an n-gram, at least 1.

    Returns:
        1 if no n-gram comes twice, near 0 if all texts are alike; 0 if no text has ``n`` words.

    Raises:
        ValueError: ``n`` is not a whole number of at least 1.
        TypeError: ``texts`` is a single text.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(expected("n", n, "a whole number of at least 1"))
    if isinstance(texts, str):
        raise TypeError(expected("texts", texts, "a sequence of texts, not a single one"))
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0


class SetMetric(Metric):
    """A metric of how varied the texts of a set are; the score of a sentence is that of a set of one.

    The interval is the percentile bootstrap's, moved so that the mean of the resampled scores lies at the score itself:
    a resample holds the same text several times, so that its own score is biased (of 500 different texts about 184 are
    missing from a resample, replaced by copies of others). The spread is the bootstrap's, for SelfBLEU rather too wide (each
    copy scores 1); the ends are kept within ``range``.
    """

    def __init__(self, tokenize: str | Tokenizer = "whitespace") -> None:
        """Args: tokenize: ``"whitespace"``, ``"words"`` or ``"punctuation"`` (all in lower case), or a function of a text.

        The latter two take each Chinese or Japanese character and each emoji as a word.

        Raises:
            ValueError: Another name, or something else.
        """
        self._tokenizer, self.tokenize = tokenizer(tokenize, TOKENIZERS)

    @abstractmethod
    def resampled_scores(self, statistics: Contributions, rows: Iterable[Integers]) -> Statistics:
        """``pooled([statistics[i] for i in row])`` for each row of indices, without the bias taken out; fast."""

    def pooled(self, statistics: Contributions) -> float:
        """See :meth:`Metric.pooled`."""
        return float(self.resampled_scores(statistics, [np.arange(len(statistics))])[0])

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|tok:{self._tokenizer}|case:lc|version:1"

    def _resampled_scores(self, statistics: Contributions, n_resamples: int, seed: int) -> Statistics:
        rows = chain.from_iterable(resampled(len(statistics), n_resamples, seed))
        scores = self.resampled_scores(statistics, rows)
        return np.asarray(np.clip(scores - scores.mean() + self.pooled(statistics), *self.range))


class _NgramSet(SetMetric):
    """A metric of how often each n-gram of a set occurs; contributions are the counts in each text."""

    def __init__(self, n: int, tokenize: str | Tokenizer) -> None:
        super().__init__(tokenize)
        self.n = whole_number("n", n, 1)

    def statistics(self, completions: Sequence[Completion]) -> list[Counter[tuple[str, ...]]]:
        """See :meth:`Metric.statistics`: the n-grams of each text, counted."""
        return [ngram_counts(self.tokenize(c.text), self.n) for c in completions]

    @abstractmethod
    def value(self, counts: Integers) -> float:
        """The score, given how often each of at least one n-gram occurs."""

    def resampled_scores(self, statistics: Contributions, rows: Iterable[Integers]) -> Statistics:
        """See :meth:`SetMetric.resampled_scores`."""
        text, gram, count = _coded(statistics)
        scores = []
        for row in rows:
            copies = np.bincount(row, minlength=len(statistics))
            counts = np.bincount(gram, weights=copies[text] * count).astype(np.int64)
            counts = counts[counts > 0]
            scores.append(self.value(counts) if counts.size else 0.0)
        return np.array(scores, dtype=np.float64)


class DistinctN(_NgramSet):
    """Share of different word n-grams among all word n-grams, in [0, 1]; of a set as :func:`distinct_n` counts it.

    Li et al. 2016, section 5.2 (https://arxiv.org/abs/1510.03055). 0 where no text has ``n`` words.
    """

    range = (0.0, 1.0)

    def __init__(self, n: int = 2, tokenize: str | Tokenizer = "whitespace") -> None:
        """Args: n: Words in an n-gram, at least 1. tokenize: See :class:`SetMetric`.

        Raises:
            ValueError: An argument out of range.
        """
        super().__init__(n, tokenize)
        self.name = f"distinct_{self.n}"

    def value(self, counts: Integers) -> float:
        """See :meth:`_NgramSet.value`."""
        return float(counts.size / counts.sum())


def distinct_1() -> DistinctN:
    """Distinct-1, by its name in :data:`textgym.rewards.REWARDS`."""
    return DistinctN(1)


def distinct_2() -> DistinctN:
    """Distinct-2, by its name in :data:`textgym.rewards.REWARDS`."""
    return DistinctN(2)


class Entropy(_NgramSet):
    """Entropy of the distribution of word n-grams in a set, in bits: ``-sum_g p(g) log2 p(g)``, at least 0.

    With ``p`` the n-gram's share among all (Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x). 0 where
    all n-grams are the same or there is none; at most the logarithm of their number, so it grows with the amount of text.
    """

    range = (0.0, float("inf"))

    def __init__(self, n: int = 1, tokenize: str | Tokenizer = "whitespace") -> None:
        """Args: n: Words in an n-gram, at least 1. tokenize: See :class:`SetMetric`.

        Raises:
            ValueError: An argument out of range.
        """
        super().__init__(n, tokenize)
        self.name = "entropy" if self.n == 1 else f"entropy_{self.n}"

    def value(self, counts: Integers) -> float:
        """See :meth:`_NgramSet.value`."""
        total = counts.sum()
        return max(0.0, float(np.log2(total) - (counts * np.log2(counts)).sum() / total))

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|n:{self.n}|tok:{self._tokenizer}|case:lc|version:1"


class MSTTR(SetMetric):
    """Mean segmental type-token ratio, in [0, 1]: different words over words, in segments of the same length, averaged.

    Johnson 1944 (Studies in language behavior: I. A program of research, Psychological Monographs 56(2)). The texts are
    read one after the other, so that segments span them and their order matters a little; words behind the last full
    segment are left out. Where there is no full segment it is the plain ratio of all words; 0 without a word. Unlike
    :class:`DistinctN` it hardly depends on the amount of text.
    """

    name = "msttr"
    range = (0.0, 1.0)

    def __init__(self, segment: int = 50, tokenize: str | Tokenizer = "whitespace") -> None:
        """Args: segment: Words in a segment, at least 1. tokenize: See :class:`SetMetric`.

        Raises:
            ValueError: An argument out of range.
        """
        super().__init__(tokenize)
        self.segment = whole_number("segment", segment, 1)

    def statistics(self, completions: Sequence[Completion]) -> list[list[str]]:
        """See :meth:`Metric.statistics`: the words of each text."""
        return [list(self.tokenize(c.text)) for c in completions]

    def resampled_scores(self, statistics: Contributions, rows: Iterable[Integers]) -> Statistics:
        """See :meth:`SetMetric.resampled_scores`."""
        codes: dict[str, int] = {}
        texts = [np.array([codes.setdefault(w, len(codes)) for w in words], dtype=np.int64) for words in statistics]
        scores = []
        for row in rows:
            words = np.concatenate([texts[i] for i in row])
            segments = len(words) // self.segment
            table = words[: segments * self.segment].reshape(segments, -1) if segments else words[np.newaxis]
            table = np.sort(table, axis=1)
            different = (table[:, 1:] != table[:, :-1]).sum() + len(table)
            scores.append(different / table.size if table.size else 0.0)
        return np.array(scores, dtype=np.float64)

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|segment:{self.segment}|tok:{self._tokenizer}|case:lc|version:1"


class SelfBLEU(SetMetric):
    """Mean BLEU of each text of a set with all others as its references, in [0, 1]: high where texts are alike.

    Zhu et al. 2018 (https://arxiv.org/abs/1802.01886). Each is sacreBLEU's sentence BLEU, smoothed as :class:`BLEU` does
    by default (the authors' code smooths otherwise, so that only numbers of the same code compare). A text alone has
    nothing to be compared with and scores 0: as a reward, which scores one text at a time, it is always 0. The cost grows
    with the number of words, not with the number of pairs.
    """

    name = "self_bleu"
    range = (0.0, 1.0)
    higher_is_better = False

    def __init__(self, n: int = 4, tokenize: str | Tokenizer = "whitespace") -> None:
        """Args: n: Longest n-grams that count, at least 1. tokenize: See :class:`SetMetric`.

        Raises:
            ValueError: An argument out of range.
        """
        super().__init__(tokenize)
        self.n = whole_number("n", n, 1)
        self._bleu = BLEU(max_ngram_order=self.n)

    def statistics(self, completions: Sequence[Completion]) -> list[list[Counter[tuple[str, ...]]]]:
        """See :meth:`Metric.statistics`: the n-grams of each text, counted, for each order."""
        split = [self.tokenize(c.text) for c in completions]
        return [[ngram_counts(words, k + 1) for k in range(self.n)] for words in split]

    def resampled_scores(self, statistics: Contributions, rows: Iterable[Integers]) -> Statistics:
        """See :meth:`SetMetric.resampled_scores`."""
        size = len(statistics)
        totals = np.array([[sum(counts.values()) for counts in text] for text in statistics], dtype=np.int64)
        by_length = np.argsort(totals[:, 0], kind="stable")
        orders = []
        for k in range(self.n):
            text, gram, count = _coded([counts[k] for counts in statistics])
            order = np.lexsort((-count, gram))  # of each n-gram the text first that has it most often
            order = order[(np.bincount(gram) > 1)[gram[order]]]  # n-grams of a single text match in none
            orders.append((text[order], gram[order], count[order]))
        scores = []
        for row in rows:
            copies = np.bincount(row, minlength=size)
            table = np.empty((size, 2 + 2 * self.n))  # as BLEU.score reads it
            table[:, 0], table[:, 2 + self.n :] = totals[:, 0], totals
            table[:, 1] = _closest(totals[:, 0], by_length[copies[by_length] > 0])
            for k, (text, gram, count) in enumerate(orders):
                here = copies[text] > 0
                table[:, 2 + k] = _matches(text[here], gram[here], count[here], size)
            twice = copies > 1  # one copy is a reference of the other
            table[twice, 1], table[twice, 2 : 2 + self.n] = totals[twice, 0], totals[twice]
            present = copies > 0
            scores.append(copies[present] @ self._bleu.sentence_scores(table[present]) / len(row))
        return np.array(scores, dtype=np.float64)

    def signature(self) -> str:
        """See :meth:`Metric.signature`."""
        return f"{self.name}|n:{self.n}|tok:{self._tokenizer}|case:lc|smooth:exp|version:1"


def _coded(counts: Contributions) -> tuple[Integers, Integers, Integers]:
    """Every n-gram of every text as three arrays: index of the text, a number for the n-gram, how often it occurs there."""
    codes: dict[tuple[str, ...], int] = {}
    text = np.repeat(np.arange(len(counts)), [len(c) for c in counts])
    gram = np.array([codes.setdefault(g, len(codes)) for c in counts for g in c], dtype=np.int64)
    count = np.array([times for c in counts for times in c.values()], dtype=np.int64)
    return text, gram, count


def _matches(text: Integers, gram: Integers, count: Integers, size: int) -> Statistics:
    """How many of each text's n-grams another one has, each counted at most as often as there; sorted as SelfBLEU does."""
    if not len(gram):
        return np.zeros(size)
    first = np.r_[True, gram[1:] != gram[:-1]]
    group = np.cumsum(first) - 1
    clip = count[first][group]  # the most often that any text has it ...
    second = np.r_[count[1:], 0]
    second[np.r_[first[1:], True]] = 0
    clip[first] = second[first]  # ... and for that text itself, the most often that any other has it
    return np.bincount(text, weights=np.minimum(count, clip), minlength=size).astype(np.float64)


def _closest(lengths: Integers, by_length: Integers) -> Integers:
    """For each text in ``by_length``, texts by rising length, the closest length of another, the shorter of two; else 0."""
    closest = np.zeros(len(lengths), dtype=np.int64)
    if len(by_length) > 1:
        rising = lengths[by_length]
        gaps = np.diff(rising)
        left, right = np.r_[gaps[:1] + rising[-1] + 1, gaps], np.r_[gaps, gaps[-1:] + rising[-1] + 1]
        closest[by_length] = np.where(left <= right, rising - left, rising + right)
    return closest
