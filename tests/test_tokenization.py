"""Every kind of tokenizer behind one small face."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import END, PAD, WORDS, play, word_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from textgym import load_tokenizer
from textgym.tokenization import ASSETS, TextTokenizer

TEXTS = [
    "The film was fine.",
    "Größe, Übung, Straße",
    "日本語 and 🎬👩‍🚀",
    "  two  spaces\n\ttab",
    "1234567890 [x] {y}",
    "e\u0301",
    "",
]


def metaspace() -> Tokenizer:
    """Of SentencePiece's family (Llama, Gemma, T5): a word's space is part of it, and decoding drops the first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(["The film was really good and very long a b"] * 9, trainer)
    return tokenizer


def word_pieces() -> Tokenizer:
    """As BERT's: `##` marks what goes on without a space."""
    words = ["[UNK]", "[PAD]", "[SEP]", "the", "film", "was", "good", "##ness", "a", "b"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in words[:3]])
    return tokenizer


def gpt2_folder(shared_data: Path) -> Path:
    return shared_data / "gpt2-tokenizer"


# ---- the bundled one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(text):
    tokenizer = load_tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids)) == text
    assert "".join(tokenizer.tokens(tokenizer.encode("The film"))) == "The film"


def test_prompt_and_completion_join():
    tokenizer = load_tokenizer()
    ids = tokenizer.encode("Die Größe was fine, 日本 too.")
    for cut in range(len(ids) + 1):
        joined = tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:], continues=True)
        if "\ufffd" not in joined:  # not within a letter of several bytes
            assert joined == "Die Größe was fine, 日本 too."


def test_special_tokens_are_left_out_of_texts_and_named_in_tokens():
    tokenizer = load_tokenizer()
    ids = [tokenizer.pad_token_id, *tokenizer.encode(" film"), tokenizer.eos_token_id]
    assert tokenizer.decode(ids) == " film"
    assert tokenizer.tokens(ids) == ["<|pad|>", " film", "<|endoftext|>"]


def test_batches():
    tokenizer = load_tokenizer()
    ids = tokenizer.encode_batch(TEXTS)
    assert ids == [tokenizer.encode(text) for text in TEXTS]
    assert tokenizer.decode_batch(ids) == TEXTS
    assert tokenizer.encode_batch([]) == tokenizer.decode_batch([]) == []


# ---- kinds of tokenizers --------------------------------------------------------------------------------------------


def bundled_as(kind: str, folder: Path) -> object:
    file = str(ASSETS / "tokenizer.json")
    if kind == "name":
        return "bundled"
    if kind == "folder":
        return str(ASSETS)
    if kind == "path":
        return ASSETS
    if kind == "bare folder":  # without a configuration: read without transformers
        (folder / "tokenizer.json").write_bytes((ASSETS / "tokenizer.json").read_bytes())
        return folder
    if kind == "tokenizers":
        return Tokenizer.from_file(file)
    if kind == "transformers":
        return AutoTokenizer.from_pretrained(ASSETS)
    if kind == "fast":
        return PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|endoftext|>", pad_token="<|pad|>")
    return TextTokenizer(Tokenizer.from_file(file))


KINDS = ["name", "folder", "path", "bare folder", "tokenizers", "transformers", "fast", "wrapped"]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_agree(kind, tmp_path):
    bundled, other = load_tokenizer(), load_tokenizer(bundled_as(kind, tmp_path))
    for attribute in ("vocab_size", "eos_token_id", "pad_token_id"):
        assert getattr(other, attribute) == getattr(bundled, attribute)
    assert other.encode_batch(TEXTS) == bundled.encode_batch(TEXTS)
    ids = [0, *bundled.encode(TEXTS[1]), 1]
    assert other.decode(ids) == TEXTS[1]
    assert other.tokens(ids) == bundled.tokens(ids)


@pytest.mark.parametrize("kind", ["tokenizers", "transformers", "fast", "wrapped"])
def test_kinds_in_an_environment(kind, tmp_path):
    env = gym.make("TextGen-Sentiment-v0", tokenizer=bundled_as(kind, tmp_path), max_new_tokens=4).unwrapped
    obs, info = env.reset(seed=0)
    assert np.array_equal(
        obs["input_ids"], gym.make("TextGen-Sentiment-v0", max_new_tokens=4).reset(seed=0)[0]["input_ids"]
    )
    _, last = play(env, [*env.setting.tokenizer.encode(" was so good"), 1])
    assert last["prompt"] == info["prompt"] and last["completion"].startswith(" was so")


def test_gpt2(shared_data):
    tokenizer = load_tokenizer(gpt2_folder(shared_data))
    assert (tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.pad_token_id) == (50_257, 50_256, 50_256)
    assert tokenizer.encode("Hello world") == [15496, 995]  # as published
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode("The film was fine")
    assert tokenizer.decode(ids[:2]) + tokenizer.decode(ids[2:], continues=True) == "The film was fine"


def test_gpt2_in_an_environment(shared_data):
    envs = gym.make_vec("TextGen-Sentiment-v0", num_envs=2, tokenizer=str(gpt2_folder(shared_data)), max_new_tokens=5)
    obs, infos = envs.reset(seed=0)
    first = obs["input_ids"][0][obs["attention_mask"][0] == 1]
    tokenizer = envs.unwrapped.setting.tokenizer
    assert tokenizer.decode(first) == infos["prompt"][0]
    assert (obs["input_ids"][obs["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    assert envs.unwrapped.action_masks().all(), "its padding token is its end token, which is allowed"


# ---- rows, as environments decode them ------------------------------------------------------------------------------


def byte_level() -> Tokenizer:
    """One token a byte, a few merges, and added tokens with letters that stand for no byte; some ids are missing."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: i for i, letter in enumerate(sorted(letters))}
    source = Tokenizer(models.BPE({**vocabulary, "ab": 300, "\u0120a": 301}, [("a", "b"), ("\u0120", "a")]))
    source.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    source.decoder = decoders.ByteLevel()
    source.add_special_tokens([AddedToken("</s>", special=True), AddedToken("a", special=True)])
    source.add_tokens([AddedToken("two words"), AddedToken("日本"), AddedToken("Größe")])
    return source


def bundled() -> Tokenizer:
    return load_tokenizer().source


def prefixed() -> Tokenizer:
    """Decodes a first word without its space, and so has to be decoded after another one."""
    source = byte_level()
    source.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return source


def assert_rows_equal_batch(tokenizer: TextTokenizer, rng: np.random.Generator, ids: np.ndarray) -> None:
    rows = rng.choice(ids, size=(300, 12))
    lengths = rng.integers(0, 13, size=300)
    batch = [row[:length] for row, length in zip(rows.tolist(), lengths.tolist(), strict=True)]
    wanted = tokenizer.decode_batch(batch, continues=True)
    assert tokenizer.decode_rows(rows, lengths) == wanted
    assert len(set(wanted)) > 100


@pytest.mark.parametrize("source", [byte_level, bundled, metaspace, word_pieces, word_tokenizer, prefixed])
@pytest.mark.parametrize("seed", range(4))
def test_rows_are_decoded_as_batches_are(source, seed):
    tokenizer = load_tokenizer(source())
    assert_rows_equal_batch(tokenizer, np.random.default_rng(seed), np.arange(tokenizer.vocab_size))


@pytest.mark.parametrize("source", [byte_level, bundled])
@pytest.mark.parametrize("seed", range(4))
def test_rows_of_broken_letters_are_decoded_as_batches_are(source, seed):
    """Bytes that make no valid UTF-8, or only sometimes: cut short, overlong, surrogates, beyond the last letter."""
    tokenizer, rng = load_tokenizer(source()), np.random.default_rng(seed)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    one_byte = [tokenizer.source.token_to_id(letter) for letter in alphabet]
    broken = [i for i in one_byte if tokenizer.decode([i]) == "\ufffd"]
    assert (len(one_byte), len(broken)) == (256, 128), "every byte from 128 on"
    assert_rows_equal_batch(tokenizer, rng, np.array(broken))
    assert_rows_equal_batch(tokenizer, rng, np.array([*broken, *one_byte]))


def test_rows_of_gpt2_are_decoded_as_batches_are(shared_data):
    tokenizer = load_tokenizer(gpt2_folder(shared_data))
    assert_rows_equal_batch(tokenizer, np.random.default_rng(0), np.arange(tokenizer.vocab_size))


@pytest.mark.parametrize("tokenizer", [byte_level, metaspace])
def test_no_rows(tokenizer):
    rows = np.zeros((0, 0), dtype=np.int64)
    assert load_tokenizer(tokenizer()).decode_rows(rows, np.zeros(0, dtype=np.int64)) == []
    rows = np.zeros((2, 0), dtype=np.int64)
    assert load_tokenizer(tokenizer()).decode_rows(rows, np.zeros(2, dtype=np.int64)) == ["", ""]


# ---- what tokenizers do differently ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text", "cut", "completion"),
    [
        (metaspace, "The film was really good", 3, " really good"),
        (metaspace, "The film was really good", 1, " film was really good"),
        (word_pieces, "the film was good", 2, " was good"),
        (word_pieces, "the goodness", 2, "ness"),
        (word_tokenizer, "hi you say", 1, " you say"),
    ],
)
@pytest.mark.parametrize("by", ["tokenizers", "transformers"])
def test_completion_keeps_its_first_space(source, text, cut, completion, by):
    given = source()
    if by == "transformers":
        end = "[SEP]" if source is word_pieces else "</s>"
        given = PreTrainedTokenizerFast(tokenizer_object=given, eos_token=end)
    tokenizer = load_tokenizer(given)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids[cut:], continues=True) == completion
    assert tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:], continues=True) == text
    assert tokenizer.decode([], continues=True) == ""


def test_completion_of_an_environment_keeps_its_first_space():
    env = gym.make("TextGen-Sentiment-v0", tokenizer=metaspace(), prompts=["The film was"], max_new_tokens=2).unwrapped
    env.reset()
    _, info = play(env, env.setting.tokenizer.encode("really good"))
    assert info["prompt"] + info["completion"] == "The film was really good"


def test_padding_and_truncation_of_the_tokenizer_are_not_for_prompts():
    source = word_tokenizer()
    source.enable_padding(pad_id=PAD, pad_token=WORDS[PAD], length=8)
    source.enable_truncation(2)
    tokenizer = load_tokenizer(source)
    assert [len(ids) for ids in tokenizer.encode_batch(["hi you say", "hi"])] == [3, 1]
    assert source.padding is not None and source.truncation is not None, "the caller's own is left as it was"


def test_added_beginning_and_end_are_left_out():
    source = word_tokenizer()
    source.post_processor = processors.TemplateProcessing(single="</s> $A </s>", special_tokens=[("</s>", END)])
    for given in (source, PreTrainedTokenizerFast(tokenizer_object=source, eos_token="</s>")):
        assert END not in load_tokenizer(given).encode("hi you")


def test_ids_with_gaps_are_within_the_vocabulary():
    source = Tokenizer(models.WordLevel({"a": 0, "</s>": 3, "b": 10}, unk_token="a"))
    source.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert load_tokenizer(source).vocab_size == 11
    assert load_tokenizer(PreTrainedTokenizerFast(tokenizer_object=source, eos_token="</s>")).vocab_size == 11


def test_added_tokens_are_in_the_vocabulary():
    source = AutoTokenizer.from_pretrained(ASSETS)
    source.add_tokens(["<new>"])
    tokenizer = load_tokenizer(source)
    assert tokenizer.vocab_size == 3073 and tokenizer.encode("<new>") == [3072]


def test_padding_token_is_the_end_token_where_there_is_none():
    source = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    assert load_tokenizer(source).pad_token_id == 1
