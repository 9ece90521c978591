"""The overlap metrics against the libraries whose numbers they give, against loops, and on strange texts."""

import copy
import importlib.util
import math
import pickle
import subprocess
import sys
import time
from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
import sacrebleu
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

import textgym  # noqa: F401
from textgym.core import Completion
from textgym.metrics import BLEU, CHRF, METEOR, PARENT, ROUGE, TER, CIDEr, MetricError
from textgym.metrics import _texts as texts
from textgym.metrics import meteor as meteor_module
from textgym.metrics.intervals import resampled
from textgym.rewards import REWARDS, as_reward

VOCABULARY = (
    "the film was good bad, and a story of running runs ran houses house 3.5 10% it's Don't 电影 很好 🎬 é & .".split()
)
NAMES = ["bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "rougeLsum", "meteor", "cider", "parent"]
SACREBLEU = [
    (BLEU(), sacrebleu.BLEU(), sacrebleu.BLEU(effective_order=True)),
    *[
        (BLEU(**kwargs), sacrebleu.BLEU(**kwargs), sacrebleu.BLEU(**{**kwargs, "effective_order": True}))
        for kwargs in (
            {"smooth_method": "floor", "tokenize": "intl"},
            {"smooth_method": "add-k", "smooth_value": 0.5, "lowercase": True},
            {"smooth_method": "none", "tokenize": "zh"},
            {"effective_order": True, "tokenize": "char", "max_ngram_order": 6},
        )
    ],
    (CHRF(), sacrebleu.CHRF(), sacrebleu.CHRF()),
    (CHRF(word_order=2), sacrebleu.CHRF(word_order=2), sacrebleu.CHRF(word_order=2)),
    *[
        (CHRF(**kwargs), sacrebleu.CHRF(**kwargs), sacrebleu.CHRF(**kwargs))
        for kwargs in (
            {"char_order": 3, "beta": 1, "lowercase": True, "whitespace": True},
            {"word_order": 1, "beta": 3},
        )
    ],
    (TER(), sacrebleu.TER(), sacrebleu.TER()),
    *[
        (TER(**kwargs), sacrebleu.TER(**kwargs), sacrebleu.TER(**kwargs))
        for kwargs in ({"normalized": True, "asian_support": True}, {"no_punct": True, "case_sensitive": True})
    ],
]
SACREBLEU_IDS = [f"{metric.name}-{i}" for i, (metric, _, _) in enumerate(SACREBLEU)]


def some_text(rng, least=0, most=14):
    words = [VOCABULARY[k] for k in rng.integers(len(VOCABULARY), size=rng.integers(least, most))]
    for k in range(4, len(words), 7):
        words[k] += "\n"
    return " ".join(words)


def noisy(rng, text):
    words = [word for word in text.split(" ") if rng.random() < 0.85]
    words = [word if rng.random() < 0.8 else VOCABULARY[rng.integers(len(VOCABULARY))] for word in words]
    return " ".join(words)


def some_completions(n, seed=0, references=(1, 4)):
    """Texts from unrelated to equal to a reference; now and then an empty one, on either side; references vary in number."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        refs = tuple(some_text(rng, least=i % 9 and 1) for _ in range(rng.integers(*references)))
        text = [some_text(rng), noisy(rng, refs[0]), noisy(rng, refs[-1]), refs[0]][i % 4]
        table = [["name", noisy(rng, refs[0]) or "x"], *([["a b", some_text(rng, 1, 4)]] * int(rng.integers(3)))]
        made.append(Completion(f"prompt {i}", text, refs, {"table": table}))
    return made


def streams(completions):
    """sacreBLEU's form of references: the k-th of every text, None where there are fewer."""
    most = max(len(c.references) for c in completions)
    return [[c.references[k] if k < len(c.references) else None for c in completions] for k in range(most)]


def sentence_scores(metric, completions):
    return metric.sentence_scores(metric.statistics(completions))


def one(metric, text, *references, prompt="p", **meta):
    return float(sentence_scores(metric, [Completion(prompt, text, references, meta)])[0])


# ---------------------------------------------------------------------------------------------------- BLEU, chrF, TER


@pytest.mark.parametrize(("ours", "corpus", "sentence"), SACREBLEU, ids=SACREBLEU_IDS)
def test_sentence_scores_are_those_of_sacrebleu(ours, corpus, sentence):
    completions = some_completions(240)
    theirs = [sentence.sentence_score(c.text, c.references).score / 100 for c in completions]
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(sentence_scores(ours, completions), theirs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours(completions), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("ours", "corpus", "sentence"), SACREBLEU, ids=SACREBLEU_IDS)
def test_corpus_score_is_that_of_sacrebleu(ours, corpus, sentence):
    for seed, (n, references) in enumerate([(200, (1, 4)), (200, (1, 2)), (3, (2, 3)), (1, (1, 2))]):
        completions = some_completions(n, seed, references)
        theirs = corpus.corpus_score([c.text for c in completions], streams(completions)).score / 100
        assert ours.corpus_score(completions) == pytest.approx(theirs, abs=1e-9)
        assert ours.signature() == {
            "bleu": f"bleu|{corpus.get_signature()}",
            "ter": f"ter|{corpus.get_signature()}",
        }.get(ours.name, f"{ours.name}|beta:{getattr(ours, 'beta', 0)}|{corpus.get_signature()}")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(BLEU(), sacrebleu.BLEU()), (CHRF(2), sacrebleu.CHRF(word_order=2)), (TER(), sacrebleu.TER())],
    ids=["bleu", "chrf++", "ter"],
)
def test_interval_is_that_of_sacrebleu_scores_of_resampled_texts(ours, theirs):
    completions = some_completions(25)
    scores = []
    for row in next(iter(resampled(25, 60, 3))):
        sample = [completions[i] for i in row]
        scores.append(theirs.corpus_score([c.text for c in sample], streams(sample)).score / 100)
    score, low, high = ours.interval(completions, confidence=0.9, n_resamples=60, seed=3)
    assert score == ours.corpus_score(completions)
    assert (low, high) == pytest.approx(np.quantile(scores, [0.05, 0.95]), abs=1e-9)
    assert low < score < high


def test_all_tokenizers_of_sacrebleu_are_known():
    from textgym.metrics import bleu

    assert set(bleu.TOKENIZERS) == set(sacrebleu.BLEU.TOKENIZERS)


def test_signatures_name_the_number_of_references():
    metric = BLEU()
    assert "nrefs:var" in metric.signature()
    metric.corpus_score(some_completions(5, references=(2, 3)))
    assert metric.signature().startswith("bleu|nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_a_short_text_has_a_sentence_bleu_but_no_corpus_bleu():
    completions = [Completion("p", "good film", ("good film",))]
    assert sentence_scores(BLEU(), completions)[0] == pytest.approx(1.0)
    assert BLEU().corpus_score(completions) == 0.0
    assert BLEU(effective_order=True).corpus_score(completions) == pytest.approx(1.0)


def test_ter_is_an_error_rate():
    assert not TER.higher_is_better
    assert one(TER(), "b a x y z w v u", "a b") == 3.5  # shift, and six words too many, of two
    assert (1 - TER())([Completion("p", "a b", ("a b",)), Completion("p", "a b c", ("a b",))]).tolist() == [1.0, 0.5]


# --------------------------------------------------------------------------------------------------------------- ROUGE


@pytest.mark.parametrize("use_stemmer", [False, True])
@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_that_of_rouge_score(kind, use_stemmer):
    completions = some_completions(300)
    scorer = RougeScorer([kind], use_stemmer=use_stemmer)
    theirs = [scorer.score_multi(c.references, c.text)[kind].fmeasure for c in completions]
    metric = ROUGE(kind, use_stemmer)
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(sentence_scores(metric, completions), theirs, rtol=0, atol=1e-9)
    assert metric.corpus_score(completions) == pytest.approx(np.mean(theirs), abs=1e-9)


def test_rouge_lsum_of_summaries_of_many_lines():
    rng = np.random.default_rng(1)
    letters = list("abcdef")
    scorer = RougeScorer(["rougeLsum", "rougeL"])
    differ = 0
    for _ in range(200):
        text, reference = (
            "\n".join(" ".join(rng.choice(letters, rng.integers(0, 9))) for _ in range(rng.integers(1, 5)))
            for _ in range(2)
        )
        theirs = scorer.score(reference, text)
        assert one(ROUGE("rougeLsum"), text, reference) == pytest.approx(theirs["rougeLsum"].fmeasure, abs=1e-9)
        differ += theirs["rougeLsum"].fmeasure != theirs["rougeL"].fmeasure
    assert differ > 50


def test_the_stemmer_changes_rouge():
    assert one(ROUGE("rouge1"), "running houses", "run house") == 0.0
    assert one(ROUGE("rouge1", use_stemmer=True), "running houses", "runs house") == 1.0
    assert one(ROUGE("rouge1", use_stemmer=True), "its", "it") == 0.0  # words of up to three letters stay as they are
    assert "stemmer:yes" in ROUGE(use_stemmer=True).signature() and "stemmer:no" in ROUGE().signature()


@pytest.mark.parametrize(("text", "share"), [("这部电影很好", 4 / 6), ("🎬🍿👍", 2 / 3), ("фильм был хороший", 2 / 3)])
def test_rouge_of_other_scripts(text, share):
    reference = {"这": "那部电影不好", "🎬": "🎬🍿👎", "ф": "Фильм был плохой"}[text[0]]
    assert one(ROUGE("rouge1"), text, text) == 0.0  # rouge-score's tokenizer has ASCII only
    assert one(ROUGE("rouge1", tokenize="words"), text, text) == 1.0
    assert one(ROUGE("rouge1", tokenize="words"), text, reference) == pytest.approx(share)
    assert one(ROUGE("rougeL", tokenize="words"), text, reference) == pytest.approx(share)
    assert "tok:words" in ROUGE(tokenize="words").signature()


def test_words():
    assert texts.words("It's 3.5, Naïve-ly_x 电影A 👍🏽!") == [
        "it",
        "s",
        "3",
        "5",
        "naïve",
        "ly",
        "x",
        *"电影",
        "a",
        *"👍🏽",
    ]
    assert texts.words_and_punctuation("Don't_stop，好。") == ["don", "'", "t", "_", "stop", "，", "好", "。"]
    assert texts.lower_split(" A,b  C\n") == ["a,b", "c"]


def test_bit_parallel_lcs_equals_the_table():
    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = (list(map(str, rng.integers(4, size=rng.integers(0, 90)))) for _ in range(2))
        table = np.zeros((len(b) + 1, len(a) + 1), dtype=int)
        for i in range(1, len(b) + 1):
            for j in range(1, len(a) + 1):
                table[i, j] = table[i - 1, j - 1] + 1 if b[i - 1] == a[j - 1] else max(table[i - 1, j], table[i, j - 1])
        masks = texts.bit_masks(a)
        assert texts.lcs_length(masks, len(a), b) == table[-1, -1]
        rows = texts.lcs_rows(masks, len(a), b)
        read = [[j - (row & ((1 << j) - 1)).bit_count() for j in range(len(a) + 1)] for row in rows]
        np.testing.assert_array_equal(read, table)


# -------------------------------------------------------------------------------------------------------------- METEOR


class FakeLemma:
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name


class FakeSynset:
    def __init__(self, names):
        self._names = names

    def lemmas(self):
        return [FakeLemma(name) for name in self._names]


class FakeWordNet:
    """Two synonym rings, one with a phrase, in WordNet's interface."""

    @staticmethod
    def synsets(word):
        return [FakeSynset(ring) for ring in (["good", "bad", "very_good"], ["film", "stori", "电"]) if word in ring]


class NoWordNet:
    @staticmethod
    def synsets(word):
        return []


@pytest.mark.parametrize("wordnet", [NoWordNet, FakeWordNet])
def test_meteor_is_that_of_nltk(wordnet, monkeypatch):
    monkeypatch.setattr(meteor_module, "_wordnet", lambda: FakeWordNet if wordnet is FakeWordNet else None)
    metric = METEOR()
    completions = some_completions(250)

    def theirs(c, **kwargs):
        references = [texts.words_and_punctuation(r) for r in c.references]
        return meteor_score(references, texts.words_and_punctuation(c.text), wordnet=wordnet, **kwargs)

    scores = [theirs(c) for c in completions]
    assert np.std(scores) > 0.1
    np.testing.assert_allclose(sentence_scores(metric, completions), scores, rtol=0, atol=1e-9)
    assert metric.corpus_score(completions) == pytest.approx(np.mean(scores), abs=1e-9)
    other = METEOR(alpha=0.5, beta=2, gamma=0.3)
    scores = [theirs(c, alpha=0.5, beta=2, gamma=0.3) for c in completions]
    np.testing.assert_allclose(sentence_scores(other, completions), scores, rtol=0, atol=1e-9)
    mode = "exact+stem+wordnet" if wordnet is FakeWordNet else "exact+stem"
    assert f"match:{mode}|" in metric.signature()
    assert one(METEOR(), "good", "bad") == (0.5 if wordnet is FakeWordNet else 0.0)
    assert one(METEOR(synonyms=False), "good", "bad") == 0.0
    assert "match:exact+stem|" in METEOR(synonyms=False).signature()


def test_meteor_by_hand():
    # 2 of 3 words match in 2 of 4, one chunk: F = 10 P R / (R + 9 P), penalty 1/2 (1/2)^3
    p, r = 2 / 3, 2 / 4
    assert one(METEOR(synonyms=False), "cats running far", "cat runs a lot") == pytest.approx(
        10 * p * r / (r + 9 * p) * (1 - 0.5 * (1 / 2) ** 3)
    )
    assert one(METEOR(synonyms=False), "a b c d", "a b c d") == 1 - 0.5 / 4**3  # the docstring's maximum


def test_meteor_tells_what_is_missing(monkeypatch):
    monkeypatch.setattr(meteor_module, "_wordnet", lambda: None)
    with pytest.raises(ValueError, match=r"Expected `synonyms` to be False or None.*nltk\.downloader wordnet"):
        METEOR(synonyms=True)
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ImportError, match=r"METEOR needs nltk: pip install 'textgym\[metrics\]'"):
        METEOR()


def test_wordnet_that_is_not_installed_is_none(tmp_path, monkeypatch):
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr("nltk.corpus.wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))
    assert meteor_module._wordnet() is None


# --------------------------------------------------------------------------------------------------------------- CIDEr


def cider_by_loops(completions, d, documents, n=4, sigma=6.0):
    """Equations 1 to 3 (CIDEr) and section 5 (CIDEr-D) of the paper, one n-gram at a time."""

    def grams(text, order):
        words = text.lower().split()
        return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]

    def weight(gram, text):
        df = sum(any(gram in grams(r, len(gram)) for r in references) for references in documents)
        return grams(text, len(gram)).count(gram) * math.log(len(documents) / max(1, df))

    scores = []
    for c in completions:
        total = 0.0
        for order in range(1, n + 1):
            for reference in c.references:
                a = {g: weight(g, c.text) for g in grams(c.text, order)}
                b = {g: weight(g, reference) for g in grams(reference, order)}
                norms = math.sqrt(sum(w * w for w in a.values())) * math.sqrt(sum(w * w for w in b.values()))
                if norms:
                    clipped = {g: min(w, b.get(g, 0.0)) if d else w for g, w in a.items()}
                    cosine = sum(w * b.get(g, 0.0) for g, w in clipped.items()) / norms
                    gap = len(c.text.split()) - len(reference.split())
                    total += cosine * (math.exp(-(gap**2) / (2 * sigma**2)) if d else 1) / len(c.references)
        scores.append(10 * total / n)
    return scores


CAPTIONS = [
    ("a man rides a horse", ("a man rides a brown horse", "a man is on a horse")),
    ("two dogs play in the snow", ("two dogs run in the snow",)),
    ("a cat sleeps", ("the cat sleeps on a red sofa", "a cat is asleep", "a small cat")),
    ("", ("a bird in a tree",)),
    ("a a a a", ("a man in a boat",)),
]


@pytest.mark.parametrize("d", [False, True])
def test_cider_equals_loops(d):
    completions = some_completions(30)
    documents = [c.references for c in completions]
    metric = CIDEr(d, tokenize="whitespace")
    theirs = cider_by_loops(completions, d, documents)
    assert np.std(theirs) > 1
    np.testing.assert_allclose(sentence_scores(metric, completions), theirs, rtol=0, atol=1e-9)
    assert metric.corpus_score(completions) == pytest.approx(np.mean(theirs), abs=1e-9)
    other = [c.references for c in some_completions(12, seed=5)]
    fixed = CIDEr(d, corpus=other, tokenize="whitespace", n=2, sigma=3)
    theirs = cider_by_loops(completions, d, other, n=2, sigma=3)
    np.testing.assert_allclose(sentence_scores(fixed, completions), theirs, rtol=0, atol=1e-9)


def test_cider_d_is_that_of_pycocoevalcap():
    completions = [Completion(text + "?", text, references) for text, references in CAPTIONS]
    scores = sentence_scores(CIDEr(d=True), completions)  # constants: pycocoevalcap 1.2, its class Cider
    frozen = [4.2538479953408395, 4.060011395878405, 1.7846055548967212, 0.0, 0.278944633354249]
    np.testing.assert_allclose(scores, frozen, rtol=0, atol=1e-9)
    assert CIDEr(d=True).corpus_score(completions) == pytest.approx(2.0754819158940427, abs=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("pycocoevalcap") is None, reason="pycocoevalcap is not installed")
def test_cider_d_is_that_of_the_installed_pycocoevalcap():
    from pycocoevalcap.cider.cider import Cider

    completions = some_completions(300)
    mean, theirs = Cider().compute_score(
        {c.prompt: [r.lower() for r in c.references] for c in completions},
        {c.prompt: [c.text.lower()] for c in completions},
    )
    metric = CIDEr(d=True, tokenize="whitespace")
    np.testing.assert_allclose(sentence_scores(metric, completions), theirs, rtol=0, atol=1e-9)
    assert metric.corpus_score(completions) == pytest.approx(mean, abs=1e-9)


def test_cider_says_which_documents_it_counted():
    completions = [Completion(text + "?", text, references) for text, references in CAPTIONS]
    metric = CIDEr()
    assert "df:completions|" in metric.signature()
    metric.corpus_score([*completions, *completions])  # a prompt counts once
    assert "df:completions(5)|" in metric.signature()
    assert metric.corpus_score([*completions, *completions]) == pytest.approx(metric.corpus_score(completions))
    fixed = CIDEr(corpus=[references for _, references in CAPTIONS])
    assert "df:corpus(5)|" in fixed.signature()
    assert fixed.corpus_score(completions) == pytest.approx(metric.corpus_score(completions))
    # with a corpus a score depends on the completion alone, else on the batch
    assert sentence_scores(fixed, completions[:2]) == pytest.approx(sentence_scores(fixed, completions)[:2])
    assert sentence_scores(metric, completions[:2]) != pytest.approx(sentence_scores(metric, completions)[:2])
    assert fixed.corpus_score(completions[:1]) == pytest.approx(sentence_scores(fixed, completions)[0])


def test_cider_of_a_single_prompt_weighs_all_ngrams_alike():
    # words of "a b" and "a c": cosine 1/2; no bigram, nothing longer
    assert one(CIDEr(), "a b", "a c") == pytest.approx(10 * 0.5 / 4)
    assert one(CIDEr(), "a b c d", "a b c d") == pytest.approx(10.0)


def test_cider_d_cannot_be_raised_by_repetition():
    corpus = [references for _, references in CAPTIONS]
    text, padded = "a brown horse", "a brown horse horse horse horse horse horse"
    reference = "a man rides a brown horse"
    assert one(CIDEr(True, corpus), padded, reference) < one(CIDEr(True, corpus), text, reference)


def test_cider_stems_if_asked():
    assert one(CIDEr(), "cats", "cat") == 0.0
    assert one(CIDEr(use_stemmer=True), "cats", "cat") == pytest.approx(10 / 4)


# -------------------------------------------------------------------------------------------------------------- PARENT


def parent_by_loops(c, smoothing=1e-5, weight=None):
    """Equations 2 to 9 of the paper, with the smoothing of the authors' code, one n-gram at a time."""

    def grams(words, order):
        return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]

    def subsequence(a, b):
        if not a or not b:
            return 0
        table = np.zeros((len(a) + 1, len(b) + 1))
        for i, x in enumerate(a, 1):
            for j, y in enumerate(b, 1):
                table[i, j] = table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
        return table[-1, -1]

    values = [value.lower().split() for _, value in c.meta["table"]]
    lexicon = {word for value in values for word in value}

    def entailed(gram):
        return sum(word in lexicon for word in gram) / len(gram)

    def told(words):
        return sum(subsequence(value, words) / len(value) for value in values) / len(values)

    text = c.text.lower().split()
    best = 0.0
    for reference in c.references:
        reference = reference.lower().split()
        precisions, recalls = [], []
        for order in range(1, 5):
            mine, theirs = Counter(grams(text, order)), Counter(grams(reference, order))
            top = 0.0
            for gram in mine:
                in_reference = min(1.0, theirs[gram] / mine[gram])
                top += mine[gram] * (in_reference + (1 - in_reference) * entailed(gram))
            precisions.append(top / sum(mine.values()) if mine else 0.0)
            bottom = sum(theirs[gram] * entailed(gram) for gram in theirs)
            top = sum(min(theirs[gram], mine[gram]) * entailed(gram) for gram in theirs)
            recalls.append(top / bottom if bottom else 1.0)
        precision = 0.0 if precisions[0] == 0 else np.prod([x or smoothing for x in precisions]) ** 0.25
        from_reference = smoothing if recalls[0] == 0 else np.prod([x or smoothing for x in recalls]) ** 0.25
        lam = 1 - told(reference) if weight is None else weight
        recall = from_reference ** (1 - lam) * (told(text) or smoothing) ** lam
        best = max(best, 2 * precision * recall / (precision + recall))
    return best


@pytest.mark.parametrize("weight", [None, 0.5, 0.0, 1.0])
def test_parent_equals_loops(weight):
    completions = some_completions(250)
    theirs = [parent_by_loops(c, weight=weight) for c in completions]
    metric = PARENT(weight, tokenize="whitespace")
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(sentence_scores(metric, completions), theirs, rtol=0, atol=1e-9)
    assert metric.corpus_score(completions) == pytest.approx(np.mean(theirs), abs=1e-9)


def test_parent_by_hand():
    table = [["name", "blue spice"], ["food", "french"]]
    metric = PARENT(n=2, lambda_weight=0.5)
    # Text "blue spice serves thai", reference "blue spice serves french". Words: 3 of 4 in the reference, thai entailed with 0.
    # Pairs: 2 of 3 in the reference, "serves thai" entailed with 0. Recall of words: blue, spice of blue, spice, french;
    # of pairs, weights 1, 1/2, 1/2: the first two. Of the table: (1 + 0) / 2.
    precision = math.sqrt(3 / 4 * 2 / 3)
    recall = math.sqrt(math.sqrt(2 / 3 * 1.5 / 2) * 1 / 2)
    score = 2 * precision * recall / (precision + recall)
    assert one(metric, "Blue Spice serves Thai", "Blue Spice serves French", table=table) == pytest.approx(score)
    # The reference tells the whole table, so that by the heuristic only its own recall counts.
    recall = math.sqrt(2 / 3 * 1.5 / 2)
    score = 2 * precision * recall / (precision + recall)
    assert one(PARENT(n=2), "Blue Spice serves Thai", "Blue Spice serves French", table=table) == pytest.approx(score)


def test_parent_of_the_authors_code():
    # Constants: `parent` of google-research/language, table_text_eval.py, with lambda_weight 0.5 and None, which adds 1e-8
    # to a denominator.
    table = [["name", "blue spice"], ["eat type", "coffee shop"], ["area", "city centre"]]
    references = ("blue spice is a coffee shop in the city centre .", "the coffee shop blue spice is in the centre .")
    text = "blue spice is a cheap coffee shop near the city ."
    for weight, constant in ((0.5, 0.5604718117855068), (None, 0.42751518208336897)):
        assert one(PARENT(weight), text, *references, table=table) == pytest.approx(constant, abs=1e-6)


def test_parent_rewards_what_only_the_table_has():
    table = [["name", "blue spice"], ["area", "riverside"]]
    reference = "blue spice is a place to eat"
    plain = one(PARENT(), "blue spice is a place to eat", reference, table=table)
    assert one(PARENT(), "blue spice is a place to eat riverside", reference, table=table) > plain
    assert one(PARENT(), "blue spice is a place to eat downtown", reference, table=table) < plain


def test_parent_of_triples_counts_head_and_tail():
    triples, pairs = [["Alan Bean", "was born in", "Wheeler"]], [["x", "Alan Bean Wheeler"]]
    text, reference = "alan bean is from wheeler", "alan bean was born in wheeler , texas"
    assert one(PARENT(), text, reference, table=triples) == one(PARENT(), text, reference, table=pairs)
    assert one(PARENT(key="triples"), text, reference, triples=triples) == one(PARENT(), text, reference, table=pairs)


@pytest.mark.parametrize(
    "meta", [{}, {"table": []}, {"table": "name[x]"}, {"table": [["name", " "]]}, {"table": [["name"]]}, {"table": 3}]
)
def test_parent_needs_a_table(meta):
    with pytest.raises(MetricError, match=r"'parent'.*meta\['table'\].*\[attribute, value\].*prompt 'the prompt'"):
        PARENT().corpus_score([Completion("the prompt", "a", ("a",), meta)])


# ------------------------------------------------------------------------------------------------------ all of them


def metrics_that_need_no_batch():
    corpus = [c.references for c in some_completions(10)]
    return [as_reward(name) for name in NAMES if name != "cider"] + [CIDEr(corpus=corpus), CIDEr(True, corpus)]


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    metric = as_reward(name)
    assert name in REWARDS and metric.name == name
    assert metric.signature().startswith(f"{name}|") and "|version:" in metric.signature()
    assert metric.range[0] == 0 and metric.needs_references and metric.higher_is_better == (name != "ter")


def test_interval_equals_a_loop_over_resampled_corpora():
    completions = some_completions(20)
    for metric in metrics_that_need_no_batch():
        scores = [metric.corpus_score([completions[i] for i in row]) for row in next(iter(resampled(20, 30, 7)))]
        score, low, high = metric.interval(completions, confidence=0.8, n_resamples=30, seed=7)
        assert score == pytest.approx(metric.corpus_score(completions))
        assert (low, high) == pytest.approx(np.quantile(scores, [0.1, 0.9])), metric.name
        assert low < high


def test_interval_of_cider_keeps_the_document_frequencies():
    completions = some_completions(20)
    fixed = CIDEr(corpus=[c.references for c in completions])
    assert CIDEr().interval(completions, n_resamples=50) == pytest.approx(fixed.interval(completions, n_resamples=50))


def test_sentence_score_is_the_corpus_score_of_one():
    for metric in metrics_that_need_no_batch():
        for c in some_completions(60):
            if metric.name == "bleu" and len(c.text.split()) < 4:
                continue  # see test_a_short_text_has_a_sentence_bleu_but_no_corpus_bleu
            assert one(metric, c.text, *c.references, **c.meta) == pytest.approx(metric.corpus_score([c])), metric.name


LONG = " ".join(f"word{i * i % 997}" for i in range(3000))[:20000]
STRANGE = {
    "empty": "",
    "space": " \n ",
    "chinese": "这部电影非常好看，我很喜欢。",
    "emoji": "👍🏽🎬❤️ 👨‍👩‍👧",
    "control": "\x00\u200b\ufeff a\tb\r\n",
    "surrogate": "a \ud800 b",
    "one long word": "x" * 20000,
    "chinese long": "你好" * 10000,
    "long": LONG,
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", NAMES)
def test_strange_texts(name, kind):
    metric, text, plain = as_reward(name), STRANGE[kind], "The film was good, and so was the story."
    meta = {"table": [["name", "The film"]]}
    started = time.perf_counter()
    scores = [
        one(metric, a, b, **meta)
        for a, b in [(text, plain), (plain, text), (text, text), (text, ""), ("", text)]
        if name != "ter" or kind != "long" or a != b  # TER's docstring says how slow it is
    ]
    assert time.perf_counter() - started < 5, "a text of 20,000 characters"
    low, high = metric.range
    assert all(math.isfinite(score) and low <= score <= high + 1e-9 for score in scores)


@pytest.mark.parametrize("name", NAMES)
def test_empty_texts_score_nothing(name):
    metric, meta = as_reward(name), {"table": [["name", "film"]]}
    worst = 1.0 if name == "ter" else 0.0
    assert one(metric, "", "a good film", **meta) == worst
    if name != "parent":  # there the table counts as well
        assert one(metric, "a good film", "", **meta) == worst
    assert metric.corpus_score([Completion("p", "", ("a good film",), meta)]) == worst


@pytest.mark.parametrize("text", [STRANGE["chinese"], "👍🎬🍿 😀😀😀"])
@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("rouge")])
def test_chinese_and_emoji_equal_to_the_reference_score_the_maximum(name, text):
    metric = as_reward(name)
    if name == "bleu":
        metric = BLEU(tokenize="char")  # 13a splits neither: a single token
    if name == "parent":
        metric = PARENT(tokenize="words")
    best = {"ter": 0.0, "cider": 10.0, "meteor": 1 - 0.5 / len(texts.words_and_punctuation(text)) ** 3}.get(name, 1.0)
    assert one(metric, text, text, table=[["x", text]]) == pytest.approx(best)
    other = one(metric, "ordinary words nothing else", text, table=[["x", text]])
    assert other >= 1 if name == "ter" else other == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_reference_is_named(name):
    with pytest.raises(
        MetricError, match=rf"Metric '{name}' compares with references, but the prompt 'Hello' has none"
    ):
        as_reward(name).corpus_score([Completion("Hello", "text", (), {"table": [["a", "b"]]})])
    with pytest.raises(MetricError, match=f"Metric '{name}'.*at least one completion"):
        as_reward(name).corpus_score([])


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_score_the_same(name):
    completions = some_completions(8)
    metric = as_reward(name)
    scores = metric(completions)
    assert scores.dtype == np.float32 and scores.shape == (8,) and metric([]).shape == (0,)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        np.testing.assert_array_equal(other(completions), scores)
        assert other.signature() == metric.signature()


def test_remembered_results_are_bounded():
    calls = []
    remembered = texts.Remembered(lambda text: calls.append(text) or len(text), characters=20)
    assert [remembered(text) for text in ("abc", "abc", "de", "abc")] == [3, 3, 2, 3]
    assert calls == ["abc", "de"]
    assert remembered("x" * 100) == 100 and remembered("abc") == 3
    assert calls == ["abc", "de", "x" * 100]  # too long to be kept, and pushed nothing out
    for i in range(1000):
        remembered(f"text {i}")
        assert sum(map(len, remembered._results)) <= 20


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: BLEU(tokenize="13b"), "tokenize"),
        (lambda: BLEU(tokenize=["13a"]), "tokenize"),
        (lambda: BLEU(smooth_method="max"), "smooth_method"),
        (lambda: BLEU(smooth_method="floor", smooth_value=-1), "smooth_value"),
        (lambda: BLEU(max_ngram_order=0), "max_ngram_order"),
        (lambda: CHRF(word_order=-1), "word_order"),
        (lambda: CHRF(char_order=0), "char_order"),
        (lambda: CHRF(beta=1.5), "beta"),
        (lambda: ROUGE("rouge3"), "kind"),
        (lambda: ROUGE(tokenize="13a"), "tokenize"),
        (lambda: METEOR(alpha=2), "alpha"),
        (lambda: METEOR(gamma=-1), "gamma"),
        (lambda: METEOR(synonyms="yes"), "synonyms"),
        (lambda: CIDEr(n=0), "n"),
        (lambda: CIDEr(sigma=0), "sigma"),
        (lambda: CIDEr(corpus="a text"), "corpus"),
        (lambda: CIDEr(corpus=[["one"]]), "corpus"),
        (lambda: CIDEr(corpus=["one", [2]]), "corpus"),
        (lambda: PARENT(lambda_weight=1.5), "lambda_weight"),
        (lambda: PARENT(smoothing=0), "smoothing"),
        (lambda: PARENT(key=3), "key"),
        (lambda: PARENT(tokenize=None), "tokenize"),
    ],
)
def test_bad_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        make()


def test_importing_the_metrics_imports_no_library():
    code = (
        "import sys, textgym.metrics as m\n"
        "m.BLEU(), m.CHRF(), m.TER(), m.ROUGE(), m.METEOR(), m.CIDEr(), m.PARENT()  # tasks make some on import\n"
        "bad = {'sacrebleu', 'rouge_score', 'nltk', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rougeL", "meteor", "cider", "ter"])
def test_a_metric_is_a_reward(name):
    prompts = [{"prompt": "The film was", "references": ["wonderful and moving", "a great film"]}]
    env = gym.make("TextGen-Sentiment-v0", prompts=prompts, reward=name, max_new_tokens=6)
    env.reset(seed=0)
    terminated = False
    while not terminated:
        action = env.action_space.sample(env.unwrapped.action_masks().astype(np.int8))
        _, reward, terminated, _, info = env.step(action)
    completion = Completion(info["prompt"], info["completion"], tuple(info["references"]))
    assert completion.references == ("wonderful and moving", "a great film")
    assert (
        reward
        == info[f"reward/{name}"]
        == pytest.approx(one(as_reward(name), *[completion.text, *completion.references]))
    )
    assert as_reward(name)([Completion("", "a great film", completion.references)])[0] != pytest.approx(reward)
