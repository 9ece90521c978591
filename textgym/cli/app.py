"""Puts the commands together, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import gymnasium as gym
import typer
from rich.text import Text

import textgym
from textgym.cli import reward_model
from textgym.cli.evaluate import evaluate_run
from textgym.cli.options import make_console
from textgym.cli.play import play
from textgym.cli.rate import rate
from textgym.cli.rlhf import rlhf
from textgym.cli.show import info, list_tasks
from textgym.cli.train import train
from textgym.core import TextGymError

app = typer.Typer(
    name="textgym",
    help="Text generation as reinforcement learning.",
    epilog="Begin with: textgym list; textgym sample TextGen-Sentiment-v0 --policy oracle; textgym train TextGen-Sentiment-v0",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command("list")(list_tasks)
app.command("info")(info)
app.command("sample")(play)
app.command("train")(train)
app.command("eval")(evaluate_run)
app.command("rate")(rate)
app.command("rlhf")(rlhf)
app.add_typer(reward_model.app, name="reward-model")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"textgym {textgym.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Exit codes: 0; 2 for bad input, with one line that says what was wrong (with ``TEXTGYM_TRACEBACK=1`` the traceback too);
    130 where a signal ended it.

    Args:
        argv: Arguments; ``None``: those of the process.

    Raises:
        SystemExit: Always.
    """
    try:
        app(args=None if argv is None else list(argv), prog_name="textgym")
    except (TextGymError, gym.error.Error) as error:
        if os.environ.get("TEXTGYM_TRACEBACK"):
            raise
        message = " ".join(str(error).split())
        make_console(stderr=True).print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
