"""Tasks: one file each, found by name or by environment id."""

from __future__ import annotations

from textgym.core import expected
from textgym.tasks.answer import AnswerTask
from textgym.tasks.arithmetic import ArithmeticTask
from textgym.tasks.base import Task, split_of
from textgym.tasks.booking import BookingTask
from textgym.tasks.classify import ClassifyTask
from textgym.tasks.concepts import ConceptsTask
from textgym.tasks.copy import CopyTask
from textgym.tasks.dates import DatesTask
from textgym.tasks.delay import DelayTask
from textgym.tasks.describe import DescribeTask
from textgym.tasks.entities import EntitiesTask
from textgym.tasks.numbers import NumbersTask
from textgym.tasks.poem import PoemTask
from textgym.tasks.polite import PoliteTask
from textgym.tasks.program import ProgramTask
from textgym.tasks.reply import ReplyTask
from textgym.tasks.reverse import ReverseTask
from textgym.tasks.sentiment import SentimentTask
from textgym.tasks.sort import SortTask
from textgym.tasks.summarize import SummarizeTask
from textgym.tasks.translate import TranslateTask

TASKS: dict[str, type[Task]] = {
    "sentiment": SentimentTask,
    "classify": ClassifyTask,
    "summarize": SummarizeTask,
    "translate": TranslateTask,
    "answer": AnswerTask,
    "entities": EntitiesTask,
    "reply": ReplyTask,
    "booking": BookingTask,
    "describe": DescribeTask,
    "concepts": ConceptsTask,
    "poem": PoemTask,
    "polite": PoliteTask,
    "arithmetic": ArithmeticTask,
    "program": ProgramTask,
    "numbers": NumbersTask,
    "dates": DatesTask,
    "copy": CopyTask,
    "reverse": ReverseTask,
    "sort": SortTask,
    "delay": DelayTask,
}
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
