"""``textgym train``: a training run in a folder, new or resumed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from textgym.cli import options
from textgym.cli.options import (
    agents,
    assignments,
    bad_input,
    environment_id,
    environment_kwargs,
    make_console,
    named,
    prompt_file,
    prompt_room,
    replaced,
    tokenizer_of,
)
from textgym.cli.tables import NOTE, duration, results
from textgym.core import TextGymError
from textgym.prompts import FixedPrompts

if TYPE_CHECKING:
    from textgym_agents.runs.training import Result, TrainingRun

_RUN, _TRAINING = "Run folder", "Training"
_WHEN_RESUMING = ("resume", "timesteps", "patience", "device")


def train(
    ctx: typer.Context,
    env_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Environment id, such as TextGen-Sentiment-v0.", show_default=False),
    ] = None,
    algo: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="'ppo', 'grpo', 'dpo', 'sft' or another algorithm; a wrong name lists them.",
            rich_help_panel=_TRAINING,
        ),
    ] = "ppo",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Folder of the run, new or empty.",
            show_default="runs/ID-ALGO-SEED",
            rich_help_panel=_RUN,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with the run in this folder, from its newest checkpoint; --timesteps N makes it longer.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    timesteps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Tokens to train for.", show_default="by task and algorithm", rich_help_panel=_TRAINING
        ),
    ] = None,
    seed: options.Seed = 0,
    n_envs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Episodes side by side.", show_default="by task and algorithm", rich_help_panel=_TRAINING
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="'bundled', a folder, a Hub id.", rich_help_panel=_TRAINING)
    ] = "bundled",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any hyperparameter of the algorithm, as JSON, such as learning_rate=1e-4; as often as needed.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    device: options.Device = "auto",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="'bundled', a folder, a Hub id.",
            show_default="the model's own",
            rich_help_panel="Environment",
        ),
    ] = None,
    prompts: options.Prompts = None,
    eval_prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Held-out prompts.",
            show_default="the dev split of --prompts or --dataset",
            rich_help_panel="Environment",
        ),
    ] = None,
    prompt_column: options.PromptColumn = None,
    prompt_words: options.PromptWords = None,
    dataset: options.Dataset = None,
    reward: options.Reward = None,
    max_prompt_tokens: options.MaxPromptTokens = None,
    max_new_tokens: options.MaxNewTokens = None,
    min_new_tokens: options.MinNewTokens = None,
    difficulty: options.Difficulty = None,
    eval_episodes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Held-out prompts to evaluate on, before and after.", rich_help_panel=_RUN
        ),
    ] = 200,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Tokens between checkpoints.", show_default="a tenth of the run", rich_help_panel=_RUN
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Stop after N checkpoints in a row that are no better on validation prompts, and take the best one.",
            show_default="train to the end",
            rich_help_panel=_RUN,
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Write events for TensorBoard.", rich_help_panel=_RUN)] = True,
) -> None:
    """Train a policy. Ctrl-C saves it; --resume goes on as if nothing had happened."""
    console, began = make_console(), time.monotonic()
    if resume is not None:
        _check_alone(ctx)
        with agents(console):
            from textgym.cli.progress import TerminalObserver
            from textgym_agents.runs.training import TrainingRun
        observer = TerminalObserver(console)
        with bad_input():
            chosen = device if _is_given(ctx, "device") else None
            run = TrainingRun.resume(resume, observer, total_timesteps=timesteps, patience=patience, device=chosen)
    else:
        if env_id is None:
            raise TextGymError("Expected the ID of an environment to train on, or --resume RUN")
        if not (prompts or eval_prompts) and (prompt_column is not None or prompt_words is not None):
            raise TextGymError("--prompt-column and --prompt-words say how to read a file: give --prompts FILE too")
        name, hyperparameters = environment_id(env_id), assignments(set_ or [])
        hyperparameters |= {} if n_envs is None else {"n_envs": n_envs}
        kwargs = environment_kwargs(
            prompts=prompts,
            prompt_column=prompt_column if prompts else None,
            prompt_words=prompt_words if prompts else None,
            dataset=dataset,
            tokenizer=named(tokenizer) if tokenizer else tokenizer_of(model),
            reward=reward,
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            difficulty=difficulty,
        )
        held_out = prompt_file(eval_prompts, prompt_column, prompt_words) if eval_prompts else None
        with bad_input():
            kwargs |= _room(name, kwargs, held_out)
        with agents(console):
            from textgym.cli.progress import TerminalObserver
            from textgym_agents.runs.training import TrainingRun, make_config
        observer = TerminalObserver(console)
        with bad_input():
            config = make_config(
                name,
                algo,
                total_timesteps=timesteps,
                seed=seed,
                model=named(model),
                hyperparameters=hyperparameters,
                checkpoint_every=checkpoint_every,
                patience=patience,
                env_kwargs=kwargs,
                eval_prompts=held_out,
                eval_episodes=eval_episodes,
                tensorboard=tensorboard,
                device=device,
            )
            run = TrainingRun.new(out or Path("runs") / f"{name.replace(':', '-')}-{algo}-{seed}", config, observer)
    _introduce(console, run)
    try:
        with observer:
            result = run.run()
    except KeyboardInterrupt:
        console.print("Stopped at once.")
        console.print(f"To go on from the last checkpoint: textgym train --resume {run.folder.path}", soft_wrap=True)
        raise typer.Exit(130) from None
    _conclude(console, run, result, time.monotonic() - began)


def _check_alone(ctx: typer.Context) -> None:
    given = [name for name in ctx.params if _is_given(ctx, name) and name not in _WHEN_RESUMING]
    if given:
        names = ", ".join("ID" if name == "env_id" else "--" + name.strip("_").replace("_", "-") for name in given)
        raise TextGymError(f"Expected --resume without {names}: the run goes on as its config.json says")


def _room(env_id: str, kwargs: dict[str, Any], held_out: Any) -> dict[str, int]:
    """``max_prompt_tokens`` for the longest prompt of the files, where it was not given."""
    if "max_prompt_tokens" in kwargs:
        return {}
    rooms = [prompt_room(env_id, kwargs, ["train"] if held_out else ["train", "dev"])]
    if held_out:
        rooms.append(prompt_room(env_id, replaced(kwargs, {"prompts": held_out}), ["dev"]))
    found = [room for room in rooms if room is not None]
    return {"max_prompt_tokens": max(found)} if found else {}


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _introduce(console: Console, run: TrainingRun) -> None:
    config = run.config
    console.print(f"{config.algo.upper()} on {config.env_id}, into {run.folder.path}", style="bold", soft_wrap=True)
    size = config.model["parameters"]
    console.print(
        f"model {config.model['name']} ({size / 1e6:.1f} million parameters), {config.hyperparameters['n_envs']} environments, "
        f"{config.total_timesteps:,} tokens, seed {config.seed}, {run.model.device}\n",
        style="dim",
        soft_wrap=True,
    )


def _conclude(console: Console, run: TrainingRun, result: Result, seconds: float) -> None:
    path = result.folder.path
    speed = (
        f", {result.trained / result.seconds:,.0f} tokens/s in training" if result.seconds and result.trained else ""
    )
    if not result.finished:
        console.print(
            f"\nStopped at {result.timesteps:,} of {run.config.total_timesteps:,} tokens{speed}; all is saved."
        )
        console.print(f"To go on: textgym train --resume {path}", style="bold", soft_wrap=True)
        raise typer.Exit(130)
    console.print(f"{run.config.env_id}, {len(run.examples)} held-out prompts", style="bold")
    console.print(results({"before": result.before, "after": result.after}))
    console.print(f"{NOTE} Both columns: the same prompts.\n", style="dim", soft_wrap=True)
    console.print(
        f"{result.timesteps:,} tokens{speed}; {duration(seconds)} in all, evaluations included.", soft_wrap=True
    )
    for name, what in (("report.html", "report"), ("learning_curve.png", "learning curve"), ("model.zip", "model")):
        if (path / name).is_file():
            console.print(f"{what:>14}: {path / name}", soft_wrap=True)
    console.print(f"{'watch it':>14}: textgym sample {run.config.env_id} --policy {path}", soft_wrap=True)
    split = "" if isinstance(run.setting.prompts, FixedPrompts) else " --split test"  # files need not have one
    console.print(f"{'measure it':>14}: textgym eval {path}{split}", soft_wrap=True)
