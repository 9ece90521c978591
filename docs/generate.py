"""Writes the environments' pages and their gallery from the tasks' docstrings: ``python docs/generate.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

import gymnasium as gym
import numpy as np

from textgym import TASKS, Task

FOLDER = Path(__file__).parent / "environments"


def page(task: type[Task]) -> str:
    """The documentation page of a task, in Markdown."""
    text = inspect.cleandoc(task.__doc__ or "")
    title, _, body = text.partition("\n")
    env = gym.make(task.id)
    rng = np.random.default_rng(0)
    examples = [task().sample(rng, task.default_difficulty) for _ in range(3)]
    shown = "\n".join(f"> {e.prompt} **{task().oracle(e).strip()}**\n>" for e in examples)
    facts = [
        ("Make", f'`gym.make("{task.id}")`, `gym.make_vec("{task.id}", num_envs=…)`'),
        ("Action space", f"`{env.action_space}`"),
        ("Observation width", f"`L = {env.observation_space['input_ids'].shape[0]}` tokens"),  # type: ignore[index]
        ("Token budget", f"`max_new_tokens={task.max_new_tokens}`, `min_new_tokens={task.min_new_tokens}`"),
        ("Difficulties", ", ".join(f'`"{d}"`' for d in task.difficulties)),
        ("Score of random tokens", f"{task.random_score:.2f}"),
        ("Score of the oracle", f"{task.oracle_score:.2f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""# {task.id}

{title}

| | |
|---|---|
{table}

Prompts, with what the oracle answers:

{shown}

{body.strip()}
"""


def gallery() -> str:
    """The list of all environments, in Markdown."""
    rows = []
    for task in TASKS.values():
        title = inspect.cleandoc(task.__doc__ or "").splitlines()[0]
        rows.append(f"| [{task.id}]({task.id}.md) | {title} | {task.random_score:.2f} | {task.oracle_score:.2f} |")
    table = "\n".join(rows)
    return f"# Environments\n\n| id | what the policy does | random | oracle |\n|---|---|---|---|\n{table}\n"


def pages() -> dict[str, str]:
    """Every generated file by name."""
    return {"README.md": gallery(), **{f"{task.id}.md": page(task) for task in TASKS.values()}}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
