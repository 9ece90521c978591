"""Log-probabilities of given tokens from hidden states, without a block of logits for all of them at once.

A hidden state of a few hundred numbers becomes a row of logits as wide as the vocabulary. So rows are made a chunk at a time,
reduced to what is asked of them, and made again in the backward pass, unless all of them together are small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from textgym_agents.losses import entropy_of

CHUNK = {"cpu": 2**24, "cuda": 2**27}  # logits at a time: 64 and 512 MiB in float32, of which a few copies live at once
KEEP = 2**25  # no more logits than this: probabilities are kept for the backward pass instead of made again

Steering = Callable[[Tensor], Tensor]
"""From hidden states ``[..., H]`` to what is added to their logits, ``[..., V]`` float32."""


@dataclass(frozen=True)
class Head:
    """How hidden states become logits: ``cap((scale * h) @ weight.T + bias)`` with ``cap(x) = softcap * tanh(x / softcap)``.

    Attributes:
        weight: ``[V, H]``.
        bias: ``[V]`` or ``None``.
        scale: Of the hidden states, as in T5.
        softcap: ``None``: no capping. Gemma 2 has one.
        dtype: Of the product of matrices.
        steering: Something else that is added to the logits, made of the same hidden states; ``None``: nothing. To gradients
            it is a constant.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float = 1.0
    softcap: float | None = None
    dtype: torch.dtype = torch.float32
    steering: Steering | None = None

    def converted(self) -> Head:
        """The same with weight and bias in ``dtype``."""
        return replace(
            self, weight=self.weight.to(self.dtype), bias=None if self.bias is None else self.bias.to(self.dtype)
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """``[..., H]`` to ``[..., V]`` float32."""
        scaled = hidden if self.scale == 1.0 else hidden * self.scale
        logits = torch.nn.functional.linear(scaled.to(self.weight.dtype), self.weight, self.bias).float()
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits if self.steering is None else logits + self.steering(hidden)


@dataclass(frozen=True)
class Support:
    """Which tokens could be drawn at each of ``N`` places, in little memory.

    Attributes:
        forbidden: ``[F]`` int64, tokens that nowhere could.
        end_token: The end token's id ...
        too_early: ... and ``[N]`` bool, where it could not be drawn either; ``None``: nowhere.
        packed: ``[N, ceil(V / 8)]`` uint8, all of it as packed bits, where it is not that simple; ``None`` otherwise.
    """

    forbidden: Tensor
    end_token: int = 0
    too_early: Tensor | None = None
    packed: Tensor | None = None

    def restrict_(self, logits: Tensor, start: int = 0) -> Tensor:
        """Sets ``logits`` ``[n, V]`` of places ``start`` to ``start + n`` to minus infinity outside the support, in place."""
        if len(self.forbidden):
            logits.index_fill_(1, self.forbidden, -torch.inf)
        if self.too_early is not None:
            column = logits[:, self.end_token]
            column.masked_fill_(self.too_early[start : start + len(logits)], -torch.inf)
        if self.packed is not None:
            allowed = unpack_bits(self.packed[start : start + len(logits)], logits.shape[1])
            logits.masked_fill_(~allowed, -torch.inf)
        return logits


def token_scores(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    support: Support | None = None,
    temperature: float = 1.0,
    entropies: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens under ``log softmax(logits / temperature)`` over the support, and entropies there.

    Args:
        hidden: ``[N, H]``.
        head: Makes logits of them.
        tokens: ``[N]`` int64.
        support: ``None``: every token.
        temperature: Above 0.
        entropies: Whether to compute them; otherwise they are 0.

    Returns:
        ``[N]`` and ``[N]`` float32, the latter in nats. Both have gradients.
    """
    bias = head.bias if head.bias is not None else hidden.new_zeros(0)
    found: tuple[Tensor, Tensor] = _TokenScores.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, bias, tokens, head, support, temperature, entropies
    )
    return found


@torch.no_grad()
def best_tokens(hidden: Tensor, head: Head, support: Support | None = None) -> Tensor:
    """The most likely tokens ``[N]`` on the support after hidden states ``[N, H]``, a chunk of logits at a time."""
    converted = head.converted()
    chunks = _chunks(hidden, None, len(head.weight))
    found = []
    for here in chunks:
        logits = converted.logits(hidden[here])
        found.append((logits if support is None else support.restrict_(logits, here.start)).argmax(-1))
    return torch.cat(found)


class _TokenScores(torch.autograd.Function):
    """With ``p`` the probabilities and ``H`` the entropy: ``d log p_a / dz = 1_a - p``, ``dH / dz = -p (log p + H)``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        tokens: Tensor,
        head: Head,
        support: Support | None,
        temperature: float,
        with_entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.head, ctx.support, ctx.temperature, ctx.with_entropies = head, support, temperature, with_entropies
        n, head = len(hidden), head.converted()
        log_probs, entropies = hidden.new_zeros(n, dtype=torch.float32), hidden.new_zeros(n, dtype=torch.float32)
        keeps = any(ctx.needs_input_grad) and n * len(weight) <= KEEP and head.softcap is None
        kept = None
        for here in _chunks(hidden, n if keeps else None, len(weight)):
            log_p = log_probabilities(head.logits(hidden[here]), support, temperature, here.start)
            log_probs[here] = log_p.gather(-1, tokens[here, None]).squeeze(-1)
            if with_entropies:
                entropies[here] = entropy_of(log_p)
            if keeps:
                kept = log_p
        ctx.save_for_backward(hidden, weight, bias, tokens, entropies, kept)
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_log_probs, grad_entropies = grads
        hidden, weight, bias, tokens, entropies, kept = ctx.saved_tensors
        head: Head = ctx.head.converted()
        grad_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] and len(bias) else None
        for here in _chunks(hidden, None if kept is None else len(hidden), len(weight)):
            slope: float | Tensor = head.scale / ctx.temperature
            if kept is None:
                logits = head.logits(hidden[here])
                if head.softcap is not None:
                    slope = slope * (1 - (logits / head.softcap) ** 2)
                log_p = log_probabilities(logits, ctx.support, ctx.temperature, here.start)
            else:
                log_p = kept
            weights = -grad_log_probs[here, None]
            if ctx.with_entropies:
                information = log_p.clamp(min=-1e30).add_(entropies[here, None])
                weights = weights - grad_entropies[here, None] * information
            grad = log_p.exp_().mul_(weights)
            grad.scatter_add_(-1, tokens[here, None], grad_log_probs[here, None])
            if isinstance(slope, Tensor) or slope != 1.0:
                grad.mul_(slope)
            low = grad.to(head.dtype)
            if grad_hidden is not None:
                grad_hidden[here] = (low @ head.weight).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += low.t() @ hidden[here].to(head.dtype)
            if grad_bias is not None:
                grad_bias += grad.sum(0) / head.scale
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _chunks(hidden: Tensor, size: int | None, vocab_size: int) -> list[slice]:
    n, logits = len(hidden), CHUNK.get(hidden.device.type, CHUNK["cpu"])
    size = max(1, logits // vocab_size if size is None else size)
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


def log_probabilities(logits: Tensor, support: Support | None, temperature: float, start: int = 0) -> Tensor:
    """``log softmax(logits / temperature)`` over the support of places ``start`` and on, ``[n, V]``; may change ``logits``."""
    if temperature != 1.0:
        logits = logits / temperature
    return (logits if support is None else support.restrict_(logits, start)).log_softmax(-1)


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Tensors ``[..., ceil(size / 8)]`` uint8, eight bits a byte, as bool ``[..., size]``; the first bit is the lowest."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).bool().flatten(-2)[..., :size]
