"""Tasks: one file each, found by name or by environment id."""

from __future__ import annotations

from textgym.core import expected
from textgym.tasks.base import Task, split_of
from textgym.tasks.sentiment import SentimentTask

TASKS: dict[str, type[Task]] = {"sentiment": SentimentTask}
"""Every task by its short name, the one that is registered as the environment's ``task`` argument."""


def make_task(task: str | Task) -> Task:
    """The task that ``task`` names (short name or environment id), or the object itself.

    Raises:
        ValueError: Unknown name.
        TypeError: Neither a name nor a :class:`Task`.
    """
    if isinstance(task, Task):
        return task
    if not isinstance(task, str):
        raise TypeError(expected("task", task, "the name of a task or a Task"))
    by_id = {cls.id: cls for cls in TASKS.values()}
    if task not in TASKS and task not in by_id:
        raise ValueError(expected("task", task, f"one of {sorted(TASKS)} or an id of {sorted(by_id)}"))
    return {**by_id, **TASKS}[task]()


__all__ = ["TASKS", "SentimentTask", "Task", "make_task", "split_of"]
