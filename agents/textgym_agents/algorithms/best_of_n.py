"""Best-of-n fine-tuning, also called expert iteration, rejection sampling or RAFT."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import Schedule
from typing_extensions import Unpack

from textgym.core import expected, whole_number
from textgym_agents.algorithms.groups import GroupAlgorithm
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.losses import masked_mean
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences


class BestOfN(GroupAlgorithm):
    """Expert iteration: of ``n`` completions of each prompt, the best are learned by maximum likelihood.

    That is RAFT (Dong et al. 2023, https://arxiv.org/abs/2304.06767): sample, rank, fine-tune, and again. With
    ``R_i`` the reward of a completion, less ``kl_coef * (log pi - log pi_ref)``, it minimises

        ``-mean_t log pi(a_t | s_t)``  over the ``num_best`` completions of highest ``R_i`` of each group

    There are no advantages and nothing is made less likely, so it is hard to break, and slow where good completions are rare.
    The first thing to try where an SFT pipeline already runs; :class:`RLOO` learns from the bad ones too.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO`, and

    * ``train/nll``: mean of ``-log pi`` over the tokens learned, in nats; ``train/loss``: of the last minibatch;
    * ``train/entropy_loss``: minus the mean entropy of what was drawn from, in nats a token;
    * ``train/best_reward``: mean of ``R_i`` of those learned; ``train/reward_std``: as for :class:`GRPO`;
    * ``train/idle_groups``: share of groups in which all ``R_i`` were the same; the first ones of these are learned.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"target_kl"})
    token_means = frozenset[str]()

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 16,
        n_epochs: int = 1,
        num_generations: int = 8,
        num_best: int = 1,
        kl_coef: float = 0.05,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: An id of ours, or a vector environment made with ``group_size=num_generations``.
            learning_rate: See there.
            n_steps: See there.
            batch_size: Minibatch, in completions that are learned: ``num_best`` of ``num_generations``.
            n_epochs: Passes over them.
            num_generations: * Completions of each prompt, ``n``, at least 2; ``n_envs`` is a multiple of it.
            num_best: * How many of them are learned, less than ``num_generations``.
            kl_coef: * Penalty against the reference model, in the ranking; 0 for none (and no reference model in memory).
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        self.num_best = whole_number("num_best", num_best, 1)
        if isinstance(num_generations, int) and num_best >= num_generations:
            raise ValueError(expected("num_best", num_best, f"less than num_generations={num_generations}"))
        super().__init__(
            policy,
            env,
            num_generations=num_generations,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            target_kl=None,
            kl_coef=kl_coef,
            **options,
        )

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        returns = self._returns(sequences.with_(rewards=sequences.rewards - penalty))
        spread = self._spread(returns)
        self.logger.record("train/reward_std", float(spread.mean()))
        self.logger.record("train/idle_groups", float((spread < 1e-8).float().mean()))
        return self._to_tokens(sequences, returns)

    def _score(self, buffer: SequenceBuffer) -> None:
        super()._score(buffer)
        returns = buffer.sequences.advantages[:, -1]  # [B]; the last column is every episode's last token
        ranks = returns.view(-1, self.num_generations).argsort(dim=-1, descending=True, stable=True)[:, : self.num_best]
        first = torch.arange(0, len(returns), self.num_generations)
        rows = (ranks + first[:, None]).flatten()
        self.logger.record("train/best_reward", float(returns[rows].mean()))
        buffer.sequences = buffer.sequences.select(rows)

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        mask = part.action_mask
        log_probs, _, entropies = self.policy.evaluate_sequences(
            part, self.decoding.temperature, entropies=self.ent_coef != 0
        )
        nll = -masked_mean(log_probs, mask)
        entropy_loss = -masked_mean(entropies if self.ent_coef != 0 else part.entropies, mask)
        return nll + self.ent_coef * entropy_loss, {"nll": nll.item(), "entropy_loss": entropy_loss.item()}
