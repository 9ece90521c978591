"""Writes what the documentation takes from elsewhere: ``python docs/generate.py``.

The environments' pages and their gallery come from the tasks' docstrings, the table of ratios from the benchmark's results.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np

from textgym import TASKS, Task

DOCS = Path(__file__).parent
FOLDER = DOCS / "environments"
RESULTS = DOCS.parent / "benchmarks" / "results" / "compare.json"


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


def performance() -> str:
    """The page on performance, with the table of the present results."""
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = [
        "| comparison | ours | the other side | ratio, median (lowest to highest) | target |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        rates = row["details"].get("sides", {})
        sides = [
            f"{name}, {rates[name]['tokens_per_second']:,.0f} tokens/s" if name in rates else name
            for name in (row["ours"], row["peer"])
        ]
        unit, target = row["unit"], f"{'at most ' if row['at_most'] else ''}{row['target']:g}{row['unit']}"
        spread = f"{row['ratio']:.2f}{unit} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})"
        verdict = "" if row["reached"] else ", missed"
        lines.append(f"| `{row['name']}` | {' | '.join(sides)} | {spread} | {target}{verdict} |")
    facts = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if name != "textgym")
    lines.append(
        f"\n{result['repetitions']} rounds each, {facts['date'][:10]}: {facts['cpu']}, {facts['cores']} cores, "
        f"{result['threads']} threads; Python {facts['python']}, {versions}."
    )
    table = "\n".join(lines)
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    return re.sub(
        r"(<!-- ratios.*?-->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{table}\n{found[2]}", page, flags=re.S
    )


if __name__ == "__main__":
    (DOCS / "performance.md").write_text(performance(), encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
