"""Adversarial imitation: a discriminator is the reward, and is trained in turn with the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Unpack

from textgym.core import expected, number, whole_number
from textgym_agents.algorithms.demonstrations import demonstrations, wants_references
from textgym_agents.algorithms.options import PPOOptions
from textgym_agents.algorithms.ppo import PPO
from textgym_agents.algorithms.supervised import setting_in
from textgym_agents.models.discriminator import Discriminator, discriminator_loss
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.decoding import complete, sampler

REWARDS = ("dense", "final", "rollout")


class GAIL(PPO):
    """Generative adversarial imitation (Ho and Ermon 2016, https://arxiv.org/abs/1606.03476; SeqGAN, Yu et al. 2017).

    A discriminator ``D`` learns to tell good completions (references, or the task's own answers) from the policy's, at every
    prefix. PPO's reward is what ``D`` thinks, and the environment's own reward is only watched. With ``D_t`` the probability,
    after token ``t`` of ``T``, that a completion is genuine:

    * ``discriminator_reward="final"``: ``D_T`` at the end;
    * ``"dense"``: ``D_t - D_{t-1}`` at every token (``D_0 = 0``), which adds up to the same: potential-based shaping;
    * ``"rollout"``: as dense, with ``D_t`` the mean of ``D_T`` over ``rollout_samples`` completions that the policy writes from
      there on: Monte Carlo search (SeqGAN, https://arxiv.org/abs/1609.05473). Slow: whole completions follow every token.

    Use it where there are examples of what is wanted and no reward. Start from a policy that :class:`SFT` has taught: against
    a hopeless one ``D`` has an easy game, and tells it nothing. It is a game and not a descent: scores come and go, so keep the
    checkpoint that is best on a measure of your own.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration: all of :class:`PPO` (``rollout/ep_rew_mean`` is the environment's reward), and

    * ``train/discriminator_loss``: its cross entropy, in nats; at ln 2 = 0.69 it cannot tell;
    * ``train/discriminator_accuracy``: on whole completions, before it learned from them; 0.5 is a draw, the goal;
    * ``train/discriminator_reward``: mean of what episodes were paid by it.
    """

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        *,
        targets: str = "auto",
        discriminator_reward: str = "dense",
        discriminator_learning_rate: float = 1e-4,
        discriminator_updates: int = 1,
        rollout_samples: int = 4,
        **options: Unpack[PPOOptions],
    ) -> None:
        """Makes the algorithm.

        Args:
            policy: As for :class:`PPO`.
            env: As for :class:`PPO`; its prompts, and their references or the task's answers, are what counts.
            targets: * Which completions are genuine, as for :class:`SFT`.
            discriminator_reward: * ``"dense"``, ``"final"`` or ``"rollout"``; see the class.
            discriminator_learning_rate: * Of the discriminator, at least 0.
            discriminator_updates: * Its passes over a rollout and as many genuine completions.
            rollout_samples: * Completions a prefix, with ``"rollout"``.
            options: All other arguments of :class:`PPO`, and their defaults.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        if discriminator_reward not in REWARDS:
            raise ValueError(expected("discriminator_reward", discriminator_reward, f"one of {REWARDS}"))
        number("discriminator_learning_rate", discriminator_learning_rate, 0, float("inf"))
        whole_number("discriminator_updates", discriminator_updates, 0)
        whole_number("rollout_samples", rollout_samples, 1)
        self.targets, self.discriminator_reward = targets, discriminator_reward
        self.discriminator_learning_rate = discriminator_learning_rate
        self.discriminator_updates, self.rollout_samples = discriminator_updates, rollout_samples
        super().__init__(policy, env, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.policy.encoder_decoder:
            raise ValueError(
                expected("policy", "an encoder-decoder model", "a CausalLMPolicy: the discriminator is one")
            )
        found = Discriminator(self.policy.model, self.policy.vocab_size, self.policy.bf16).to(self.device)
        self.discriminator = self.policy.discriminator = found  # so it is saved, and its optimizer's state with it
        trained = [p for p in found.parameters() if p.requires_grad]
        self.policy.optimizer.add_param_group({"params": trained})

    def _check_env(self, env: VecEnv) -> None:
        super()._check_env(env)
        setting = setting_in(env)
        self._references = wants_references(setting, self.targets)
        if self.discriminator_reward == "rollout" and setting.task.turn_end is not None:
            wanted = "'dense' or 'final' where somebody replies"
            raise ValueError(expected("discriminator_reward", self.discriminator_reward, wanted))

    def _score(self, buffer: SequenceBuffer) -> None:
        played = buffer.stack()
        paid = self._paid(played)
        self._train_discriminator(played)
        buffer.reset()
        buffer.add_sequences(played.with_(rewards=paid))
        self.logger.record("train/discriminator_reward", float(paid.sum(-1).mean()))
        super()._score(buffer)

    @torch.no_grad()
    def _paid(self, played: Sequences) -> torch.Tensor:
        """``[B, T]`` on the CPU: rewards."""
        mask = played.action_mask
        if self.discriminator_reward == "rollout":
            worth = self._searched(played)
        else:
            worth = torch.zeros_like(played.rewards)
            for rows in played.passes(2 * self.micro_batch_tokens):
                part = played.select(rows).to(self.device)
                width = part.action_mask.shape[1]
                worth[rows, worth.shape[1] - width :] = self._logits(part).sigmoid().cpu()
        paid, before = torch.zeros_like(worth), torch.zeros(len(worth))
        if self.discriminator_reward == "final":
            paid[:, -1] = worth[:, -1]  # the last column is every episode's last token
            return paid
        for t in range(worth.shape[1]):
            paid[:, t] = torch.where(mask[:, t], worth[:, t] - before, 0.0)
            before = torch.where(mask[:, t], worth[:, t], before)
        return paid

    def _logits(self, part: Sequences) -> torch.Tensor:
        found: torch.Tensor = self.discriminator(part.input_ids, part.attention_mask, part.action_mask)
        return found

    def _searched(self, played: Sequences) -> torch.Tensor:
        """``[B, T]``: after each token, the mean of ``D`` over completions that the policy writes from there."""
        assert self.limits is not None
        limits, found = self.limits, torch.zeros_like(played.rewards)
        choose, episodes = sampler(self.decoding, self.generator), played.episodes()
        for done in range(1, found.shape[1] + 1):
            rows = [i for i, e in enumerate(episodes) if len(e.tokens) >= done]
            going = [i for i in rows if len(episodes[i].tokens) > done]
            repeated = [i for i in going for _ in range(self.rollout_samples)]
            prompts = [episodes[i].prompt + episodes[i].tokens[:done] for i in repeated]
            ends: list[list[int]] = []
            if going:
                bare = Sequences.of(prompts, [[0]] * len(prompts), None).to(self.device)
                left = replace(
                    limits,
                    max_new_tokens=limits.max_new_tokens - done,
                    min_new_tokens=max(0, limits.min_new_tokens - done),
                )
                ends = complete(self.policy, bare.input_ids[:, :-1], bare.attention_mask[:, :-1], left, choose)
            over = [i for i in rows if i not in set(going)]
            texts = [episodes[i].tokens[:done] + end for i, end in zip(repeated, ends, strict=True)]
            whole = Sequences.of(
                [episodes[i].prompt for i in [*repeated, *over]], [*texts, *(episodes[i].tokens for i in over)], None
            )
            parts = [whole.select(some).to(self.device) for some in torch.arange(len(whole)).split(256)]
            scores = torch.cat([self._logits(part)[:, -1].sigmoid().cpu() for part in parts])
            means = scores[: len(repeated)].view(-1, self.rollout_samples).mean(-1)
            for i, score in [*zip(going, means, strict=True), *zip(over, scores[len(repeated) :], strict=True)]:
                found[i, found.shape[1] - len(episodes[i].tokens) + done - 1] = score
        return found

    def _train_discriminator(self, played: Sequences) -> None:
        assert self.env is not None
        setting, rng = setting_in(self.env), np.random.default_rng(self._new_seed())
        examples = [setting.prompts.draw(rng) for _ in range(len(played))]
        genuine = demonstrations(setting, examples, self._references, rng)
        for group in self.policy.optimizer.param_groups[1:]:
            group["lr"] = self.discriminator_learning_rate
        size = max(1, min(self.batch_size, len(played)))
        losses, right = [], []
        for update in range(self.discriminator_updates):
            order = torch.from_numpy(rng.permutation(len(played)))
            for rows in order.split(size):
                self.policy.optimizer.zero_grad()
                loss, correct = torch.zeros((), device=self.device), 0.0
                for sequences, real in ((genuine, True), (played, False)):
                    part = sequences.select(rows).to(self.device)
                    logits = self._logits(part)
                    loss = loss + discriminator_loss(logits, part.action_mask, real) / 2
                    correct += float(((logits[:, -1] > 0) == real).float().sum())
                loss.backward()
                self._step()
                losses.append(loss.item())
                if update == 0:
                    right.append(correct)
        if losses:
            self.logger.record("train/discriminator_loss", float(np.mean(losses)))
            self.logger.record("train/discriminator_accuracy", sum(right) / (2 * len(played)))
