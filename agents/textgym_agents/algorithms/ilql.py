"""Implicit Language Q-Learning: values of tokens from episodes that are there already."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from typing_extensions import Unpack

from textgym.core import expected, number, whole_number
from textgym_agents.action_values import (
    ActionValuePolicy,
    ActionValues,
    CausalActionValuePolicy,
    Seq2SeqActionValuePolicy,
)
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.value_based import ValueBasedAlgorithm
from textgym_agents.losses import masked_mean
from textgym_agents.models.token_scores import token_scores
from textgym_agents.policies import LMPolicy, chosen_in
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.records import read_episodes
from textgym_agents.value_losses import expectile_loss, n_step_targets

_ALL = 2**31  # episodes: more than any data set has


class ILQL(ValueBasedAlgorithm):
    """Implicit Language Q-Learning (Snell et al. 2022, https://arxiv.org/abs/2206.11871): offline, on episodes of anybody.

    On the model's hidden states there are two heads ``Q_1``, ``Q_2`` for the values of all tokens, with slow copies ``Q'``, and
    one for ``V``. With ``u = min(Q'_1, Q'_2)(s_t, a_t) - V(s_t)`` the loss is, a mean over tokens,

        ``sum_i (r_t + gamma V(s_{t+1}) - Q_i(s_t, a_t))^2 + |expectile - 1(u < 0)| u^2
        - cql_coef * sum_i log softmax(Q_i(s_t, .))(a_t) - bc_coef * log pi(a_t | s_t)``

    No token is ever asked about that the data does not have: an ``expectile`` above 1/2 makes ``V`` lean towards the better of
    those that it has, which stands in for the maximum (Kostrikov et al. 2022, https://arxiv.org/abs/2110.06169). The third term
    keeps the values of other tokens low (Kumar et al. 2020), the fourth is supervised learning. All of them train the model,
    whose hidden states have to learn what decides the reward; the fourth keeps it a language model meanwhile, so that one model
    is enough. The policy writes by

        ``log pi(a | s) + advantage_weight * (min(Q_1, Q_2)(s, a) - V(s))``

    in ``predict``, ``generate``, rollouts and evaluation.

    When to use it: where there are texts with ratings and no way to rate new ones, or where rating costs much more than
    training. With a reward at hand, on-policy algorithms get there sooner: what they learn of ``TextGen-Delay-v0`` in 8,000
    tokens takes it 3,000 episodes of the bundled model's own, each read several times. Not for tasks in which somebody replies,
    with a ``dataset``.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have. Without a
    ``dataset`` it makes one: the untrained policy plays ``learning_starts`` tokens. From then on the environment is not played
    any more: every iteration draws ``batch_size`` episodes of the data, makes one update, and counts their tokens as
    ``num_timesteps``; callbacks see one step.

    Logged each iteration: ``rollout/...`` as for :class:`PPO` while it plays, and

    * ``train/q_loss``, ``train/v_loss``, ``train/cql_loss``, ``train/bc_loss``: the terms, without their coefficients;
      ``train/loss``: their weighted sum;
    * ``train/q_mean``, ``train/v_mean``: means over the minibatch of ``min(Q_1, Q_2)(s_t, a_t)`` and ``V(s_t)``;
    * ``train/replay_episodes``: episodes in the data; ``train/entropy_loss``: while it plays, as for :class:`PPO`;
    * ``train/learning_rate``, ``train/n_updates``: as there.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "CausalLMPolicy": CausalActionValuePolicy,
        "Seq2SeqLMPolicy": Seq2SeqActionValuePolicy,
        # the names that a saved one has
        "CausalActionValuePolicy": CausalActionValuePolicy,
        "Seq2SeqActionValuePolicy": Seq2SeqActionValuePolicy,
    }
    decided: ClassVar[frozenset[str]] = frozenset({"buffer_size", "gradient_steps", "kl_coef"})
    policy: ActionValuePolicy  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        dataset: str | pathlib.Path | Sequence[Mapping[str, Any]] | None = None,
        learning_starts: int = 10_000,
        batch_size: int = 32,
        tau: float = 0.005,
        gamma: float = 1.0,
        target_update_interval: int = 1,
        n_step: int = 1,
        expectile: float = 0.7,
        cql_coef: float = 0.1,
        bc_coef: float = 1.0,
        advantage_weight: float = 4.0,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`DQN`.

        Args:
            policy: ``"CausalLMPolicy"`` or ``"Seq2SeqLMPolicy"``, both with heads for values of tokens; or a subclass of
                :class:`ActionValuePolicy`.
            env: See there; for evaluation, and to make the data unless ``dataset`` is given.
            learning_rate: See there.
            n_steps: See :class:`PPO`, while it plays.
            dataset: * Episodes: a file (JSON Lines, also ``.gz``; Parquet) or a list of records with ``"prompt"``,
                ``"completion"`` and ``"reward"``; ``None``: play first. A completion that leaves room for it gets an end token.
            learning_starts: Without a ``dataset``: tokens to play.
            batch_size: Episodes an update.
            tau: See there; of the heads ``Q'``, which are all that is copied.
            gamma: See there.
            target_update_interval: See there.
            n_step: See there; 1 is the paper's.
            expectile: * In (0, 1), the paper's tau; see the class.
            cql_coef: * Weight of the third term, the paper's alpha.
            bc_coef: * Weight of the fourth; with 0 the model stays as it is, and values are read from what its states tell.
            advantage_weight: * How strongly values steer writing, the paper's beta.
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
            PromptError: ``dataset`` cannot be read, or a record is bad.
        """
        self.n_step = whole_number("n_step", n_step, 1)
        self.expectile = number("expectile", expectile, 0, 1, above=True, wanted="in (0, 1)")
        if expectile == 1:
            raise ValueError(expected("expectile", expectile, "in (0, 1)"))
        self.cql_coef = number("cql_coef", cql_coef, 0, float("inf"))
        self.bc_coef = number("bc_coef", bc_coef, 0, float("inf"))
        self.advantage_weight = number("advantage_weight", advantage_weight, 0, float("inf"))
        if isinstance(policy, type) and not issubclass(policy, ActionValuePolicy):
            raise TypeError(
                expected("policy", policy, "a name or a subclass of ActionValuePolicy: it needs values of tokens")
            )
        if (backend := options.get("rollout_backend", "transformers")) != "transformers":
            raise ValueError(expected("rollout_backend", backend, "'transformers' with ILQL: others know no values"))
        self.dataset = dataset
        self.collected = False  # whether all data is there
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            buffer_size=_ALL,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            gradient_steps=1,
            target_update_interval=target_update_interval,
            kl_coef=0.0,
            **options,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        self._target_values = cast(ActionValues, self.target)
        self.policy.advantage_weight = self.advantage_weight
        if self.dataset is not None:
            self.replay.add(read_episodes(self.dataset, self.env))
            self.collected = True

    def _online(self) -> nn.Module:
        return self.policy.action_values

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceBuffer, n_rollout_steps: int
    ) -> bool:
        """Plays until there is enough data, then draws minibatches of it. See :meth:`TextAlgorithm.collect_rollouts`."""
        if not self.collected:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        self._begin_rollout(env, callback, rollout_buffer)
        rollout_buffer.add_sequences(self.replay.sample(self.batch_size, self._chance()))
        self.num_timesteps += rollout_buffer.stack().num_tokens
        nobody: dict[str, Any] = {"infos": [], "dones": [], "rollout_buffer": rollout_buffer}
        callback.update_locals(nobody)
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Adds what was played to the data, or makes an update on the minibatch that was drawn from there; see SB3."""
        if self.collected:
            self._learn_from([self.rollout_buffer.sequences])
        else:
            self._remember()
            self.collected = self.replay.num_tokens >= self.learning_starts
        self._rollout_start = None

    def _loss(self, part: Sequences) -> tuple[Tensor, dict[str, float]]:
        mask, support = part.action_mask, part.support()
        hidden, tokens = chosen_in(part, self.policy.backbone)
        if self.bc_coef == 0:
            hidden = hidden.detach()
        empty = torch.zeros(mask.shape, device=mask.device)
        values = empty.masked_scatter(mask, self.policy.value_head(hidden).squeeze(-1))
        targets = n_step_targets(part.rewards, values.detach(), mask, part.last_values, self.gamma, self.n_step)
        q_loss = cql_loss = values.new_zeros(())
        found = []
        for head in self.policy.action_values.heads:
            features = head.features(hidden)
            q = empty.masked_scatter(mask, head.of(features, tokens))
            q_loss = q_loss + masked_mean((q - targets) ** 2, mask)
            if self.cql_coef > 0:
                cql_loss = cql_loss - token_scores(features, head.head(), tokens, support)[0].mean()
            found.append(q.detach())
        slow = empty.masked_scatter(mask, self._target_values.of(hidden, tokens).detach())
        v_loss = expectile_loss(values, slow, mask, self.expectile)
        loss = q_loss + v_loss + self.cql_coef * cql_loss
        numbers = {"q_loss": q_loss.item(), "v_loss": v_loss.item(), "cql_loss": cql_loss.item()}
        if self.bc_coef > 0:
            log_probs, _ = token_scores(hidden, self.policy.own_head, tokens, support, self.decoding.temperature)
            loss, numbers["bc_loss"] = loss - self.bc_coef * log_probs.mean(), -log_probs.mean().item()
        numbers["q_mean"] = masked_mean(torch.minimum(*found), mask).item()
        numbers["v_mean"] = masked_mean(values.detach(), mask).item()
        return loss, numbers

    def _progress(self) -> dict[str, Any]:
        return {**super()._progress(), "collected": self.collected}

    def _restore(self, progress: dict[str, Any], *args: Any) -> None:
        super()._restore(progress, *args)
        self.collected = progress["collected"] or self.collected

    def save(self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """See :meth:`TextAlgorithm.save`; the data is in the file, not where it came from."""
        super().save(path, [*(exclude or []), "dataset"], include)
