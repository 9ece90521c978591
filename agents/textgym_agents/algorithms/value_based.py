"""What algorithms that learn action values share: a replay buffer of episodes, a slowly moving target, their training loop."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from textgym.core import expected, number, whole_number
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.saving import Stateful
from textgym_agents.losses import masked_mean
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.replay import SequenceReplay


class ValueBasedAlgorithm(TextAlgorithm):
    """An algorithm that learns what tokens are worth, from episodes that anybody may have written.

    A rollout is played as everywhere and goes into :attr:`replay`; then ``gradient_steps`` minibatches are drawn from there.

    Attributes:
        replay: Earlier episodes.
        target: What follows :meth:`_online` slowly, and makes the targets.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"n_epochs", "gae_lambda", "target_kl", "vf_coef"})
    token_means = frozenset[str]()

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        buffer_size: int,
        learning_starts: int,
        gradient_steps: int,
        tau: float,
        target_update_interval: int,
        **options: Any,
    ) -> None:
        """Args: as for :class:`TextAlgorithm`, and those that its subclasses explain."""
        self.buffer_size = whole_number("buffer_size", buffer_size, 1)
        self.learning_starts = whole_number("learning_starts", learning_starts, 0)
        self.gradient_steps = whole_number("gradient_steps", gradient_steps, 1)
        self.tau = number("tau", tau, 0, 1, above=True, wanted="in (0, 1]")
        self.target_update_interval = whole_number("target_update_interval", target_update_interval, 1)
        if options.get("ent_coef", 0.0) != 0.0:
            raise ValueError(
                expected("ent_coef", options["ent_coef"], f"0: {type(self).__name__} has no entropy bonus")
            )
        super().__init__(policy, env, n_epochs=1, gae_lambda=1.0, target_kl=None, vf_coef=0.0, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.replay = SequenceReplay(self.buffer_size, self.limits)
        self.target = copy.deepcopy(self._online()).requires_grad_(False)

    def _online(self) -> nn.Module:
        """What the target follows."""
        raise NotImplementedError

    def _with_advantages(self, sequences: Sequences, penalty: Tensor) -> Sequences:
        return sequences  # rewards stay as they were paid: what they are worth is asked anew at every update

    def train(self) -> None:
        """Adds the rollout to the replay buffer, then learns from what is there; see SB3."""
        self._remember()
        if self.num_timesteps >= self.learning_starts:
            chance = self._chance()
            self._learn_from(self.replay.sample(self.batch_size, chance) for _ in range(self.gradient_steps))
        self._rollout_start = None  # from now on a checkpoint continues behind this rollout, not before it

    def _remember(self) -> None:
        """Adds the rollout to the replay buffer."""
        played = self.rollout_buffer.sequences
        self.replay.add(played)
        self.logger.record("train/entropy_loss", -float(masked_mean(played.entropies, played.action_mask)))
        self.logger.record("train/replay_episodes", len(self.replay))

    def _chance(self) -> torch.Generator:
        """A generator on the CPU, where the replay buffer is, that goes on from the algorithm's."""
        return torch.Generator().manual_seed(self._new_seed())

    def _learn_from(self, batches: Iterable[Sequences]) -> None:
        """A gradient step on each of the minibatches, and the target behind it."""
        self.policy.set_training_mode(False)  # dropout stays off
        self._update_learning_rate(self.policy.optimizer)
        logged: dict[str, list[float]] = defaultdict(list)
        for batch in batches:
            for name, value in self._accumulate(batch).items():
                logged[name].append(value)
            self._step()
            self._n_updates += 1
            if self._n_updates % self.target_update_interval == 0:
                self._follow()
        for name, seen in logged.items():
            self.logger.record(f"train/{name}", float(np.mean(seen)))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the target a step of ``tau`` towards what it follows."""
        for slow, fast in zip(self.target.parameters(), self._online().parameters(), strict=True):
            slow.lerp_(fast, self.tau)

    def _models(self) -> Mapping[str, Stateful]:
        return {**super()._models(), "target": self.target, "replay": self.replay}
