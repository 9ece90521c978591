"""Who writes the tokens of a rollout: the policy itself, or a server that holds a copy of its model."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from textgym_agents.models.loading import ModelError
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Choices, Sequences, pack_bits
from textgym_agents.rollouts.decoding import CachedDecoder, Limits
from textgym_agents.rollouts.sampling import Decoding, sample
from textgym_agents.vec_env import somebody_replies

TOKENS_AT_ONCE = 2**14  # in a pass without gradients


class RolloutWriter(ABC):
    """Writes one episode in every slot, a token a step; slots whose episode has ended leave.

    Attributes:
        slots: ``(rows,)`` int64: the slots that still run, in the order of all arrays that go in and out.
        decoding: How tokens are drawn; may be set between rollouts.
    """

    slots: np.ndarray
    decoding: Decoding

    def check(self, env: VecEnv) -> None:  # noqa: B027
        """Looks at the environments before any rollout.

        Raises:
            ModelError: It cannot write in them.
        """

    def synchronise(self) -> None:  # noqa: B027  # the policy itself has nothing to fetch
        """Called before every rollout: the policy's weights may have changed."""

    @abstractmethod
    def begin(self, observations: dict[str, np.ndarray], limits: Limits | None, room: int) -> None:
        """Reads the prompts of all slots.

        Args:
            observations: First observations, ``(n, L)`` each.
            limits: What the environment allows; ``None``: its masks say it at every step.
            room: The most tokens that can follow.
        """

    @abstractmethod
    def choose(self, written: int, masks: np.ndarray | None) -> Choices:
        """The next token of every row.

        Args:
            written: How many the policy has written so far.
            masks: ``(rows, V)`` bool, what is allowed, where ``limits`` do not say it.
        """

    @abstractmethod
    def drop(self, ended: np.ndarray) -> np.ndarray:
        """Lets rows leave, ``(rows,)`` bool; returns the old index of every row that is left."""

    @abstractmethod
    def append(self, ids: np.ndarray, mask: np.ndarray | None) -> None:
        """Reads what was appended to the episodes: the tokens just chosen, and replies behind them.

        Args:
            ids: ``(rows, K)`` int64, left-padded.
            mask: ``(rows, K)`` bool; ``None`` where there is no padding.
        """

    def finish(self, sequences: Sequences) -> Sequences:
        """The episodes once all have ended, completed by what was not known while they were written."""
        return sequences


class PolicyWriter(RolloutWriter):
    """The policy itself, with a key-value cache; logits never leave its device.

    Which token a slot draws depends on its own random numbers only, not on which other slots still run.

    Attributes:
        greedy: ``(n,)`` bool: slots that take the most likely token instead of drawing one; ``None``: none. What is recorded of
            the distribution is that of drawing.
    """

    greedy: np.ndarray | None = None

    def __init__(self, policy: LMPolicy, decoding: Decoding, generator: torch.Generator) -> None:
        """Args: policy: Chooses. decoding: How tokens are drawn. generator: Source of randomness, on the policy's device."""
        self._policy, self.decoding, self._generator = policy, decoding, generator

    def check(self, env: VecEnv) -> None:
        """See :meth:`RolloutWriter.check`."""
        if self._policy.encoder_decoder and somebody_replies(env):
            raise ModelError(
                "Expected a CausalLMPolicy for a task in which somebody replies: an encoder-decoder model reads all prompts "
                "before it writes"
            )

    def begin(self, observations: dict[str, np.ndarray], limits: Limits | None, room: int) -> None:
        """See :meth:`RolloutWriter.begin`."""
        device = self._device = self._policy.device
        ids, seen, own = self._observed(observations)
        self._limits, self._n = limits, len(ids)
        if limits is not None:
            self._forbidden = torch.tensor(limits.forbidden, dtype=torch.long, device=device)
            self._early = torch.tensor(
                [*limits.forbidden, limits.eos_token_id], device=device
            )  # ... before the minimum
        self._decoder = CachedDecoder(self._policy, ids, seen, own, room)
        self.slots = np.arange(len(ids))
        self._rows = torch.as_tensor(self.slots, device=device)

    def _observed(self, observations: dict[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
        ids, seen, own = (
            torch.as_tensor(observations[key], device=self._policy.device)
            for key in ("input_ids", "attention_mask", "completion_mask")
        )
        return ids.long(), seen, own

    @torch.inference_mode()
    def choose(self, written: int, masks: np.ndarray | None) -> Choices:
        """See :meth:`RolloutWriter.choose`."""
        device, logits = self._device, self._decoder.logits
        if masks is not None:
            logits.masked_fill_(~torch.as_tensor(masks, device=device), -torch.inf)
        elif self._limits is not None:
            logits.index_fill_(
                1, self._forbidden if written >= self._limits.min_new_tokens else self._early, -torch.inf
            )
        narrowed = self._narrow(logits)
        # one random number a slot, whether or not it still runs
        uniforms = torch.rand(self._n, generator=self._generator, device=device)[self._rows]
        drawn = sample(logits, self.decoding, uniforms)
        supports = None
        if drawn.support is not None or masks is not None or narrowed:
            supports = pack_bits(torch.isfinite(logits) if drawn.support is None else drawn.support)
        chosen = drawn.tokens
        if self.greedy is not None:
            chosen = torch.where(torch.as_tensor(self.greedy[self.slots], device=device), logits.argmax(-1), chosen)
        found = (chosen, drawn.log_probs, drawn.entropies, self._decoder.values)
        tokens, log_probs, entropies, values = (x.cpu().numpy() for x in found)
        return Choices(tokens, log_probs, entropies, values, supports)

    def _narrow(self, logits: Tensor) -> bool:
        """Puts minus infinity where a token is not to be drawn, in place; whether it does so at all."""
        return False

    def drop(self, ended: np.ndarray) -> np.ndarray:
        """See :meth:`RolloutWriter.drop`."""
        order = self._decoder.drop(ended)
        self.slots = self.slots[order]
        self._rows = torch.as_tensor(self.slots, device=self._device)
        return order

    def append(self, ids: np.ndarray, mask: np.ndarray | None) -> None:
        """See :meth:`RolloutWriter.append`."""
        device = self._device
        tokens = torch.as_tensor(ids, device=device)
        self._decoder.append(tokens, None if mask is None else torch.as_tensor(mask, device=device))

    @torch.no_grad()
    def finish(self, sequences: Sequences) -> Sequences:
        """See :meth:`RolloutWriter.finish`; a value network of its own reads whole episodes, and needs no cache."""
        if self._policy.share_features_extractor:
            return sequences
        values = sequences.values.clone()
        for rows in sequences.passes(TOKENS_AT_ONCE):
            found = self._policy.evaluate_values(sequences.select(rows).to(self._policy.device)).cpu()
            values[rows, values.shape[1] - found.shape[1] :] = found
        return sequences.with_(values=values)
