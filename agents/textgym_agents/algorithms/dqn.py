"""Deep Q-learning over tokens, with the pretrained model as prior."""

from __future__ import annotations

from typing import Any, cast

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import Unpack

from textgym.core import expected, number, whole_number
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.value_based import ValueBasedAlgorithm
from textgym_agents.losses import masked_mean
from textgym_agents.models.backbone import Backbone, backbone_of
from textgym_agents.models.token_scores import best_tokens, token_scores
from textgym_agents.policies import LMPolicy, chosen_in
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.exploring_writer import ExploringWriter
from textgym_agents.rollouts.writers import RolloutWriter
from textgym_agents.value_losses import huber_loss, n_step_targets

BACKUPS = ("soft", "greedy", "double")


class DQN(ValueBasedAlgorithm):
    """Deep Q-learning (Mnih et al. 2015, https://doi.org/10.1038/nature14236) with a language model as prior.

    The action values are dueling (Wang et al. 2016, https://arxiv.org/abs/1511.06581), and the language model itself is the
    stream of advantages: with ``V`` the value head and ``pi_ref`` the model that training started from,

        ``Q(s, a) = V(s) + kl_coef * (log pi(a | s) - log pi_ref(a | s))``

    So there is no other network than the policy's, ``Q = 0`` everywhere before the first update, and the policy is

        ``pi(a | s) = pi_ref(a | s) * exp((Q(s, a) - V(s)) / kl_coef)``

    Exploration at this temperature *is* sampling from the language model, and a token that proves no better or worse than its
    neighbours stays as likely as it was. ``V`` is the soft maximum of ``Q`` over the allowed tokens, ``kl_coef * log sum_a
    pi_ref(a | s) exp(Q(s, a) / kl_coef)`` (G-learning, Fox et al. 2016, https://arxiv.org/abs/1512.08562; for language models
    Jaques et al. 2017, https://arxiv.org/abs/1611.02796). A hard maximum over thousands of tokens would pick the one that is
    overestimated most, and a model that has to have equal logits where tokens are equally good forgets its language.

    Minimised is the Huber loss of ``Q(s_t, a_t) - y_t`` on episodes of the replay buffer, where with primes for the target
    network, a slow copy of the policy,

        ``y_t = r_t + gamma r_{t+1} + ... + gamma^(n-1) r_{t+n-1} + gamma^n B'(s_{t+n})``

    and the ``backup`` says what a state is worth:

    * ``"soft"``: ``B'(s) = V'(s)``;
    * ``"greedy"``: ``Q'(s, a*)`` of the token that the target network writes when it decodes greedily;
    * ``"double"``: ``Q'(s, a*)`` of the one that the policy does (van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461).

    Errors of ``V`` would change the model ``1 / kl_coef`` times as strongly as those of the advantages, so only ``kl_coef`` of
    their gradient passes from the head to the hidden states ``h`` (Wang et al. scale it there, too). The head has to be right
    early: as long as it is too low, whatever was written counts as good. So it is not left to the optimizer, but makes steps of
    normalised least mean squares (Widrow and Hoff 1960): its gradient divided by the mean of ``|h|^2``.

    When to use it: to learn from each episode several times without ratios and clipping, and to see what Q-learning makes of a
    pretrained model. All ``n`` rewards are those of the policy that wrote the episode, uncorrected, as in Rainbow. An
    ``n_step`` longer than the episodes, the default, makes it regression on returns: fast, but biased towards older policies,
    so that the replay buffer has to be small. A short one trusts ``V``, and a reward at the end then goes back only as fast as
    ``V`` learns to foresee it, which on the bundled tasks takes long.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3's DQN does not have. Its
    ``train_freq`` is one rollout.

    Logged each iteration: ``rollout/...`` and ``train/kl_coef`` as for :class:`PPO`; ``rollout/exploration_rate``; and

    * ``train/loss``: Huber loss; ``train/td_error``: mean of ``|Q(s_t, a_t) - y_t|``;
    * ``train/q_mean``, ``train/advantage_mean``: means of ``Q(s_t, a_t)`` and of ``Q(s_t, a_t) - V(s_t)``;
    * ``train/replay_episodes``: episodes in the replay buffer;
    * ``train/entropy_loss``, ``train/learning_rate``, ``train/n_updates``: as for :class:`PPO`; the first of the rollout.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        buffer_size: int = 64,
        learning_starts: int = 0,
        batch_size: int = 32,
        tau: float = 0.1,
        gamma: float = 1.0,
        gradient_steps: int = 4,
        target_update_interval: int = 1,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 0.0,
        exploration_final_eps: float = 0.0,
        n_step: int = 128,
        backup: str = "soft",
        kl_coef: float = 0.05,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`PPO`.

        Args:
            policy: See there.
            env: See there.
            learning_rate: See there.
            n_steps: See there.
            buffer_size: Episodes that the replay buffer holds: the newest rollout's or few more, where ``n_step`` is long.
            learning_starts: Tokens to play before the first update.
            batch_size: Episodes a minibatch, drawn uniformly.
            tau: How far the target network goes towards the policy each time, in (0, 1].
            gamma: Discount; 1 suits a reward at the end.
            gradient_steps: Minibatches after every rollout.
            target_update_interval: Minibatches (in SB3: steps of the environments) from one time to the next.
            exploration_fraction: Share of the training in which the exploration rate goes from its first to its last value.
            exploration_initial_eps: Probability of a token drawn uniformly from the allowed ones, at first. Few texts survive
                even one such token in twenty, so the default is the policy's own randomness.
            exploration_final_eps: ... at last.
            n_step: * Rewards that a target is made of; see the class. The target network matters only where it is shorter than
                the episodes.
            backup: * ``"soft"``, ``"greedy"`` or ``"double"``; see the class.
            kl_coef: * Scale of the advantages, above 0: the price, in reward, of a nat that the policy goes away from the
                reference. What the charge on the reward is in the other algorithms, is here in the values.
            options: See :class:`textgym_agents.algorithms.options.AlgorithmOptions`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        number("kl_coef", kl_coef, 0, float("inf"), above=True, wanted="above 0 with DQN: the scale of its advantages")
        self.n_step = whole_number("n_step", n_step, 1)
        if backup not in BACKUPS:
            raise ValueError(expected("backup", backup, f"one of {BACKUPS}"))
        self.backup = backup
        self.exploration_fraction = number("exploration_fraction", exploration_fraction, 0, 1, above=True)
        self.exploration_initial_eps = number("exploration_initial_eps", exploration_initial_eps, 0, 1)
        self.exploration_final_eps = number("exploration_final_eps", exploration_final_eps, 0, 1)
        self._explores = exploration_initial_eps > 0 or exploration_final_eps > 0
        narrows = options.get("top_k", 0) != 0 or options.get("top_p", 1.0) != 1.0
        if self._explores and (narrows or options.get("rollout_backend", "transformers") != "transformers"):
            raise ValueError(
                "Expected `top_k` to be 0, `top_p` 1 and `rollout_backend` 'transformers' where `exploration_initial_eps` or "
                "`exploration_final_eps` is above 0: any allowed token is drawn then"
            )
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            gradient_steps=gradient_steps,
            target_update_interval=target_update_interval,
            kl_coef=kl_coef,
            **options,
        )

    @property
    def exploration_rate(self) -> float:
        """Probability of a uniformly drawn token, at the present progress."""
        schedule = LinearSchedule(self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction)
        return schedule(self._current_progress_remaining)

    def _make_writer(self) -> RolloutWriter:
        if not self._explores:
            return super()._make_writer()
        return ExploringWriter(self.policy, self.decoding, self.generator, lambda: self.exploration_rate)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceBuffer, n_rollout_steps: int
    ) -> bool:
        """See :meth:`TextAlgorithm.collect_rollouts`."""
        self.logger.record("rollout/exploration_rate", self.exploration_rate)
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def _setup_model(self) -> None:
        super()._setup_model()
        model, self._target_value_head = self.target.children()
        self._target_backbone = backbone_of(cast(PreTrainedModel, model), self.policy.vocab_size, self.policy.bf16)

    def _online(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.policy.model, "value_head": self.policy.value_head})

    def _loss(self, part: Sequences) -> tuple[Tensor, dict[str, float]]:
        mask, backbone = part.action_mask, self.policy.backbone
        hidden, tokens = chosen_in(part, backbone)
        log_probs = self._scores_of(backbone, hidden, tokens, part)
        advantages = self.kl.coef * (log_probs - part.ref_log_probs[mask])
        share = min(
            1.0, self.kl.coef
        )  # of the value's gradient: so an error changes the model as much by V as by the advantage
        reading = share * hidden + (1 - share) * hidden.detach()
        values = self.policy.value_head(reading).squeeze(-1) + advantages
        q = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values)
        targets = self._targets(part, hidden.detach())
        loss = huber_loss(q, targets, mask)
        error = masked_mean((q.detach() - targets).abs(), mask)
        return loss, {
            "state_size": hidden.detach().square().sum(-1).mean().item() + 1,  # 1: what the bias reads
            "td_error": error.item(),
            "q_mean": values.detach().mean().item(),
            "advantage_mean": advantages.detach().mean().item(),
        }

    @torch.no_grad()
    def _accumulate(self, batch: Sequences) -> dict[str, float]:
        with torch.enable_grad():
            numbers = super()._accumulate(batch)
        size = numbers.pop("state_size")
        for parameter in self.policy.value_head.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad / size)
            parameter.grad = None  # nothing is left to the optimizer
        return numbers

    @torch.no_grad()
    def _targets(self, part: Sequences, hidden: Tensor) -> Tensor:
        """``y`` of every token, ``[B, T]``; ``hidden`` ``[N, H]``: the policy's states."""
        mask = part.action_mask
        worth = torch.zeros(mask.shape, device=mask.device)
        if self.n_step < mask.shape[1]:  # else every sum comes to its episode's end
            theirs, _ = chosen_in(part, self._target_backbone)
            values = self._target_value_head(theirs).squeeze(-1)
            if self.backup != "soft":
                values = values + self._greedy_advantages(part, hidden, theirs)
            worth = worth.masked_scatter(mask, values)
        return n_step_targets(part.rewards, worth, mask, part.last_values, self.gamma, self.n_step)

    def _greedy_advantages(self, part: Sequences, hidden: Tensor, theirs: Tensor) -> Tensor:
        """``[N]``: of the token that greedy decoding takes, by the target network; ``theirs`` ``[N, H]``: its states."""
        chooser, states = (self.policy.backbone, hidden) if self.backup == "double" else (self._target_backbone, theirs)
        best = best_tokens(states, chooser.head, part.support())
        reference = self._reference_backbone
        ref_log_probs = self._scores_of(reference, chosen_in(part, reference)[0], best, part)
        return self.kl.coef * (self._scores_of(self._target_backbone, theirs, best, part) - ref_log_probs)

    def _scores_of(self, backbone: Backbone, hidden: Tensor, tokens: Tensor, part: Sequences) -> Tensor:
        return token_scores(hidden, backbone.head, tokens, part.support(), self.decoding.temperature)[0]
