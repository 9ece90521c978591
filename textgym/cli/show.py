"""``textgym list`` and ``textgym info``."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Group
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from textgym.cli.options import EnvId, environment_id, make_console
from textgym.core import TextGymError
from textgym.prompts import load_prompts
from textgym.tasks import TASKS, Task
from textgym.tasks.page import page_of
from textgym.tokenization import load_tokenizer

_EXAMPLES = 3


def list_tasks() -> None:
    """List the environments."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("id", no_wrap=True, style="bold")
    table.add_column("task, difficulties")
    table.add_column("random", justify="right")
    table.add_column("base", justify="right")
    table.add_column("oracle", justify="right")
    for cls in TASKS.values():
        first = page_of(cls).splitlines()[0].rstrip(".")
        levels = ", ".join(f"{level}*" if level == cls.default_difficulty else level for level in cls.difficulties)
        about = Text.assemble(first, "\n", (levels, "dim"))
        scores = (cls.random_score, cls.base_score, cls.oracle_score)
        table.add_row(cls.id, about, *(f"{score:.2f}" for score in scores))
    console = make_console()
    console.print(table)
    console.print(
        "\n* the default; random, base, oracle: mean return of random tokens, of the bundled model untrained, of the best "
        "known answer",
        style="dim",
    )
    console.print("`textgym info ID` describes one, `textgym sample ID --policy oracle` plays it.", style="dim")


def info(env_id: EnvId) -> None:
    """Describe an environment: its documentation, its spaces and some examples."""
    name = environment_id(env_id)
    task = next((cls() for cls in TASKS.values() if cls.id == name), None)
    if task is None:
        raise TextGymError(f"Expected an environment of textgym, actual: {env_id!r}; `textgym list` shows them")
    console = make_console()
    env = gym.make(task.id, split="dev", disable_env_checker=True)
    console.print(Panel(Text(task.id, justify="center"), style="bold"))
    page = re.sub(r":\w+:(?=`)", "", page_of(type(task)))  # Sphinx's roles mean nothing to Markdown
    console.print(Markdown(page + "\n\n## Defaults"))
    console.print(_defaults(task, env))
    console.print(Markdown("\n## Examples\n\nOf the `dev` split, answered by the oracle."))
    for example in _examples(task, env):
        console.print()
        console.print(example)
    console.print(f'\nmake it:     gym.make("{task.id}")')
    console.print(f"play it:     textgym sample {task.id}")
    console.print(f"train on it: textgym train {task.id}")


def _defaults(task: Task, env: gym.Env[Any, Any]) -> Table:
    reward = task.reward()
    low, high = reward.range
    observation = Group(*(f"{key}: {space}" for key, space in env.observation_space.items()))  # type: ignore[attr-defined]
    rows: list[tuple[str, Any]] = [
        ("observation space", observation),
        ("action space", str(env.action_space)),
        ("reward", f"{reward.name}, in [{low:g}, {high:g}]"),
        ("max_prompt_tokens", str(task.max_prompt_tokens)),
        ("max_new_tokens", str(task.max_new_tokens)),
        ("min_new_tokens", str(task.min_new_tokens)),
        ("difficulty", f"{task.default_difficulty}, of {', '.join(task.difficulties)}"),
        ("scores", f"random {task.random_score:.2f}, base {task.base_score:.2f}, oracle {task.oracle_score:.2f}"),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in rows:
        table.add_row(Text(label, style="bold"), value)
    return table


def _examples(task: Task, env: gym.Env[Any, Any]) -> list[Table]:
    tokenizer = load_tokenizer()
    rng = np.random.default_rng(0)
    prompts = load_prompts(None, task, "dev", task.default_difficulty)
    tables = []
    for _ in range(_EXAMPLES):
        example = prompts.draw(rng)
        env.reset(options={"example": example})
        score, count, ended = 0.0, 0, False
        last: dict[str, Any] = {}
        for token in (*tokenizer.encode(task.oracle(example)), tokenizer.eos_token_id):
            if not ended:
                _, reward, ended, _, last = env.step(token)
                score, count = score + float(reward), count + 1
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_row("prompt", Text(example.prompt, "dim"))
        table.add_row("oracle", Text(str(last.get("transcript", last["completion"])).strip(), "bold green"))
        table.add_row("reward", f"{score:+.2f}, with {count} tokens")
        tables.append(table)
    return tables
