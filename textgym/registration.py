"""Tells Gymnasium about every task, by names alone, so that an environment's spec survives JSON and pickle."""

from __future__ import annotations

import gymnasium as gym

from textgym.tasks import TASKS


def register_all() -> None:
    """Registers every task that is not registered yet."""
    for name, task in TASKS.items():
        if task.id not in gym.registry:
            gym.register(
                id=task.id,
                entry_point="textgym.envs:TextGenEnv",
                vector_entry_point="textgym.envs:TextGenVectorEnv",
                kwargs={"task": name},
            )
