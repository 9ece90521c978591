"""What decides a run of RLHF, checked before anything is written."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from textgym.core import expected, number, whole_number
from textgym_agents.algorithms.registry import check_device, hyperparameters_of
from textgym_agents.reward_models import RewardModelTrainer
from textgym_agents.runs.evaluation import setting_of
from textgym_agents.runs.recipes import recipe_for

Rater = Literal["simulated", "human"]
Mode = Literal["scores", "rankings", "comparisons"]
ALGOS = ("a2c", "bestofn", "grpo", "nlpo", "ppo", "reinforce", "rloo", "trpo")
"""Algorithms that learn from the rewards of their own episodes alone, which is what a reward model has to give."""

# Of the bundled model, whose own last layer reads the last token: from 800 texts, that finds a rank correlation of 0.18 with
# held-out ratings, and the mean over tokens with large steps 0.54.
_BUNDLED: dict[str, Any] = {"learning_rate": 2e-3, "num_train_epochs": 4, "batch_size": 16, "pooling": "mean"}
_OF_REWARD_MODEL = ("objective", "pooling", "learning_rate", "num_train_epochs", "batch_size", "group_size", "warmup_ratio",
                    "weight_decay", "max_grad_norm", "max_length", "margin")  # fmt: skip


@dataclass
class RLHFSettings:
    """Settings of a run, JSON-able.

    Attributes:
        env_id: Environment id; its own reward is the true one, which only raters and the evaluation see.
        rounds: Of sampling, rating, training and optimising.
        rater: ``"simulated"``, or ``"human"``: ratings are waited for.
        mode: What raters say: scores of single texts, rankings of a prompt's texts, or comparisons of two.
        noise: Standard deviation of a simulated rater's error, new in every rating; in standard deviations of the true reward.
        raters: Simulated raters, each of whom rates every text.
        disagreement: Standard deviation of what a simulated rater thinks differently of a text, always; same unit.
        prompts: Training prompts that are sampled from in every round; at least 5. Fewer where there are no more.
        timesteps: Tokens that the policy is optimised for in every round.
        algo: One of :data:`ALGOS`.
        seed: Of everything random.
        model: The policy: ``"bundled"``, a folder, a Hub id.
        hyperparameters: Of the algorithm, where they differ from the recipe's.
        reward_model: ``"bundled"``, a folder, a Hub id: what the reward model starts from, in every round anew.
        reward_model_settings: Arguments of :class:`RewardModelTrainer`, where they differ from the defaults here.
        env_kwargs: Arguments of the environment, other than its split.
        held_out: Share of the prompts whose ratings the reward model is measured on, in (0, 1).
        eval_prompts: Prompts of the split ``"dev"`` that the policy is measured on.
        points: Measurements of a round's optimisation, its beginning not counted.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.

    Raises:
        ValueError, TypeError: A value is bad; the message names it and what was expected.
        TextGymError: The environment cannot be made.
    """

    env_id: str
    rounds: int = 2
    rater: Rater = "simulated"
    mode: Mode = "scores"
    noise: float = 0.5
    raters: int = 3
    disagreement: float = 0.3
    prompts: int = 200
    timesteps: int = 30_000
    algo: str = "ppo"
    seed: int = 0
    model: str = "bundled"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    reward_model: str = "bundled"
    reward_model_settings: Mapping[str, Any] = field(default_factory=dict)
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    held_out: float = 0.2
    eval_prompts: int = 200
    points: int = 8
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("raters", 1), ("prompts", 5), ("timesteps", 1), ("seed", 0),
                            ("eval_prompts", 2), ("points", 1)):  # fmt: skip
            setattr(self, name, whole_number(name, getattr(self, name), least))
        for name in ("noise", "disagreement"):
            setattr(self, name, number(name, getattr(self, name), 0, math.inf, wanted="a number of at least 0"))
        self.held_out = number("held_out", self.held_out, 0, 1, above=True, wanted="above 0 and below 1")
        if self.held_out == 1:
            raise ValueError(expected("held_out", self.held_out, "above 0 and below 1"))
        for name, allowed in (("rater", get_args(Rater)), ("mode", get_args(Mode)), ("algo", ALGOS)):
            if getattr(self, name) not in allowed:
                raise ValueError(expected(name, getattr(self, name), f"one of {allowed}"))
        if "ref_model" in self.hyperparameters:
            raise ValueError(
                expected("hyperparameters", self.hyperparameters, "without 'ref_model': it is the `model`")
            )
        if "split" in self.env_kwargs:
            raise ValueError(expected("env_kwargs", self.env_kwargs, "without 'split', which every stage chooses"))
        if strange := sorted(set(self.reward_model_settings) - set(_OF_REWARD_MODEL)):
            raise ValueError(expected("reward_model_settings", strange, f"names among {', '.join(_OF_REWARD_MODEL)}"))
        assert set(_OF_REWARD_MODEL) <= set(inspect.signature(RewardModelTrainer).parameters)
        check_device(self.device)
        self.algorithm_settings()
        setting_of(self.env_id, split="train", **self.env_kwargs)

    def algorithm_settings(self) -> dict[str, Any]:
        """All keyword arguments of the algorithm, ``n_envs`` among them."""
        recipe = recipe_for(self.env_id, self.algo, self.model)
        return hyperparameters_of(self.algo, self.hyperparameters, recipe.hyperparameters)

    def trainer_settings(self) -> dict[str, Any]:
        """Keyword arguments of :class:`RewardModelTrainer`."""
        return {**(_BUNDLED if self.reward_model == "bundled" else {}), **self.reward_model_settings}

    def to_json(self) -> dict[str, Any]:
        """All that may not change when a run goes on: everything but the number of rounds and the device."""
        return {name: value for name, value in asdict(self).items() if name not in ("rounds", "device")}
