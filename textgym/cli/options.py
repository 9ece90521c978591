"""Options that several commands share, and what they mean."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import typer
from rich.console import Console

from textgym.core import TextGymError
from textgym.prompts import FixedPrompts, load_prompts
from textgym.tasks import TASKS, make_task
from textgym.tokenization import load_tokenizer

_ENV, _DECODING = "Environment", "Decoding of a saved policy"

EnvId = Annotated[
    str, typer.Argument(metavar="ID", help="Environment id, such as TextGen-Sentiment-v0.", show_default=False)
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything random.", min=0)]
Device = Annotated[str, typer.Option(metavar="NAME", help="'auto', 'cpu' or 'cuda'.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="JSON Lines file (.jsonl, .jsonl.gz) of prompts in place of the task's own; '{split}' in its name: any split.",
        rich_help_panel=_ENV,
    ),
]
PromptColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Column of the file that has the prompt.", show_default="prompt", rich_help_panel=_ENV
    ),
]
PromptWords = Annotated[
    int | None, typer.Option(metavar="N", help="Take only the first N words as the prompt.", rich_help_panel=_ENV)
]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="""In place of --prompts: a preset or data set of the Hub ('hub:imdb'), or a JSON mapping such as
        '{"preset": "imdb", "path": "imdb/{split}.jsonl"}'.""",
        rich_help_panel=_ENV,
    ),
]
Tokenizer = Annotated[
    str | None, typer.Option(metavar="NAME", help="'bundled', a folder, a Hub id.", rich_help_panel=_ENV)
]
Reward = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="""Reward by name, or weights such as '{"sentiment": 1, "length": -0.01}'.""",
        rich_help_panel=_ENV,
    ),
]
MaxPromptTokens = Annotated[int | None, typer.Option(metavar="N", help="Room for the prompt.", rich_help_panel=_ENV)]
MaxNewTokens = Annotated[
    int | None, typer.Option(metavar="N", help="Token budget of the policy.", rich_help_panel=_ENV)
]
MinNewTokens = Annotated[
    int | None, typer.Option(metavar="N", help="The end token is forbidden before.", rich_help_panel=_ENV)
]
Difficulty = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Level of the task, see 'textgym list'.", rich_help_panel=_ENV)
]
Temperature = Annotated[float, typer.Option(metavar="X", help="Logits are divided by it.", rich_help_panel=_DECODING)]
TopK = Annotated[
    int, typer.Option(metavar="K", help="Only the k most likely tokens; 0: all.", rich_help_panel=_DECODING)
]
TopP = Annotated[float, typer.Option(metavar="P", help="Nucleus sampling; 1: all tokens.", rich_help_panel=_DECODING)]
Greedy = Annotated[bool, typer.Option("--greedy", help="Always the most likely token.", rich_help_panel=_DECODING)]
NumBeams = Annotated[int, typer.Option(metavar="N", help="Above 1: beam search.", rich_help_panel=_DECODING)]


def make_console(**kwargs: Any) -> Console:
    """A console that shows texts and paths as they are, square brackets included."""
    return Console(highlight=False, markup=False, emoji=False, **kwargs)


def named(source: str) -> str:
    """The name of a model or tokenizer; a folder's path is made absolute, so that a run can be resumed from anywhere."""
    return source if source == "bundled" or not Path(source).is_dir() else str(Path(source).resolve())


def tokenizer_of(model: str) -> str:
    """The tokenizer that belongs to a model: the one in its folder, or of the same name.

    Raises:
        TextGymError: The folder has none.
    """
    files = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json")
    if model != "bundled" and Path(model).is_dir() and not any((Path(model) / name).is_file() for name in files):
        raise TextGymError(f"The model folder {model!r} holds no tokenizer; give the model's own with --tokenizer NAME")
    return named(model)


def environment_id(text: str) -> str:
    """The registered environment id that ``text`` means: an id, the short name of a task, or ``module:id``.

    Raises:
        TextGymError: There is none; the message names the nearest.
    """
    name = text.removeprefix("textgym:")
    if name in TASKS:
        return TASKS[name].id
    module, colon, _ = name.partition(":")
    if colon:  # Gymnasium's form for environments that a module of the user's registers
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise TextGymError(f"Could not import {module!r} of the environment {text!r}: {error}") from error
        return name
    if name not in gym.registry:
        ids = [task.id for task in TASKS.values()]
        near = difflib.get_close_matches(name, ids, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TextGymError(f"Unknown environment {text!r}; {hint}`textgym list` shows all of them")
    return name


def environment_kwargs(
    *,
    prompts: str | None = None,
    prompt_column: str | None = None,
    prompt_words: int | None = None,
    dataset: str | None = None,
    reward: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Arguments of an environment from options; those that were not given are left out.

    Raises:
        TextGymError: Options that do not go together, or a reward or data set that is not JSON.
    """
    given = {name: value for name, value in others.items() if value is not None}
    if prompts is not None:
        given["prompts"] = prompt_file(prompts, prompt_column, prompt_words)
    elif prompt_column is not None or prompt_words is not None:
        raise TextGymError("--prompt-column and --prompt-words say how to read a file: give --prompts FILE too")
    if dataset is not None:
        if prompts is not None:
            raise TextGymError("Expected --prompts or --dataset, actual: both")
        given["dataset"] = _dataset(dataset)
    if reward is not None:
        given["reward"] = parse_json("--reward", reward) if reward.lstrip().startswith("{") else reward
    return given


def prompt_file(path: str, column: str | None, words: int | None) -> dict[str, Any]:
    """A file of prompts as the environment takes it; the path is made absolute, so that a run can be resumed from anywhere."""
    spec: dict[str, Any] = {"path": str(Path(path).expanduser().resolve())}
    if column is not None:
        spec["columns"] = {"prompt": column}
    return spec if words is None else {**spec, "prompt_words": words}


def _dataset(text: str) -> Any:
    """A data set as the environment takes it; a path in it is made absolute, as that of a file of prompts."""
    if not text.lstrip().startswith("{"):
        return text
    spec = parse_json("--dataset", text)
    if isinstance(spec.get("path"), str):
        spec["path"] = str(Path(spec["path"]).expanduser().resolve())
    return spec


def replaced(kwargs: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``kwargs`` of an environment with ``changes``; new prompts take the place of an old data set, and the reverse."""
    sources = {"prompts", "dataset"}
    gone = sources if sources & set(changes) else set()
    return {**{name: value for name, value in kwargs.items() if name not in gone}, **changes}


def prompt_room(env_id: str, kwargs: Mapping[str, Any], splits: Sequence[str]) -> int | None:
    """``max_prompt_tokens`` that given prompts need, at least the task's default; ``None`` where the task writes its own.

    So that nobody has to count the tokens of a file of prompts by hand.
    """
    spec = gym.spec(env_id).kwargs
    prompts, dataset = kwargs.get("prompts"), kwargs.get("dataset")
    if prompts is dataset is None or "task" not in spec:
        return None
    task, tokenizer = make_task(spec["task"]), load_tokenizer(kwargs.get("tokenizer", "bundled"))
    room = task.max_prompt_tokens
    for split in splits:
        found = load_prompts(prompts, task, split, kwargs.get("difficulty", task.default_difficulty), dataset)  # type: ignore[arg-type]
        if isinstance(found, FixedPrompts):
            room = max(room, *(len(ids) for ids in tokenizer.encode_batch([e.prompt for e in found.examples])))
    return room


def parse_json(what: str, text: str) -> Any:
    """``text`` as JSON.

    Raises:
        TextGymError: It is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise TextGymError(
            f'Expected {what} to have a JSON value (a number, true, false, null, a "text", ...), actual: {text!r} ({error})'
        ) from error


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """What ``--set KEY=VALUE`` options say, the values as JSON.

    Raises:
        TextGymError: One has another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise TextGymError(f"Expected --set KEY=VALUE, actual: --set {text}")
        found[name.strip()] = parse_json(f"--set {name.strip()}", value)
    return found


@contextmanager
def bad_input() -> Iterator[None]:
    """Errors of our own checks become a :class:`TextGymError`, which is shown without a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        if isinstance(error, TextGymError):
            raise
        raise TextGymError(str(error)) from error


@contextmanager
def agents(console: Console) -> Iterator[None]:
    """Around the import of ``textgym_agents``, which takes some seconds.

    Raises:
        TextGymError: torch or another package of the extra is not installed.
    """
    try:
        with console.status("Loading PyTorch"):
            yield
            from transformers.utils import logging

            logging.disable_progress_bar()
            logging.set_verbosity_error()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("textgym", "textgym_agents"):
            raise
        raise TextGymError(
            f"This needs the agents extra, but {error.name!r} is not installed: pip install 'textgym[agents]'"
        ) from error
