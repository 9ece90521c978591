"""Decoding with a key-value cache: every token is read by the model once, never a whole prefix again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from textgym.core import expected
from textgym_agents.models.token_scores import Support
from textgym_agents.rollouts.sampling import Decoding, draw, log_softmax_on, support

if TYPE_CHECKING:
    from textgym.envs.episodes import Setting
    from textgym_agents.models.backbone import Backbone
    from textgym_agents.policies import LMPolicy


class CachedDecoder:
    """Prefixes that grow token by token, with the model's keys and values kept; equal prefixes are read once.

    Attributes:
        logits: ``[N, V]`` float32, for the next token of every row.
        values: ``[N]`` float32, of every row's state; 0 where the policy's value head reads another model.
    """

    logits: Tensor
    values: Tensor

    def __init__(
        self,
        policy: LMPolicy,
        input_ids: Tensor,
        attention_mask: Tensor,
        completion_mask: Tensor | None = None,
        room: int = 0,
        backbone: Backbone | None = None,
    ) -> None:
        """Reads the prefixes.

        Args:
            policy: Whose model and value head are used.
            input_ids: ``[N, S]`` int64, left-padded; columns that are padding everywhere are dropped.
            attention_mask: ``[N, S]``, true where there is a token.
            completion_mask: ``[N, S]``, true at the policy's own tokens; ``None``: there are none yet.
            room: How many tokens are to follow, so that memory is set aside once; more may.
            backbone: Another model to ask instead of the policy's own; then there are no values.
        """
        self._backbone = backbone or policy.backbone
        self._value_head = policy.value_head if self._backbone is policy.value_backbone else None
        mask = attention_mask.bool()
        used = int(mask.sum(-1).max())
        ids, mask = input_ids[:, input_ids.shape[1] - used :], mask[:, mask.shape[1] - used :]
        own = torch.zeros_like(mask) if completion_mask is None else completion_mask[:, -used:].bool()
        distinct, rows = torch.where(mask, 2 * ids + own, -1).unique(dim=0, return_inverse=True)
        shared = len(distinct) < len(ids)
        if shared:
            first = torch.zeros(len(distinct), dtype=torch.long, device=ids.device).scatter_(
                0, rows.flip(0), torch.arange(len(ids) - 1, -1, -1, device=ids.device)
            )
            ids, mask, own = ids[first], mask[first], own[first]
        with torch.inference_mode():
            hidden, self._kept = self._backbone.start(ids, mask, own, used + room, len(input_ids))
            self._show(hidden)
        if shared:
            self.select(rows)

    def append(self, tokens: Tensor, mask: Tensor | None = None) -> None:
        """Reads more tokens.

        Args:
            tokens: ``[N, K]`` int64, left-padded where rows get fewer than ``K``.
            mask: ``[N, K]`` bool, false where there is padding; ``None`` where there is none. A row that gets no token at
                all keeps meaningless logits until it gets one.
        """
        with torch.inference_mode():
            self._show(self._backbone.extend(self._kept, tokens, mask))

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; rows may be dropped or repeated. ``rows``: ``[M]`` int64."""
        with torch.inference_mode():
            self.logits, self.values = self.logits[rows], self.values[rows]
            self._kept.select(rows)

    def drop(self, ended: np.ndarray) -> np.ndarray:
        """Lets rows leave that need no more tokens, at little cost. Their logits and values are not kept in step.

        Args:
            ended: ``(N,)`` bool.

        Returns:
            ``(M,)`` int64: the old index of every row that is left. Others than those that left may have moved.
        """
        with torch.inference_mode():
            return self._kept.drop(ended)

    def _show(self, hidden: Tensor) -> None:
        self.logits = self._backbone.logits(hidden)
        self.values = (
            hidden.new_zeros(len(hidden)) if self._value_head is None else self._value_head(hidden).squeeze(-1)
        )


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

    def support(self, written: Tensor) -> Support:
        """Which tokens can be drawn after ``written`` ``[N]`` tokens of the policy's own."""
        forbidden = torch.tensor(self.forbidden, dtype=torch.long, device=written.device)
        too_early = written < self.min_new_tokens if self.min_new_tokens else None
        return Support(forbidden, self.eos_token_id, too_early)

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


@torch.inference_mode()
def complete(
    policy: LMPolicy,
    input_ids: Tensor,
    attention_mask: Tensor,
    limits: Limits,
    choose: Chooser,
    backbone: Backbone | None = None,
) -> list[list[int]]:
    """Writes a completion of every row.

    Args:
        policy: The writer.
        input_ids: ``[N, S]``, left-padded prompts.
        attention_mask: ``[N, S]``.
        limits: The budget and the mask.
        choose: How a token is chosen.
        backbone: Another model that writes in place of the policy's own.

    Returns:
        One list of new tokens a row, the end token included if it came.
    """
    completions: list[list[int]] = [[] for _ in range(len(input_ids))]
    decoder = CachedDecoder(policy, input_ids, attention_mask, room=limits.max_new_tokens, backbone=backbone)
    rows = np.arange(len(input_ids))
    for written in range(limits.max_new_tokens):
        tokens = choose(decoder.logits, limits.mask(torch.full((len(rows),), written, device=input_ids.device)))
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            completions[row].append(token)
        ended = (tokens == limits.eos_token_id).cpu().numpy()
        if ended.all() or written + 1 == limits.max_new_tokens:
            break
        if ended.any():
            order = decoder.drop(ended)
            rows, tokens = rows[order], tokens[torch.as_tensor(order, device=tokens.device)]
        decoder.append(tokens[:, None])
    return completions


@torch.inference_mode()
def beam_search(
    policy: LMPolicy,
    input_ids: Tensor,
    attention_mask: Tensor,
    written: Tensor,
    limits: Limits,
    num_beams: int,
    length_penalty: float = 1.0,
    first_mask: Tensor | None = None,
    completion_mask: Tensor | None = None,
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
        completion_mask: ``[N, S]``, the policy's own tokens in the prefixes; ``None``: there are none.

    Returns:
        One list of new tokens a row, the end token included if it came.
    """
    if isinstance(num_beams, bool) or not isinstance(num_beams, int) or num_beams < 1:
        raise ValueError(expected("num_beams", num_beams, "a whole number of at least 1"))
    n, device, v = len(input_ids), input_ids.device, limits.vocab_size
    decoder = CachedDecoder(policy, input_ids, attention_mask, completion_mask, limits.max_new_tokens)
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
        open_ = None if policy.encoder_decoder else torch.isfinite(scores).view(-1, 1)
        decoder.append(tokens.view(-1, 1).to(device), open_)
    return [text for _, text in best]
