"""What algorithms that learn from given completions share: where these come from, and how they fill the buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from textgym.core import expected
from textgym.envs.episodes import Setting
from textgym_agents.algorithms.augmentation import Augmentation
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.demonstrations import TARGETS, TextWindows, demonstrations, wants_references
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.play import OnStep


def taken(sequences: Sequences, on_step: OnStep) -> Sequences | None:
    """Given completions as if they had been played, all in one step; ``None`` if ``on_step`` stopped it."""
    step = {"slots": np.zeros(0, dtype=np.int64), "dones": np.zeros(0, dtype=np.bool_), "infos": []}
    return sequences if on_step(sequences.num_tokens, step) else None


def setting_in(env: VecEnv) -> Setting:
    """What the episodes of environments of ours have in common."""
    found: Setting = env.get_attr("setting", indices=0)[0]
    return found


class SupervisedAlgorithm(TextAlgorithm):
    """An algorithm that never plays: a "rollout" is one good completion of ``n_envs`` prompts of the environment.

    ``num_timesteps`` counts the tokens of these completions. There is no reward, no penalty, no value function.
    """

    decided: ClassVar[frozenset[str]] = frozenset(
        {
            "gamma",
            "gae_lambda",
            "vf_coef",
            "ent_coef",
            "target_kl",
            "kl_coef",
            "kl_target",
            "kl_horizon",
            "ref_model",
            "rollout_backend",
            "rollout_kwargs",
        }
    )
    token_means = frozenset[str]()

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        targets: str,
        text: str | Path | None,
        augmentation: dict[str, Any] | None,
        **kwargs: Any,
    ) -> None:
        """Args: as for :class:`TextAlgorithm`; ``targets``, ``text``, ``augmentation``: see :class:`SFT`.

        Raises:
            TypeError: An argument that such an algorithm does not have.
            ValueError, TextGymError: An argument is bad, or the text cannot be read.
        """
        if unknown := sorted(set(kwargs) & SupervisedAlgorithm.decided):
            raise TypeError(f"{type(self).__name__} takes no {', '.join(unknown)}: it does not play")
        if targets not in TARGETS:
            raise ValueError(expected("targets", targets, f"one of {TARGETS}"))
        self.targets, self.text, self.augmentation = targets, text, augmentation
        self._augment = Augmentation.of(augmentation)
        if text is not None and self._augment is not None:
            raise ValueError(expected("augmentation", augmentation, "None where a text is given: it has no prompts"))
        super().__init__(policy, env, gamma=1.0, gae_lambda=1.0, kl_coef=0.0, **kwargs)

    def _check_env(self, env: VecEnv) -> None:
        super()._check_env(env)
        setting = setting_in(env)
        self._references = wants_references(setting, self.targets)
        self._windows = None if self.text is None else TextWindows(self.text, setting)

    def _episodes(self, env: VecEnv, on_step: OnStep) -> Sequences | None:
        return taken(self._examples(setting_in(env), env.num_envs), on_step)

    def _examples(self, setting: Setting, n: int) -> Sequences:
        """``n`` completions to learn from."""
        rng = np.random.default_rng(self._new_seed())
        if self._windows is not None:
            return self._windows.draw(n, rng)
        examples = [setting.prompts.draw(rng) for _ in range(n)]
        if self._augment is not None:
            varied = self._augment(examples, rng)
            rooms = setting.tokenizer.encode_batch([e.prompt for e in varied])
            fits = [0 < len(ids) <= setting.max_prompt_tokens for ids in rooms]
            examples = [b if good else a for a, b, good in zip(examples, varied, fits, strict=True)]
        return demonstrations(setting, examples, self._references, rng)

    def _score(self, buffer: SequenceBuffer) -> None:
        buffer.stack()
