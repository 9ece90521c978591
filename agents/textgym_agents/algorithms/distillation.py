"""Knowledge distillation: a small policy learns from a better one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from typing_extensions import Unpack

from textgym.core import expected, number, whole_number
from textgym.envs.episodes import Setting
from textgym_agents.algorithms.options import AlgorithmOptions
from textgym_agents.algorithms.supervised import SupervisedAlgorithm
from textgym_agents.losses import distillation_loss, masked_mean
from textgym_agents.models.backbone import backbone_of
from textgym_agents.models.loading import check_fits, disable_dropout, load_model
from textgym_agents.models.token_scores import CHUNK, token_scores
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import Limits, complete, sampler
from textgym_agents.rollouts.sampling import Decoding
from textgym_agents.vec_env import somebody_replies

LEVELS = ("word", "sequence")


class Distillation(SupervisedAlgorithm):
    """Knowledge distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531) in the two forms of Kim and Rush 2016.

    With ``q`` the teacher and ``pi`` the student (https://arxiv.org/abs/1606.07947):

    * ``level="word"``: at every token of a good completion, the student learns the teacher's whole distribution,
      ``alpha * T^2 * KL(q_T || pi_T) - (1 - alpha) * log pi(a_t | s_t)`` with both softened by a temperature ``T``;
    * ``level="sequence"``: the student learns the teacher's own completions by maximum likelihood,
      ``-log pi(a_t | s_t)`` with ``a ~ q``. Needs no references at all.

    Use it to make a small, fast policy out of a large one that was trained by reinforcement learning; it never plays, and needs
    no reward.

    It is a Stable-Baselines3 algorithm; keyword names are SB3's, except those marked * which SB3 does not have.

    Logged each iteration:

    * ``train/loss``: of the last minibatch; ``train/nll``: mean of ``-log pi``, in nats a token;
    * ``train/teacher_kl``: with ``"word"``, mean of ``KL(q_T || pi_T)``, in nats a token;
    * ``train/learning_rate``, ``train/n_updates``, ``time/...``: as in SB3.
    """

    decided: ClassVar[frozenset[str]] = frozenset({"text"})

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 16,
        n_epochs: int = 1,
        teacher: str | Path | PreTrainedModel = "bundled",
        level: str = "word",
        alpha: float = 0.5,
        distillation_temperature: float = 1.0,
        teacher_top_k: int = 0,
        targets: str = "auto",
        augmentation: dict[str, Any] | None = None,
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        """Makes the algorithm. Arguments that are not explained here are as for :class:`SFT`.

        Args:
            policy: See there; the student.
            env: See there.
            learning_rate: See there.
            n_steps: See there.
            batch_size: See there.
            n_epochs: See there.
            teacher: * ``"bundled"``, a folder, a Hub id or a model with the same vocabulary. A checkpoint does not contain it:
                a model given as an object has to be given again to ``load``.
            level: * ``"word"`` or ``"sequence"``.
            alpha: * Weight of the teacher's distribution against the tokens themselves, in [0, 1], with ``"word"``.
            distillation_temperature: * ``T``, above 0, with ``"word"``; above 1 unlikely tokens count more.
            teacher_top_k: * With ``"sequence"``: the teacher draws among its ``k`` likeliest tokens; 1 is greedy, 0 all.
            targets: See there; with ``"word"``.
            augmentation: See there.
            options: See there.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
            ModelError: The teacher cannot be loaded, or does not fit.
        """
        if level not in LEVELS:
            raise ValueError(expected("level", level, f"one of {LEVELS}"))
        number("alpha", alpha, 0, 1)
        number("distillation_temperature", distillation_temperature, 0, float("inf"), above=True, wanted="above 0")
        whole_number("teacher_top_k", teacher_top_k, 0)
        self.teacher, self.level, self.alpha = teacher, level, alpha
        self.distillation_temperature, self.teacher_top_k = distillation_temperature, teacher_top_k
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            targets=targets,
            text=None,
            augmentation=augmentation,
            **options,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        teacher = load_model(self.teacher, self.policy.encoder_decoder)
        check_fits(teacher, self.policy.vocab_size, self.observation_space["input_ids"].shape[0])  # type: ignore[index]
        disable_dropout(teacher)
        self._teacher = teacher.to(self.device).requires_grad_(False).eval()  # type: ignore[arg-type]
        self._teacher_backbone = backbone_of(self._teacher, self.policy.vocab_size, self.policy.bf16)

    def _check_env(self, env: VecEnv) -> None:
        super()._check_env(env)
        if self.level == "sequence" and somebody_replies(env):
            raise ValueError(expected("level", self.level, "'word' where somebody replies: the teacher cannot hear it"))

    def _examples(self, setting: Setting, n: int) -> Sequences:
        given = super()._examples(setting, n)
        if self.level == "word":
            return given
        prompts = [episode.prompt for episode in given.episodes()]
        return Sequences.of(prompts, self._answers(prompts, Limits.of(setting)), None)

    @torch.no_grad()
    def _answers(self, prompts: list[list[int]], limits: Limits) -> list[list[int]]:
        """The teacher's completions."""
        bare = Sequences.of(prompts, [[0]] * len(prompts), None).to(self.device)
        ids, mask = bare.input_ids[:, :-1], bare.attention_mask[:, :-1]
        choose = sampler(Decoding(top_k=self.teacher_top_k), self.generator)
        return complete(self.policy, ids, mask, limits, choose, self._teacher_backbone)

    def _loss(self, part: Sequences) -> tuple[torch.Tensor, dict[str, float]]:
        mask = part.action_mask
        if self.level == "sequence" or self.alpha == 0:
            log_probs, _, _ = self.policy.evaluate_sequences(part, 1.0)
            loss = -masked_mean(log_probs, mask)
            return loss, {"nll": loss.item()}
        tokens = part.input_ids[:, -mask.shape[1] :][mask]
        own, other = (
            backbone.hidden_states(part.input_ids, part.attention_mask, mask, mask.shape[1])[mask]
            for backbone in (self.policy.backbone, self._teacher_backbone)
        )  # [N, H] each
        log_probs, _ = token_scores(own, self.policy.backbone.head, tokens)
        nll, distance = -log_probs.mean(), self._distance(own, other) / len(tokens)
        loss = (1 - self.alpha) * nll + self.alpha * self.distillation_temperature**2 * distance
        return loss, {"nll": nll.item(), "teacher_kl": distance.item()}

    def _distance(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The divergence of hidden states ``[N, H]`` of both, summed; never all logits at once."""

        def of_some(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                wanted = self._teacher_backbone.logits(other)
            return distillation_loss(self.policy.backbone.logits(own), wanted, self.distillation_temperature)

        rows = max(1, CHUNK.get(own.device.type, CHUNK["cpu"]) // self.policy.vocab_size)
        parts = zip(own.split(rows), other.split(rows), strict=True)
        return torch.stack([checkpoint(of_some, *part, use_reentrant=False) for part in parts]).sum()
