"""From logits to a drawn token: against slow reference implementations, transformers, and adversarial distributions."""

from __future__ import annotations

import math

import agent_fixtures  # noqa: F401  (one thread)
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from textgym import TextGymError
from textgym_agents.losses import entropy_of
from textgym_agents.rollouts.sampling import Decoding, draw, invert, log_softmax_on, sample, support

DECODINGS = [
    Decoding(),
    Decoding(temperature=0.3),
    Decoding(temperature=2.5),
    Decoding(top_k=1),
    Decoding(top_k=5),
    Decoding(top_k=10_000),
    Decoding(top_p=1e-6),
    Decoding(top_p=0.5),
    Decoding(top_p=0.999),
    Decoding(temperature=0.7, top_k=7, top_p=0.8),
    Decoding(temperature=1.5, top_k=3, top_p=0.2),
]
decodings = pytest.mark.parametrize("decoding", DECODINGS, ids=str)


def logits_and_mask(rows: int = 12, v: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, v, generator=generator)
    mask = torch.rand(rows, v, generator=generator) < 0.7
    mask[0] = True
    mask[1] = torch.arange(v) == 3  # a single choice
    return logits, mask


def slowly(logits: list[float], allowed: list[bool], decoding: Decoding) -> list[float]:
    """The probabilities that the definition gives for one row, in double precision and with plain lists."""
    kept = [i for i, ok in enumerate(allowed) if ok]
    weight = {i: math.exp((logits[i] - max(logits[j] for j in kept)) / decoding.temperature) for i in kept}
    if 0 < decoding.top_k < len(kept):
        kept = sorted(kept, key=lambda i: -logits[i])[: decoding.top_k]
    if decoding.top_p < 1:
        total, so_far, nucleus = sum(weight[i] for i in kept), 0.0, []
        for i in sorted(kept, key=lambda i: -logits[i]):
            if so_far < decoding.top_p:
                nucleus.append(i)
            so_far += weight[i] / total
        kept = nucleus
    total = sum(weight[i] for i in kept)
    return [weight[i] / total if i in kept else 0.0 for i in range(len(logits))]


# ---- which tokens can be drawn, and how likely they are ------------------------------------------------------------------


@decodings
@pytest.mark.parametrize("masked", [False, True])
def test_probabilities_equal_a_slow_reference(decoding: Decoding, masked: bool) -> None:
    logits, mask = logits_and_mask()
    allowed = mask if masked else None
    kept = support(logits, allowed, decoding)
    found = log_softmax_on(logits, kept, decoding.temperature).exp()
    for row in range(len(logits)):
        wanted = slowly(logits[row].tolist(), mask[row].tolist() if masked else [True] * 40, decoding)
        assert found[row].tolist() == pytest.approx(wanted, abs=1e-6)
        assert [p > 0 for p in found[row].tolist()] == [p > 0 for p in wanted]


@decodings
def test_probabilities_equal_those_of_transformers(decoding: Decoding) -> None:
    logits, _ = logits_and_mask(rows=32)
    scores, nothing = logits, torch.zeros(32, 1, dtype=torch.long)
    if decoding.temperature != 1:
        scores = TemperatureLogitsWarper(decoding.temperature)(nothing, scores)
    if decoding.top_k:
        scores = TopKLogitsWarper(decoding.top_k)(nothing, scores)
    if decoding.top_p < 1:
        scores = TopPLogitsWarper(decoding.top_p)(nothing, scores)
    kept = support(logits, None, decoding)
    assert torch.equal(torch.ones_like(logits, dtype=torch.bool) if kept is None else kept, torch.isfinite(scores))
    torch.testing.assert_close(log_softmax_on(logits, kept, decoding.temperature), scores.log_softmax(-1))


def test_nothing_that_the_mask_forbids_survives_and_something_always_does() -> None:
    logits, mask = logits_and_mask(rows=64)
    logits[~mask] = 50.0  # the forbidden tokens are the most likely ones
    for decoding in DECODINGS:
        kept = support(logits, mask, decoding)
        assert kept is not None
        assert not (kept & ~mask).any()
        assert kept.any(-1).all()
        probabilities = log_softmax_on(logits, kept, decoding.temperature).exp()
        assert (probabilities[~kept] == 0).all()
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(64))


def test_equally_likely_tokens_at_the_edge_of_top_k_are_all_kept_as_transformers_does() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    kept = support(logits, None, Decoding(top_k=2))
    assert kept is not None
    assert kept.tolist() == [[True, True, True, True, False]]


def test_top_p_of_equally_likely_tokens_keeps_the_fewest_that_reach_it() -> None:
    uniform = torch.zeros(1, 8)
    for top_p, count in ((0.125, 1), (0.126, 2), (0.5, 4), (0.51, 5), (0.9999, 8)):
        kept = support(uniform, None, Decoding(top_p=top_p))
        assert kept is not None
        assert int(kept.sum()) == count


def test_extreme_logits() -> None:
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [88.0, 89.0, -1e4]])
    rows = log_softmax_on(logits, support(logits, None, Decoding()), 1.0).exp()
    assert rows[0].tolist() == [1.0, 0.0, 0.0]
    assert rows[1].tolist() == pytest.approx([1 / 3] * 3)
    assert rows[2].tolist() == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e), 0.0])
    half = torch.tensor([[60000.0, 1.0]], dtype=torch.float16)
    assert log_softmax_on(half, None, 0.01).dtype == torch.float32


def test_a_row_without_any_allowed_token_is_an_error_that_names_it() -> None:
    logits, mask = logits_and_mask()
    mask[4] = False
    for decoding in (Decoding(), Decoding(top_k=3), Decoding(top_p=0.5)):
        with pytest.raises(TextGymError, match="at least one allowed token in every action mask; row 4 has none"):
            support(logits, mask, decoding)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "`temperature` to be a number above 0, actual value: 0 "),
        ({"temperature": math.nan}, "`temperature` to be a number above 0, actual value: nan"),
        ({"temperature": math.inf}, "`temperature` to be a number above 0, actual value: inf"),
        ({"top_k": -1}, "`top_k` to be a whole number of at least 0, actual value: -1"),
        ({"top_k": 2.0}, "`top_k` to be a whole number of at least 0, actual value: 2.0"),
        ({"top_p": 0.0}, r"`top_p` to be in \(0, 1\], actual value: 0.0"),
        ({"top_p": 1.01}, r"`top_p` to be in \(0, 1\], actual value: 1.01"),
    ],
)
def test_decoding_refuses(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)  # type: ignore[arg-type]


# ---- the draw --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 7, 300])
def test_draws_come_as_often_as_they_should(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(size, generator=generator)).softmax(0)
    probabilities[size // 2] = 0
    probabilities /= probabilities.sum()
    n = 60_000
    tokens = draw(probabilities.log().expand(n, size), generator)
    counts = torch.bincount(tokens, minlength=size).double()
    assert counts[probabilities == 0].sum() == 0
    likely = probabilities * n >= 5  # where the chi-square statistic is one
    expectation = (probabilities * n)[likely].double()
    statistic = float(((counts[likely] - expectation) ** 2 / expectation).sum())
    freedom = int(likely.sum()) - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)  # a false alarm in some ten thousand seeds
    shifted = float(((counts[likely].roll(1) - expectation) ** 2 / expectation).sum())
    assert shifted > freedom + 4 * math.sqrt(2 * freedom)  # the bound notices an index that is off by one


def adversarial() -> list[list[float]]:
    return [
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],  # a single one between zeros
        [0.0, 0.5, 0.0, 0.5, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        [1e-30, 0.0, 1 - 2e-7, 0.0, 1e-7, 0.0],
        [0.0, 1e-38, 0.0, 0.9999999, 1e-8, 0.0],
        [1 / 3, 0.0, 1 / 3, 0.0, 1 / 3, 0.0],
    ]


@pytest.mark.parametrize("uniform", [0.0, 2**-24, 0.5, 1 - 2**-24, None])
def test_no_draw_ever_has_probability_0(uniform: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = torch.tensor(adversarial()).log()
    if uniform is None:
        log_probs = log_probs.repeat(5000, 1)
    else:  # the smallest and the largest number that torch.rand gives, and one that hits a step of the cumulative sum
        monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), uniform))
    tokens = draw(log_probs, torch.Generator().manual_seed(0))
    assert torch.isfinite(log_probs.gather(-1, tokens[:, None])).all()


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.2, 1), (0.25, 3), (0.7, 3), (0.75, 4), (1 - 2**-24, 4)])
def test_a_draw_inverts_the_cumulative_distribution(
    uniform: float, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), uniform))
    assert draw(torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).log()).tolist() == [token]


def test_no_draw_has_probability_0_in_a_vocabulary_of_50257_with_few_allowed() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(400, 50_257, generator=generator)
    mask = torch.rand(400, 50_257, generator=generator) < 1e-3
    log_probs = log_softmax_on(logits, support(logits, mask, Decoding()), 1.0)
    tokens = draw(log_probs, generator)
    assert mask.gather(-1, tokens[:, None]).all()


def test_no_draw_has_probability_0_where_the_cumulative_sum_is_off_by_a_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it may be on a GPU, which sums in parallel."""
    plain = torch.Tensor.cumsum

    def rounded(self: torch.Tensor, dim: int) -> torch.Tensor:
        return plain(self, dim) + torch.tensor([0.0, 2e-7, 2e-7, 0.0]) if self.shape[1] == 4 else plain(self, dim)

    monkeypatch.setattr(torch.Tensor, "cumsum", rounded)
    found = invert(torch.tensor([[0.5, 0.0, 0.0, 0.5]]).expand(64, 4), torch.full((64,), 0.5000001), block=4)
    assert set(found.tolist()) <= {0, 3}


@pytest.mark.parametrize("size", [1, 5, 63, 64, 65, 130, 2048])
def test_blocks_change_nothing(size: int) -> None:
    """Against a cumulative sum in double precision; heights within a rounding of a step may fall on either side."""
    generator = torch.Generator().manual_seed(size)
    probabilities = (3 * torch.randn(500, size, generator=generator)).softmax(-1)
    uniforms = torch.rand(500, generator=generator)
    sums = probabilities.double().cumsum(-1)
    heights = uniforms.double()[:, None] * sums[:, -1:]
    low, high = (torch.searchsorted(sums, heights + shift, right=True).clamp(0, size - 1) for shift in (-1e-6, 1e-6))
    for block in (1, 7, 64):
        found = invert(probabilities, uniforms, block)[:, None]
        assert ((low <= found) & (found <= high)).all()


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.7}, {"temperature": 1.5, "top_p": 0.9}]
)
def test_a_sample_records_what_the_plain_formulas_say(settings: dict[str, float]) -> None:
    generator, decoding = torch.Generator().manual_seed(0), Decoding(**settings)  # type: ignore[arg-type]
    logits = 4 * torch.randn(200, 90, generator=generator)
    logits[:, [0, 5]] = -torch.inf
    drawn = sample(logits, decoding, torch.rand(200, generator=generator))
    kept = support(logits, torch.isfinite(logits), decoding)
    wanted = log_softmax_on(logits, kept, decoding.temperature)
    torch.testing.assert_close(drawn.log_probs, wanted.gather(-1, drawn.tokens[:, None]).squeeze(-1), rtol=0, atol=2e-5)
    torch.testing.assert_close(drawn.entropies, entropy_of(wanted), rtol=0, atol=2e-5)
    assert torch.isfinite(drawn.log_probs).all()
    assert drawn.support is None if not decoding.narrows else torch.equal(drawn.support, kept)  # type: ignore[arg-type]


def test_draws_are_those_of_the_generator() -> None:
    log_probs = torch.zeros(1000, 50).log_softmax(-1)
    first, again, other = (draw(log_probs, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_probabilities_that_are_not_numbers_are_an_error_that_names_the_row() -> None:
    log_probs = torch.zeros(3, 4).log_softmax(-1)
    log_probs[2] = math.nan
    with pytest.raises(TextGymError, match=r"not finite.*row 2.*diverged"):
        draw(log_probs)


# ---- entropy ---------------------------------------------------------------------------------------------------------------


def test_entropy_by_hand_and_over_the_support_only() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0], [0.0, 9.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    found = entropy_of(log_softmax_on(logits, mask, 1.0))
    assert found.tolist() == pytest.approx([math.log(4), math.log(2), 0.0])
    p = [0.1, 0.6, 0.3]
    assert entropy_of(torch.tensor(p).log()).item() == pytest.approx(-sum(x * math.log(x) for x in p))


@pytest.mark.parametrize("weight", [1e-3, 1.0, 1e3])
def test_gradient_of_the_entropy_is_finite_and_right_with_masked_tokens(weight: float) -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 200.0, -200.0, 1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False, True], [True, True, True, False]])
    (weight * entropy_of(log_softmax_on(logits, mask, 0.5)).sum()).backward()
    assert logits.grad is not None
    found = logits.grad.clone()
    assert torch.isfinite(found).all()
    assert (found[~mask] == 0).all()
    small = logits.detach()[0, [0, 1, 3]].double().requires_grad_()
    p = (small / 0.5).softmax(-1)
    (weight * -(p * p.log()).sum()).backward()
    assert small.grad is not None
    torch.testing.assert_close(found[0, [0, 1, 3]], small.grad.float(), rtol=1e-4, atol=1e-6)
