"""The bundled tokenizer and model, and the script that builds them."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from textgym.core import Completion
from textgym.rewards import Sentiment
from textgym.tasks import SentimentTask
from textgym.tokenization import ASSETS
from textgym_agents.pretrain import build_bundled, corpus, measure

PERPLEXITY_BOUND = 2.5  # measured on 2,000 documents: 2.18
ANY_TEXT = [
    "",
    " ",
    "The Songs were fine.",
    "  two  spaces,\ttab\n\n new lines \r\n",
    "Größe, Äpfel, Öl, Übung, Straße",
    "日本語 العربية עברית ไทย Ελληνικά",
    "🎬👩‍🚀🇨🇭 e\u0301 \u200b \ufeff \x00 \x7f",
    "[PER Anna Novak] | {a: 'b'} <x=\"1\"> 3.14 -> `c` \\ ^~ ½ €",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(ASSETS / "tokenizer.json"))


@pytest.fixture(scope="module")
def model():
    return measure.load_model(ASSETS)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_files_are_small():
    assert sum(f.stat().st_size for f in ASSETS.iterdir()) <= 10_000_000


def test_transformers_loads_the_folder(model):
    loaded = AutoModelForCausalLM.from_pretrained(ASSETS)
    assert loaded.dtype == torch.float32, "computes in float32 unless asked otherwise"
    assert 1_000_000 <= loaded.num_parameters() <= 5_000_000
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    ids = torch.arange(2, 40)[None]
    assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)
    config = loaded.generation_config
    assert (config.eos_token_id, config.pad_token_id) == (corpus.END_ID, corpus.PAD_ID)
    with safe_open(ASSETS / "model.safetensors", framework="pt") as file:
        record = file.metadata()
    assert record["steps"] == record["planned_steps"], "the training ran to its end"


def test_transformers_tokenizer_is_the_same(tokenizer):
    loaded = AutoTokenizer.from_pretrained(ASSETS)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.bos_token_id) == (0, 1, 1)
    assert (loaded.pad_token, loaded.eos_token) == ("<|pad|>", "<|endoftext|>")
    assert loaded.padding_side == "left"
    assert len(loaded) == tokenizer.get_vocab_size() == 3072
    for text in ANY_TEXT:
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer.encode(text).ids, "nothing is added, before or after"
        assert loaded.decode(ids) == text


def test_card_has_the_command_and_the_figures():
    card = (ASSETS / "README.md").read_text(encoding="utf-8")
    assert "python -m textgym_agents.pretrain.build_bundled --out textgym/assets" in card
    assert "held-out documents" in card
    assert "{" not in card


# ---- tokenizer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ANY_TEXT)
def test_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_random_text_round_trips(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.integers(0, 0x110000, size=20)
        text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("character", build_bundled.SINGLE_TOKENS)
def test_character_is_one_token(tokenizer, character):
    assert len(tokenizer.encode(character).ids) == 1


def test_digits_are_never_merged(tokenizer):
    zero_to_nine = [tokenizer.token_to_id(d) for d in "0123456789"]
    assert tokenizer.encode("9876543210").ids == zero_to_nine[::-1]
    with_digits = [t for t in tokenizer.get_vocab() if any(c in "0123456789" for c in t)]
    assert sorted(with_digits) == list("0123456789")


def test_special_tokens(tokenizer):
    assert tokenizer.encode("<|pad|><|endoftext|>").ids == [0, 1]
    assert tokenizer.decode([0, tokenizer.token_to_id("A"), 1]) == "A"


def test_few_tokens_a_word(tokenizer):
    documents = list(islice(corpus.task_documents(np.random.default_rng(0)), 200))
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(documents))
    assert tokens / sum(len(measure.words(d)) for d in documents) < 1.35


# ---- model ----------------------------------------------------------------------------------------------------------


def test_held_out_perplexity(model, tokenizer):
    documents = list(islice(corpus.task_documents(np.random.default_rng(12345)), 100))
    perplexity = measure.perplexity(model, tokenizer, documents)
    assert 1.0 < perplexity < PERPLEXITY_BOUND
    # The measure itself: word order matters, and more than the words do.
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(d.split())) for d in documents[:20]]
    assert measure.perplexity(model, tokenizer, shuffled) > 20 * perplexity


def test_perplexity_counts_every_token_but_the_first(model, tokenizer):
    documents = ["The ending was dull.", "I liked it, and my aunt did not."]
    nats, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([*tokenizer.encode(document).ids, corpus.END_ID])
        log_probs = model(ids[None]).logits[0].log_softmax(-1)
        nats -= sum(log_probs[i, ids[i + 1]].item() for i in range(len(ids) - 1))
        count += len(ids) - 1
    assert measure.perplexity(model, tokenizer, documents) == pytest.approx(np.exp(nats / count), rel=1e-4)


def test_continuations_take_no_side(model, tokenizer):
    prompts = measure.dev_prompts(SentimentTask(), 128, seed=7)
    continuations = measure.sample_continuations(model, tokenizer, prompts, seed=7)
    assert max(map(len, continuations)) == 32
    assert all(corpus.PAD_ID not in c and corpus.END_ID not in c[:-1] for c in continuations)
    texts = [tokenizer.decode(c) for c in continuations]
    scores = Sentiment()([Completion(p, t) for p, t in zip(prompts, texts, strict=True)])
    assert -0.2 < scores.mean() < 0.25
    assert (scores > 0.3).any() and (scores < -0.3).any(), "it writes both praise and blame"


def test_sampling_follows_from_its_seed(model, tokenizer):
    prompts = measure.dev_prompts(SentimentTask(), 4, seed=7)
    first, second, other = (measure.sample_continuations(model, tokenizer, prompts, seed=s) for s in (1, 1, 2))
    assert first == second != other


# ---- the build ------------------------------------------------------------------------------------------------------


def test_smallest_build(tmp_path: Path):
    state, threads = torch.get_rng_state(), str(torch.get_num_threads())
    tiny = [
        "--steps",
        "3",
        "--batch-tokens",
        "192",
        "--tokenizer-documents",
        "500",
        "--documents",
        "4",
        "--prompts",
        "2",
    ]
    for name in "ab":
        build_bundled.main(["--out", str(tmp_path / name), "--threads", threads, *tiny])
    folder = tmp_path / "a"
    assert torch.equal(torch.get_rng_state(), state), "leaves the global generator alone"
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
    names = {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {f.name for f in folder.iterdir()} == names, "and no drafts"
    assert "--steps 3 --seed 0" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first), (
        "follows from the seed"
    )


def test_streams_are_disjoint():
    parts = (corpus.TOKENIZER, corpus.TRAINING, corpus.HELD_OUT, corpus.PROMPTS)
    documents = [list(islice(corpus.task_documents(corpus.stream(0, part)), 200)) for part in parts]
    assert len({d for drawn in documents for d in drawn}) == 800
