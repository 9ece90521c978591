"""Decoding with a key-value cache, greedy decoding and beam search, against full forward passes and transformers."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from agent_fixtures import left_padded, policy_of, tiny_gpt2, tiny_llama, tiny_qwen2
from transformers import PreTrainedModel

from textgym_agents import CausalLMPolicy, Decoding, Limits
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import CachedDecoder, beam_search, complete, greedy, sampler

V = 50
MODELS: dict[str, Callable[..., PreTrainedModel]] = {"gpt2": tiny_gpt2, "llama": tiny_llama, "qwen2": tiny_qwen2}
architectures = pytest.mark.parametrize("architecture", MODELS)
PROMPTS = [[7, 3, 9, 12, 4], [5], [8, 8, 2], [30, 31, 32, 33, 34, 35, 36, 37]]


def make(architecture: str = "gpt2", seed: int = 0, width: int = 32) -> CausalLMPolicy:
    return policy_of(MODELS[architecture](seed=seed, vocab_size=V), width=width, vocab_size=V)


def limits(budget: int = 6, eos: int = 1, minimum: int = 0, forbidden: tuple[int, ...] = ()) -> Limits:
    return Limits(V, eos, budget, minimum, forbidden)


def none_written(rows: list[list[int]] = PROMPTS) -> torch.Tensor:
    return torch.zeros(len(rows), dtype=torch.long)


# ---- the cache -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def uncached(policy: CausalLMPolicy, row: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and value after ``row``, from one forward pass over it alone, without padding."""
    out = policy.model(torch.tensor([row]), output_hidden_states=True)
    return out.logits[0, -1], policy.value_head(out.hidden_states[-1][0, -1])[0]


def assert_same(policy: CausalLMPolicy, decoder: CachedDecoder, rows: list[list[int]]) -> None:
    for i, row in enumerate(rows):
        logits, value = uncached(policy, row)
        torch.testing.assert_close(decoder.logits[i], logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(decoder.values[i], value, rtol=0, atol=1e-4)


@architectures
def test_cached_logits_and_values_equal_a_full_forward_pass(architecture: str) -> None:
    policy, rows = make(architecture), [list(row) for row in PROMPTS]
    decoder = CachedDecoder(policy, *left_padded(rows))
    assert_same(policy, decoder, rows)
    generator = torch.Generator().manual_seed(0)

    def tokens(n: int) -> list[int]:
        return torch.randint(2, V, (n,), generator=generator).tolist()

    for order in ([0, 1, 2, 3], [3, 1, 0], [2, 0, 0, 1], [1, 3]):  # as it is; dropped; repeated; reordered
        decoder.select(torch.tensor(order))
        rows = [list(rows[i]) for i in order]
        new = tokens(len(rows))
        decoder.append(torch.tensor(new)[:, None])
        rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
        assert_same(policy, decoder, rows)
        replies = [tokens(1 + 2 * (i % 3)) for i in range(len(rows))]  # 1, 3, 5, 1 tokens: left-padded
        decoder.append(*left_padded(replies))
        rows = [row + reply for row, reply in zip(rows, replies, strict=True)]
        assert_same(policy, decoder, rows)


@architectures
def test_a_row_that_gets_no_token_for_a_while_is_not_disturbed(architecture: str) -> None:
    policy, rows = make(architecture), [list(row) for row in PROMPTS[:3]]
    decoder = CachedDecoder(policy, *left_padded(rows))
    decoder.append(torch.tensor([[0, 4], [0, 0], [5, 6]]), torch.tensor([[False, True], [False, False], [True, True]]))
    decoder.append(torch.tensor([[0], [0], [9]]), torch.tensor([[False], [False], [True]]))
    decoder.append(torch.tensor([[11], [12], [13]]))
    assert_same(policy, decoder, [[*rows[0], 4, 11], [*rows[1], 12], [*rows[2], 5, 6, 9, 13]])


def test_padding_on_the_left_of_all_rows_costs_nothing_and_changes_nothing() -> None:
    policy = make()
    ids, mask = left_padded(PROMPTS)
    wide = torch.cat([torch.zeros(4, 20, dtype=torch.long), ids], 1), torch.cat([torch.zeros(4, 20), mask], 1)
    decoder = CachedDecoder(policy, *wide)
    torch.testing.assert_close(decoder.logits, CachedDecoder(policy, ids, mask).logits)
    assert decoder._kept.columns == ids.shape[1]


def test_teacher_forcing_equals_the_cache_token_by_token() -> None:
    policy, completion = make(), [4, 9, 9, 2, 17]
    rows = [[*prompt, *completion] for prompt in PROMPTS]
    batch = Sequences.of(PROMPTS, [completion] * len(rows), None)
    log_probs, values, entropies = policy.evaluate_sequences(batch, 0.7, entropies=True)
    decoder = CachedDecoder(policy, *left_padded(PROMPTS))
    for t, token in enumerate(completion):
        wanted = (decoder.logits / 0.7).log_softmax(-1)
        torch.testing.assert_close(log_probs[:, t], wanted[:, token], rtol=0, atol=1e-4)
        torch.testing.assert_close(entropies[:, t], -(wanted.exp() * wanted).sum(-1), rtol=0, atol=1e-4)
        torch.testing.assert_close(values[:, t], decoder.values, rtol=0, atol=1e-4)
        decoder.append(torch.full((len(rows), 1), token))


# ---- greedy ----------------------------------------------------------------------------------------------------------------


def generated(policy: CausalLMPolicy, rows: list[list[int]], bounds: Limits, **kwargs: object) -> list[list[int]]:
    """What ``transformers`` generates, without the padding behind an end token."""
    ids, mask = left_padded(rows)
    out = policy.model.generate(  # type: ignore[operator]
        ids,
        attention_mask=mask.long(),
        max_new_tokens=bounds.max_new_tokens,
        min_new_tokens=bounds.min_new_tokens or None,
        eos_token_id=bounds.eos_token_id,
        pad_token_id=V - 1 if bounds.eos_token_id != V - 1 else 0,
        suppress_tokens=list(bounds.forbidden) or None,
        do_sample=False,
        renormalize_logits=True,
        **kwargs,
    )
    found = []
    for row in out[:, ids.shape[1] :].tolist():
        end = row.index(bounds.eos_token_id) + 1 if bounds.eos_token_id in row else len(row)
        found.append(row[:end])
    return found


@architectures
@pytest.mark.parametrize("minimum", [0, 4])
def test_greedy_equals_generate(architecture: str, minimum: int) -> None:
    policy = make(architecture)
    free = complete(policy, *left_padded(PROMPTS), limits(12, V - 1, 0, (V - 1,)), greedy)
    eos = free[0][2]  # a token that greedy decoding really comes to is made the end token
    forbidden = tuple({free[1][1], free[3][4]} - {eos})
    bounds = limits(12, eos, minimum, forbidden)
    found = complete(policy, *left_padded(PROMPTS), bounds, greedy)
    assert found == generated(policy, PROMPTS, bounds)
    assert found != free
    assert any(row[-1] == eos for row in found) or minimum
    assert not {token for row in found for token in row} & set(forbidden)


def test_budget_and_minimum_are_respected() -> None:
    policy = make()
    bounds = limits(budget=7, eos=1, minimum=3, forbidden=(2, 3))

    def likes_to_end(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ends = mask[:, 1].long()
        assert not mask[:, [2, 3]].any()
        return torch.where(ends == 1, 1, 10)

    assert complete(policy, *left_padded(PROMPTS), bounds, likes_to_end) == [[10] * 3 + [1]] * 4

    def never_ends(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.full((len(logits),), 10)

    assert complete(policy, *left_padded(PROMPTS), bounds, never_ends) == [[10] * 7] * 4


def test_sampling_is_reproducible_and_keeps_to_the_mask() -> None:
    policy, rows = make(), [PROMPTS[0]] * 64
    bounds = limits(budget=5, eos=1, minimum=2, forbidden=tuple(range(20, V)))

    def run(seed: int) -> list[list[int]]:
        choose = sampler(Decoding(temperature=3.0), torch.Generator().manual_seed(seed))
        return complete(policy, *left_padded(rows), bounds, choose)

    found = run(0)
    assert found == run(0) != run(1)
    assert all(token < 20 for row in found for token in row)
    assert all(1 not in row[:2] for row in found)
    assert {len(row) for row in found} >= {3, 5}


# ---- beam search -----------------------------------------------------------------------------------------------------------


@architectures
@pytest.mark.parametrize("num_beams", [2, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_beam_search_equals_generate(architecture: str, num_beams: int, length_penalty: float) -> None:
    for seed in range(3):
        policy = make(architecture, seed)
        free = complete(policy, *left_padded(PROMPTS), limits(8, V - 1, 0, (V - 1,)), greedy)
        bounds = limits(8, eos=free[0][1], minimum=seed, forbidden=(free[1][0],) if seed == 2 else ())
        found = beam_search(
            policy, *left_padded(PROMPTS), none_written(), bounds, num_beams, length_penalty=length_penalty
        )
        wanted = generated(
            policy, PROMPTS, bounds, num_beams=num_beams, length_penalty=length_penalty, early_stopping="never"
        )
        assert found == wanted


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("minimum", [0, 2])
def test_a_wide_beam_finds_the_best_of_all_completions(length_penalty: float, minimum: int) -> None:
    """Against brute force: every completion of a vocabulary of 4 tokens, scored in a full forward pass."""
    budget, eos, prompt = 4, 1, [2, 3]
    for seed in range(3):
        policy = policy_of(tiny_gpt2(seed, vocab_size=4, scale=0.5), width=8, vocab_size=4)
        bounds = Limits(4, eos, budget, minimum, forbidden=(0,))

        def score(text: list[int], policy: CausalLMPolicy = policy, bounds: Limits = bounds) -> float:
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
            mask = bounds.mask(torch.arange(len(text)))
            log_probs = logits.masked_fill(~mask, -torch.inf).log_softmax(-1)
            total = float(log_probs.gather(-1, torch.tensor(text)[:, None]).sum())
            return total / len(text) ** length_penalty

        texts = [
            list(text)
            for n in range(1, budget + 1)
            for text in itertools.product(range(1, 4), repeat=n)
            if eos not in text[:-1] and (text[-1] == eos or n == budget) and (text[-1] != eos or n > minimum)
        ]
        best = max(texts, key=score)
        found = beam_search(
            policy,
            *left_padded([prompt, [3]]),
            torch.tensor([0, 0]),
            bounds,
            num_beams=200,
            length_penalty=length_penalty,
        )
        assert len(texts) >= 28
        assert found[0] == best


def test_one_beam_without_length_normalisation_is_greedy_until_the_end_token() -> None:
    policy, bounds = make(), limits(6, eos=V - 1, forbidden=(V - 1,))
    found = beam_search(policy, *left_padded(PROMPTS), none_written(), bounds, 1, length_penalty=0.0)
    assert found == complete(policy, *left_padded(PROMPTS), bounds, greedy)


def test_beams_of_one_row_do_not_depend_on_what_stands_beside_it() -> None:
    policy, bounds = make(), limits(6)
    together = beam_search(policy, *left_padded(PROMPTS), torch.tensor([0, 3, 5, 6]), bounds, 4)
    for i, written in enumerate([0, 3, 5, 6]):
        alone = beam_search(policy, *left_padded([PROMPTS[i]]), torch.tensor([written]), bounds, 4)
        assert together[i] == alone[0]
        assert len(alone[0]) <= 6 - written


def test_a_beam_search_over_rows_of_different_age_stays_within_the_context_of_the_model() -> None:
    """A row that is done must not go on growing beside one that has just begun."""
    budget = 8
    old, young = list(range(2, 2 + 16)), [5, 6]  # 8 tokens of prompt and 8 written; nothing written yet
    policy = policy_of(tiny_gpt2(vocab_size=V, n_positions=16), width=16, vocab_size=V)
    found = beam_search(
        policy, *left_padded([old[:15], young]), torch.tensor([7, 0]), limits(budget, forbidden=(1,)), 3
    )
    assert [len(row) for row in found] == [1, 8]


@pytest.mark.parametrize("num_beams", [0, -1, 2.0, True])
def test_beam_search_refuses(num_beams: object) -> None:
    with pytest.raises(ValueError, match="`num_beams` to be a whole number of at least 1"):
        beam_search(make(), *left_padded(PROMPTS), none_written(), limits(), num_beams)  # type: ignore[arg-type]
