"""Speed must not change results: caches, shared prompts, buckets, padding and recorded steps against the plain way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import (
    WORDS,
    Chat,
    left_padded,
    policy_of,
    text_spaces,
    tiny_bart,
    tiny_gpt2,
    tiny_llama,
    tiny_qwen2,
    tiny_t5,
    toy_groups,
    toy_ppo,
    toy_seq2seq_ppo,
    toy_vector,
)
from test_rollout import collect
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from textgym_agents import GRPO, PPO, RLOO, CausalLMPolicy, Limits, LMPolicy, Seq2SeqLMPolicy
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.models import flat_step
from textgym_agents.models.cache import SlotLayer
from textgym_agents.models.flat_step import FlatStep
from textgym_agents.rollouts.buffers import FEW, SHORTER, Sequences
from textgym_agents.rollouts.decoding import CachedDecoder

V = 50
CAUSAL: dict[str, Callable[..., PreTrainedModel]] = {"gpt2": tiny_gpt2, "llama": tiny_llama, "qwen2": tiny_qwen2}
ENCODERS: dict[str, Callable[..., PreTrainedModel]] = {
    "t5": tiny_t5,
    "t5 v1.1": lambda **kw: tiny_t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu", **kw),
    "bart": tiny_bart,
}
MODELS = {**CAUSAL, **ENCODERS}
architectures = pytest.mark.parametrize("architecture", MODELS)
causal = pytest.mark.parametrize("architecture", CAUSAL)
PROMPTS = [[7, 3, 9, 12, 4], [5], [8, 8, 2], [30, 31, 32, 33, 34, 35, 36, 37], [5, 6]]
ROUNDING = 2e-5  # absolute, and 1e-5 relative: the same rows in batches of other shapes
COMPLETIONS = [[4, 9, 9, 2, 17], [6, 3, 40, 41, 42], [1, 1, 12, 13, 5], [44, 2, 3, 4, 30], [9, 8, 7, 6, 5]]


def make(architecture: str, seed: int = 0, **kwargs: Any) -> LMPolicy:
    """A policy without an algorithm, whose value head is not zero."""
    model = MODELS[architecture](seed=seed, vocab_size=V)
    cls = Seq2SeqLMPolicy if model.config.is_encoder_decoder else CausalLMPolicy
    policy = cls(*text_spaces(64, V), lambda _: 1e-3, model=model, **kwargs)
    torch.manual_seed(1)
    nn.init.normal_(policy.value_head.weight)
    nn.init.normal_(policy.value_head.bias)
    return policy


@torch.no_grad()
def plain_logits(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> Tensor:
    """``[K + 1, V]``: logits before each token of a completion and after the last, by ``transformers``, one row alone."""
    if model.config.is_encoder_decoder:
        start = [model.config.decoder_start_token_id, *completion]
        return model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start]), use_cache=False).logits[
            0
        ]
    logits = model(input_ids=torch.tensor([prompt + completion]), use_cache=False).logits[0]
    return logits[len(prompt) - 1 :]


def assert_close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=ROUNDING)


def decoder_of(policy: LMPolicy, prompts: list[list[int]], **kwargs: Any) -> CachedDecoder:
    return CachedDecoder(policy, *left_padded(prompts), **kwargs)


def column(rows: list[list[int]], t: int) -> Tensor:
    return torch.tensor([row[t] for row in rows])[:, None]


# ---- (a) the cache ---------------------------------------------------------------------------------------------------------


@architectures
@pytest.mark.parametrize("room", [0, 64])
def test_decoding_with_a_cache_equals_one_pass_without(architecture: str, room: int) -> None:
    policy = make(architecture)
    batch = Sequences.of(PROMPTS, COMPLETIONS, None)
    log_probs, values, entropies = policy.evaluate_sequences(batch, 0.7, entropies=True)
    decoder = decoder_of(policy, PROMPTS, room=room)
    for t in range(5):
        wanted = (decoder.logits / 0.7).log_softmax(-1)
        tokens = column(COMPLETIONS, t)
        torch.testing.assert_close(log_probs[:, t], wanted.gather(-1, tokens)[:, 0], rtol=0, atol=1e-4)
        torch.testing.assert_close(entropies[:, t], -(wanted.exp() * wanted).sum(-1), rtol=0, atol=1e-4)
        torch.testing.assert_close(values[:, t], decoder.values, rtol=0, atol=1e-4)
        for row in range(5):
            alone = plain_logits(policy.model, PROMPTS[row], COMPLETIONS[row])
            torch.testing.assert_close(decoder.logits[row], alone[t], rtol=0, atol=1e-4)
        decoder.append(tokens)
    assert float(log_probs.detach().std()) > 0.3  # far from uniform: a wrong state would show


@architectures
def test_the_models_of_these_tests_read_their_prompts_and_their_order(architecture: str) -> None:
    """Otherwise a cache that mixes rows up could pass."""
    model, completion = MODELS[architecture](vocab_size=V), [4, 9]
    one, other, swapped = (plain_logits(model, p, completion) for p in ([7, 3, 9, 12], [7, 4, 9, 12], [3, 7, 9, 12]))
    assert float((one - other).abs().max()) > 0.01
    assert float((one - swapped).abs().max()) > 0.01
    later = plain_logits(model, [7, 3, 9, 12], [9, 9])
    assert float((one[1:] - later[1:]).abs().max()) > 0.01


@architectures
def test_a_prefix_read_at_once_equals_one_read_token_by_token(architecture: str) -> None:
    policy = make(architecture)
    rows = [p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    ids, mask = left_padded(rows)
    own = torch.zeros_like(mask)
    own[:, -5:] = True
    at_once = CachedDecoder(policy, ids, mask, own)
    decoder = decoder_of(policy, PROMPTS)
    for t in range(5):
        decoder.append(column(COMPLETIONS, t))
    torch.testing.assert_close(at_once.logits, decoder.logits, rtol=0, atol=1e-4)
    extra = column(COMPLETIONS, 0)
    at_once.append(extra)
    decoder.append(extra)
    torch.testing.assert_close(at_once.logits, decoder.logits, rtol=0, atol=1e-4)


# ---- (b) rows that leave ---------------------------------------------------------------------------------------------------


@architectures
@pytest.mark.parametrize("leave", [[0], [1, 3], [0, 1, 2, 3], [2, 3, 4]])
def test_rows_that_leave_do_not_change_the_others(architecture: str, leave: list[int]) -> None:
    policy = make(architecture)
    whole, fewer = decoder_of(policy, PROMPTS), decoder_of(policy, PROMPTS)
    rows = np.arange(5)
    for t in range(4):
        tokens = column(COMPLETIONS, t)
        if t == 2:
            ended = np.isin(np.arange(5), leave)
            order = fewer.drop(ended)
            rows = rows[order]
            assert sorted(rows.tolist()) == sorted(set(range(5)) - set(leave))
        whole.append(tokens)
        fewer.append(tokens[torch.as_tensor(rows)])
        # float32 rounding: 1.1e-5 was seen where the matrix products of fewer rows are summed in another order
        torch.testing.assert_close(fewer.logits, whole.logits[torch.as_tensor(rows)], rtol=0, atol=4e-5)
        torch.testing.assert_close(fewer.values, whole.values[torch.as_tensor(rows)], rtol=0, atol=4e-5)
    assert len(fewer.logits) == 5 - len(leave)


@architectures
def test_rows_that_leave_one_after_the_other(architecture: str) -> None:
    policy, n = make(architecture), 9
    prompts = [[i + 2, *range(3, 3 + i % 4)] for i in range(n)]
    completions = [[(7 * i + 3 * t) % V for t in range(8)] for i in range(n)]
    whole, fewer, rows = decoder_of(policy, prompts), decoder_of(policy, prompts), np.arange(n)
    generator = np.random.default_rng(0)
    for t in range(8):
        if len(rows) > 1:
            ended = generator.random(len(rows)) < 0.25
            ended[0] &= not ended.all()
            if ended.any():
                rows = rows[fewer.drop(ended)]
        whole.append(column(completions, t))
        fewer.append(column(completions, t)[torch.as_tensor(rows)])
        torch.testing.assert_close(fewer.logits, whole.logits[torch.as_tensor(rows)], rtol=0, atol=1e-5)
    assert 0 < len(rows) < n


# ---- (c) shared prompts ----------------------------------------------------------------------------------------------------


@contextmanager
def rows_read(policy: LMPolicy) -> Iterator[list[int]]:
    """Rows of every call of the part of the model that reads prompts."""
    seen: list[int] = []

    def hook(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(len(kwargs["input_ids"]))

    reader = policy.model.get_encoder() if policy.encoder_decoder else policy.model.base_model
    handle = reader.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@architectures
def test_equal_prompts_are_read_once(architecture: str) -> None:
    policy = make(architecture)
    prompts = [PROMPTS[i] for i in (0, 0, 2, 1, 2, 0, 1)]  # neighbours and others
    with rows_read(policy) as seen:
        decoder = decoder_of(policy, prompts)
    assert seen == [3]
    with rows_read(policy) as seen:
        alone = [decoder_of(policy, [prompt]) for prompt in prompts]
    assert seen == [1] * 7
    assert decoder.logits.shape == (7, V)
    for t in range(4):
        for row, other in enumerate(alone):
            assert_close(decoder.logits[row], other.logits[0])
            assert_close(decoder.values[row], other.values[0])
        tokens = torch.tensor([(5 * row + 11 * t) % V for row in range(7)])[:, None]  # from here on they differ
        decoder.append(tokens)
        for row, other in enumerate(alone):
            other.append(tokens[row : row + 1])


@architectures
def test_prompts_that_only_look_alike_are_not_shared(architecture: str) -> None:
    policy = make(architecture)
    prompts = [[0, 0, 5], [0, 5], [5], [5, 0]]  # token 0 stands in the padding, too
    with rows_read(policy) as seen:
        decoder = decoder_of(policy, prompts)
    assert seen == [4]
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(decoder.logits[row], plain_logits(policy.model, prompt, [])[0], rtol=0, atol=1e-4)


# ---- (d) one pass or many --------------------------------------------------------------------------------------------------


def ppo(env: Any, model: PreTrainedModel | None = None, **kwargs: Any) -> PPO:
    encoder = model is not None and model.config.is_encoder_decoder
    return (toy_seq2seq_ppo if encoder else toy_ppo)(env, model=model, **kwargs)


SETTINGS: dict[str, Callable[..., TextAlgorithm]] = {
    "ppo": lambda env, **kw: ppo(env, kl_coef=0.1, ent_coef=0.02, clip_range_vf=0.3, **kw),
    "ppo, not normalised": lambda env, **kw: toy_ppo(env, normalize_advantage=False, **kw),
    "grpo": lambda env, **kw: toy_groups(GRPO, env, kl_coef=0.2, ent_coef=0.02, **kw),
    "grpo, sequence": lambda env, **kw: toy_groups(GRPO, env, importance_sampling_level="sequence", **kw),
    "dapo": lambda env, **kw: toy_groups(GRPO, env, loss_type="dapo", kl_coef=0.2, ent_coef=0.02, **kw),
    "dr_grpo": lambda env, **kw: toy_groups(GRPO, env, loss_type="dr_grpo", kl_coef=0.2, ent_coef=0.02, **kw),
    "rloo": lambda env, **kw: toy_groups(RLOO, env, kl_coef=0.1, ent_coef=0.02, **kw),
}
algorithms = pytest.mark.parametrize("algorithm", SETTINGS)


def collected(algorithm: str, model: PreTrainedModel | None = None, task: Any = None) -> TextAlgorithm:
    """An algorithm with a rollout of 24 ragged episodes, on which it has already moved a little."""
    made = SETTINGS[algorithm](toy_vector(24, task, group_size=4), model=model)
    collect(made)  # type: ignore[arg-type]
    assert len(set(made.rollout_buffer.sequences.lengths.tolist())) > 4
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.policy.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return made


def gradient(made: TextAlgorithm, most_tokens: int) -> tuple[dict[str, Tensor], dict[str, float], int]:
    """Of the whole rollout as one minibatch; also what is logged of it, and in how many passes it was read."""
    made.micro_batch_tokens = most_tokens
    (batch,) = made.rollout_buffer.batches(1000)
    batch = made._prepared(batch)
    numbers = made._accumulate(batch)
    found = {n: p.grad.clone() for n, p in made.policy.named_parameters() if p.grad is not None}
    return found, dict(numbers), len(batch.passes(most_tokens))


def assert_same_gradient(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert sum(bool(g.abs().max() > 1e-3) for g in one.values()) > 10
    for name, wanted in one.items():
        # float32 rounding: 1.4e-6 was seen
        torch.testing.assert_close(other[name], wanted, rtol=1e-4, atol=5e-6, msg=lambda m, n=name: f"{n}: {m}")


@algorithms
@pytest.mark.parametrize("most_tokens", [1, 40])
def test_the_gradient_of_a_minibatch_does_not_depend_on_how_it_is_read(algorithm: str, most_tokens: int) -> None:
    made = collected(algorithm)
    whole, numbers, _ = gradient(made, 10**6)
    parts, same, passes = gradient(made, most_tokens)
    assert passes >= (24 if most_tokens == 1 else 4)
    assert_same_gradient(whole, parts)
    for name in ("loss", "policy_gradient_loss", "entropy_loss", *(["value_loss"] if "ppo" in algorithm else [])):
        assert same[name] == pytest.approx(numbers[name], abs=1e-5), name


@algorithms
def test_what_is_logged_of_a_minibatch_does_not_depend_on_how_it_is_read(algorithm: str) -> None:
    """It decides something: ``target_kl`` stops at ``approx_kl``."""
    made = collected(algorithm)
    _, numbers, _ = gradient(made, 10**6)
    _, same, _ = gradient(made, 40)
    assert numbers["approx_kl"] > 1e-4
    assert same == pytest.approx(numbers, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rloo"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "t5", "bart"])
def test_the_gradient_of_a_minibatch_is_the_same_in_every_architecture(algorithm: str, architecture: str) -> None:
    found = collected(algorithm, MODELS[architecture](vocab_size=len(WORDS)))
    whole, _, _ = gradient(found, 10**6)
    parts, _, passes = gradient(found, 40)
    assert passes >= 4
    assert_same_gradient(whole, parts)


def test_the_gradient_of_a_minibatch_with_replies_does_not_depend_on_how_it_is_read() -> None:
    for algorithm in ("ppo", "dapo", "rloo"):
        made = collected(algorithm, task=Chat())
        assert_same_gradient(gradient(made, 10**6)[0], gradient(made, 60)[0])


# ---- other architectures ------------------------------------------------------------------------------------------------


OTHERS = {  # class, configuration, whether its steps can be recorded
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 5}, False),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"sliding_window": 5, "head_dim": 8}, False),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}, True),
    "gpt-neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {}, True),
    "granite": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 3.0}, True),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("prompts", [PROMPTS, [[4, 5, 6, 7], [7, 8, 9, 10]]], ids=["ragged", "equal"])
def test_decoding_equals_whole_forward_passes_in_other_architectures(
    name: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tolerance 1e-4. Windows that are narrower than the text, capped and scaled logits, rotary embeddings of other kinds."""
    kind, configuration, changes, recordable = OTHERS[name]
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, "vocab_size": 64, "initializer_range": 0.3}
    settings = {**size, **special, "num_key_value_heads": 2, "max_position_embeddings": 64, **changes}
    model = kind(configuration(**settings)).eval()
    policy = policy_of(model, vocab_size=64)
    decoder, rows = CachedDecoder(policy, *left_padded(prompts), room=12), [list(row) for row in prompts]
    for t in range(10):
        tokens = [2 + (7 * t + 5 * i) % 60 for i in range(len(rows))]
        decoder.append(torch.tensor(tokens)[:, None])
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        for row, logits in zip(rows, decoder.logits, strict=True):
            with torch.no_grad():
                assert_close(logits, model(torch.tensor([row])).logits[0, -1])
    assert [step is not None for step in policy.backbone._step._recorded.values()] == [recordable]


# ---- (e) padding -----------------------------------------------------------------------------------------------------------


@architectures
def test_episodes_one_by_one_equal_those_in_a_batch(architecture: str) -> None:
    limits = Limits(V, 1, 12, 3, (0, 44))
    policy = make(architecture, limits=limits)
    completions = [[4, 9, 9, 2, 17, 6, 7], [6, 5, 7, 40], [9], [45, 2, 3, 4, 30, 8], [7, 8, 9, 1]]
    batch = Sequences.of(PROMPTS, completions, limits)
    together = policy.evaluate_sequences(batch, 0.8, entropies=True)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, completions, strict=True)):
        alone = policy.evaluate_sequences(Sequences.of([prompt], [completion], limits), 0.8, entropies=True)
        n = len(completion)
        logits = plain_logits(policy.model, prompt, completion)[:-1] / 0.8
        mask = limits.mask(torch.arange(n))
        wanted = logits.masked_fill(~mask, -torch.inf).log_softmax(-1)
        for found in (alone[0][0], together[0][row, -n:]):
            torch.testing.assert_close(
                found, wanted.gather(-1, torch.tensor(completion)[:, None])[:, 0], rtol=0, atol=1e-4
            )
        for mine, other in zip(together, alone, strict=True):
            assert_close(mine[row, -n:], other[0])
            assert (mine[row, : mine.shape[1] - n] == 0).all()


@architectures
def test_more_padding_changes_nothing(architecture: str) -> None:
    policy = make(architecture)
    batch = Sequences.of(PROMPTS, COMPLETIONS, None)
    wide = Sequences.cat([batch, Sequences.of([[3] * 20], [[5] * 15], None)])
    for mine, other in zip(policy.evaluate_sequences(wide, 1.0), policy.evaluate_sequences(batch, 1.0), strict=True):
        assert_close(mine[:5, -5:], other)
    reordered = batch.select(torch.tensor([3, 1]))
    found = policy.evaluate_sequences(reordered, 1.0)[0]
    assert_close(found, policy.evaluate_sequences(batch, 1.0)[0][[3, 1]])


# ---- (f) parts of like lengths ---------------------------------------------------------------------------------------------


def of_lengths(lengths: list[int]) -> Sequences:
    return Sequences.of([[3] * (n - 1) for n in lengths], [[4]] * len(lengths), None)


@pytest.mark.parametrize("most_tokens", [1, 20, 64, 100, 1000, 10**6])
@pytest.mark.parametrize("spread", [0, 5, 60])
def test_passes_have_every_row_once_and_respect_the_limit(most_tokens: int, spread: int) -> None:
    rng = np.random.default_rng(most_tokens + spread)
    lengths = (10 + rng.integers(0, spread + 1, size=57)).tolist()
    sequences = of_lengths(lengths)
    parts = [part.tolist() for part in sequences.passes(most_tokens)]
    assert sorted(row for part in parts for row in part) == list(range(57))
    for part in parts:
        longest = max(lengths[row] for row in part)
        assert len(part) * longest <= most_tokens or len(part) == 1
        assert sequences.select(torch.tensor(part)).input_ids.numel() <= max(most_tokens, longest)
        # nobody is much shorter than the longest, but for the few that are not worth a pass of their own
        assert sum(lengths[row] >= SHORTER * longest for row in part) >= min(FEW, len(part)) or len(part) <= FEW
    sorted_lengths = [lengths[row] for part in parts for row in part]
    assert sorted_lengths == sorted(lengths, reverse=True)


def test_passes_put_like_lengths_together_and_few_stay_together() -> None:
    lengths = [10, 100] * 20
    long, short = of_lengths(lengths).passes(10**6)
    assert {lengths[row] for row in long.tolist()} == {100}
    assert {lengths[row] for row in short.tolist()} == {10}
    assert [len(part) for part in of_lengths([100, 10, 20, 30, 10, 50]).passes(10**6)] == [6]
    assert [len(part) for part in of_lengths([50] * 6).passes(100)] == [2, 2, 2]
    assert [len(part) for part in of_lengths([50] * 6).passes(149)] == [2, 2, 2]
    assert [len(part) for part in of_lengths([50] * 6).passes(150)] == [3, 3]
    assert [len(part) for part in of_lengths([200, 50, 50]).passes(100)] == [1, 2]  # too long, on its own


# ---- (g) the reference -----------------------------------------------------------------------------------------------------


@architectures
@pytest.mark.parametrize("most_tokens", [10, 10**6])
def test_reference_log_probabilities_equal_a_plain_forward_pass(architecture: str, most_tokens: int) -> None:
    model, reference = (MODELS[architecture](seed=seed, vocab_size=len(WORDS)) for seed in (0, 5))
    algorithm = toy_groups(
        GRPO,
        toy_vector(8, group_size=4, min_new_tokens=2),
        model=model,
        ref_model=reference,
        temperature=0.8,
        micro_batch_tokens=most_tokens,
    )
    collect(algorithm)  # type: ignore[arg-type]
    assert algorithm.reference is reference
    assert algorithm.limits is not None
    sequences = algorithm.rollout_buffer.sequences
    assert float((sequences.ref_log_probs - sequences.log_probs).abs().max()) > 0.1
    found = algorithm._reference_log_probs(sequences)
    torch.testing.assert_close(found, sequences.ref_log_probs)
    for row, episode in enumerate(algorithm.rollout_buffer.episodes):
        n = len(episode.tokens)
        logits = plain_logits(reference, episode.prompt, episode.tokens)[:-1] / 0.8
        wanted = logits.masked_fill(~algorithm.limits.mask(torch.arange(n)), -torch.inf).log_softmax(-1)
        at = torch.tensor(episode.tokens)[:, None]
        torch.testing.assert_close(found[row, -n:], wanted.gather(-1, at)[:, 0], rtol=0, atol=1e-4)
        assert (found[row, : found.shape[1] - n] == 0).all()


# ---- (h) recorded steps ----------------------------------------------------------------------------------------------------


class Taken:
    """How many steps were made as recorded, and how many recordings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flat, self.plain, self.recordings = 0, 0, 0
        call, record = FlatStep.__call__, flat_step.record

        def counted(step: FlatStep, *args: Any) -> Tensor | None:
            found = call(step, *args)
            self.flat, self.plain = self.flat + (found is not None), self.plain + (found is None)
            return found

        def counted_record(*args: Any) -> Any:
            self.recordings += 1
            return record(*args)

        monkeypatch.setattr(FlatStep, "__call__", counted)
        monkeypatch.setattr(flat_step, "record", counted_record)


EVEN = [[7, 3, 9], [5, 6, 2], [8, 8, 2], [30, 31, 32], [5, 6, 7], [1, 2, 3]]
RAGGED = [[7, 3, 9, 12, 4], [5], [8, 8, 2], [30, 31, 32, 33, 34, 35, 36, 37], [5, 6], [9]]
SHARED = [EVEN[0]] * 3 + [EVEN[1]] * 3


def story(policy: LMPolicy, prompts: list[list[int]], room: int = 0, steps: int = 8) -> list[Tensor]:
    """Logits and values of every step; rows leave on the way, until one is left."""
    decoder, rows = decoder_of(policy, prompts, room=room), np.arange(6)
    seen = [decoder.logits.clone(), decoder.values.clone()]
    for t in range(steps):
        if t in (2, 4, 6):
            ended = np.zeros(len(rows), dtype=bool)
            ended[[0, -1] if t < 6 else 0] = True
            rows = rows[decoder.drop(ended)]
        tokens = torch.tensor([(7 * int(row) + 3 * t) % V for row in rows])[:, None]
        decoder.append(tokens)
        seen += [decoder.logits.clone(), decoder.values.clone()]
    return seen


def assert_equal(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    for mine, wanted in zip(one, other, strict=True):
        assert torch.equal(mine, wanted)


def layers_of(policy: LMPolicy) -> list[SlotLayer]:
    return decoder_of(policy, EVEN)._kept.layers()


@causal
@pytest.mark.parametrize("masked", [False, True])
def test_a_step_can_be_recorded(architecture: str, masked: bool) -> None:
    policy = make(architecture)
    with torch.inference_mode():
        assert flat_step.record(policy.model, layers_of(policy), masked) is not None


@causal
@pytest.mark.parametrize(("prompts", "room"), [(EVEN, 0), (RAGGED, 5), (SHARED, 64)], ids=["even", "ragged", "shared"])
def test_recorded_steps_equal_those_of_the_model_to_the_last_bit(
    architecture: str, prompts: list[list[int]], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, taken = make(architecture), Taken(monkeypatch)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 10**9)
    wanted = story(policy, prompts, room)
    assert (taken.flat, taken.recordings) == (0, 0)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    assert_equal(story(policy, prompts, room), wanted)
    assert (taken.flat, taken.recordings) == (6, 1)  # the last two steps have one row: those the model makes itself
    assert_equal(story(policy, prompts, room), wanted)
    assert (taken.flat, taken.recordings) == (12, 1)
    assert len({tuple(x.shape) for x in wanted}) > 4


def test_steps_with_and_without_a_mask_are_recorded_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make("llama")
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 10**9)
    wanted = [story(policy, prompts) for prompts in (EVEN, RAGGED, EVEN)]
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    taken = Taken(monkeypatch)
    for one, prompts in zip(wanted, (EVEN, RAGGED, EVEN), strict=True):
        assert_equal(story(policy, prompts), one)
    assert taken.recordings == 2
    assert taken.flat == 18


def test_short_runs_go_without_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, taken = make("gpt2"), Taken(monkeypatch)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 11)
    story(policy, EVEN)
    assert (taken.flat, taken.recordings) == (0, 0)
    story(policy, EVEN)  # the 11th step is the third of these
    assert (taken.flat, taken.recordings) == (4, 1)


@causal
def test_weights_that_were_trained_are_those_of_the_recorded_step(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the weights may have become a constant."""
    policy, taken = make(architecture), Taken(monkeypatch)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    before = story(policy, RAGGED)
    for parameter in policy.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    for group in policy.optimizer.param_groups:
        group["lr"] = 0.05
    policy.optimizer.step()
    after = story(policy, RAGGED)
    assert taken.recordings == 1  # still the same
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 10**9)
    assert_equal(after, story(policy, RAGGED))
    assert not torch.allclose(after[2], before[2], atol=0.1)
    other = MODELS[architecture](seed=9, vocab_size=V)
    policy.model.load_state_dict(other.state_dict())
    wanted = story(policy, RAGGED)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    assert_equal(story(policy, RAGGED), wanted)


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_other_parameters_are_recorded_anew(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, taken = make(architecture), Taken(monkeypatch)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    before = story(policy, EVEN)
    for module in list(policy.model.base_model.modules()):
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter is not policy.model.get_output_embeddings().weight:
                setattr(module, name, nn.Parameter(parameter.detach() * 1.5 + 0.01))
    found = story(policy, EVEN)
    assert taken.recordings == 2
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 10**9)
    assert_equal(found, story(policy, EVEN))
    assert not torch.allclose(found[2], before[2], atol=0.1)


def test_other_modules_are_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As adapters do: parameters inside are new, the old ones are kept."""
    policy, taken = make("gpt2"), Taken(monkeypatch)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    story(policy, EVEN)

    class Adapted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.more = inner, nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.more(x)

    block = policy.model.transformer.h[1]
    block.mlp = Adapted(block.mlp)
    found = story(policy, EVEN)
    assert taken.recordings == 2
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 10**9)
    assert_equal(found, story(policy, EVEN))


def test_a_model_with_another_attention_makes_its_steps_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = GPT2LMHeadModel._from_config(tiny_gpt2(vocab_size=V).config, attn_implementation="eager")
    policy = CausalLMPolicy(*text_spaces(64, V), lambda _: 1e-3, model=eager)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 10**9)
    wanted = story(policy, RAGGED)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    taken = Taken(monkeypatch)
    assert_equal(story(policy, RAGGED), wanted)
    assert (taken.flat, taken.recordings) == (0, 0)


class Constant(nn.Module):
    """What a recording may look like of a model that does more than tensor operations."""

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return tokens.expand(-1, 32) * 0.5


def cannot_record(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("a branch that depends on data")


def records_something_else(*_args: Any, **_kwargs: Any) -> Any:
    return lambda *example: torch.fx.symbolic_trace(Constant())


def records_no_keys(step: Callable[..., Tensor], **kwargs: Any) -> Any:
    """The right hidden states, of keys and values that nobody sees again."""

    def forgetful(tokens: Tensor, positions: Tensor, mask: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        return step(tokens, positions, mask, [k + 0 for k in keys], [v + 0 for v in values])

    return make_fx(forgetful, **kwargs)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("failure", [cannot_record, records_something_else, records_no_keys])
def test_a_step_that_cannot_be_recorded_is_made_by_the_model(
    architecture: str, failure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(architecture)
    wanted = story(policy, RAGGED)
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    monkeypatch.setattr(flat_step, "make_fx", failure)
    with torch.inference_mode():
        assert flat_step.record(policy.model, layers_of(policy), True) is None
    taken = Taken(monkeypatch)
    assert_equal(story(policy, RAGGED), wanted)
    assert taken.recordings == 1  # it is not tried again and again
    assert taken.flat == 0


def test_a_training_with_recorded_steps_equals_one_without_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(pays_after: int) -> tuple[dict[str, Tensor], int]:
        with monkeypatch.context() as patch:
            patch.setattr(flat_step, "PAYS_AFTER", pays_after)
            taken = Taken(patch)
            algorithm = toy_groups(GRPO, seed=2).learn(300)
            return {k: v.clone() for k, v in algorithm.policy.state_dict().items()}, taken.flat

    (one, flat), (other, none) = trained(1), trained(10**9)
    assert flat > 20
    assert none == 0
    for name, wanted in other.items():
        assert torch.equal(one[name], wanted), name
