"""Whole episodes in place of single transitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor


@dataclass
class Episode:
    """One finished episode as it was played. Lists have one entry for every token after the prompt (``T``)."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)  # false where another speaker's token was appended
    log_probs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    supports: list[np.ndarray] = field(
        default_factory=list
    )  # packed bits, (ceil(V / 8),) each; empty where all can be drawn
    last_value: float = 0.0  # 0 where it terminated, the value of the last state where it was cut off from outside

    def append(self, token: int, log_prob: float, value: float, reward: float, support: np.ndarray | None) -> None:
        """Adds a token that the policy chose."""
        self._extend([token], True, log_prob, value, support)
        self.rewards[-1] = reward

    def append_reply(self, tokens: list[int]) -> None:
        """Adds tokens that somebody else said."""
        self._extend(tokens, False, 0.0, 0.0, self.supports[-1] if self.supports else None)

    def _extend(
        self, tokens: list[int], chosen: bool, log_prob: float, value: float, support: np.ndarray | None
    ) -> None:
        n = len(tokens)
        self.tokens += tokens
        self.chosen += [chosen] * n
        self.log_probs += [log_prob] * n
        self.values += [value] * n
        self.rewards += [0.0] * n
        if support is not None:
            self.supports += [support] * n


@dataclass(frozen=True)
class Sequences:
    """Episodes as tensors, right-aligned: the last ``T`` columns hold what came after the prompts.

    Attributes:
        input_ids: ``[B, S]`` int64, left-padded.
        attention_mask: ``[B, S]`` bool.
        action_mask: ``[B, T]`` bool, true where the policy chose the token.
        log_probs: ``[B, T]``, of the chosen tokens under the distribution that they were sampled from.
        ref_log_probs: ``[B, T]``, under the reference model on the same support and temperature.
        values: ``[B, T]``, of the states in which the tokens were chosen.
        rewards: ``[B, T]``, the environment's.
        advantages: ``[B, T]``.
        returns: ``[B, T]``, targets of the values.
        last_values: ``[B]``, see :class:`Episode`.
        supports: ``[B, T, ceil(V / 8)]`` uint8, packed bits; ``None`` where every token could be drawn.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    log_probs: Tensor
    ref_log_probs: Tensor
    values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor
    last_values: Tensor
    supports: Tensor | None

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.input_ids)

    def select(self, rows: Tensor) -> Sequences:
        """Some of the episodes, without columns that are padding in all of them."""
        picked = {f.name: getattr(self, f.name)[rows] for f in fields(self) if getattr(self, f.name) is not None}
        total, after = picked["attention_mask"].shape[1], picked["action_mask"].shape[1]
        longest = int(picked["attention_mask"].sum(-1).max())
        # a column of the completion part is padding in a row where attention is 0 or it still belongs to the prompt
        used = int((after - picked["action_mask"].int().argmax(-1)).max())
        for name, value in picked.items():
            if name in ("input_ids", "attention_mask"):
                picked[name] = value[:, total - longest :]
            elif name != "last_values":
                picked[name] = value[:, after - used :]
        return Sequences(**{"supports": None, **picked})

    def support(self, vocab_size: int) -> Tensor | None:
        """``supports`` as ``[B, T, V]`` bool."""
        return None if self.supports is None else unpack_bits(self.supports, vocab_size)

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        present = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return Sequences(**{"supports": None, **{k: v.to(device) for k, v in present.items()}})

    def with_(self, **changes: Tensor) -> Sequences:
        """A copy with other values in some fields."""
        return replace(self, **changes)


class SequenceBuffer(RolloutBuffer):
    """The rollout buffer of an algorithm whose unit of work is the episode.

    Attributes:
        episodes: What was added since the last :meth:`reset`.
        sequences: The same as tensors on the CPU, once :meth:`stack` was called.
        num_tokens: Tokens that the policy chose in them.
    """

    sequences: Sequences

    def reset(self) -> None:
        """Forgets all episodes."""
        self.episodes: list[Episode] = []
        self.num_tokens = 0
        self.pos, self.full = 0, False

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Not for this buffer; see :meth:`add_episodes`.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("A SequenceBuffer takes whole episodes: add_episodes(episodes)")

    def add_episodes(self, episodes: list[Episode]) -> None:
        """Adds finished episodes."""
        self.episodes += episodes
        self.num_tokens += sum(sum(e.chosen) for e in episodes)

    def stack(self) -> Sequences:
        """The episodes as tensors; log-probabilities of the reference equal the policy's, advantages 0, until set."""
        most = max(len(e.tokens) for e in self.episodes)
        total = max(len(e.prompt) + len(e.tokens) for e in self.episodes)
        total = max(total, most + 1)

        def right_aligned(rows: list[list[Any]], width: int, dtype: torch.dtype) -> Tensor:
            out = torch.zeros(len(rows), width, dtype=dtype)
            for i, row in enumerate(rows):
                out[i, width - len(row) :] = torch.tensor(row, dtype=dtype)
            return out

        everything = [e.prompt + e.tokens for e in self.episodes]
        log_probs = right_aligned([e.log_probs for e in self.episodes], most, torch.float32)
        supports = None
        if self.episodes[0].supports:
            packed = np.full((len(self.episodes), most, len(self.episodes[0].supports[0])), 255, dtype=np.uint8)
            for i, episode in enumerate(self.episodes):
                packed[i, most - len(episode.tokens) :] = np.stack(episode.supports)
            supports = torch.from_numpy(packed)
        self.sequences = Sequences(
            input_ids=right_aligned(everything, total, torch.int64),
            attention_mask=right_aligned([[1] * len(row) for row in everything], total, torch.bool),
            action_mask=right_aligned([e.chosen for e in self.episodes], most, torch.bool),
            log_probs=log_probs,
            ref_log_probs=log_probs.clone(),
            values=right_aligned([e.values for e in self.episodes], most, torch.float32),
            rewards=right_aligned([e.rewards for e in self.episodes], most, torch.float32),
            advantages=torch.zeros_like(log_probs),
            returns=torch.zeros_like(log_probs),
            last_values=torch.tensor([e.last_value for e in self.episodes], dtype=torch.float32),
            supports=supports,
        )
        self.full = True
        return self.sequences

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Sequences]:
        """Minibatches of episodes, on the buffer's device.

        Args:
            batch_size: Episodes in each; the last may have fewer.
            generator: Shuffles the episodes; ``None`` keeps their order.
        """
        n = len(self.sequences)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for rows in order.split(batch_size):
            yield self.sequences.select(rows).to(self.device)


def pack_bits(mask: Tensor) -> np.ndarray:
    """``[N, V]`` bool as ``(N, ceil(V / 8))`` uint8, eight tokens a byte."""
    return np.packbits(mask.cpu().numpy(), axis=-1, bitorder="little")


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """The inverse of :func:`pack_bits` for tensors ``[..., ceil(size / 8)]``: bool ``[..., size]``."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).bool().flatten(-2)[..., :size]
