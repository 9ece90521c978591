"""Attention of one query a row, and that nobody else gets it."""

from __future__ import annotations

import pytest
import torch
from agent_fixtures import tiny_llama
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from textgym_agents.models.attention import attend, one_query_attention


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kind", ["none", "bool", "added"])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_equals_pytorchs(groups: int, kind: str, scaling: float | None) -> None:
    """Tolerance 1e-6 on numbers of order 1; keys and values are views of wider buffers, as in a cache."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(5, 2 * groups, 1, 8, generator=generator)
    key, value = (torch.randn(7, 2, 20, 8, generator=generator)[:5, :, :11] for _ in range(2))
    mask = None
    if kind != "none":
        mask = torch.rand(5, 1, 1, 11, generator=generator) > 0.4
        mask[..., -1] = True
        if kind == "added":
            mask = torch.where(mask, torch.randn(mask.shape, generator=generator), -torch.inf)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1
    )
    torch.testing.assert_close(attend(query, key, value, mask, scaling), wanted.transpose(1, 2), rtol=0, atol=1e-6)


def test_it_is_used_for_single_tokens_without_gradients_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(query: torch.Tensor, *args: object) -> torch.Tensor:
        calls.append(query.shape[2])
        return attend(query, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("textgym_agents.models.attention.attend", counted)
    model, one, two = tiny_llama(), torch.tensor([[5], [6]]), torch.tensor([[5, 6], [7, 8]])
    with torch.no_grad():
        plain = [model(x).logits for x in (one, two)]
        assert not calls
        with one_query_attention():
            found = [model(x).logits for x in (one, two)]
        assert calls == [1, 1]  # two layers, once
        model(one)
    with one_query_attention():
        model(one).logits.sum().backward()
    assert calls == [1, 1]
    for mine, other in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


def test_an_attention_that_somebody_has_put_there_stays() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def theirs(*args: object, **kwargs: object) -> None: ...

    with pytest.raises(RuntimeError, match="stop"), one_query_attention():
        raise RuntimeError("stop")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    ALL_ATTENTION_FUNCTIONS["sdpa"] = theirs
    try:
        with one_query_attention():
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not theirs
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is theirs
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
