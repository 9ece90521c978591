"""Default settings of a training run by task, algorithm and model: ``recipes.json``, which ``textgym train`` reads.

A row of the file says what it is for (``env_id``, ``algo``, ``model``: a name, a list of names, or nothing for any) and gives
``total_timesteps``, ``hyperparameters`` or both; ``note`` says why. Rows go from the general to the special: where several
apply, the later one wins, setting by setting. Those of A2C, BestOfN, DPO, GRPO, REINFORCE, RLOO and TRPO for the bundled
model come from ``benchmarks/algorithms.py search`` and what was seen on the diagnostics, the others from trials by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Defaults for a run.

    Attributes:
        total_timesteps: Tokens to train for; ``None`` if no row says so.
        hyperparameters: Keyword arguments of the algorithm, ``n_envs`` among them.
    """

    total_timesteps: int | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


@cache
def rows() -> tuple[Mapping[str, Any], ...]:
    """The rows of the file."""
    return tuple(json.loads(files(__package__).joinpath("recipes.json").read_text(encoding="utf-8")))


def applies(row: Mapping[str, Any], **chosen: str) -> bool:
    """Whether a row is for what was chosen: ``env_id``, ``algo``, ``model``."""
    named = {name: [row[name]] if isinstance(row[name], str) else row[name] for name in chosen if name in row}
    return all(chosen[name] in names for name, names in named.items())


def recipe_for(env_id: str, algo: str, model: str) -> Recipe:
    """The defaults that hold for a run: every row that applies, merged.

    Args:
        env_id: Environment id.
        algo: Name of the algorithm.
        model: ``"bundled"``, or whatever else.
    """
    total, settings = None, dict[str, Any]()
    for row in rows():
        if applies(row, env_id=env_id, algo=algo, model=model):
            total = row.get("total_timesteps", total)
            settings |= row.get("hyperparameters", {})
    return Recipe(total, settings)
