"""Metrics and rewards that need a model, against transformers, bert-score and plain loops."""

import copy
import functools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from textgym.core import Completion
from textgym.metrics import BERTScore, Fluency, LMScore, MetricError, Perplexity, SemanticSimilarity
from textgym.metrics.language_model import windows
from textgym.numpy_gpt2 import ModelError
from textgym.rewards import RewardModel, as_reward
from textgym.rewards import _transformers as shared
from textgym.tasks.sentiment import SentimentTask
from textgym.tokenization import ASSETS

WORDS = "the a film was good bad very and cat dog sat on mat not . , ! ##s ##ly".split()
CHAR_TEXTS = ["", " ", "中文电影很好", "🎬👩‍🚀 great", "Größe", "a\nb\tc", "</s><s>", "\x00"]


def save_wordpiece(folder, length=64, **fields):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=length, **special, **fields).save_pretrained(folder)
    return len(vocabulary)


def save_bundled_tokenizer(folder, **changes):
    tokenizer = AutoTokenizer.from_pretrained(ASSETS)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    size = save_wordpiece(folder)
    BertModel(BertConfig(vocab_size=size, max_position_embeddings=64, initializer_range=0.3, **SMALL)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(1)
    size = save_wordpiece(folder)
    labels = {0: "negative", 1: "neutral", 2: "positive"}
    config = BertConfig(vocab_size=size, max_position_embeddings=64, initializer_range=0.3, id2label=labels, **SMALL)
    config.label2id = {name: i for i, name in labels.items()}
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(2)
    size = save_bundled_tokenizer(folder)
    config = GPT2Config(vocab_size=size, n_positions=48, n_embd=24, n_layer=2, n_head=2, initializer_range=0.2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model whose tokenizer begins every text with a token of its own."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(3)
    core = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|pad|>", eos_token="<|endoftext|>").save_pretrained(
        folder
    )
    config = LlamaConfig(vocab_size=core.get_vocab_size(), num_key_value_heads=2, initializer_range=0.2, **SMALL)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def sentence(rng, words=WORDS, most=12):
    return " ".join(rng.choice(words, rng.integers(1, most))).replace(" ##", "")


def reviews(count, seed=0):
    rng, task = np.random.default_rng(seed), SentimentTask()
    found = []
    for _ in range(count):
        words = task.document(rng).split(" ")[: int(rng.integers(6, 30))]
        cut = int(rng.integers(1, len(words)))
        found.append(Completion(" ".join(words[:cut]), " " + " ".join(words[cut:])))
    return found


# ---- language models -------------------------------------------------------------------------------------------------


@torch.no_grad()
def lm_by_hand(folder, prompt_ids, text_ids):
    """Sum of log-probabilities of the text's tokens, one forward pass, no batch."""
    network, _ = loaded(GPT2LMHeadModel if "gpt2" in folder.name else LlamaForCausalLM, folder)
    logits = network(torch.tensor([prompt_ids + text_ids])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt_ids) + k - 1, token].item() for k, token in enumerate(text_ids))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_lm_score_is_the_mean_log_probability_of_the_text(name, request):
    folder = request.getfixturevalue(name)
    tokenizer, metric = AutoTokenizer.from_pretrained(folder), LMScore(folder, batch_size=3)
    completions = reviews(7)
    begin = [0] if name == "llama" else []
    totals, counts = [], []
    for c in completions:
        prompt = begin + tokenizer(c.prompt, add_special_tokens=False)["input_ids"]
        text = tokenizer(c.text, add_special_tokens=False)["input_ids"]  # words do not merge over the space
        totals.append(lm_by_hand(folder, prompt, text))
        counts.append(len(text))
    np.testing.assert_allclose(metric(completions), np.divide(totals, counts), atol=1e-4)
    assert metric.corpus_score(completions) == pytest.approx(sum(totals) / sum(counts), abs=1e-4)
    perplexity = Perplexity(folder)
    assert perplexity.corpus_score(completions) == pytest.approx(np.exp(-sum(totals) / sum(counts)), rel=1e-4)
    np.testing.assert_allclose(perplexity(completions), np.exp(-np.divide(totals, counts)), rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_unconditional_scores_ignore_the_prompt(name, request):
    folder = request.getfixturevalue(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer(" The film was good", add_special_tokens=False)["input_ids"]
    want = lm_by_hand(folder, [tokenizer.bos_token_id], text) / len(text)
    metric = LMScore(folder, conditional=False)
    for prompt in ("", "Anything at all."):
        assert metric([Completion(prompt, " The film was good")])[0] == pytest.approx(want, abs=1e-4)
    assert LMScore(folder)([Completion("", " The film was good")])[0] == pytest.approx(want, abs=1e-4)
    assert LMScore(folder)([Completion("Anything", " The film was good")])[0] != pytest.approx(want, abs=1e-2)


def test_the_bundled_model_is_the_same_with_and_without_torch():
    completions = reviews(20)
    for metric in (LMScore, Perplexity):
        np.testing.assert_allclose(metric()(completions), metric(ASSETS)(completions), rtol=1e-4)
    assert LMScore().corpus_score(completions) == pytest.approx(-np.log(Perplexity().corpus_score(completions)))


def test_a_token_over_the_border_counts_as_generated():
    metric = LMScore()
    encode = metric._model.encode
    whole, alone = encode(["The film was good", "The fi"])
    assert alone != whole[: len(alone)]  # "fi|lm" is one token
    total, count = metric.statistics([Completion("The fi", "lm was good")])[0]
    assert count == len(whole) - 1
    assert total == pytest.approx(metric._model.log_probs([whole], [1])[0].sum(), abs=1e-4)


def test_windows_score_every_token_once_with_half_a_window_before_it():
    for length in range(1, 40):
        for start in range(1, length + 1):
            for most in (2, 3, 8, 9, 40):
                scored = []
                for begin, end, first in windows(length, start, most):
                    assert 0 <= begin < first < end <= length and end - begin <= most
                    assert first - begin >= min(first, most // 2)
                    scored += range(first, end)
                assert scored == list(range(start, length))


def test_long_texts_are_read_in_windows(gpt2):
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    metric = LMScore(gpt2)
    assert "context:48" in metric.signature()
    short = " The editing was splendid."
    prompt = " The film was good." * 30
    ids, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + short))
    assert whole[: len(ids)] == ids and len(ids) > 100
    text = whole[len(ids) :]
    want = lm_by_hand(gpt2, whole[-48 : len(ids)], text) / len(text)
    assert metric([Completion(prompt, short)])[0] == pytest.approx(want, abs=1e-4)
    total, count = metric.statistics([Completion("A film", " was good." * 100)])[0]
    assert count == len(tokenizer("A film" + " was good." * 100)["input_ids"]) - 2
    assert np.isfinite(total)


def test_texts_without_tokens_score_as_a_guess():
    score, perplexity = LMScore(), Perplexity()
    size = score._model.vocab_size
    assert score([Completion("A", "")])[0] == pytest.approx(-np.log(size))
    assert perplexity([Completion("A", "")])[0] == pytest.approx(size)
    both = [Completion("The film", " was good."), Completion("A", "")]
    assert score.corpus_score(both) == pytest.approx(score.corpus_score(both[:1]))  # nothing adds nothing
    for metric in (score, perplexity):
        assert np.isfinite(metric([Completion(p, t) for p in CHAR_TEXTS for t in CHAR_TEXTS])).all()
        assert metric([]).shape == (0,)
        with pytest.raises(MetricError):
            metric.corpus_score([])


def test_perplexity_stays_finite(monkeypatch):
    metric = Perplexity()
    assert np.isfinite(np.float32(metric.score(np.array([-1e6, 1.0]))))
    assert not metric.higher_is_better


def test_intervals_pool_the_tokens():
    completions = reviews(30)
    for metric in (LMScore(), Perplexity()):
        score, low, high = metric.interval(completions)
        assert low < score < high
        assert score == pytest.approx(metric.corpus_score(completions))


@pytest.mark.parametrize(
    "options",
    [{"model": ""}, {"conditional": 1}, {"max_length": 1}, {"batch_size": 0}, {"dtype": "int8"}, {"device": "nowhere"}],
)
def test_bad_arguments_of_language_models(gpt2, options):
    with pytest.raises(ValueError, match=f"Expected `{next(iter(options))}`"):
        LMScore(**{"model": gpt2, **options})


def test_models_that_are_none(tmp_path, bert, gpt2):
    for make in (LMScore, RewardModel, BERTScore, SemanticSimilarity):
        with pytest.raises(ModelError, match=r"nowhere.*local folder"):
            make(str(tmp_path / "nowhere"))
        with pytest.raises(ModelError, match="as a folder"):
            make(str(tmp_path))
    with pytest.raises(ModelError, match="these weights are missing: classifier"):
        RewardModel(bert, label=0)
    with pytest.raises(ModelError, match=r"these weights are missing: score\.weight"):
        RewardModel(gpt2, label=0)
    GPT2LMHeadModel.from_pretrained(gpt2).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)):  # no tokenizer
        LMScore(tmp_path)
    save_bundled_tokenizer(tmp_path)
    small = GPT2Config(vocab_size=300, n_positions=48, n_embd=24, n_layer=2, n_head=2)
    GPT2LMHeadModel(small).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="Expected a tokenizer of the model's 300 tokens"):
        LMScore(tmp_path)(reviews(3))


# ---- fluency ---------------------------------------------------------------------------------------------------------


def test_fluency_is_the_mean_log_probability_on_a_line():
    completions = reviews(20)
    means = LMScore()(completions)
    want = np.clip((means + 6) / 5, 0, 1)
    np.testing.assert_allclose(Fluency()(completions), want, atol=1e-6)
    np.testing.assert_allclose(Fluency(-4, -2)(completions), np.clip((means + 4) / 2, 0, 1), atol=1e-6)


def test_fluency_counts_the_end_token_if_the_policy_wrote_it():
    model = Fluency()._model
    end = model.tokenizer.eos_token_id
    (ids,) = model.encode(["The film was good"])
    (log_probs,) = model.log_probs([[*ids, end]], [3])
    for reason, want in (("stop", log_probs.mean()), ("length", log_probs[:-1].mean()), (None, log_probs[:-1].mean())):
        found = Fluency(-20, 0)([Completion("The film was", " good", finish_reason=reason)])[0]
        assert found == pytest.approx((want + 20) / 20, abs=1e-5)


def test_fluency_tells_language_from_noise():
    rng = np.random.default_rng(0)
    good, metric = reviews(60), Fluency()
    shuffled = [
        Completion(c.prompt, " " + " ".join(rng.permutation(c.text.split()))) for c in good if c.text.count(" ") > 4
    ]
    assert metric(good).mean() > 0.7
    assert metric(shuffled).mean() < 0.25
    assert metric([Completion("The film", t, finish_reason="stop") for t in ("", " ", "\n", " zx" * 20)]).max() == 0
    scores = metric([Completion(p, t, finish_reason="stop") for p in CHAR_TEXTS for t in CHAR_TEXTS])
    assert scores.min() >= 0 and scores.max() <= 1
    assert 0 <= metric([Completion("The film", " was good" * 600)])[0] <= 1


def test_fluency_does_not_depend_on_the_company():
    completions = reviews(50)
    np.testing.assert_array_equal(Fluency()(completions), np.concatenate([Fluency()([c]) for c in completions]))


@pytest.mark.parametrize("low,high", [(-1, -6), (-2, -2), (-6, 1), ("a", -1), (float("-inf"), -1)])
def test_fluency_refuses_bad_ends(low, high):
    with pytest.raises(ValueError, match=r"Expected `(low|high)`"):
        Fluency(low, high)


# ---- BERTScore and similarity ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return [(sentence(rng), sentence(rng)) for _ in range(200)]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta")
    torch.manual_seed(5)
    pieces = json.loads((ASSETS / "tokenizer.json").read_text())["model"]
    vocabulary = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *pieces["vocab"]])
    vocabulary = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=list(map(tuple, pieces["merges"])), model_max_length=40)
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=42, initializer_range=0.3, **SMALL)
    RobertaModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("layer", [1, 3])
def test_bert_score_is_that_of_the_package(name, layer, pairs, request, monkeypatch):
    bert_score = pytest.importorskip("bert_score")
    if name == "roberta":
        # The package reads the first word as others are read; transformers 5 ignores the option by which it does so.
        monkeypatch.setattr(
            "bert_score.utils.sent_encode",
            lambda tokenizer, text: tokenizer.encode(" " + text.strip(), max_length=40, truncation=True),
        )
    folder = request.getfixturevalue(name)
    texts, references = map(list, zip(*pairs, strict=True))
    # One pair a batch: in a larger one it counts similarities below 0 as 0 wherever a text is padded.
    want = bert_score.score(texts, references, model_type=str(folder), num_layers=layer, device="cpu", batch_size=1)
    completions = [Completion("", f" {text}\n", (reference,)) for text, reference in pairs]
    for kind, expected in zip(("precision", "recall", "f1"), want, strict=True):
        found = BERTScore(folder, layer, kind)(completions)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)
    assert want[2].std() > 0.02  # the numbers differ


def test_weighted_bert_score_is_that_of_the_package(bert, pairs):
    bert_score = pytest.importorskip("bert_score")
    texts, references = map(list, zip(*pairs, strict=True))
    references = references[:150] + ["the cat"] * 50  # so that words differ in how rare they are
    _, _, want = bert_score.score(
        texts, references, model_type=str(bert), num_layers=2, idf=True, device="cpu", batch_size=1
    )
    metric = BERTScore(bert, 2, idf=references)
    found = metric([Completion("", text, (reference,)) for text, reference in zip(texts, references, strict=True)])
    np.testing.assert_allclose(found, want.numpy(), atol=1e-4, rtol=0)
    assert "idf:given" in metric.signature()


def test_bert_score_takes_the_best_reference(bert):
    metric = BERTScore(bert)
    assert metric.layer == 3
    one, two = (metric([Completion("", "the cat sat", (r,))])[0] for r in ("a dog", "the cat sat on"))
    assert metric([Completion("", "the cat sat", ("a dog", "the cat sat on"))])[0] == max(one, two) > min(one, two)
    assert metric([Completion("", "the cat sat", ("the cat sat",))])[0] == pytest.approx(1, abs=1e-5)
    assert metric([Completion("", "", ("the cat",)), Completion("", "the cat", ("",))]).tolist() == [0, 0]


@torch.no_grad()
def test_similarity_is_the_cosine_of_mean_embeddings(bert, pairs):
    network, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)

    def embedding(text, pooling):
        states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return states.mean(0) if pooling == "mean" else states[0]

    completions = [Completion("", text, (reference, "the mat")) for text, reference in pairs[:40]]
    for pooling in ("mean", "cls"):
        want = [
            max(
                torch.cosine_similarity(embedding(c.text, pooling), embedding(r, pooling), 0).item()
                for r in c.references
            )
            for c in completions
        ]
        np.testing.assert_allclose(SemanticSimilarity(bert, pooling)(completions), want, atol=1e-5)


def test_the_room_of_roberta_is_less_than_its_positions(roberta):
    model = shared.load_model("encoder", roberta)
    model.tokenizer.model_max_length = 10**30  # nobody said
    assert shared._max_length(model.network, model.tokenizer) == 40
    assert SemanticSimilarity(roberta)([Completion("", "the cat " * 100, ("the cat",))])[0] <= 1


def test_similarity_of_like_and_empty_texts(bert):
    metric = SemanticSimilarity(bert)
    assert metric([Completion("", " the cat", ("the cat",))])[0] == pytest.approx(1)
    assert metric([Completion("", "", ("the cat",)), Completion("", "a", (" ",)), Completion("", "", ("",))]).max() == 0


def test_reference_metrics_on_hard_texts(bert):
    for metric in (BERTScore(bert), SemanticSimilarity(bert)):
        completions = [Completion("", t, (r,)) for t in [*CHAR_TEXTS, "the cat " * 3000] for r in CHAR_TEXTS]
        scores = metric(completions)
        assert np.isfinite(scores).all() and metric.range[0] <= scores.min() and scores.max() <= metric.range[1]
        with pytest.raises(MetricError, match="'lonely' has none"):
            metric([Completion("lonely", "the cat")])
        assert metric.heavy and metric.needs_references and metric([]).shape == (0,)


@pytest.mark.parametrize("options", [{"layer": 4}, {"layer": -1}, {"kind": "f2"}, {"idf": "text"}, {"batch_size": 0}])
def test_bad_arguments_of_bert_score(bert, options):
    with pytest.raises(ValueError, match=f"Expected `{next(iter(options))}`"):
        BERTScore(bert, **options)
    with pytest.raises(ValueError, match="Expected `pooling`"):
        SemanticSimilarity(bert, "max")


# ---- reward models ---------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def loaded(model, folder):
    return model.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def logits_by_hand(model, folder, *texts, **options):
    network, tokenizer = (
        model.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    return network(**tokenizer(*texts, return_tensors="pt", **options)).logits[0]


def test_a_classifier_gives_the_probability_of_the_label(classifier):
    rng = np.random.default_rng(0)
    completions = [Completion(sentence(rng), " " + sentence(rng)) for _ in range(40)]
    for label, column in (("positive", 2), ("Negative", 0), (1, 1)):
        reward = RewardModel(classifier, label=label, batch_size=7)
        assert reward.range == (0, 1) and reward.label == ["negative", "neutral", "positive"][column]
        want = [
            logits_by_hand(BertForSequenceClassification, classifier, c.prompt + c.text).softmax(-1)[column].item()
            for c in completions
        ]
        np.testing.assert_allclose(reward(completions), want, atol=1e-5)


def test_what_the_model_reads(classifier):
    c = Completion("the cat", " sat", transcript=" sat. very good")
    wanted = {
        "prompt+completion": ("the cat sat. very good",),
        "completion": (" sat",),
        "pair": ("the cat", " sat. very good"),
    }
    for name, texts in wanted.items():
        want = logits_by_hand(BertForSequenceClassification, classifier, *texts)
        raw = RewardModel(classifier, label="neutral", activation="none", input=name)
        assert raw([c])[0] == pytest.approx(want[1].item(), abs=1e-5)
        assert raw.range == (-np.inf, np.inf)
        gated = RewardModel(classifier, label="neutral", activation="sigmoid", input=name)
        assert gated([c])[0] == pytest.approx(want[1].sigmoid().item(), abs=1e-5)
    odd = Completion("the {completion} cat", " sat {prompt}")
    want = logits_by_hand(BertForSequenceClassification, classifier, "not the {completion} cat! a sat {prompt}")
    reward = RewardModel(classifier, template="not {prompt}! a{completion}", label=0, activation="none")
    assert reward([odd])[0] == pytest.approx(want[0].item(), abs=1e-5)


def test_chat_templates(tmp_path, classifier):
    BertForSequenceClassification.from_pretrained(classifier).save_pretrained(tmp_path)
    template = "[CLS]{% for turn in messages %} {{ turn['content'] }} [SEP]{% endfor %}"
    save_wordpiece(tmp_path, chat_template=template)
    reward = RewardModel(tmp_path, input="chat", label=0, activation="none")
    text = "[CLS] the cat [SEP] sat [SEP]"
    want = logits_by_hand(BertForSequenceClassification, tmp_path, text, add_special_tokens=False)
    assert reward([Completion("the cat", "sat")])[0] == pytest.approx(want[0].item(), abs=1e-5)
    assert np.isfinite(reward([Completion("the cat " * 200, "sat")])).all()
    with pytest.raises(ValueError, match="has no chat template"):
        RewardModel(classifier, input="chat", label=0)


@pytest.mark.parametrize("pad_token_id", [None, 0])
@pytest.mark.parametrize("model", [GPT2ForSequenceClassification, LlamaForSequenceClassification])
def test_reward_models_on_causal_ones_with_and_without_padding_token(tmp_path, model, pad_token_id):
    torch.manual_seed(0)
    size = (
        save_bundled_tokenizer(tmp_path, pad_token=None) if pad_token_id is None else save_bundled_tokenizer(tmp_path)
    )
    config = {"vocab_size": size, "num_labels": 1, "pad_token_id": pad_token_id, "initializer_range": 0.2}
    if model is GPT2ForSequenceClassification:
        made = model(GPT2Config(**config, n_positions=64, n_embd=24, n_layer=2, n_head=2))
    else:
        made = model(LlamaConfig(**config, num_key_value_heads=2, **SMALL))
    made.save_pretrained(tmp_path)
    reward = RewardModel(tmp_path)
    completions = reviews(12)
    want = [logits_by_hand(model, tmp_path, c.prompt + c.text).item() for c in completions]
    np.testing.assert_allclose(reward(completions), want, atol=1e-4)
    assert reward._model.network.config.pad_token_id == pad_token_id
    if pad_token_id is None:  # no token is left out, not the one that others pad with either
        odd = [Completion("The film was", " good<|pad|>"), *completions]
        want_odd = logits_by_hand(model, tmp_path, "The film was good<|pad|>").item()
        assert reward(odd)[0] == pytest.approx(want_odd, abs=1e-4)
        assert reward(odd[:1])[0] == pytest.approx(want_odd, abs=1e-4)
    gated = RewardModel(tmp_path, activation="sigmoid")
    np.testing.assert_allclose(gated(completions), 1 / (1 + np.exp(-np.array(want))), atol=1e-4)
    assert np.isfinite(reward([Completion("", t) for t in [*CHAR_TEXTS, "good " * 500]])).all()
    with pytest.raises(ValueError, match="Expected `activation`"):
        RewardModel(tmp_path, activation="softmax")


def test_several_labels_at_once(tmp_path, classifier):
    network = BertForSequenceClassification.from_pretrained(classifier)
    network.config.problem_type = "multi_label_classification"
    network.save_pretrained(tmp_path)
    save_wordpiece(tmp_path)
    want = logits_by_hand(BertForSequenceClassification, classifier, "the cat")[2].sigmoid().item()
    assert RewardModel(tmp_path, label=2)([Completion("the", " cat")])[0] == pytest.approx(want, abs=1e-5)


def test_long_texts_are_cut_from_the_left(classifier):
    reward = RewardModel(classifier, label=2)
    ending = "sat on the mat . " * 20
    one, two = reward([Completion("a good film " * 30, ending), Completion("not bad " * 100, ending)])
    assert one == two
    other = reward([Completion("a good film " * 30, ending + "not good")])[0]
    assert other != one
    pair = RewardModel(classifier, label=2, input="pair")
    for prompt, text, seen in (
        ("the cat " * 100, "very good", ("cat " + "the cat " * 29, "very good")),  # 64 tokens with [CLS] and two [SEP]
        ("the cat " * 100, "mat on " * 100, ("the cat " * 15, "on " + "mat on " * 15)),
    ):
        want = logits_by_hand(BertForSequenceClassification, classifier, *seen).softmax(-1)[2].item()
        assert pair([Completion(prompt, text)])[0] == pytest.approx(want, abs=1e-6)


def test_batches_hold_texts_of_like_length(classifier, monkeypatch):
    reward = RewardModel(classifier, label=2, batch_size=32)
    shapes, forward = [], reward._model.network.forward

    def watched(**inputs):
        shapes.append((tuple(inputs["input_ids"].shape), int(inputs["attention_mask"].sum())))
        return forward(**inputs)

    monkeypatch.setattr(reward._model.network, "forward", watched)
    rng = np.random.default_rng(0)
    reward([Completion("", " ".join(rng.choice(WORDS[:10], rng.integers(3, 50)))) for _ in range(256)])
    assert [rows for (rows, _), _ in shapes] == [32] * 8
    assert sum(rows * width for (rows, width), _ in shapes) < 1.12 * sum(real for _, real in shapes)
    shapes.clear()
    reward([Completion("the", " cat")] * 100)  # the same text is read once
    assert [shape for shape, _ in shapes] == [(1, 4)]


@pytest.mark.parametrize(
    "options,word",
    [
        ({"label": "pos"}, "label"),
        ({"label": 3}, "label"),
        ({"label": True}, "label"),
        ({}, "label"),
        ({"label": 0, "input": "both"}, "input"),
        ({"label": 0, "template": "no field"}, "template"),
        ({"label": 0, "activation": "relu"}, "activation"),
        ({"label": 0, "batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments_of_reward_models(classifier, options, word):
    with pytest.raises(ValueError, match=f"Expected `{word}`") as caught:
        RewardModel(classifier, **options)
    if word == "label":
        assert "'negative', 'neutral', 'positive'" in str(caught.value)


# ---- sharing ---------------------------------------------------------------------------------------------------------


def test_models_are_shared_and_let_go(tmp_path, bert):
    one, two = BERTScore(bert), SemanticSimilarity(bert)
    assert one._model is two._model
    assert copy.deepcopy(one)._model is one._model
    assert pickle.loads(pickle.dumps(two))._model is one._model
    key = one._model._key
    assert key in [known for known, _ in shared._loaded]
    completions = [Completion("", "the cat", ("a cat",))]
    np.testing.assert_array_equal(copy.deepcopy(one)(completions), one(completions))
    again = pickle.loads(pickle.dumps(LMScore()))
    assert again([Completion("The film", " was good")]) == LMScore()([Completion("The film", " was good")])
    del one, two
    assert key not in [known for known, _ in shared._loaded]


def test_nothing_heavy_is_imported():
    code = """
import sys, textgym.metrics, textgym.rewards
from textgym.rewards import RewardModel, Judge, as_reward
from textgym.core import Completion
for name in ("fluency", "lm_score", "perplexity"):
    as_reward(name)([Completion("The film", " was good")])
print(sorted({"torch", "transformers", "bert_score"} & set(sys.modules)))
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_missing_extra_is_named(monkeypatch, bert):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for make in (LMScore, BERTScore, SemanticSimilarity, RewardModel):
        with pytest.raises(ImportError, match=r"pip install 'textgym\[agents\]'"):
            make(bert)
    assert as_reward("fluency")([Completion("The film", " was good")])[0] > 0
