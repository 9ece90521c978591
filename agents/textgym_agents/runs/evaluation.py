"""How good a policy is: held-out prompts, its completions, their rewards, and its distance to a reference model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from transformers import PreTrainedModel

from textgym.core import Completion, Example, FinishReason, expected
from textgym.envs.episodes import Setting
from textgym.metrics import MetricError, bootstrap_interval, distinct_n
from textgym.prompts import FixedPrompts
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.rollouts.sampling import Decoding
from textgym_agents.runs.conversation import converse
from textgym_agents.runs.scoring import score_tokens

Interval = tuple[float, float, float]
"""A mean, and the lower and upper end of its bootstrap interval."""


@dataclass(frozen=True)
class Sample:
    """What a policy wrote after one prompt, and what it got for it.

    Attributes:
        tokens: The policy's own.
        transcript: Everything after the prompt; equal to ``completion`` where nobody replies.
        all_tokens: Its tokens.
        chosen: Which of them are the policy's.
    """

    prompt: str
    completion: str
    reward: float
    parts: dict[str, float]
    tokens: list[int]
    finish_reason: FinishReason
    is_success: bool | None = None
    transcript: str = ""
    all_tokens: list[int] = field(default_factory=list, repr=False)
    chosen: list[bool] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Results over a set of prompts.

    Attributes:
        episodes: Number of prompts.
        reward: Mean reward, with its 95% bootstrap interval. Dense rewards count without their shaping terms.
        parts: The same for every part of the reward.
        kl: Mean over episodes of the sum over tokens of ``log pi - log pi_ref``, in nats, both at temperature 1 under the
            environment's masks. An estimate of the KL divergence where the tokens were sampled at temperature 1 from all
            allowed ones. ``None`` without a reference model.
        perplexity: Of all completions under the reference model, whole vocabulary, end tokens included; ``None`` without one.
        distinct_1: See :func:`textgym.metrics.distinct_n`; over all completions together.
        distinct_2: The same for pairs of words.
        length: Mean number of tokens of a completion, its end token included.
        success: Share of completions that solve the task, where it has such a notion.
        metrics: Corpus scores of the task's own metrics (:meth:`textgym.tasks.Task.metrics`) with intervals; without those
            that the prompts have nothing for (references, a table), or whose extra is not installed.
        samples: Every completion.
    """

    episodes: int
    reward: Interval
    parts: dict[str, Interval]
    kl: float | None
    perplexity: float | None
    distinct_1: float
    distinct_2: float
    length: float
    success: Interval | None = None
    metrics: dict[str, Interval] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the samples."""
        out: dict[str, Any] = {
            "episodes": self.episodes,
            "reward": list(self.reward),
            "parts": {name: list(interval) for name, interval in self.parts.items()},
            "kl": self.kl,
            "perplexity": self.perplexity,
            "distinct_1": self.distinct_1,
            "distinct_2": self.distinct_2,
            "length": self.length,
        }
        if self.metrics:
            out["metrics"] = {name: list(interval) for name, interval in self.metrics.items()}
        return out if self.success is None else {**out, "success": list(self.success)}


def setting_of(env: str | gym.Env[Any, Any] | Setting, **env_kwargs: Any) -> Setting:
    """Prompts, tokenizer, limits and reward of an environment.

    Args:
        env: An id, an environment of ours (wrapped or not), or the setting itself.
        env_kwargs: For ``gym.make``, where ``env`` is an id.

    Raises:
        TypeError: The environment is not one of ours.
    """
    if isinstance(env, Setting):
        return env
    if isinstance(env, str):
        env = gym.make(env, disable_env_checker=True, **env_kwargs)
    setting = getattr(env.unwrapped, "setting", None)
    if not isinstance(setting, Setting):
        raise TypeError(expected("env", env, "an environment of textgym, or the id of one"))
    return setting


def held_out(setting: Setting, episodes: int | None = None, seed: int = 0) -> list[Example]:
    """Prompts to evaluate on; the same for the same arguments, whatever was drawn elsewhere.

    Args:
        setting: Its split is where they come from.
        episodes: How many. Given prompts (a file, a list) are used once each, so there may be fewer; ``None`` means all of
            them. ``None`` is 500 where a generator writes them.
        seed: Of the draw.
    """
    if episodes is not None and (isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1):
        raise ValueError(expected("episodes", episodes, "None or a whole number of at least 1"))
    rng = np.random.default_rng(seed)
    if isinstance(setting.prompts, FixedPrompts):
        count = len(setting.prompts)
        if episodes is None or episodes >= count:
            return list(setting.prompts.examples)
        return [setting.prompts.examples[i] for i in sorted(rng.choice(count, episodes, replace=False))]
    return [setting.prompts.draw(rng) for _ in range(500 if episodes is None else episodes)]


def write(
    model: BaseAlgorithm | LMPolicy,
    env: str | gym.Env[Any, Any] | Setting,
    examples: Sequence[Example],
    seed: int = 0,
    *,
    deterministic: bool = False,
    decoding: Decoding | None = None,
    num_beams: int = 1,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Lets a policy continue prompts, in batches, and scores the completions: the same as stepping the environment.

    Args:
        model: An algorithm or its policy.
        env: See :func:`setting_of`.
        examples: What to continue.
        seed: Of the draws, which use a generator of their own, so that a training goes on undisturbed.
        deterministic: Greedy instead of sampling.
        decoding: Temperature, top-k, top-p.
        num_beams: Above 1: beam search.
        batch_size: Prompts at a time.
        progress: Called with the number of prompts done.

    Raises:
        ValueError: Beam search in a task in which somebody replies: what comes next depends on the choice.
        PromptError, RewardError: A prompt is too long; the reward failed.
    """
    setting, policy = setting_of(env), _policy(model)
    replies = setting.task.turn_end is not None
    if replies and num_beams != 1:
        raise ValueError(expected("num_beams", num_beams, f"1 in {setting.task.id}, in which somebody replies"))
    generator = torch.Generator(policy.device).manual_seed(seed)
    samples: list[Sample] = []
    with _Limited(policy, Limits.of(setting)):
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            if replies:
                samples += _scored(setting, *converse(policy, setting, batch, deterministic, decoding, generator))
            else:
                prompts = setting.encode_prompts(batch)
                written = policy.generate(prompts, deterministic, decoding, num_beams, generator)
                samples += _scored(setting, _completions(setting, batch, written), written)
            if progress is not None:
                progress(len(samples))
    return samples


def evaluate(
    model: BaseAlgorithm | LMPolicy,
    env: str | gym.Env[Any, Any] | Setting,
    episodes: int | None = None,
    seed: int = 0,
    *,
    examples: Sequence[Example] | None = None,
    reference: PreTrainedModel | None = None,
    deterministic: bool = False,
    decoding: Decoding | None = None,
    num_beams: int = 1,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
    **env_kwargs: Any,
) -> Evaluation:
    """Evaluates a policy on held-out prompts; calls with the same seed are paired: same prompts, same draws.

    Args:
        model: An algorithm or its policy.
        env: See :func:`setting_of`. Where it is an id, the split is ``"dev"`` unless ``split`` is given.
        episodes: See :func:`held_out`.
        seed: Of the prompts and of the draws.
        examples: The prompts themselves, instead of ``episodes``.
        reference: For the KL and the perplexity; ``None``: the algorithm's own, if it has one.
        deterministic: See :func:`write`, as for the arguments that follow.
        decoding: See there.
        num_beams: See there.
        batch_size: See there.
        progress: See there.
        env_kwargs: For ``gym.make``, where ``env`` is an id.

    Raises:
        ValueError, TypeError: An argument is bad.
        TextGymError: See :func:`write`.
    """
    setting = setting_of(env, **({"split": "dev"} | env_kwargs)) if isinstance(env, str) else setting_of(env)
    chosen = held_out(setting, episodes, seed) if examples is None else list(examples)
    if not chosen:
        raise ValueError(expected("examples", examples, "at least one example"))
    samples = write(
        model,
        setting,
        chosen,
        seed,
        deterministic=deterministic,
        decoding=decoding,
        num_beams=num_beams,
        batch_size=batch_size,
        progress=progress,
    )
    kl = perplexity = None
    reference = getattr(model, "reference", None) if reference is None else reference
    if reference is not None:
        scores = score_tokens(
            _policy(model), setting, chosen, [s.all_tokens for s in samples], reference, [s.chosen for s in samples]
        )
        kl = float(np.mean([(s.log_probs - s.ref_log_probs).sum() for s in scores]))
        perplexity = math.exp(-float(np.concatenate([s.full_ref_log_probs for s in scores]).mean()))
    texts = [s.completion for s in samples]
    solved = [float(s.is_success) for s in samples if s.is_success is not None]
    return Evaluation(
        episodes=len(samples),
        reward=bootstrap_interval([s.reward for s in samples]),
        parts={name: bootstrap_interval([s.parts[name] for s in samples]) for name in samples[0].parts},
        kl=kl,
        perplexity=perplexity,
        distinct_1=distinct_n(texts, 1),
        distinct_2=distinct_n(texts, 2),
        length=float(np.mean([len(s.tokens) for s in samples])),
        success=bootstrap_interval(solved) if solved else None,
        metrics=_metrics(setting, chosen, samples),
        samples=samples,
    )


class _Limited:
    """For a while, a policy decodes under other limits."""

    def __init__(self, policy: LMPolicy, limits: Limits) -> None:
        self._policy, self._limits = policy, limits

    def __enter__(self) -> None:
        self._limits, self._policy.limits = self._policy.limits, self._limits

    def __exit__(self, *_: object) -> None:
        self._policy.limits = self._limits


def _metrics(setting: Setting, examples: Sequence[Example], samples: Sequence[Sample]) -> dict[str, Interval]:
    completions = [
        Completion(e.prompt, s.completion, e.references, e.meta, tuple(s.tokens), s.finish_reason, s.transcript)
        for e, s in zip(examples, samples, strict=True)
    ]
    found = {}
    for metric in setting.task.metrics():
        with suppress(MetricError, ImportError):
            found[metric.name] = metric.interval(completions)
    return found


def _policy(model: BaseAlgorithm | LMPolicy) -> LMPolicy:
    policy = model.policy if isinstance(model, BaseAlgorithm) else model
    if not isinstance(policy, LMPolicy):
        raise TypeError(expected("model", model, "an LMPolicy, or an algorithm that has one"))
    return policy


def _completions(setting: Setting, examples: Sequence[Example], written: list[list[int]]) -> list[Completion]:
    eos, completions = setting.tokenizer.eos_token_id, []
    for example, ids in zip(examples, written, strict=True):
        text = setting.tokenizer.decode(ids, continues=True)
        reason: FinishReason = "stop" if ids[-1] == eos and len(ids) > setting.min_new_tokens else "length"
        completions.append(Completion(example.prompt, text, example.references, example.meta, tuple(ids), reason, text))
    return completions


def _scored(
    setting: Setting,
    completions: Sequence[Completion],
    all_tokens: Sequence[list[int]],
    chosen: Sequence[list[bool]] | None = None,
) -> list[Sample]:
    rewards, parts = setting.reward.parts(completions)
    return [
        Sample(
            prompt=c.prompt,
            completion=c.text,
            reward=float(rewards[i]),
            parts={name: float(scores[i]) for name, scores in parts.items()},
            tokens=list(c.token_ids),
            finish_reason="stop" if c.finish_reason == "stop" else "length",
            is_success=setting.is_success(c),
            transcript=c.transcript,
            all_tokens=all_tokens[i],
            chosen=[True] * len(all_tokens[i]) if chosen is None else chosen[i],
        )
        for i, c in enumerate(completions)
    ]
