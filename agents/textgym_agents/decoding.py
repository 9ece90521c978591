"""Decoding with a key-value cache: every token is read by the model once, never a whole prefix again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from textgym.core import expected
from textgym_agents.sampling import Decoding, draw, log_softmax_on, support

if TYPE_CHECKING:
    from textgym.envs.episodes import Setting
    from textgym_agents.policies import CausalLMPolicy


class CachedDecoder:
    """Prefixes that grow token by token, with the model's keys and values kept.

    Attributes:
        logits: ``[N, V]`` float32, for the next token of every row.
        values: ``[N]`` float32, of every row's state.
    """

    logits: Tensor
    values: Tensor

    def __init__(self, policy: CausalLMPolicy, input_ids: Tensor, attention_mask: Tensor) -> None:
        """Reads the prompts.

        Args:
            policy: Whose model and value head are used.
            input_ids: ``[N, S]`` int64, left-padded; columns that are padding everywhere are dropped.
            attention_mask: ``[N, S]``, true where there is a token.
        """
        self._policy = policy
        mask = attention_mask.bool()
        used = int(mask.sum(-1).max())
        self._mask = mask[:, mask.shape[1] - used :]
        self._cache: object = None
        self._feed(input_ids[:, input_ids.shape[1] - used :], self._mask)

    def append(self, tokens: Tensor, mask: Tensor | None = None) -> None:
        """Reads more tokens.

        Args:
            tokens: ``[N, K]`` int64, left-padded where rows get fewer than ``K``.
            mask: ``[N, K]`` bool, false where there is padding; ``None`` where there is none. A row that gets no token at
                all keeps meaningless logits until it gets one.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        self._mask = torch.cat([self._mask, mask], dim=1)
        self._feed(tokens, mask)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; rows may be dropped or repeated. ``rows``: ``[M]`` int64."""
        self._mask, self.logits, self.values = self._mask[rows], self.logits[rows], self.values[rows]
        self._cache.batch_select_indices(rows)  # type: ignore[attr-defined]

    @torch.no_grad()
    def _feed(self, tokens: Tensor, mask: Tensor) -> None:
        positions = (self._mask.long().cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        logits, values, self._cache = self._policy.forward_tokens(
            tokens, self._mask, positions, last=1, cache=self._cache, use_cache=True
        )
        self.logits, self.values = logits[:, -1], values[:, -1]


@dataclass(frozen=True)
class Limits:
    """What an environment allows its policy to write; read off the environment, stored with a saved model.

    Attributes:
        vocab_size: ``V``.
        eos_token_id: The end token.
        max_new_tokens: Token budget.
        min_new_tokens: The end token is forbidden before.
        forbidden: Token ids that are never allowed.
    """

    vocab_size: int
    eos_token_id: int
    max_new_tokens: int
    min_new_tokens: int = 0
    forbidden: tuple[int, ...] = ()

    @classmethod
    def of(cls, setting: Setting) -> Limits:
        """What an environment allows."""
        return cls(
            vocab_size=setting.tokenizer.vocab_size,
            eos_token_id=setting.tokenizer.eos_token_id,
            max_new_tokens=setting.max_new_tokens,
            min_new_tokens=setting.min_new_tokens,
            forbidden=tuple(np.flatnonzero(~setting.always_allowed).tolist()),
        )

    def mask(self, written: Tensor) -> Tensor:
        """Action mask ``[N, V]`` after ``written`` ``[N]`` tokens of the policy's own."""
        mask = torch.ones(len(written), self.vocab_size, dtype=torch.bool, device=written.device)
        mask[:, list(self.forbidden)] = False
        mask[written < self.min_new_tokens, self.eos_token_id] = False
        return mask


Chooser = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[N, V]`` and mask ``[N, V]`` to tokens ``[N]``."""


def greedy(logits: Tensor, mask: Tensor) -> Tensor:
    """The most likely allowed token of every row, ``[N]``."""
    return logits.masked_fill(~mask, -torch.inf).argmax(-1)


def sampler(decoding: Decoding, generator: torch.Generator | None) -> Chooser:
    """A chooser that draws as ``decoding`` says."""

    def choose(logits: Tensor, mask: Tensor) -> Tensor:
        return draw(log_softmax_on(logits, support(logits, mask, decoding), decoding.temperature), generator)

    return choose


def complete(
    policy: CausalLMPolicy, input_ids: Tensor, attention_mask: Tensor, written: Tensor, limits: Limits, choose: Chooser
) -> list[list[int]]:
    """Writes every row to its end.

    Args:
        policy: The writer.
        input_ids: ``[N, S]``, left-padded prefixes.
        attention_mask: ``[N, S]``.
        written: ``[N]``, tokens of the prefix that already count against the budget.
        limits: The budget and the mask.
        choose: How a token is chosen.

    Returns:
        One list of new tokens a row, the end token included if it came.
    """
    decoder = CachedDecoder(policy, input_ids, attention_mask)
    rows = torch.arange(len(input_ids), device=input_ids.device)
    completions: list[list[int]] = [[] for _ in range(len(input_ids))]
    written = written.clone()
    while True:
        going = written < limits.max_new_tokens
        if completions and not bool(going.all()):
            keep = going.nonzero().squeeze(-1)
            rows, written = rows[keep], written[keep]
            if not len(rows):
                return completions
            decoder.select(keep)
        tokens = choose(decoder.logits, limits.mask(written))
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            completions[row].append(token)
        written = torch.where(tokens == limits.eos_token_id, limits.max_new_tokens, written + 1)
        if bool((written < limits.max_new_tokens).any()):
            decoder.append(tokens[:, None])


def beam_search(
    policy: CausalLMPolicy,
    input_ids: Tensor,
    attention_mask: Tensor,
    written: Tensor,
    limits: Limits,
    num_beams: int,
    length_penalty: float = 1.0,
    first_mask: Tensor | None = None,
) -> list[list[int]]:
    """The completion with the highest ``log p / length ** length_penalty`` that a beam search finds, for every row.

    Every row keeps its ``num_beams`` best open hypotheses; a hypothesis is finished by the end token or the budget, and counts
    if it is among the ``num_beams`` best continuations of its step. A row is done when no open hypothesis can become better
    than its best finished one (log-probabilities only fall). So it finds what ``generate(early_stopping="never",
    renormalize_logits=True)`` of transformers finds.

    Args:
        policy: The writer.
        input_ids: ``[N, S]``, left-padded prefixes.
        attention_mask: ``[N, S]``.
        written: ``[N]``, tokens of the prefix that already count against the budget.
        limits: The budget and the mask.
        num_beams: Hypotheses a row, ``B``, at least 1.
        length_penalty: 0 compares total log-probabilities, 1 means a token.
        first_mask: ``[N, V]`` bool, for the first new token in place of what ``limits`` allow.

    Returns:
        One list of new tokens a row, the end token included if it came.
    """
    if isinstance(num_beams, bool) or not isinstance(num_beams, int) or num_beams < 1:
        raise ValueError(expected("num_beams", num_beams, "a whole number of at least 1"))
    n, device, v = len(input_ids), input_ids.device, limits.vocab_size
    decoder = CachedDecoder(policy, input_ids, attention_mask)
    decoder.select(torch.arange(n, device=device).repeat_interleave(num_beams))
    scores = torch.full((n, num_beams), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all beams are equal at first: only one may branch
    hypotheses: list[list[list[int]]] = [[[] for _ in range(num_beams)] for _ in range(n)]
    best: list[tuple[float, list[int]]] = [(-torch.inf, []) for _ in range(n)]
    budget = (limits.max_new_tokens - written).tolist()
    for length in range(1, max([0, *budget]) + 1):
        mask = limits.mask(written + length - 1) if length > 1 or first_mask is None else first_mask
        mask = mask.repeat_interleave(num_beams, dim=0)
        log_probs = log_softmax_on(decoder.logits, mask, 1.0)
        total = (scores.view(-1, 1) + log_probs).view(n, num_beams * v)
        top = total.topk(min(2 * num_beams, total.shape[1]), dim=-1)  # enough even if every beam ends
        parents, tokens = torch.zeros(n, num_beams, dtype=torch.long), torch.zeros(n, num_beams, dtype=torch.long)
        new_scores, new_hypotheses = torch.full((n, num_beams), -torch.inf), []
        for row in range(n):
            beams: list[list[int]] = []
            ranked = zip(top.values[row].tolist(), top.indices[row].tolist(), strict=True)
            for rank, (score, index) in enumerate(ranked):
                if score == -torch.inf or len(beams) == num_beams or length > budget[row]:
                    break
                token = index % v
                text = [*hypotheses[row][index // v], token]
                if token == limits.eos_token_id or length == budget[row]:
                    if rank < num_beams:
                        best[row] = max(best[row], (score / length**length_penalty, text))
                else:
                    slot = len(beams)
                    parents[row, slot], tokens[row, slot], new_scores[row, slot] = index // v, token, score
                    beams.append(text)
            reachable = (
                float(new_scores[row, 0]) / max(1, budget[row] if length_penalty > 0 else length) ** length_penalty
            )
            if not beams or reachable < best[row][0]:
                new_scores[row] = -torch.inf
            new_hypotheses.append(beams + [[]] * (num_beams - len(beams)))
        hypotheses, scores = new_hypotheses, new_scores.to(device)
        if not bool(torch.isfinite(scores).any()):
            break
        decoder.select((parents + torch.arange(n)[:, None] * num_beams).view(-1).to(device))
        # a beam that is not open reads nothing: it must not outgrow the model's context beside rows that go on
        decoder.append(tokens.view(-1, 1).to(device), torch.isfinite(scores).view(-1, 1))
    return [text for _, text in best]
