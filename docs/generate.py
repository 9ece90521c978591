"""Writes what the documentation takes from elsewhere: ``python docs/generate.py``.

The environments' pages and their gallery come from the tasks' docstrings and the benchmarks' results, the tables on
performance from the latter.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from textgym import TASKS, Task
from textgym.rewards import REWARDS, as_reward
from textgym.tasks.page import page_of

DOCS = Path(__file__).parent
FOLDER = DOCS / "environments"
RESULTS = DOCS.parent / "benchmarks" / "results"


def measured(name: str) -> dict[str, Any]:
    """What a benchmark has found."""
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def page(task: type[Task]) -> str:
    """The documentation page of a task, in Markdown."""
    title, _, body = page_of(task).partition("\n")
    env = gym.make(task.id)
    rng = np.random.default_rng(0)
    examples = [task().sample(rng, task.default_difficulty) for _ in range(3)]
    levels = next(row["base_levels"] for row in measured("task_scores")["rows"] if row["id"] == task.id)
    shown = "\n\n".join(f"```text\n{e.prompt}⟩{task().oracle(e)}\n```" for e in examples)
    facts = [
        ("Make", f'`gym.make("{task.id}")`, `gym.make_vec("{task.id}", num_envs=…)`'),
        ("Action space", f"`{env.action_space}`"),
        ("Observation width", f"`L = {env.observation_space['input_ids'].shape[0]}` tokens"),  # type: ignore[index]
        ("Token budget", f"`max_new_tokens={task.max_new_tokens}`, `min_new_tokens={task.min_new_tokens}`"),
        (
            "Difficulties, and the model's score",
            ", ".join(f'`"{d}"` {levels[d][0]:.2f}' for d in task.difficulties),
        ),
        ("Score of random tokens", f"{task.random_score:.2f}"),
        ("Score of the bundled model, untrained", f"{task.base_score:.2f}"),
        ("Score of the oracle", f"{task.oracle_score:.2f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""# {task.id}

{title}

| | |
|---|---|
{table}

Prompts, and behind `⟩` what the oracle writes:

{shown}

{body.strip()}
"""


def gallery() -> str:
    """The list of all environments, in Markdown."""
    runs = {row["id"]: row for row in measured("learnability")["rows"]}
    rows = []
    for task in TASKS.values():
        title = page_of(task).splitlines()[0]
        learned = task.random_score + np.mean(runs[task.id]["after"]) * (task.oracle_score - task.random_score)
        scores = (task.random_score, task.base_score, learned, task.oracle_score)
        cells = " | ".join(f"{score:.2f}" for score in scores)
        rows.append(f"| [{task.id}]({task.id}.md) | {title} | {cells} | {max(runs[task.id]['tokens']):,} |")
    table = "\n".join(rows)
    seeds = sorted({len(row["after"]) for row in runs.values()})
    return f"""# Environments

| id | what the policy does | random | base | PPO | oracle | tokens |
|---|---|---|---|---|---|---|
{table}

Mean returns on held-out prompts: of random tokens, of the bundled model ("base"), of the same model after PPO with the settings
of `textgym train ID --algo ppo` (mean of {" or ".join(map(str, seeds))} seeds, after so many
tokens), and of the oracle. Measured by `benchmarks/task_scores.py` and `benchmarks/learnability.py`.
"""


def pages() -> dict[str, str]:
    """Every generated file by name."""
    return {"README.md": gallery(), **{f"{task.id}.md": page(task) for task in TASKS.values()}}


def performance() -> str:
    """The page on performance, with the tables of the present results."""
    result = measured("compare")
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
    return _filled(_filled(page, "ratios", table), "rewards reached", measured("versus_trl")["table"])


def rewards() -> str:
    """The page on rewards, with the table of those that have a name."""
    lines = ["| name | what | range | needs |", "|---|---|---|---|"]
    for name in sorted(REWARDS):
        reward = as_reward(name)
        first = inspect.cleandoc(type(reward).__doc__ or "").split("\n\n")[0].replace("\n", " ")
        first = re.sub(r":\w+:`([^`]*)`", r"`\1`", first).replace("``", "`").split(". ")[0].rstrip(".")
        low, high = (f"{x:g}".replace("inf", "∞") for x in reward.range)
        needs = "references" if getattr(reward, "needs_references", False) else ""
        lines.append(f"| `{name}` | {first.replace('|', chr(92) + '|')} | [{low}, {high}] | {needs} |")
    page = (DOCS / "rewards.md").read_text(encoding="utf-8")
    return _filled(page, "rewards", "\n".join(lines))


def reward_models() -> str:
    """The page on reward models, with the table of the present results."""
    rows = measured("movie_ratings")["rows"]
    lines = [
        "| model | objective | seed | Spearman | pairs in order | MSE | slope, intercept | pairwise ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (["vader", "scratch", "minilm"].index(r["model"]), r["seed"])):
        names = ("spearman", "pairwise_accuracy", "mse", "calibration_slope", "calibration_intercept", "pairwise_ece")
        spearman, accuracy, mse, slope, intercept, ece = (
            "{:.3f} ({:.3f} to {:.3f})".format(*row[name]) for name in names
        )
        mse = mse if row["objective"] in ("regression", "classification") else ""
        ece = ece if row["objective"] in ("bradley-terry", "plackett-luce") else ""
        line = f"{slope.split()[0]}, {intercept.split()[0]}"
        lines.append(
            f"| `{row['model']}` | {row['objective'] or ''} | {row['seed'] if row['objective'] else ''} "
            f"| {spearman} | {accuracy} | {mse} | {line} | {ece} |"
        )
    page = (DOCS / "reward_models.md").read_text(encoding="utf-8")
    return _filled(_filled(page, "agreement", "\n".join(lines)), "policy", movie_policy())


def movie_policy() -> str:
    """What raters' models think of policies that were trained to please one of them."""
    lines = [
        "| policy | seed | proxy | judge | VADER, -1 to 1 | KL, nats | distinct pairs of words |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = measured("movie_policy")["rows"]
    for row, when in [(rows[0], "before"), *((row, "after") for row in rows)]:
        found = row[when]
        ratings = " | ".join(
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*found[name]) for name in ("proxy", "judge", "vader")
        )
        policy, seed = ("untrained", "") if when == "before" else ("trained", row["seed"])
        lines.append(f"| {policy} | {seed} | {ratings} | {found['kl']:.1f} | {found['distinct_2']:.2f} |")
    return "\n".join(lines)


def algorithms() -> str:
    """The page on algorithms, with what each makes of Sentiment."""
    lines = [
        "| algorithm | tokens | seconds | untrained | trained, each seed | gap to the oracle closed, mean | KL, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    from textgym_agents.algorithms.registry import ALGORITHMS

    rows = measured("algorithms")["rows"]
    for row in sorted(rows, key=lambda row: -float(np.mean(row["after"]))):
        before, after, kl = (
            ", ".join(f"{x:.{n}f}" for x in row[k]) for k, n in (("before", 2), ("after", 2), ("kl", 0))
        )
        gap = np.mean([raised / (1 - low) for raised, low in zip(row["raise"], row["before"], strict=True)])
        lines.append(
            f"| `{ALGORITHMS[row['algo']].__name__}` | {max(row['tokens']):,} | {np.median(row['seconds']):.0f} "
            f"| {before.split(',')[0]} | {after} | {gap:.0%} | {kl} |"
        )
    page = (DOCS / "algorithms.md").read_text(encoding="utf-8")
    for mark, table in (("algorithms", "\n".join(lines)), ("distillation", distillation()), ("imitation", imitation())):
        page = _filled(page, mark, table)
    return page


def imitation() -> str:
    """How GAIL's discriminator fared, and the policy."""
    lines = [
        "| seed | highest accuracy | in the last five rollouts | score | perplexity | distinct pairs of words | KL, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured("imitation")["rows"]:
        accuracy, before, after = [point["accuracy"] for point in row["curve"]], row["before"], row["after"]
        changes = " | ".join(f"{before[x]:.2f} → {after[x]:.2f}" for x in ("score", "perplexity", "distinct_2"))
        lines.append(
            f"| {row['seed']} | {max(accuracy):.2f} | {np.mean(accuracy[-5:]):.2f} | {changes} | {after['kl']:.1f} |"
        )
    return "\n".join(lines)


def distillation() -> str:
    """What a small student learns from references, and what from a teacher."""
    lines = ["| learned from | perplexity of held-out references, each seed | reward, each seed |", "|---|---|---|"]
    runs = measured("distillation")["runs"]
    names = {
        "references": "references: `SFT`",
        "word": "the same, and the teacher's distributions: `word`",
        "sequence": "the teacher's answers to new prompts: `sequence`",
    }
    for method, name in names.items():
        mine = [run for run in runs if run["method"] == method]
        cells = (", ".join(f"{run[what]:.2f}" for run in mine) for what in ("perplexity", "reward"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _filled(page: str, mark: str, table: str) -> str:
    """``page`` with the text between the marks replaced."""
    return re.sub(
        rf"(<!-- {mark}.*?-->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{table}\n{found[2]}", page, flags=re.S
    )


if __name__ == "__main__":
    (DOCS / "rewards.md").write_text(rewards(), encoding="utf-8")
    (DOCS / "reward_models.md").write_text(reward_models(), encoding="utf-8")
    (DOCS / "algorithms.md").write_text(algorithms(), encoding="utf-8")
    (DOCS / "performance.md").write_text(performance(), encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
