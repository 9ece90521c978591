"""Log-probabilities and entropies from hidden states, chunk by chunk, against the plain formula and autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import agent_fixtures  # noqa: F401  (one thread)
import numpy as np
import pytest
import torch
from torch import Tensor

from textgym_agents.models import token_scores as module
from textgym_agents.models.token_scores import Head, Support, token_scores, unpack_bits
from textgym_agents.rollouts.buffers import pack_bits

N, H, V, END = 13, 6, 21, 3
VALUES, GRADIENTS = 2e-6, 1e-5  # absolute tolerances, and 1e-5 relative: float32 against float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": noise(V, seed=2)},
    "scale": {"scale": 0.25},
    "scale and bias": {"scale": 3.0, "bias": noise(V, seed=2)},
    "softcap": {"softcap": 1.5},
    "everything": {"scale": 0.5, "softcap": 2.0, "bias": noise(V, seed=2)},
}


def head(**settings: Any) -> Head:
    return Head(**{"weight": 0.4 * noise(V, H, seed=1), "bias": None, **settings})


def mask_at_random() -> Tensor:
    """``[N, V]``: half of all tokens, another half in every row, sometimes only one."""
    mask = torch.rand(N, V, generator=torch.Generator().manual_seed(5)) < 0.5
    mask[4] = False
    mask[:, 7] = True
    return mask


def supports() -> dict[str, tuple[Support | None, Tensor]]:
    """What ``token_scores`` is told, and the same as a mask ``[N, V]``."""
    everything = torch.ones(N, V, dtype=torch.bool)
    nothing, some = torch.zeros(0, dtype=torch.long), torch.tensor([0, 11, 20])
    early = torch.arange(N) % 3 == 0
    without = everything.clone()
    without[:, some] = False
    at_first, both = everything.clone(), without.clone()
    at_first[early, END] = both[early, END] = False
    any_mask = mask_at_random()
    return {
        "all": (None, everything),
        "an empty support": (Support(nothing), everything),
        "forbidden": (Support(some), without),
        "too early": (Support(nothing, END, early), at_first),
        "forbidden and too early": (Support(some, END, early), both),
        "packed": (Support(nothing, packed=torch.from_numpy(pack_bits(any_mask))), any_mask),
    }


SUPPORTS = supports()
heads = pytest.mark.parametrize("kind", HEADS)
kinds_of_support = pytest.mark.parametrize("limited", SUPPORTS)
temperatures = pytest.mark.parametrize("temperature", [1.0, 0.6])


def drawn(mask: Tensor) -> Tensor:
    """``[N]``: a token of every row that its mask allows."""
    return mask.float().multinomial(1, generator=torch.Generator().manual_seed(9)).squeeze(-1)


def dense(hidden: Tensor, used: Head, tokens: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The definition, on all logits at once and in whatever precision it is given."""
    logits = used.scale * (hidden @ used.weight.t())
    if used.bias is not None:
        logits = logits + used.bias
    if used.softcap is not None:
        logits = used.softcap * (logits / used.softcap).tanh()
    log_p = (logits / temperature).masked_fill(~mask, -torch.inf).log_softmax(-1)
    finite = torch.where(mask, log_p, torch.zeros_like(log_p))
    return log_p.gather(-1, tokens[:, None]).squeeze(-1), -(log_p.exp() * finite).sum(-1)


Results = dict[str, Tensor | None]


def results(
    scores: Callable[[Tensor, Head], tuple[Tensor, Tensor]], used: Head, entropies: bool, dtype: torch.dtype
) -> Results:
    """Log-probabilities, entropies, and the gradient of a weighted sum of them."""
    hidden = noise(N, H, seed=3).to(dtype).requires_grad_()
    weight = used.weight.to(dtype).requires_grad_()
    bias = None if used.bias is None else used.bias.clone().to(dtype).requires_grad_()
    log_probs, spread = scores(hidden, replace(used, weight=weight, bias=bias))
    loss = (noise(N, seed=7).to(log_probs.dtype) * log_probs).sum()
    if entropies:
        loss = loss + (noise(N, seed=8).to(spread.dtype) * spread).sum()
    loss.backward()
    return {
        "log_probs": log_probs.detach(),
        "entropies": spread.detach(),
        "hidden": hidden.grad,
        "weight": weight.grad,
        "bias": None if bias is None else bias.grad,
    }


def ours(kind: str, limited: str, temperature: float, entropies: bool, **changes: Any) -> Results:
    support, mask = SUPPORTS[limited]
    tokens = drawn(mask)
    return results(
        lambda hidden, used: token_scores(hidden, used, tokens, support, temperature, entropies),
        head(**HEADS[kind], **changes),
        entropies,
        torch.float32,
    )


def theirs(kind: str, limited: str, temperature: float, entropies: bool) -> Results:
    mask = SUPPORTS[limited][1]
    tokens = drawn(mask)
    return results(
        lambda hidden, used: dense(hidden, used, tokens, mask, temperature),
        head(**HEADS[kind]),
        entropies,
        torch.float64,
    )


def assert_close(found: Results, wanted: Results, values: float = VALUES, gradients: float = GRADIENTS) -> None:
    assert found.keys() == wanted.keys()
    for name, other in wanted.items():
        one = found[name]
        assert (one is None) == (other is None), name
        if one is not None and other is not None:
            tolerance = values if name in ("log_probs", "entropies") else gradients
            torch.testing.assert_close(
                one.double(), other.double(), rtol=1e-5, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, of which none is kept for the backward pass: 4, 4, 4 and 1 rows."""
    monkeypatch.setattr(module, "CHUNK", {"cpu": 4 * V + 5})
    monkeypatch.setattr(module, "KEEP", 0)


# ---- values and gradients --------------------------------------------------------------------------------------------------


@heads
@kinds_of_support
@temperatures
@pytest.mark.parametrize("entropies", [True, False])
def test_values_and_gradients_equal_those_of_all_logits_at_once(
    kind: str, limited: str, temperature: float, entropies: bool
) -> None:
    found, wanted = (f(kind, limited, temperature, entropies) for f in (ours, theirs))
    if not entropies:
        assert found["entropies"] is not None
        assert (found["entropies"] == 0).all()
        found["entropies"] = wanted["entropies"] = None
    assert_close(found, wanted)


@heads
@kinds_of_support
@temperatures
@pytest.mark.parametrize("entropies", [True, False])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_that_are_made_again_change_nothing(
    kind: str, limited: str, temperature: float, entropies: bool
) -> None:
    found, wanted = (f(kind, limited, temperature, entropies) for f in (ours, theirs))
    if not entropies:
        found["entropies"] = wanted["entropies"] = None
    assert_close(found, wanted)


@pytest.mark.parametrize(("rows", "keep"), [(N, 0), (4, 0), (1, 0), (N, 10**9), (4, 10**9), (5, N * V), (5, N * V - 1)])
@pytest.mark.parametrize("limited", ["packed", "forbidden and too early"])
def test_kept_chunked_and_unchunked_are_the_same(
    rows: int, keep: int, limited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ours("scale and bias", limited, 0.6, True)
    monkeypatch.setattr(module, "CHUNK", {"cpu": rows * V})
    monkeypatch.setattr(module, "KEEP", keep)
    assert_close(ours("scale and bias", limited, 0.6, True), wanted, values=1e-6, gradients=2e-6)


def test_the_dense_formula_by_hand() -> None:
    """Otherwise both could be wrong in the same way: logits 0, log 2, log 5 without the second are 1/6 and 5/6."""
    used = Head(torch.tensor([[0.0], [2.0], [5.0]]).log().clamp(min=0), None)
    mask = torch.tensor([[True, False, True]])
    support = Support(torch.zeros(0, dtype=torch.long), packed=torch.from_numpy(pack_bits(mask)))
    log_probs, entropies = token_scores(torch.ones(1, 1), used, torch.tensor([2]), support, entropies=True)
    assert log_probs.item() == pytest.approx(np.log(5 / 6), abs=1e-6)
    assert entropies.item() == pytest.approx(-np.log(5 / 6) * 5 / 6 - np.log(1 / 6) / 6, abs=1e-6)
    halved, _ = token_scores(torch.ones(1, 1), used, torch.tensor([2]), support, temperature=0.5)
    assert halved.item() == pytest.approx(np.log(25 / 26), abs=1e-6)


def test_a_token_that_alone_can_be_drawn_is_certain_and_has_no_gradient() -> None:
    only = torch.zeros(N, V, dtype=torch.bool)
    only[:, 2] = True
    support = Support(torch.zeros(0, dtype=torch.long), packed=torch.from_numpy(pack_bits(only)))
    hidden = noise(N, H).requires_grad_()
    log_probs, entropies = token_scores(hidden, head(), torch.full((N,), 2), support, 0.7, True)
    assert (log_probs == 0).all()
    assert (entropies == 0).all()
    (log_probs.sum() + entropies.sum()).backward()
    assert hidden.grad is not None
    assert (hidden.grad == 0).all()


@pytest.mark.parametrize("wanted", ["hidden", "weight", "bias"])
@pytest.mark.parametrize("keep", [0, 10**9])
def test_gradients_that_nobody_needs_are_not_computed(wanted: str, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP", keep)
    mask = SUPPORTS["forbidden"][1]
    every = theirs("bias", "forbidden", 1.0, True)
    parts = {"hidden": noise(N, H, seed=3), "weight": head().weight, "bias": noise(V, seed=2)}
    parts[wanted].requires_grad_()
    used = Head(parts["weight"], parts["bias"])
    log_probs, entropies = token_scores(parts["hidden"], used, drawn(mask), SUPPORTS["forbidden"][0], entropies=True)
    (noise(N, seed=7) @ log_probs + noise(N, seed=8) @ entropies).backward()
    for name, part in parts.items():
        assert (part.grad is not None) == (name == wanted)
    torch.testing.assert_close(parts[wanted].grad.double(), every[wanted], rtol=1e-5, atol=GRADIENTS)  # type: ignore[union-attr]


def test_only_the_entropies_can_be_asked_for_their_gradient() -> None:
    mask = SUPPORTS["packed"][1]
    found, wanted = noise(N, H).requires_grad_(), noise(N, H).double().requires_grad_()
    token_scores(found, head(), drawn(mask), SUPPORTS["packed"][0], 1.3, True)[1].sum().backward()
    used = replace(head(), weight=head().weight.double())
    dense(wanted, used, drawn(mask), mask, 1.3)[1].sum().backward()
    assert found.grad is not None
    assert wanted.grad is not None
    torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=0, atol=GRADIENTS)


def test_a_second_backward_pass_is_right_or_refused() -> None:
    """What is kept for the backward pass is overwritten in it: a second pass must not read that unnoticed."""
    hidden = noise(N, H).requires_grad_()
    log_probs, _ = token_scores(hidden, head(), drawn(SUPPORTS["all"][1]))
    log_probs.sum().backward(retain_graph=True)
    assert hidden.grad is not None
    first, hidden.grad = hidden.grad, None
    try:
        log_probs.sum().backward()
    except RuntimeError as error:
        assert "inplace" in str(error)
    else:
        torch.testing.assert_close(hidden.grad, first)


def test_nothing_gives_nothing() -> None:
    hidden, weight = torch.zeros(0, H, requires_grad=True), noise(V, H).requires_grad_()
    log_probs, entropies = token_scores(hidden, Head(weight, None), torch.zeros(0, dtype=torch.long), entropies=True)
    assert log_probs.shape == entropies.shape == (0,)
    (log_probs.sum() + entropies.sum()).backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, H)
    assert weight.grad is not None
    assert (weight.grad == 0).all()


# ---- precision -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "everything"])
@pytest.mark.parametrize("keep", [0, 10**9])
def test_products_in_bfloat16_are_close_and_gradients_are_float32(
    kind: str, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP", keep)
    found = ours(kind, "forbidden", 0.6, True, dtype=torch.bfloat16)
    exact = ours(kind, "forbidden", 0.6, True)
    for name, one in found.items():
        assert one is None or one.dtype == torch.float32, name
    assert found["log_probs"] is not None and exact["log_probs"] is not None
    assert not torch.equal(found["log_probs"], exact["log_probs"])  # or bfloat16 has not been used at all
    # 8 bits of mantissa: 2 ** -8 of logits of size 5, and of sums of 13 gradients
    assert_close(found, exact, values=0.05, gradients=0.08)


def test_values_do_not_overflow_where_logits_are_large() -> None:
    hidden = (1e4 * noise(N, H)).requires_grad_()
    log_probs, entropies = token_scores(hidden, head(), drawn(SUPPORTS["all"][1]), entropies=True)
    (log_probs.mean() + 0.1 * entropies.mean()).backward()
    for x in (log_probs, entropies, hidden.grad):
        assert x is not None
        assert torch.isfinite(x).all()


# ---- memory ----------------------------------------------------------------------------------------------------------------


class Recorded:
    """Shapes of the logits that were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        plain = Head.logits

        def logits(head: Head, hidden: Tensor) -> Tensor:
            made = plain(head, hidden)
            self.shapes.append(tuple(made.shape))
            return made

        monkeypatch.setattr(Head, "logits", logits)


@pytest.mark.parametrize("chunk", [V, 4 * V + 5, 3 * V, N * V, 10 * N * V, 1])
def test_no_more_logits_than_a_chunk_are_made_at_a_time(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", {"cpu": chunk})
    monkeypatch.setattr(module, "KEEP", 0)
    recorded = Recorded(monkeypatch)
    ours("bias", "packed", 0.6, True)
    most = max(1, chunk // V)  # a row is never cut
    assert max(n for n, _ in recorded.shapes) == min(N, most)
    assert all(v == V for _, v in recorded.shapes)
    passes = -(-N // most)
    assert len(recorded.shapes) == 2 * passes  # forward, and again backward
    assert sum(n for n, _ in recorded.shapes[:passes]) == sum(n for n, _ in recorded.shapes[passes:]) == N


def test_a_kept_block_is_made_once_and_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", {"cpu": 4 * V})
    monkeypatch.setattr(module, "KEEP", N * V)
    recorded = Recorded(monkeypatch)
    ours("bias", "packed", 0.6, True)
    assert recorded.shapes == [(N, V)]
    recorded.shapes.clear()
    with torch.no_grad():
        token_scores(noise(N, H), head(), drawn(SUPPORTS["all"][1]))
    assert [n for n, _ in recorded.shapes] == [4, 4, 4, 1]
    recorded.shapes.clear()
    token_scores(noise(N, H), head(), drawn(SUPPORTS["all"][1]))  # nothing here has a gradient
    assert [n for n, _ in recorded.shapes] == [4, 4, 4, 1]


def test_what_autograd_holds_between_the_passes_is_no_block_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        held.append(tuple(tensor.shape))
        return tensor

    for keep in (0, N * V):
        monkeypatch.setattr(module, "KEEP", keep)
        held.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            token_scores(noise(N, H).requires_grad_(), head(), drawn(SUPPORTS["all"][1]), entropies=True)
        assert ((N, V) in held) == (keep > 0)


# ---- head and support ------------------------------------------------------------------------------------------------------


def test_logits_of_a_head_by_hand() -> None:
    made = Head(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 0.0]), scale=2.0)
    assert made.logits(torch.tensor([[3.0, 1.0]])).tolist() == [[2 * 5.0 + 0.5, -2.0]]
    capped = replace(made, softcap=4.0).logits(torch.tensor([[3.0, 1.0]]))
    assert capped[0].tolist() == pytest.approx([4 * np.tanh(10.5 / 4), 4 * np.tanh(-0.5)])
    assert made.logits(torch.ones(3, 5, 2)).shape == (3, 5, 2)
    low = replace(made, dtype=torch.bfloat16).converted()
    assert low.weight.dtype == torch.bfloat16
    assert low.bias is not None
    assert low.bias.dtype == torch.bfloat16
    assert low.logits(torch.ones(1, 2)).dtype == torch.float32
    assert Head(made.weight, None).converted().bias is None


@pytest.mark.parametrize("limited", [name for name in SUPPORTS if name != "all"])
@pytest.mark.parametrize(("start", "stop"), [(0, N), (0, 5), (5, 9), (N - 1, N)])
def test_a_support_restricts_the_places_it_is_asked_for_in_place(limited: str, start: int, stop: int) -> None:
    support, mask = SUPPORTS[limited]
    assert support is not None
    logits = noise(stop - start, V)
    before = logits.clone()
    found = support.restrict_(logits, start)
    assert found is logits
    here = mask[start:stop]
    assert torch.equal(logits, before.masked_fill(~here, -torch.inf))


def test_bits_are_unpacked_lowest_first() -> None:
    packed = torch.tensor([[0b00000101, 0b10], [0b10000000, 0b01]], dtype=torch.uint8)
    assert unpack_bits(packed, 10).int().tolist() == [[1, 0, 1, 0, 0, 0, 0, 0, 0, 1], [0] * 7 + [1, 1, 0]]
    assert unpack_bits(packed, 8).shape == (2, 8)
    assert unpack_bits(packed[None], 9).shape == (1, 2, 9)
    assert unpack_bits(packed, 10).dtype == torch.bool


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17, V])
def test_unpacking_is_the_inverse_of_packing(size: int) -> None:
    mask = torch.rand(4, 3, size, generator=torch.Generator().manual_seed(size)) < 0.5
    packed = torch.from_numpy(np.packbits(mask.numpy(), axis=-1, bitorder="little"))
    assert torch.equal(unpack_bits(packed, size), mask)
