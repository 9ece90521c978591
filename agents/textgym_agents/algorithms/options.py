"""Constructor arguments: those that all on-policy algorithms share, and how to list those of an algorithm."""

from __future__ import annotations

import inspect
import math
from typing import Any, TypedDict

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule
from transformers import PreTrainedModel

from textgym.core import expected, number, whole_number


class AlgorithmOptions(TypedDict, total=False):
    """Keyword arguments of every on-policy algorithm. Names are SB3's, except those marked *, which SB3 does not have.

    The defaults are those of :class:`textgym_agents.algorithms.base.TextAlgorithm`.

    Attributes:
        ent_coef: Weight of the entropy bonus, default 0.
        max_grad_norm: Gradients are scaled down to this norm, default 1.
        micro_batch_tokens: * Most tokens, padding included, that one forward and backward pass reads. A larger minibatch is
            read in several passes, whose gradients add up to the same (gradient accumulation). Lower it where memory is
            short.
        whiten_rewards: * Divide rewards, penalty included, by their standard deviation over the tokens of a rollout, as TRL
            does; default ``False``. Scales of rewards then no longer matter.
        kl_target: * Wanted KL in nats an episode: the coefficient adapts to it; ``None``, the default, keeps it fixed.
        kl_horizon: * Episodes over which it adapts.
        ref_model: * The reference: a model, ``"bundled"``, a folder or a Hub id; ``None``: the policy's model as it is now
            (with LoRA, the model without its adapters, which takes no memory).
        temperature: * Of sampling in rollouts, default 1. May be a schedule, as ``kl_coef`` and ``learning_rate`` may: a
            function of the progress that remains (1 to 0), or ``"lin_1.0_0.7"``, linear from 1 to 0.7, or ``"lin_0.05"``, to 0.
        top_k: * Sample among the ``k`` most likely tokens; 0, the default, for all.
        top_p: * Nucleus sampling; 1, the default, for all.
        rollout_backend: * Who writes the tokens of a rollout: ``"transformers"``, the policy itself; or ``"vllm"``, whose
            engine gets the policy's weights before every rollout (needs vLLM, a causal model, ``top_k=0``, ``top_p=1``).
        rollout_kwargs: * Arguments of ``vllm.LLM``, such as ``{"gpu_memory_utilization": 0.4}``.
        n_envs: * Number of environments where ``env`` is an id, default 64.
        env_kwargs: * Arguments of the environment where ``env`` is an id.
        stats_window_size: Episodes that ``rollout/ep_rew_mean`` averages over.
        tensorboard_log: Folder for TensorBoard.
        policy_kwargs: Arguments of the policy, such as ``{"model": "bundled"}``; all are those of
            :class:`textgym_agents.policies.LMPolicy`.
        verbose: 0 silent, 1 info, 2 debug.
        seed: Of everything random: environments, sampling, minibatches.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
    """

    ent_coef: float
    max_grad_norm: float
    micro_batch_tokens: int
    whiten_rewards: bool
    kl_target: float | None
    kl_horizon: int
    ref_model: str | PreTrainedModel | None
    temperature: float | str | Schedule
    top_k: int
    top_p: float
    rollout_backend: str
    rollout_kwargs: dict[str, Any] | None
    n_envs: int
    env_kwargs: dict[str, Any] | None
    stats_window_size: int
    tensorboard_log: str | None
    policy_kwargs: dict[str, Any] | None
    verbose: int
    seed: int | None
    device: torch.device | str
    _init_setup_model: bool


class PPOOptions(AlgorithmOptions, total=False):
    """Keyword arguments of :class:`textgym_agents.PPO`, which explains them, for algorithms that are PPO and something more."""

    learning_rate: float | Schedule
    n_steps: int
    batch_size: int
    n_epochs: int
    gamma: float
    gae_lambda: float
    clip_range: float | Schedule
    clip_range_vf: float | Schedule | None
    normalize_advantage: bool
    vf_coef: float
    target_kl: float | None
    kl_coef: float


def arguments_of(algorithm: type) -> dict[str, Any]:
    """Constructor arguments of an algorithm and their defaults, those that its bases take included.

    A base that has decided on an argument of its own base lists it in ``decided``.
    """
    found: dict[str, Any] = {}
    for cls in reversed(algorithm.__mro__):
        if cls is object or cls.__module__.startswith("stable_baselines3.") or "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        found.update({p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"})
        for name in vars(cls).get("decided", ()):
            del found[name]
    return found


def check_positive(name: str, value: Any, optional: bool = False) -> None:
    """Raises an error unless ``value`` is a number above 0, a schedule or, if ``optional``, ``None``."""
    if not callable(value) and not (optional and value is None):
        number(name, value, 0, math.inf, above=True, wanted="above 0, or None for none" if optional else "above 0")


def as_schedule(name: str, value: Any) -> Any:
    """``"lin_START"`` (to 0) and ``"lin_START_END"`` as SB3's linear schedules, which a file can hold; others as they are.

    Raises:
        ValueError: Another text.
    """
    if not isinstance(value, str):
        return value
    try:
        kind, start, *end = value.split("_")
        numbers = [float(x) for x in (start, *end)]
    except ValueError:
        kind, numbers = "", []
    if kind != "lin" or len(numbers) > 2 or not all(map(math.isfinite, numbers)):
        raise ValueError(expected(name, value, "a number, a function, or a text such as 'lin_0.1' or 'lin_1.0_0.7'"))
    return LinearSchedule(numbers[0], numbers[1] if len(numbers) == 2 else 0.0, 1.0)


def first_value(name: str, value: Any) -> Any:
    """What a number or a schedule is at the beginning; the end of a schedule is looked at too.

    Raises:
        ValueError: It would fall below 0, or to 0 where ``name`` is ``temperature``.
    """
    if not callable(value):
        return value
    positive = name == "temperature"
    wanted = f"a schedule that stays {'above' if positive else 'at least'} 0"
    number(name, value(0.0), 0, math.inf, above=positive, wanted=wanted)
    return value(1.0)


def check_ranges(*, learning_rate: Any, target_kl: float | None, max_grad_norm: float, **others: Any) -> None:
    """Raises an error, which names it, for an argument of all on-policy algorithms that is no number or out of its range."""
    for name in ("n_envs", "n_steps", "batch_size", "n_epochs", "micro_batch_tokens", "stats_window_size"):
        whole_number(name, others[name], 1)
    for name, low, high in (
        ("gamma", 0, 1),
        ("gae_lambda", 0, 1),
        ("ent_coef", -math.inf, math.inf),
        ("vf_coef", 0, math.inf),
    ):
        number(name, others[name], low, high)
    if target_kl is not None:
        number("target_kl", target_kl, 0, math.inf, above=True, wanted="above 0, or None for none")
    if max_grad_norm != math.inf:
        number("max_grad_norm", max_grad_norm, 0, math.inf, above=True, wanted="a number above 0, or inf")
    if not callable(learning_rate):
        number("learning_rate", learning_rate, 0, math.inf, wanted="a number of at least 0 or a schedule")
