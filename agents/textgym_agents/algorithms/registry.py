"""The algorithms by name, their hyperparameters, and saved ones of any kind."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from textgym.core import expected
from textgym_agents.algorithms.a2c import A2C
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.best_of_n import BestOfN
from textgym_agents.algorithms.checkpoint import find_file
from textgym_agents.algorithms.distillation import Distillation
from textgym_agents.algorithms.dpo import DPO
from textgym_agents.algorithms.dqn import DQN
from textgym_agents.algorithms.gail import GAIL
from textgym_agents.algorithms.grpo import GRPO
from textgym_agents.algorithms.ilql import ILQL
from textgym_agents.algorithms.nlpo import NLPO
from textgym_agents.algorithms.options import arguments_of
from textgym_agents.algorithms.ppo import PPO
from textgym_agents.algorithms.reinforce import REINFORCE
from textgym_agents.algorithms.rloo import RLOO
from textgym_agents.algorithms.sft import SFT
from textgym_agents.algorithms.trpo import TRPO

ALGORITHMS: dict[str, type[TextAlgorithm]] = {
    cls.__name__.lower(): cls
    for cls in (A2C, BestOfN, Distillation, DPO, DQN, GAIL, GRPO, ILQL, NLPO, PPO, REINFORCE, RLOO, SFT, TRPO)
}
"""Algorithms by the name that the command line uses."""

_NOT_HYPERPARAMETERS = (
    "policy",
    "env",
    "env_kwargs",
    "tensorboard_log",
    "verbose",
    "seed",
    "device",
    "_init_setup_model",
)


def hyperparameters_of(
    algo: str, given: Mapping[str, Any], recommended: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All keyword arguments of an algorithm that are not about its environment, files or device.

    Args:
        algo: See :data:`ALGORITHMS`.
        given: Values that a user wants.
        recommended: Values to use instead of the algorithm's defaults.

    Raises:
        ValueError: Unknown algorithm; an unknown name (the message has the known ones); a value of a wrong kind.
    """
    if algo not in ALGORITHMS:
        raise ValueError(expected("algo", algo, f"one of {sorted(ALGORITHMS)}"))
    defaults = {k: d for k, d in arguments_of(ALGORITHMS[algo]).items() if k not in _NOT_HYPERPARAMETERS}
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(
                f"Unknown hyperparameter {name!r} of {algo}; the known ones are {', '.join(sorted(defaults))}"
            )
        _check_kind(name, value, defaults[name])
    if "model" in (given.get("policy_kwargs") or {}):
        wanted = "without 'model', which is an argument of its own"
        raise ValueError(expected("policy_kwargs", given["policy_kwargs"], wanted))
    return {**defaults, **(recommended or {}), **given}


def check_device(device: str | torch.device) -> None:
    """SB3 takes a CPU where a GPU was asked for and there is none; a run had better say so.

    Raises:
        ValueError: Not the name of a device, or of one that is not here.
    """
    name = str(device)
    if name not in ("auto", "cpu") and not re.fullmatch(r"cuda(:\d+)?", name):
        raise ValueError(expected("device", name, "'auto', 'cpu', 'cuda' or 'cuda:N'"))
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(expected("device", name, "'auto' or 'cpu': PyTorch finds no GPU here"))


def load_algorithm(
    path: str | Path, env: Any = None, device: torch.device | str = "auto", **kwargs: Any
) -> TextAlgorithm:
    """A saved algorithm of whichever class it is; see its ``load``, which also gets ``kwargs``.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a file of ours, or damaged.
        ValueError: There is no such device.
    """
    check_device(device)
    cls: type[TextAlgorithm] = PPO
    try:
        with zipfile.ZipFile(find_file(path)) as archive:
            name = json.loads(archive.read("config.json"))["algorithm"]
        cls = {c.__name__: c for c in ALGORITHMS.values()}.get(name, cls)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        pass  # `load` says what is wrong
    return cls.load(path, env=env, device=device, **kwargs)


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Catches values that the algorithm would only trip over much later."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    wanted = None
    if isinstance(default, bool):
        wanted = None if isinstance(value, bool) else "true or false"
    elif isinstance(default, int):
        wanted = None if number and isinstance(value, int) else "a whole number"
    elif isinstance(default, float):
        wanted = (
            None if number or (isinstance(value, str) and value.startswith("lin_")) else "a number, or 'lin_START_END'"
        )
    elif isinstance(default, str):
        wanted = None if isinstance(value, str) else "a text"
    elif name == "augmentation":
        wanted = None if value is None or isinstance(value, dict) else 'an object such as {"deletion": 0.1}'
    elif name.endswith("_kwargs"):
        wanted = None if value is None or isinstance(value, dict) else 'an object such as {"trainable_layers": 1}'
    elif name not in ("ref_model", "dataset", "text"):
        wanted = None if value is None or number else "a number or null"
    if wanted is not None:
        raise ValueError(expected(name, value, wanted))
