"""``textgym rlhf``: candidates, ratings, a reward model and a policy that is optimised against it, round by round."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from textgym.cli import options
from textgym.cli.options import (
    agents,
    assignments,
    bad_input,
    environment_id,
    environment_kwargs,
    make_console,
    named,
    tokenizer_of,
)

_RATING, _TRAINING = "Rating", "Training"


class Rater(str, Enum):
    """Who rates."""

    simulated = "simulated"
    human = "human"


class Mode(str, Enum):
    """What raters say."""

    scores = "scores"
    rankings = "rankings"
    comparisons = "comparisons"


def rlhf(
    env_id: options.EnvId,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="New, or that of a run: it goes on where it stopped.", show_default=False),
    ],
    rounds: Annotated[int, typer.Option(metavar="N", help="Of sampling, rating and optimising.")] = 2,
    rater: Annotated[
        Rater, typer.Option(help="Simulated by the task's reward, or a person.", rich_help_panel=_RATING)
    ] = Rater.simulated,
    mode: Annotated[Mode, typer.Option(help="What raters say.", rich_help_panel=_RATING)] = Mode.scores,
    noise: Annotated[
        float,
        typer.Option(
            metavar="X", help="A simulated rater's error, in deviations of the reward.", rich_help_panel=_RATING
        ),
    ] = 0.5,
    raters: Annotated[int, typer.Option(metavar="N", help="Simulated raters.", rich_help_panel=_RATING)] = 3,
    disagreement: Annotated[
        float,
        typer.Option(metavar="X", help="What each thinks differently of a text, always.", rich_help_panel=_RATING),
    ] = 0.3,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Go on with a person's ratings, though not all are there.", rich_help_panel=_RATING
        ),
    ] = False,
    prompts: Annotated[
        int, typer.Option(metavar="N", help="Prompts a round that are sampled from.", rich_help_panel=_RATING)
    ] = 200,
    timesteps: Annotated[
        int, typer.Option(metavar="N", help="Tokens a round to optimise for.", rich_help_panel=_TRAINING)
    ] = 30_000,
    algo: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="'ppo', 'a2c', 'bestofn', 'grpo', 'nlpo', 'reinforce', 'rloo', 'trpo'.",
            rich_help_panel=_TRAINING,
        ),
    ] = "ppo",
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The policy: 'bundled', a folder, a Hub id.", rich_help_panel=_TRAINING)
    ] = "bundled",
    reward_model: Annotated[
        str, typer.Option(metavar="NAME", help="'bundled', a folder, a Hub id.", rich_help_panel=_TRAINING)
    ] = "bundled",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any hyperparameter of the algorithm, as JSON, such as kl_coef=0.01; as often as needed.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    set_reward_model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Any argument of RewardModelTrainer, such as num_train_epochs=8.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    eval_prompts: Annotated[
        int,
        typer.Option(metavar="N", help="Held-out prompts that the policy is measured on.", rich_help_panel=_TRAINING),
    ] = 200,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    max_prompt_tokens: options.MaxPromptTokens = None,
    max_new_tokens: options.MaxNewTokens = None,
    min_new_tokens: options.MinNewTokens = None,
    difficulty: options.Difficulty = None,
) -> None:
    """Learn from ratings: sample, rate, train a reward model, optimise the policy against it; watch the true reward."""
    console = make_console()
    name, given, of_trainer = environment_id(env_id), assignments(set_ or ()), assignments(set_reward_model or ())
    kwargs = environment_kwargs(
        tokenizer=tokenizer_of(model),
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        difficulty=difficulty,
    )
    with agents(console):
        from textgym.cli.progress import TerminalObserver
        from textgym_agents.rlhf import RLHFRun, RLHFSettings
    observer = TerminalObserver(console)
    with bad_input():
        settings = RLHFSettings(
            name, rounds, rater.value, mode.value, noise, raters, disagreement, prompts, timesteps, algo, seed,
            named(model), given, named(reward_model), of_trainer, kwargs, eval_prompts=eval_prompts, device=device,
        )  # fmt: skip
        run = RLHFRun(out, settings, observer)
        try:
            with observer:
                outcome = run.run(partial)
        except KeyboardInterrupt:
            console.print("Stopped; the same command goes on with the stage that was interrupted.")
            raise typer.Exit(130) from None
    for number, found in enumerate(outcome.rounds, start=1):
        before, after = found["before"], found["after"]
        console.print(
            f"Round {number}: true reward {before['true']:.3f} -> {after['true']:.3f}, reward model {before['proxy']:.3f} -> "
            f"{after['proxy']:.3f}, KL {after['kl']:.1f} nats",
            soft_wrap=True,
        )
    if outcome.finished:
        console.print(f"Written to {outcome.folder.report} and {outcome.folder.picture}", style="dim", soft_wrap=True)
    else:
        console.print(f"{outcome.left} ratings are wanted; then run this command again:", style="bold")
        console.print(outcome.rate_command, soft_wrap=True)
