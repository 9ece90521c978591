"""The learning loop of algorithms over text: minibatches of episodes, read in parts whose gradients add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch

from textgym.core import TextGymError
from textgym_agents.algorithms.saving import SavedAlgorithm
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences


class TrainingError(TextGymError, RuntimeError):
    """Training cannot go on."""


class MinibatchUpdates(SavedAlgorithm):
    """What of a text algorithm learns from a rollout; see :class:`TextAlgorithm` for the rest. Subclasses define ``_loss``."""

    token_means: ClassVar[frozenset[str]] = frozenset({"approx_kl", "clip_fraction"})  # of what `_loss` gives to log
    policy: LMPolicy
    rollout_buffer: SequenceBuffer
    batch_size: int
    n_epochs: int
    target_kl: float | None
    micro_batch_tokens: int
    _where = "the rollout"  # what is being learned from, for messages

    def _new_seed(self) -> int:
        """A number by chance, for another generator to start from."""
        return int(torch.randint(2**62, (1,), generator=self.generator, device=self.device))

    def train(self) -> None:
        """Updates the policy on the rollout in the buffer; see SB3.

        A minibatch is read in parts of like lengths, of at most ``micro_batch_tokens`` tokens. Their gradients are weighted so
        that they add up to the minibatch's.
        """
        self.policy.set_training_mode(False)  # dropout stays off: it would change the log-probabilities
        self._update_learning_rate(self.policy.optimizer)
        shuffler = torch.Generator().manual_seed(self._new_seed())
        logged: dict[str, list[float]] = defaultdict(list)
        stop = False
        for epoch in range(self.n_epochs):
            for number_of_batch, batch in enumerate(self._batches(shuffler), start=1):
                self._where = f"minibatch {number_of_batch} of pass {epoch + 1}"
                numbers = self._accumulate(self._prepared(batch))
                for name, number_ in numbers.items():
                    logged[name].append(number_)
                stop = self.target_kl is not None and numbers["approx_kl"] > 1.5 * self.target_kl
                if stop:
                    break
                self._step()
            self._n_updates += 1
            if stop:
                break
        for name, seen in logged.items():
            self.logger.record(f"train/{name}", seen[-1] if name == "loss" else float(np.mean(seen)))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._rollout_start = None  # from now on a checkpoint continues behind this rollout, not before it

    def _batches(self, shuffler: torch.Generator) -> Iterator[Sequences]:
        """The minibatches of one pass over the rollout, in an order by chance."""
        return self.rollout_buffer.batches(self.batch_size, shuffler)

    def _prepared(self, batch: Sequences) -> Sequences:
        """A minibatch before it is cut into parts: the place for what concerns all of it."""
        return batch

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a part of a minibatch, and what to log of it."""
        raise NotImplementedError

    def _weight(self, part: Sequences, batch: Sequences) -> float:
        """Weight of a part in its minibatch: its share of the tokens, for a loss that is a mean over tokens."""
        return part.num_tokens / batch.num_tokens

    def _accumulate(self, batch: Sequences) -> dict[str, float]:
        """The gradient of a minibatch's loss, part by part; returns what to log of it, likewise weighted."""
        self.policy.optimizer.zero_grad()
        numbers: dict[str, float] = defaultdict(float)
        for rows in batch.passes(self.micro_batch_tokens):
            part = batch.select(rows)
            weight = self._weight(part, batch)
            loss, found = self._loss(part.to(self.device))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss became {loss.item()} at {self.num_timesteps} timesteps, in {self._where} (update "
                    f"{self._n_updates}), on {len(part)} episodes such as the tokens {part.episodes()[0].tokens[:12]}; "
                    "the weights are those from before it. Try a lower learning_rate or max_grad_norm"
                )
            (weight * loss).backward()
            share = part.num_tokens / batch.num_tokens
            for name, value in {**found, "loss": loss.item()}.items():
                numbers[name] += value * (share if name in self.token_means else weight)
        return numbers

    def _step(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm, foreach=True)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"The gradient became {norm.item()} at {self.num_timesteps} timesteps, in {self._where} (update "
                f"{self._n_updates}); the weights are those from before it. Try a lower learning_rate"
            )
        self.policy.optimizer.step()
