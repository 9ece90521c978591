"""GPT-2 in numpy against transformers."""

import json
import struct

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from textgym.numpy_gpt2 import ModelError, NumpyGPT2, read_safetensors
from textgym.tokenization import ASSETS

TINY = {"vocab_size": 97, "n_positions": 37, "n_embd": 24, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}


def rows_of(rng, vocab_size, longest, count=30):
    return [rng.integers(0, vocab_size, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


@torch.no_grad()
def expected_log_probs(model, row):
    logits = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, torch.tensor(row[1:], dtype=torch.long)[:, None])[:, 0].numpy()


@pytest.fixture(scope="module")
def bundled():
    return NumpyGPT2.load(ASSETS)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"n_inner": 40, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False}])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh"])
def test_log_probs_of_random_models(tmp_path, seed, options, activation):
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**TINY, activation_function=activation, **options)).eval()
    model.save_pretrained(tmp_path)
    rows = [[5], [1, 2], list(range(37)), *rows_of(np.random.default_rng(seed), 97, 37)]
    for row, found in zip(rows, NumpyGPT2.load(tmp_path).log_probs(rows), strict=True):
        np.testing.assert_allclose(found, expected_log_probs(model, row), atol=1e-4, rtol=0)


def test_log_probs_of_the_bundled_model(bundled):
    model = AutoModelForCausalLM.from_pretrained(ASSETS, dtype=torch.float32).eval()
    rows = [*rows_of(np.random.default_rng(0), bundled.vocab_size, 80), list(range(2, 514))]
    for row, found in zip(rows, bundled.log_probs(rows), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected_log_probs(model, row), atol=1e-4, rtol=0)


def test_starts_leave_out_the_beginning(bundled):
    rows = [[5, 6, 7, 8], [9, 10], [11], []]
    whole = bundled.log_probs(rows)
    assert [len(x) for x in whole] == [3, 1, 0, 0]
    part = bundled.log_probs(rows, [3, 1, 1, 4])
    assert [len(x) for x in part] == [1, 1, 0, 0]
    np.testing.assert_allclose(part[0], whole[0][2:], atol=1e-5)
    assert bundled.log_probs([]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scores_and_hidden_states_of_a_reward_model(tmp_path, dtype):
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(GPT2Config(**TINY, num_labels=1, pad_token_id=0)).to(dtype).eval()
    model.save_pretrained(tmp_path)
    model.float()
    rows = [[i or 1 for i in row] for row in rows_of(np.random.default_rng(0), 97, 37)]
    with torch.no_grad():
        scores = [model(torch.tensor([row])).logits.item() for row in rows]
        states = [model.transformer(torch.tensor([row])).last_hidden_state[0, -1].numpy() for row in rows]
    ours = NumpyGPT2.load(tmp_path)
    np.testing.assert_allclose(ours.scores(rows), scores, atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours.hidden_states(rows), states, atol=1e-4, rtol=0)


def test_a_row_scores_the_same_in_any_company(bundled):
    rows = rows_of(np.random.default_rng(1), bundled.vocab_size, 60, 100)
    together = bundled.log_probs(rows)
    for row, found in zip(rows, together, strict=True):
        np.testing.assert_array_equal(bundled.log_probs([row])[0], found)
    backwards = bundled.hidden_states(rows[::-1])[::-1]
    np.testing.assert_array_equal(bundled.hidden_states(rows), backwards)


@pytest.mark.parametrize("row", [[-1, 3], [3, 100_000], [1] * 513])
def test_bad_rows(bundled, row):
    with pytest.raises(ValueError, match="Expected `rows` to be"):
        bundled.log_probs([[1, 2], row])


def test_bad_calls(bundled):
    with pytest.raises(ValueError, match="rows of at least one token"):
        bundled.hidden_states([[1], []])
    with pytest.raises(ValueError, match="Expected `starts`"):
        bundled.log_probs([[1, 2]], [0])
    with pytest.raises(ModelError, match=r"no `score\.weight`"):
        bundled.scores([[1, 2]])


def test_several_labels_are_refused(tmp_path):
    GPT2ForSequenceClassification(GPT2Config(**TINY, num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="3 labels"):
        NumpyGPT2.load(tmp_path).scores([[1, 2]])


@pytest.mark.parametrize(
    "options",
    [{"activation_function": "relu"}, {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}],
)
def test_other_architectures_are_refused(tmp_path, options):
    GPT2LMHeadModel(GPT2Config(**{**TINY, **options})).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=next(iter(options))):
        NumpyGPT2.load(tmp_path)


def test_broken_folders(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        NumpyGPT2.load(tmp_path / "nowhere")
    config = (ASSETS / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    whole = (ASSETS / "model.safetensors").read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    for content in (b"", b"\0" * 7, whole[:1000], whole[:-2], struct.pack("<Q", len(header)) + header + b"\0" * 8):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            NumpyGPT2.load(tmp_path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2.5))
    assert read_safetensors(tmp_path / "model.safetensors")["a"].tolist() == [1, 2.5]
    with pytest.raises(ModelError, match=r"'wte\.weight' is missing"):
        NumpyGPT2.load(tmp_path)
