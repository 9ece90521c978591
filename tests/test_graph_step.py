"""Decoding in static shapes gives what ordinary decoding gives: on a CPU without a graph, on a GPU with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, left_padded, policy_of, tiny_gpt2, tiny_llama, tiny_qwen2, toy_ppo, toy_vector
from transformers import MistralConfig, MistralForCausalLM, T5Config, T5ForConditionalGeneration

from textgym_agents.models.graph_step import ROUND, SIZES
from textgym_agents.models.loading import ModelError
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.decoding import CachedDecoder

architectures = pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama, tiny_qwen2])
PROMPTS = [[4, 5, 6], [7, 8, 9, 10], [4, 5, 6], [11, 12], [3], [9, 9, 9], [4, 5, 6], [20, 21]]


def play(policy: LMPolicy, tokens: torch.Tensor, prompts: list[list[int]] = PROMPTS) -> list[torch.Tensor]:
    """Logits and values of an eventful decoding: rows leave, and one gets a reply of three tokens."""
    device = policy.device
    decoder = CachedDecoder(policy, *(x.to(device) for x in left_padded(prompts)), room=20)
    rows = np.arange(len(prompts))
    seen = [decoder.logits.clone().cpu(), decoder.values.clone().cpu()]
    for t in range(len(tokens)):
        decoder.append(tokens[t, rows][:, None].to(device))
        if t in (2, 4):
            ended = np.zeros(len(rows), dtype=bool)
            ended[: 3 if t == 2 else 2] = True  # eight, five, three: half of the buffer is enough in the end
            rows = rows[decoder.drop(ended)]
            continue  # logits are not kept in step
        if t == 6:
            mask = torch.tensor([[False, True, True]] + [[True] * 3] * (len(rows) - 1))
            decoder.append(tokens[:3, rows].T.to(device), mask.to(device))
        seen += [decoder.logits.clone().cpu(), decoder.values.clone().cpu()]
    return seen


def assert_same_play(ours: LMPolicy, theirs: LMPolicy, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):  # buffers and graphs are used again
        tokens = torch.randint(2, 100, (10, len(PROMPTS)), generator=generator)
        for mine, other in zip(play(ours, tokens), play(theirs, tokens), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=tolerance)


@architectures
def test_static_shapes_change_nothing(make: Any) -> None:
    """Tolerance 1e-4 on logits of order 1: attention sums over masked columns as well."""
    model = make()
    ours = policy_of(model, static_shapes=True)
    assert_same_play(ours, policy_of(model), 1e-4)
    graphs = ours.backbone._graphs
    assert graphs is not None
    assert sorted(rows for _, _, rows in graphs._steps) == [4, 8]


def test_buffers_stay_where_they_are_and_are_not_hoarded() -> None:
    policy = policy_of(tiny_gpt2(), static_shapes=True)
    graphs, tokens = policy.backbone._graphs, torch.full((10, 8), 5)
    assert graphs is not None

    def addresses() -> set[int]:
        return {b.data_ptr() for layers in graphs._buffers.values() for layer in layers for b in layer.values()}

    play(policy, tokens)
    first = addresses()
    play(policy, tokens, [[3]] * 4 + [[5, 6]] * 4)  # other prompts, shorter ones, and only two that differ
    assert addresses() == first and len(first) == 4  # keys and values of two layers
    for rows in (5, 6, 7):
        CachedDecoder(policy, *left_padded([[3]] * rows), room=2 * ROUND).append(torch.full((rows, 1), 4))
    assert len(graphs._buffers) <= SIZES and len(graphs._steps) <= SIZES


def test_a_rollout_in_static_shapes_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def episodes(static: bool) -> Any:
        model = tiny_gpt2(vocab_size=len(WORDS), scale=0.15)
        ppo = toy_ppo(toy_vector(12), model=model, policy_kwargs={"static_shapes": static})
        ppo.learn(2 * 12 * 10)
        return ppo.rollout_buffer.sequences

    ours, theirs = episodes(True), episodes(False)
    assert torch.equal(ours.input_ids, theirs.input_ids)
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, rtol=0, atol=1e-4)


def test_changed_weights_are_seen() -> None:
    model = tiny_gpt2()
    ours, theirs = policy_of(model, static_shapes=True), policy_of(model)
    tokens = torch.randint(2, 100, (10, len(PROMPTS)))
    before = play(ours, tokens)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert not torch.allclose(before[-2], play(ours, tokens)[-2], atol=1e-2)
    assert_same_play(ours, theirs, 1e-4)


def test_models_that_do_not_fit_are_refused() -> None:
    settings = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=3072, num_key_value_heads=2, **settings)
    config._attn_implementation = "eager"
    with pytest.raises(
        ModelError, match=r"full attention in every layer.*static_shapes=True, actual: MistralForCausalLM"
    ):
        policy_of(MistralForCausalLM(config), static_shapes=True)
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=3072, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    from agent_fixtures import text_spaces

    from textgym_agents import Seq2SeqLMPolicy

    with pytest.raises(ModelError, match="Expected a causal model with static_shapes=True"):
        Seq2SeqLMPolicy(*text_spaces(64), lambda _: 1e-3, model=t5, static_shapes=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@architectures
@pytest.mark.parametrize("bf16", [False, True])
def test_a_cuda_graph_changes_nothing(make: Any, bf16: bool) -> None:
    """Tolerance 1e-3 in float32, 0.1 in bfloat16, whose rounding differs with the kernels."""
    model = make().cuda()
    ours, theirs = (policy_of(model, static_shapes=static, bf16=bf16).cuda() for static in (True, False))
    assert_same_play(ours, theirs, 0.1 if bf16 else 1e-3)
    graphs = ours.backbone._graphs
    assert graphs is not None and all(step._graph is not None for step in graphs._steps.values())
