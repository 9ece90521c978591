"""From logits to the distribution that tokens are really drawn from, and the draw itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from textgym.core import TextGymError, number, whole_number


@dataclass(frozen=True)
class Decoding:
    """How a token is chosen from the model's distribution.

    Attributes:
        temperature: Logits are divided by it; above 0.
        top_k: Only the ``top_k`` most likely tokens; 0 for all.
        top_p: Only the fewest most likely tokens whose probabilities add up to at least ``top_p``, in (0, 1]; 1 for all
            (nucleus sampling, Holtzman et al. 2020, https://arxiv.org/abs/1904.09751).

    Raises:
        ValueError: A value is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        number("temperature", self.temperature, 0, math.inf, above=True, wanted="a number above 0")
        whole_number("top_k", self.top_k, 0)
        number("top_p", self.top_p, 0, 1, above=True, wanted="in (0, 1]")

    @property
    def narrows(self) -> bool:
        """Whether tokens that the mask allows can have probability 0."""
        return self.top_k > 0 or self.top_p < 1


def support(logits: Tensor, mask: Tensor | None, decoding: Decoding) -> Tensor | None:
    """Which tokens can be drawn.

    Args:
        logits: ``[N, V]``, as the model gives them.
        mask: ``[N, V]`` bool, the tokens that the environment allows; ``None`` for all.
        decoding: Temperature, top-k and top-p, applied to the allowed tokens in this order.

    Returns:
        ``[N, V]`` bool, or ``None`` where every token can be drawn.

    Raises:
        TextGymError: A row allows no token.
    """
    if mask is not None and not bool(mask.any(-1).all()):
        raise TextGymError(
            f"Expected at least one allowed token in every action mask; row {int((~mask.any(-1)).nonzero()[0])} has none"
        )
    if not decoding.narrows:
        return mask
    scaled = logits.float() / decoding.temperature
    if mask is not None:
        scaled = scaled.masked_fill(~mask, -torch.inf)
    keep = torch.isfinite(scaled)
    if 0 < decoding.top_k < scaled.shape[-1]:
        smallest = scaled.topk(decoding.top_k, dim=-1).values[:, -1:]
        keep &= scaled >= smallest
        scaled = scaled.masked_fill(~keep, -torch.inf)
    if decoding.top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        keep &= torch.zeros_like(keep).scatter(-1, order, before < decoding.top_p)
    return keep


def log_softmax_on(logits: Tensor, support: Tensor | None, temperature: float) -> Tensor:
    """Log-probabilities of the distribution that is sampled: ``log softmax(logits / temperature)`` over the support.

    Args:
        logits: ``[..., V]``.
        support: ``[..., V]`` bool or ``None``; see :func:`support`.
        temperature: See :class:`Decoding`.

    Returns:
        ``[..., V]`` float32, minus infinity outside the support.
    """
    scaled = logits.float()
    if temperature != 1.0:
        scaled = scaled / temperature
    if support is not None:
        scaled = scaled.masked_fill(~support, -torch.inf)
    return scaled.log_softmax(-1)


@dataclass(frozen=True)
class Drawn:
    """Tokens that were drawn, one a row.

    Attributes:
        tokens: ``[N]`` int64.
        log_probs: ``[N]``, of the distribution that was drawn from.
        entropies: ``[N]``, of that distribution, in nats.
        support: ``[N, V]`` bool, what could be drawn, where top-k or top-p narrowed it; ``None`` otherwise.
    """

    tokens: Tensor
    log_probs: Tensor
    entropies: Tensor
    support: Tensor | None


def sample(logits: Tensor, decoding: Decoding, uniforms: Tensor) -> Drawn:
    """Draws a token a row, and records what there is to know of it, in few passes over the logits.

    Args:
        logits: ``[N, V]`` float32; minus infinity where a token is forbidden.
        decoding: Temperature, top-k, top-p.
        uniforms: ``[N]``, random numbers in [0, 1) that decide.

    Raises:
        TextGymError: A row is not a distribution, because the model has diverged or every token is forbidden.
    """
    kept = None
    if decoding.narrows:
        kept = support(logits, torch.isfinite(logits), decoding)
        assert kept is not None
        logits = logits.masked_fill(~kept, -torch.inf)
    if decoding.temperature != 1.0:
        logits = logits / decoding.temperature
    probabilities = logits.softmax(-1)
    tokens = invert(probabilities, uniforms)
    chosen, log_probs = tokens[:, None], probabilities.gather(-1, tokens[:, None]).log()
    # log p = logit - total in every column, so that one column tells the total; tokens that cannot be drawn count nothing
    total = logits.gather(-1, chosen) - log_probs
    mean = torch.linalg.vecdot(probabilities, logits.clamp(min=-1e30))
    return Drawn(tokens, log_probs.squeeze(-1), total.squeeze(-1) - mean, kept)


def invert(probabilities: Tensor, uniforms: Tensor, block: int = 64) -> Tensor:
    """The tokens at which the cumulative distributions pass given heights: a draw, if these are random.

    Many times faster on a CPU than ``torch.multinomial``. It goes in two steps, first to a block of tokens, then within it,
    because a cumulative sum over a whole vocabulary is slow.

    Args:
        probabilities: ``[N, V]``, normalised.
        uniforms: ``[N]`` in [0, 1).
        block: Tokens a block.

    Returns:
        ``[N]`` int64; never a token of probability 0.

    Raises:
        TextGymError: A row is not a distribution, because the model has diverged.
    """
    n, v = probabilities.shape
    blocks = -(-v // block)
    padded = probabilities if v == blocks * block else torch.nn.functional.pad(probabilities, (0, blocks * block - v))
    inside = padded.view(n, blocks, block)
    own = inside.sum(-1)  # [N, blocks]
    sums = own.cumsum(-1)
    height = uniforms[:, None] * sums[:, -1:]
    at = torch.searchsorted(sums, height, right=True).clamp_(max=blocks - 1)  # [N, 1]
    rest = height - (sums.gather(-1, at) - own.gather(-1, at))
    cumulative = inside.gather(1, at[..., None].expand(-1, -1, block)).squeeze(1).cumsum(-1)  # [N, block]
    within = torch.searchsorted(cumulative, rest, right=True).clamp_(max=block - 1)
    tokens = at.mul_(block).add_(within)
    drawable = padded.gather(-1, tokens) > 0
    if not bool(drawable.all()):
        bad = ~torch.isfinite(sums[:, -1])
        if bool(bad.any()):
            raise TextGymError(
                f"The probabilities of the next token are not finite in row {int(bad.nonzero()[0])}: the model's weights "
                "have diverged"
            )
        # rounding has pointed beside the token: nothing is nearer to a height at the edge than what is most likely
        tokens = torch.where(drawable, tokens, probabilities.argmax(-1, keepdim=True))
    return tokens.squeeze(-1)


def draw(log_probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One token a row.

    Args:
        log_probs: ``[N, V]``, normalised.
        generator: Source of randomness, on the device of ``log_probs``.

    Returns:
        ``[N]`` int64; never a token of probability 0.

    Raises:
        TextGymError: A row is not a distribution, because the model has diverged.
    """
    return invert(log_probs.exp(), torch.rand(len(log_probs), generator=generator, device=log_probs.device))
