"""What a policy writes after training prompts, in several ways of choosing tokens: the texts that raters see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textgym.core import Example
from textgym.envs.episodes import Setting
from textgym.prompts import FixedPrompts
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.sampling import Decoding
from textgym_agents.runs.evaluation import write

STRATEGIES: dict[str, Decoding | None] = {
    "greedy": None,
    "sampling": Decoding(),
    "cool": Decoding(temperature=0.7),
    "top-k": Decoding(top_k=20),
    "nucleus": Decoding(top_p=0.9),
}
"""Ways of choosing tokens; ``None``: always the most likely one. Alike texts would teach a reward model little."""
_TRIES = 20  # draws a wanted prompt, before a generator is taken to have no more different ones


@dataclass(frozen=True)
class Candidates:
    """Texts after one prompt.

    Attributes:
        prompt: It.
        completions: Different ones, at least one; with the other speaker's turns where there is one.
        strategies: Of each, the :data:`STRATEGIES` that wrote it.
        rewards: Of each, the true reward.
    """

    prompt: str
    completions: tuple[str, ...]
    strategies: tuple[tuple[str, ...], ...]
    rewards: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """What a rater may see, JSON-able."""
        return {
            "prompt": self.prompt,
            "completions": list(self.completions),
            "strategies": [list(names) for names in self.strategies],
        }

    @classmethod
    def read(cls, record: dict[str, Any], truth: dict[str, Any]) -> Candidates:
        """From what :meth:`record` gave, and a mapping with ``rewards``."""
        strategies = tuple(tuple(names) for names in record["strategies"])
        return cls(record["prompt"], tuple(record["completions"]), strategies, tuple(truth["rewards"]))


def draw_prompts(setting: Setting, count: int, seed: int | Sequence[int]) -> list[Example]:
    """``count`` different prompts of a setting's split, or as many as there are.

    Args:
        setting: Where they come from.
        count: How many.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    if isinstance(setting.prompts, FixedPrompts):
        examples = setting.prompts.examples
        order = [examples[i] for i in rng.permutation(len(examples))]
        return list({example.prompt: example for example in order}.values())[:count]
    found: dict[str, Example] = {}
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        example = setting.prompts.draw(rng)
        found.setdefault(example.prompt, example)
    return list(found.values())


def sample_candidates(policy: LMPolicy, setting: Setting, examples: Sequence[Example], seed: int) -> list[Candidates]:
    """One completion of every prompt by every strategy; equal ones are merged.

    Args:
        policy: Who writes.
        setting: Of the prompts, with the true reward.
        examples: The prompts, each once.
        seed: Of the draws.

    Returns:
        One entry a prompt, in their order.

    Raises:
        PromptError, RewardError: A prompt is too long; the reward failed.
    """
    found: list[dict[str, tuple[list[str], float]]] = [{} for _ in examples]
    for i, (name, decoding) in enumerate(STRATEGIES.items()):
        samples = write(
            policy,
            setting,
            examples,
            seed * len(STRATEGIES) + i,  # else two strategies would use the same draws, and write much the same
            deterministic=decoding is None,
            decoding=decoding,
        )
        for texts, sample in zip(found, samples, strict=True):
            texts.setdefault(sample.transcript, ([], sample.reward))[0].append(name)
    return [
        Candidates(
            example.prompt,
            tuple(texts),
            tuple(tuple(names) for names, _ in texts.values()),
            tuple(reward for _, reward in texts.values()),
        )
        for example, texts in zip(examples, found, strict=True)
    ]
