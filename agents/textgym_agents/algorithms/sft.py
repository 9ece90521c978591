"""Supervised fine-tuning, and pre-training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from typing_extensions import Unpack

from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.supervised import SupervisedAlgorithm
from textgym_agents.losses import masked_mean
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class SFT(SupervisedAlgorithm):
    """Supervised fine-tuning: maximum likelihood of given completions, token by token.

    The loss is the mean over tokens of ``-log pi(a_t | s_t)`` over the whole vocabulary, where ``a`` are the tokens of a good
    completion: in reinforcement learning's terms, behaviour cloning (Pomerleau 1991,
    https://doi.org/10.1162/neco.1991.3.1.88). It is the usual step before reinforcement learning: a policy that never earns
    anything cannot learn from rewards.

    The completions are references of the environment's prompts, the task's own answers (``Task.oracle``), or windows of a text.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration:

    * ``train/loss``: of the last minibatch; ``train/nll``: mean of ``-log pi``, in nats a token; ``train/perplexity``: its
      exponential;
    * ``train/learning_rate``, ``train/n_updates``, ``time/...``: as in SB3.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 16,
        n_epochs: int = 1,
        targets: str = "auto",
        text: str | Path | None = None,
        augmentation: dict[str, Any] | None = None,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: See there; its prompts are what is learned on, its rewards are never asked.
            learning_rate: See there.
            n_steps: As many tokens as ``n_steps * n_envs``, at least, are in the buffer between two updates.
            batch_size: Minibatch, in completions.
            n_epochs: Passes over the buffer.
            targets: * ``"references"``: one of each prompt's references, by chance; ``"oracle"``: the task's own answer;
                ``"auto"``: references where the prompts are your own, the task's answers where it writes the prompts.
            text: * A text file to learn from instead, in windows as long as an observation (pre-training).
            augmentation: * Varies the prompts or references, as ``{"insertion": 0.1, "deletion": 0.1}``; see
                :class:`textgym_agents.algorithms.augmentation.Augmentation`, which also has a hook for back-translation. A
                prompt that gets too long stays as it was.
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`; those about rewards, the reference model
                and playing are none of this algorithm's. ``temperature``, ``top_k`` and ``top_p`` are those of ``predict``.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
            TextGymError: The text cannot be read.
        """
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            targets=targets,
            text=text,
            augmentation=augmentation,
            **options,
        )

    def train(self) -> None:
        """Updates the policy on the completions in the buffer; see SB3."""
        super().train()
        self.logger.record("train/perplexity", math.exp(min(self.logger.name_to_value["train/nll"], 700)))

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        log_probs, _, _ = self.policy.evaluate_sequences(part, 1.0)
        loss = -masked_mean(log_probs, part.action_mask)
        return loss, {"nll": loss.item()}
