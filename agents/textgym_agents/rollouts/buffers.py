"""Whole episodes in place of single transitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from textgym_agents.models.token_scores import Support
from textgym_agents.rollouts.decoding import Limits


@dataclass(frozen=True)
class Choices:
    """One token for each of some episodes, and what is known of it; arrays have one entry an episode.

    Attributes:
        tokens: ``(n,)`` int64.
        log_probs: ``(n,)`` float32, of the distribution that was drawn from.
        entropies: ``(n,)`` float32, of that distribution, in nats.
        values: ``(n,)`` float32, of the states in which they were chosen.
        supports: ``(n, ceil(V / 8))`` uint8, what could be drawn as packed bits; ``None`` where limits say it.
    """

    tokens: np.ndarray
    log_probs: np.ndarray
    entropies: np.ndarray
    values: np.ndarray
    supports: np.ndarray | None = None


@dataclass(frozen=True)
class Sequences:
    """Episodes as tensors, right-aligned: the last ``T`` columns hold what came after the prompts.

    Attributes:
        input_ids: ``[B, S]`` int64, left-padded.
        attention_mask: ``[B, S]`` bool.
        action_mask: ``[B, T]`` bool, true where the policy chose the token.
        log_probs: ``[B, T]``, of the chosen tokens under the distribution that they were sampled from.
        entropies: ``[B, T]``, of that distribution, in nats.
        values: ``[B, T]``, of the states in which the tokens were chosen.
        rewards: ``[B, T]``, the environment's.
        ref_log_probs: ``[B, T]``, under the reference model on the same support and temperature.
        advantages: ``[B, T]``.
        returns: ``[B, T]``, targets of the values.
        last_values: ``[B]``: 0 where an episode terminated, the value of the last state where it was cut off from outside.
        supports: ``[B, T, ceil(V / 8)]`` uint8, packed bits: which tokens could be drawn; ``None`` where ``limits`` say it.
        limits: What could be drawn otherwise; ``None``: every token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    log_probs: Tensor
    entropies: Tensor
    values: Tensor
    rewards: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    last_values: Tensor
    supports: Tensor | None = None
    limits: Limits | None = None

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.input_ids)

    @property
    def lengths(self) -> Tensor:
        """``[B]`` int64: tokens an episode, prompt included."""
        return self.attention_mask.sum(-1)

    @property
    def num_tokens(self) -> int:
        """Tokens that the policy chose."""
        return int(self.action_mask.sum())

    def select(self, rows: Tensor) -> Sequences:
        """Some of the episodes, without columns that are padding in all of them."""
        picked = self._map(lambda value: value[rows])
        total, after = picked.attention_mask.shape[1], picked.action_mask.shape[1]
        # a column of the completion part is padding in a row where attention is 0 or it still belongs to the prompt
        used = int((after - picked.action_mask.int().argmax(-1)).max())
        longest = max(int(picked.lengths.max()), used + 1)
        return picked._trimmed(total - longest, after - used)

    def _trimmed(self, left: int, after: int) -> Sequences:
        """Without the first columns of ``[B, S]`` and of ``[B, T]`` tensors."""
        changes = {"input_ids": self.input_ids[:, left:], "attention_mask": self.attention_mask[:, left:]}
        for name, value in self.tensors().items():
            if name not in (*changes, "last_values"):
                changes[name] = value[:, after:]
        return self.with_(**changes)

    def passes(self, most_tokens: int) -> list[Tensor]:
        """Row indices of parts that a model reads at once: episodes of like length, so that little is padding.

        Args:
            most_tokens: Of a part, padding included; a single longer episode is a part of its own.

        Returns:
            Every row once.
        """
        lengths, order = self.lengths.sort(descending=True, stable=True)
        parts: list[list[int]] = []
        longest = 0
        for length, row in zip(lengths.tolist(), order.tolist(), strict=True):
            part = parts[-1] if parts else []
            full = (len(part) + 1) * longest > most_tokens
            if not parts or full or (len(part) >= FEW and length < SHORTER * longest):
                parts.append([])
                longest = length
            parts[-1].append(row)
        return [torch.tensor(part) for part in parts]

    def support(self) -> Support | None:
        """Which tokens could be drawn at each true entry of ``action_mask``, in that order; ``None``: all."""
        if self.supports is not None:
            nothing = torch.zeros(0, dtype=torch.long, device=self.input_ids.device)
            return Support(nothing, packed=self.supports[self.action_mask])
        if self.limits is None:
            return None
        written = self.action_mask.long().cumsum(-1) - 1
        return self.limits.support(written[self.action_mask])

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        return self._map(lambda value: value.to(device))

    def with_(self, **changes: Tensor) -> Sequences:
        """A copy with other values in some fields."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def episodes(self) -> list[Episode]:
        """One by one, for people to look at."""
        return [Episode.of(self, row) for row in range(len(self))]

    def tensors(self) -> dict[str, Tensor]:
        """All fields that are tensors, by name."""
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}

    def _map(self, change: Callable[[Tensor], Tensor]) -> Sequences:
        return self.with_(**{name: change(value) for name, value in self.tensors().items()})

    @staticmethod
    def of(
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        limits: Limits | None,
        chosen: Sequence[Sequence[bool]] | None = None,
    ) -> Sequences:
        """Sequences of given tokens, of which nothing else is known yet.

        Args:
            prompts: Token ids, at least one each.
            completions: Token ids after each prompt, the first of them the policy's.
            limits: See the class.
            chosen: Which of these the policy chose; ``None``: all.
        """
        most = max(map(len, completions))
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        total = max(most + 1, *map(len, rows))
        ids, there = torch.zeros(len(rows), total, dtype=torch.long), torch.zeros(len(rows), total, dtype=torch.bool)
        own = torch.zeros(len(rows), most, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, total - len(row) :], there[i, total - len(row) :] = torch.tensor(row), True
            own[i, most - len(completions[i]) :] = True if chosen is None else torch.tensor(chosen[i])
        unknown = {
            name: torch.zeros(len(rows), most) for name in (*_RECORDED, "ref_log_probs", "advantages", "returns")
        }
        return Sequences(ids, there, own, last_values=torch.zeros(len(rows)), limits=limits, **unknown)

    @staticmethod
    def cat(parts: Sequence[Sequences]) -> Sequences:
        """All episodes of the parts, in order."""
        if len(parts) == 1:
            return parts[0]
        total, after = (max(getattr(p, n).shape[1] for p in parts) for n in ("input_ids", "action_mask"))
        joined = {}
        for name in parts[0].tensors():
            width = total if name in ("input_ids", "attention_mask") else after
            filling = 255 if name == "supports" else 0
            joined[name] = torch.cat(
                [
                    v if name == "last_values" else _left_padded(v, width, filling)
                    for v in (getattr(p, name) for p in parts)
                ]
            )
        return parts[0].with_(**joined)


FEW = 8  # episodes: fewer are not worth a pass of their own on account of their length
SHORTER = 0.8  # times the longest: an episode shorter than that begins a new part


def _left_padded(value: Tensor, width: int, filling: int) -> Tensor:
    missing = value.new_full((len(value), width - value.shape[1], *value.shape[2:]), filling)
    return torch.cat([missing, value], dim=1)


@dataclass(frozen=True)
class Episode:
    """One finished episode as it was played. Lists have one entry for every token after the prompt."""

    prompt: list[int]
    tokens: list[int]
    chosen: list[bool]  # false where another speaker's token was appended
    log_probs: list[float]
    values: list[float]
    rewards: list[float]
    last_value: float  # see `Sequences`

    @classmethod
    def of(cls, sequences: Sequences, row: int) -> Episode:
        """Reads it off a row."""
        after = sequences.action_mask.shape[1]
        first = int(sequences.action_mask[row].int().argmax())
        ids = sequences.input_ids[row][sequences.attention_mask[row]].tolist()
        prompt = len(ids) - (after - first)
        return cls(
            prompt=ids[:prompt],
            tokens=ids[prompt:],
            chosen=sequences.action_mask[row, first:].tolist(),
            log_probs=sequences.log_probs[row, first:].tolist(),
            values=sequences.values[row, first:].tolist(),
            rewards=sequences.rewards[row, first:].tolist(),
            last_value=float(sequences.last_values[row]),
        )


class Recording:
    """Episodes while they are played, in arrays with a row a slot.

    Attributes:
        prompt_lengths: ``(n,)``.
        last_values: ``(n,)`` float32, to be set where an episode is cut off from outside.
    """

    def __init__(self, input_ids: np.ndarray, attention_mask: np.ndarray, limits: Limits | None) -> None:
        """Args: input_ids, attention_mask: First observations, ``(n, L)``. limits: See :class:`Sequences`."""
        n, self._width = input_ids.shape
        self.prompt_lengths = attention_mask.sum(-1, dtype=np.int64)
        self.last_values = np.zeros(n, dtype=np.float32)
        self._limits = limits
        self._ids = np.concatenate([input_ids, np.zeros_like(input_ids)], axis=1)  # (n, 2 L), the prompt ends at L
        self._counts = np.zeros(n, dtype=np.int64)  # tokens after the prompt
        self._chosen = np.zeros((n, self._width), dtype=np.bool_)
        self._numbers = {name: np.zeros((n, self._width), dtype=np.float32) for name in _RECORDED}
        self._supports: np.ndarray | None = None

    def append(self, slots: np.ndarray, choices: Choices, rewards: np.ndarray) -> None:
        """Adds a token that the policy chose to each of ``slots``; arrays have their order."""
        at, supports = self._counts[slots], choices.supports
        self._ids[slots, self._width + at] = choices.tokens
        self._chosen[slots, at] = True
        found = (choices.log_probs, choices.entropies, choices.values, rewards)
        for name, numbers in zip(_RECORDED, found, strict=True):
            self._numbers[name][slots, at] = numbers
        if supports is not None:
            if self._supports is None:
                self._supports = np.full((*self._chosen.shape, supports.shape[1]), 255, dtype=np.uint8)
            self._supports[slots, at] = supports
        self._counts[slots] += 1

    def append_reply(self, slot: int, tokens: np.ndarray) -> None:
        """Adds tokens that somebody else said."""
        start = self._width + self._counts[slot]
        self._ids[slot, start : start + len(tokens)] = tokens
        self._counts[slot] += len(tokens)

    def sequences(self) -> Sequences:
        """What was recorded; reference log-probabilities equal the policy's, advantages and returns are 0, until set."""
        after, lengths = int(self._counts.max()), self.prompt_lengths + self._counts
        total = max(int(lengths.max()), after + 1)
        columns = self._counts[:, None] - after + np.arange(after)  # of the numbers; negative: padding
        wanted = self._width + self._counts[:, None] - total + np.arange(total)
        present = np.arange(total) >= total - lengths[:, None]

        def aligned(array: np.ndarray) -> Tensor:
            index = columns.clip(min=0)
            found = array[np.arange(len(array))[:, None], index]
            found[columns < 0] = 255 if array.dtype == np.uint8 else 0
            return torch.from_numpy(found)

        numbers = {name: aligned(array) for name, array in self._numbers.items()}
        ids = np.where(present, np.take_along_axis(self._ids, wanted.clip(min=0), axis=1), 0)
        zeros = torch.zeros(len(ids), after)
        return Sequences(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(present),
            action_mask=aligned(self._chosen),
            **numbers,
            ref_log_probs=numbers["log_probs"].clone(),
            advantages=zeros,
            returns=zeros.clone(),
            last_values=torch.from_numpy(self.last_values),
            supports=None if self._supports is None else aligned(self._supports),
            limits=self._limits,
        )


_RECORDED = ("log_probs", "entropies", "values", "rewards")


class SequenceBuffer(RolloutBuffer):
    """The rollout buffer of an algorithm whose unit of work is the episode.

    Attributes:
        sequences: What was added since the last :meth:`reset`, once :meth:`stack` was called.
        num_tokens: Tokens that the policy chose in it.
    """

    sequences: Sequences

    def reset(self) -> None:
        """Forgets all episodes."""
        self._parts: list[Sequences] = []
        self.num_tokens = 0
        self.pos, self.full = 0, False

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Not for this buffer; see :meth:`add_sequences`.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("A SequenceBuffer takes whole episodes: add_sequences(sequences)")

    def add_sequences(self, sequences: Sequences) -> None:
        """Adds finished episodes."""
        self._parts.append(sequences)
        self.num_tokens += sequences.num_tokens

    def stack(self) -> Sequences:
        """Puts the episodes together."""
        self.sequences = Sequences.cat(self._parts)
        self.full = True
        return self.sequences

    @property
    def episodes(self) -> list[Episode]:
        """The episodes one by one, for people to look at, once :meth:`stack` was called."""
        return self.sequences.episodes()

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Sequences]:
        """Minibatches of episodes, on the CPU.

        Args:
            batch_size: Episodes in each; the last may have fewer.
            generator: Shuffles the episodes; ``None`` keeps their order.
        """
        n = len(self.sequences)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for rows in order.split(batch_size):
            yield self.sequences.select(rows)


def pack_bits(mask: Tensor) -> np.ndarray:
    """``[N, V]`` bool as ``(N, ceil(V / 8))`` uint8, eight tokens a byte; the inverse is ``unpack_bits``."""
    return np.packbits(mask.cpu().numpy(), axis=-1, bitorder="little")
