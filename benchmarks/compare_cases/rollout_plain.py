"""Rollouts without an environment: transformers' `generate`, and a loop written by hand.

``python -m compare_cases.rollout_plain '{"how": "generate", "slots": 64, "prompts": FILE}'``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Cache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from compare_cases.lengths import draw_lengths
from compare_cases.serving import Session, options, serve
from compare_cases.workload import NEW_TOKENS, facts, language_model, read_prompts


class EndAt(LogitsProcessor):
    """Makes the end token certain for every row's last token, and impossible before: a row has ``lengths[row]`` tokens.

    In place, and only two columns or a few rows a step, so that it costs `generate` next to nothing.
    """

    def __init__(self, lengths: np.ndarray, prompt_tokens: int, eos: int) -> None:
        self._lengths, self._prompt_tokens, self._eos = torch.from_numpy(lengths), prompt_tokens, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self._eos] = -torch.inf
        last = (self._lengths == input_ids.shape[1] - self._prompt_tokens + 1).nonzero().squeeze(-1)
        if len(last):
            scores[last] = -torch.inf
            scores[last, self._eos] = 0.0
        return scores


class Roomy(DynamicLayer):
    """Keys and values of one layer in room made once, so that a step copies one column and not all that came before."""

    room = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            n, heads, _, size = key_states.shape
            self._all = [key_states.new_empty(n, heads, self.room, size) for _ in range(2)]
            self._used = 0
        start, self._used = self._used, self._used + key_states.shape[2]
        for room, new in zip(self._all, (key_states, value_states), strict=True):
            room[:, :, start : self._used] = new
        self.keys, self.values = (room[:, :, : self._used] for room in self._all)
        return self.keys, self.values


def roomy_cache(layers: int, room: int) -> Cache:
    made = [Roomy() for _ in range(layers)]
    for layer in made:
        layer.room = room
    return Cache(layers=made)


def draw(logits: torch.Tensor, uniform: torch.Tensor, block: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens ``[N]`` by inverting the cumulative distribution in two levels, and their log-probabilities ``[N]``.

    A cumulative sum over all of a row's ``V`` entries is the slow part, so blocks are summed first, the block is found, and
    only that block's entries are cumulated.
    """
    n = len(logits)
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()  # [N, V]
    blocks = weights.view(n, -1, block)
    sums = blocks.sum(-1).cumsum(-1)  # [N, V / block]
    total = sums[:, -1:]
    wanted = uniform * total
    at = torch.searchsorted(sums, wanted, right=True).clamp_(max=sums.shape[1] - 1)  # [N, 1]
    before = torch.where(at > 0, sums.gather(1, (at - 1).clamp(min=0)), 0.0)
    within = blocks[torch.arange(n), at.squeeze(-1)].cumsum(-1)  # [N, block]
    offset = torch.searchsorted(within, wanted - before, right=True).clamp_(max=block - 1)
    tokens = at * block + offset
    log_probs = (weights.gather(1, tokens) / total).log_()
    return tokens.squeeze(-1), log_probs.squeeze(-1)


@torch.inference_mode()
def by_hand(model: Any, ids: torch.Tensor, generator: torch.Generator, new_tokens: int) -> torch.Tensor:
    """The limit: what remains of a rollout without an environment. All prompts are of one length, so that it needs no mask.

    Records the tokens and the log-probability of each, in tensors made once.
    """
    n, width = ids.shape
    tokens, log_probs = torch.empty(new_tokens, n, dtype=torch.long), torch.empty(new_tokens, n)
    uniform = torch.rand(new_tokens, n, 1, generator=generator)
    cache = roomy_cache(model.config.n_layer, width + new_tokens)
    positions = torch.arange(width + new_tokens)[None]
    step, start = ids, 0
    for t in range(new_tokens):
        seen = positions[:, start : width + t]
        out = model(input_ids=step, position_ids=seen, past_key_values=cache, use_cache=True, logits_to_keep=1)
        tokens[t], log_probs[t] = draw(out.logits[:, -1], uniform[t])
        step, start = tokens[t][:, None], width + t
    return tokens.T


def generate(model: Any, ids: torch.Tensor, pad: int, eos: int, lengths: np.ndarray | None) -> torch.Tensor:
    """transformers' own. It records no log-probabilities, and there is no value: less work than ours."""
    if lengths is None:
        limits: dict[str, Any] = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    else:
        ends = EndAt(lengths, ids.shape[1], eos)
        limits = {"max_new_tokens": int(lengths.max()), "logits_processor": LogitsProcessorList([ends])}
    with torch.inference_mode():
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=pad,
            eos_token_id=eos,
            **limits,
        )
    return found[:, ids.shape[1] :]


def main() -> None:
    asked, session = options(), Session()
    known = read_prompts(asked["prompts"])
    model, slots, pad, eos = language_model(known), asked["slots"], known["pad"], known["eos"]
    pool, rng = torch.tensor(known["ids"]), np.random.default_rng(0)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def step() -> int:
        ids = pool[rng.choice(len(pool), slots, replace=False)]
        if asked["how"] == "by hand":
            tokens = by_hand(model, ids, generator, NEW_TOKENS)
        else:
            lengths = draw_lengths(slots) if asked["how"] == "generate mixed" else None
            tokens = generate(model, ids, pad, eos, lengths)
            if lengths is not None:
                written = (tokens == eos).int().argmax(1) + 1
                if not (written.numpy() == lengths).all():
                    raise RuntimeError(f"Expected completions of {lengths} tokens, actual: {written}")
                return int(lengths.sum())
        if tokens.shape != (slots, NEW_TOKENS):
            raise RuntimeError(f"Expected {(slots, NEW_TOKENS)} tokens, actual: {tuple(tokens.shape)}")
        return tokens.numel()

    serve(step, session, facts=facts())


if __name__ == "__main__":
    main()
