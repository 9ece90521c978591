"""Direct Preference Optimization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Unpack

from textgym.core import expected, number
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.groups import GroupAlgorithm
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.preferences import PreferencePairs, read_preferences
from textgym_agents.algorithms.supervised import setting_in, taken
from textgym_agents.losses import dpo_loss, sequence_sum
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.play import OnStep

LOSSES = ("sigmoid", "ipo")


class DPO(GroupAlgorithm):
    """Direct Preference Optimization (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290): no reward model, no critic.

    Of two completions of a prompt, ``w`` was preferred to ``l``. With ``h = log(pi(w) / pi_ref(w)) - log(pi(l) / pi_ref(l))``,
    where ``pi(w)`` is the probability of a whole completion, it minimises the mean over pairs of

    * ``loss_type="sigmoid"``: ``-(1 - e) * log sigmoid(beta * h) - e * log sigmoid(-beta * h)`` with ``e`` the
      ``label_smoothing``: how often a preference is taken to be wrong;
    * ``loss_type="ipo"``: ``(h - 1 / (2 * beta))^2`` (Azar et al. 2023, https://arxiv.org/abs/2310.12036), which stays finite
      where every preference is certain.

    Both are content if the rejected one only becomes unlikelier than the chosen one, whose own probability may fall with it:
    the policy then drifts to texts that nobody has compared. ``rpo_alpha`` adds ``-rpo_alpha * log pi(w)``, a mean over the
    tokens of the chosen ones (Pang et al. 2024, https://arxiv.org/abs/2404.19733; over tokens as in TRL).

    Pairs come from a ``dataset``, or without one from the policy: the best and the worst of ``num_generations`` completions
    of each prompt, as the environment's reward sees it (online DPO, Guo et al. 2024, https://arxiv.org/abs/2402.04792). Use
    the first where people have compared texts, the second as a simple relative of :class:`GRPO`.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: without a dataset, ``rollout/...`` and ``train/kl_coef`` (here, ``beta``) as for :class:`PPO`; and

    * ``train/loss``: of the last minibatch; ``train/accuracy``: share of pairs with ``h > 0``, a half for ``h = 0``;
      ``train/nll``: mean of ``-log pi`` of the chosen, in nats a token;
    * ``train/chosen_reward``, ``train/rejected_reward``: means of ``beta * log(pi / pi_ref)``, the implicit rewards;
      ``train/margin``: their difference, ``beta * h``;
    * ``train/pairs``: pairs in the rollout; completions of equal reward make none; ``train/entropy_loss``: as for :class:`PPO`.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"kl_coef", "kl_target", "kl_horizon", "ent_coef", "target_kl"})
    token_means = frozenset[str]()

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 16,
        n_epochs: int = 1,
        dataset: str | Path | Sequence[Mapping[str, Any]] | None = None,
        num_generations: int = 4,
        beta: float = 0.1,
        loss_type: str = "sigmoid",
        label_smoothing: float = 0.0,
        rpo_alpha: float = 0.0,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: An id of ours, or a vector environment, made with ``group_size=num_generations`` where there is no dataset.
            learning_rate: See there.
            n_steps: See there.
            batch_size: Minibatch, in pairs.
            n_epochs: Passes over a rollout.
            dataset: * A JSON Lines file, or a list of records, with ``prompt``, ``chosen`` and ``rejected``; then
                the environment is not played, and a "rollout" is ``n_envs`` pairs by chance. ``None``: the policy plays.
            num_generations: * Completions of each prompt, at least 2, where the policy plays.
            beta: * How strongly the policy is held to the reference, above 0.
            loss_type: * ``"sigmoid"`` or ``"ipo"``.
            label_smoothing: * ``e``, in [0, 0.5), with ``"sigmoid"``.
            rpo_alpha: * Weight of the likelihood of the chosen, at least 0; named as in TRL.
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`, less ``ent_coef`` and ``kl_...``.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
            TextGymError: The dataset cannot be read.
        """
        if unknown := sorted(set(options) & self.decided):
            raise TypeError(f"DPO takes no {', '.join(unknown)}: `beta` holds it to the reference")
        if loss_type not in LOSSES:
            raise ValueError(expected("loss_type", loss_type, f"one of {LOSSES}"))
        number("beta", beta, 0, float("inf"), above=True, wanted="above 0")
        number("label_smoothing", label_smoothing, 0, 0.5)
        if label_smoothing == 0.5 or (label_smoothing and loss_type != "sigmoid"):
            raise ValueError(
                expected("label_smoothing", label_smoothing, "below 0.5, and 0 without loss_type='sigmoid'")
            )
        self.rpo_alpha = number("rpo_alpha", rpo_alpha, 0, float("inf"))
        self.beta, self.loss_type, self.label_smoothing = beta, loss_type, label_smoothing
        self.dataset = dataset
        self._given = None if dataset is None else read_preferences(dataset)
        super().__init__(
            policy,
            env,
            num_generations=num_generations,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            kl_coef=beta,
            **options,
        )

    @classmethod
    def needed_env_kwargs(cls, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`TextAlgorithm.needed_env_kwargs`."""
        return super().needed_env_kwargs(hyperparameters) if hyperparameters.get("dataset") is None else {}

    def _check_env(self, env: VecEnv) -> None:
        if self._given is None:
            super()._check_env(env)
        else:
            TextAlgorithm._check_env(self, env)
            self._dataset = PreferencePairs(self._given, setting_in(env))

    def _episodes(self, env: VecEnv, on_step: OnStep) -> Sequences | None:
        if self._given is None:
            return super()._episodes(env, on_step)
        return taken(self._dataset.draw(env.num_envs, np.random.default_rng(self._new_seed())), on_step)

    def _score(self, buffer: SequenceBuffer) -> None:
        if self._given is None:
            super()._score(buffer)
        else:
            whole = buffer.stack()
            buffer.sequences = whole.with_(ref_log_probs=self._reference_log_probs(whole))
            self._pairs = torch.arange(len(whole)).view(-1, 2)
        self.logger.record("train/pairs", len(self._pairs))

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        returns = self._returns(sequences).view(-1, self.num_generations)
        first = torch.arange(0, len(sequences), self.num_generations)
        best, worst = first + returns.argmax(-1), first + returns.argmin(-1)
        apart = returns.amax(-1) > returns.amin(-1)
        self._pairs = torch.stack([best, worst], dim=-1)[apart]  # [pairs, 2], rows of the chosen and of the rejected
        entropy = sequences.entropies[sequences.action_mask].mean()
        self.logger.record("train/entropy_loss", -float(entropy))
        return sequences

    def _batches(self, shuffler: torch.Generator) -> Iterator[Sequences]:
        order = torch.randperm(len(self._pairs), generator=shuffler)
        for some in order.split(self.batch_size) if len(order) else ():
            yield self.rollout_buffer.sequences.select(self._pairs[some].flatten())

    def _accumulate(self, batch: Sequences) -> dict[str, float]:
        """The loss ties the two completions of a pair together, but its gradient falls apart into a weight for each.

        So the weights are found first, for all pairs, and parts of the minibatch can be read in any order.
        """
        log_probs = self._log_probs(batch)
        log_ratios = sequence_sum(log_probs - batch.ref_log_probs, batch.action_mask)
        log_ratios.requires_grad_()
        chosen, rejected = log_ratios.view(-1, 2).unbind(-1)
        loss = dpo_loss(chosen - rejected, self.beta, self.loss_type, self.label_smoothing)
        (weights,) = torch.autograd.grad(loss, log_ratios)
        weights = weights[:, None].repeat(1, batch.action_mask.shape[1])
        written = int(batch.action_mask[::2].sum())  # tokens of the chosen
        weights[::2] -= self.rpo_alpha / written
        super()._accumulate(batch.with_(advantages=weights))
        margin = (chosen - rejected).detach()
        nll = -sequence_sum(log_probs[::2], batch.action_mask[::2]).sum().item() / written
        return {
            "loss": loss.item() + self.rpo_alpha * nll,
            "nll": nll,
            "accuracy": (margin.sign().mean().item() + 1) / 2,
            "chosen_reward": self.beta * chosen.mean().item(),
            "rejected_reward": self.beta * rejected.mean().item(),
            "margin": self.beta * margin.mean().item(),
        }

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        log_probs, _, _ = self.policy.evaluate_sequences(part, self.decoding.temperature)
        return sequence_sum(log_probs * part.advantages, part.action_mask).sum(), {}

    def _weight(self, part: Sequences, batch: Sequences) -> float:
        return 1.0  # the weights of completions are those of the whole minibatch
