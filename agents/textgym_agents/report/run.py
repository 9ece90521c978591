"""What a run folder holds, read and checked.

Every file may be missing, since a run can be interrupted at any time. One that is there must be what it claims to be: a
report of half-understood numbers would be worse than none.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textgym_agents.runs.folder import RunError

TIMESTEPS = "time/total_timesteps"
FILES = ("config.json", "progress.csv", "samples.jsonl", "evaluation.json", "episodes.json")

Interval = tuple[float, float, float]
"""A mean, and the lower and upper end of its interval."""


@dataclass(frozen=True)
class Progress:
    """``progress.csv``: one value per column and logged time, ``None`` where nothing was logged.

    Attributes:
        timesteps: Tokens generated so far, increasing.
        columns: Every column that holds numbers; as long as ``timesteps``.
    """

    timesteps: tuple[int, ...] = ()
    columns: dict[str, list[float | None]] = field(default_factory=dict)

    def points(self, column: str) -> list[tuple[int, float]]:
        """The times at which ``column`` was logged, and its values."""
        values = self.columns.get(column, [])
        return [(t, v) for t, v in zip(self.timesteps, values, strict=False) if v is not None]


@dataclass(frozen=True)
class Sample:
    """One line of ``samples.jsonl``."""

    timesteps: int
    prompt: str
    completion: str
    reward: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Measures:
    """Results on the held-out prompts at one time; ``None`` where something was not measured."""

    episodes: int | None
    reward: Interval | None
    success: Interval | None
    kl: float | None
    perplexity: float | None
    distinct_1: float | None
    distinct_2: float | None
    length: float | None
    parts: dict[str, Interval]


@dataclass(frozen=True)
class Token:
    """One token of a recorded episode; see :func:`textgym_agents.runs.inspection.record_episodes`."""

    text: str
    probability: float
    reference_probability: float
    value: float
    kl: float
    reward: float
    advantage: float


@dataclass(frozen=True)
class Episode:
    """One recorded episode."""

    prompt: str
    tokens: list[Token]
    total: float
    finish_reason: str


@dataclass(frozen=True)
class Run:
    """All there is to know of a run.

    Attributes:
        config: ``config.json`` as it is; empty without one.
        progress: The log.
        samples: All samples, oldest first.
        before: Results before training.
        after: Results after training; ``None`` where it was interrupted.
        best: Tokens that the policy of ``after`` was trained for, where that is known.
        episodes: Recorded episodes.
        missing: The files that were not there.
    """

    config: dict[str, Any]
    progress: Progress
    samples: list[Sample]
    before: Measures | None
    after: Measures | None
    best: int | None
    episodes: list[Episode]
    missing: frozenset[str]


def read_run(run_dir: Path) -> Run:
    """Reads a run folder.

    Raises:
        RunError: It is no folder, or a file in it is malformed; the message names the file and the place.
    """
    if not run_dir.is_dir():
        raise RunError(f"Expected the folder of a training run, but {str(run_dir)!r} is not a folder")
    texts = {name: _text(run_dir / name) for name in FILES}

    def parsed(name: str, parse: Callable[[str], Any], empty: Any) -> Any:
        text = texts[name]
        if text is None:
            return empty
        try:
            return parse(text)
        except _Malformed as error:
            raise RunError(f"Could not read {str(run_dir / name)!r}: {error}") from error

    before, after, best = parsed("evaluation.json", _evaluation, (None, None, None))
    return Run(
        config=parsed("config.json", _config, {}),
        progress=parsed("progress.csv", _progress, Progress()),
        samples=parsed("samples.jsonl", _samples, []),
        before=before,
        after=after,
        best=best,
        episodes=parsed("episodes.json", _episodes, []),
        missing=frozenset(name for name, text in texts.items() if text is None),
    )


def read_progress(run_dir: Path) -> Progress:
    """Reads only ``progress.csv``; empty without one.

    Raises:
        RunError: See :func:`read_run`.
    """
    if not run_dir.is_dir():
        raise RunError(f"Expected the folder of a training run, but {str(run_dir)!r} is not a folder")
    path = run_dir / "progress.csv"
    text = _text(path)
    try:
        return Progress() if text is None else _progress(text)
    except _Malformed as error:
        raise RunError(f"Could not read {str(path)!r}: {error}") from error


class _Malformed(Exception):
    """Says what is wrong with the content of a file, but not yet which file."""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"Could not read {str(path)!r}: {error}") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"not JSON: {error}") from error


def _check(condition: bool, where: str, wanted: str, value: object) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        raise _Malformed(f"expected {where} to be {wanted}, actual value: {shown}")


def _number(value: object, where: str) -> float:
    _check(isinstance(value, (int, float)) and not isinstance(value, bool), where, "a number", value)
    assert isinstance(value, (int, float))
    return float(value)


def _count(value: object, where: str) -> int:
    number = _number(value, where)
    _check(math.isfinite(number) and number >= 0 and number == int(number), where, "a whole number", value)
    return int(number)


def _string(value: object, where: str) -> str:
    _check(isinstance(value, str), where, "a string", value)
    assert isinstance(value, str)
    return value


def _object(value: object, where: str) -> dict[str, Any]:
    _check(isinstance(value, dict), where, "an object", value)
    assert isinstance(value, dict)
    return value


def _list(value: object, where: str) -> list[Any]:
    _check(isinstance(value, list), where, "a list", value)
    assert isinstance(value, list)
    return value


def _config(text: str) -> dict[str, Any]:
    config = _object(_json(text), "the file")
    for name in ("env_id", "algo", "command"):
        _string(config.get(name, ""), f"`{name}`")
    for name in ("hyperparameters", "model", "versions"):
        _object(config.get(name, {}), f"`{name}`")
    return config


def _progress(text: str) -> Progress:
    lines = [line for line in csv.reader(text.splitlines()) if line]
    if not lines:  # the log is created before its first row is written
        return Progress()
    header, rows = lines[0], lines[1:]
    _check(TIMESTEPS in header, "the first line", f"a header with the column {TIMESTEPS}", ",".join(header))
    if rows and len(rows[-1]) < len(header) and not text.endswith("\n"):
        rows.pop()  # a run that was killed left it half-written
    by_time: dict[int, dict[str, float]] = {}
    words = set()  # columns with something else than numbers, which nobody could draw
    for line_number, cells in enumerate(rows, start=2):
        _check(len(cells) <= len(header), f"line {line_number}", f"at most {len(header)} cells", cells)
        row: dict[str, float] = {}
        for name, cell in zip(header, cells, strict=False):
            if not cell.strip():
                continue
            try:
                number = float(cell)
            except ValueError:
                known = name == TIMESTEPS or name.startswith(("rollout/", "train/"))
                _check(not known, f"`{name}` in line {line_number}", "a number", cell)
                words.add(name)
                continue
            if math.isfinite(number):
                row[name] = number
        if TIMESTEPS in row:
            # Several rows of one time belong together: SB3 writes evaluations into rows of their own.
            by_time.setdefault(_count(row[TIMESTEPS], f"`{TIMESTEPS}` in line {line_number}"), {}).update(row)
    timesteps = sorted(by_time)
    columns = {n: [by_time[t].get(n) for t in timesteps] for n in header if n != TIMESTEPS and n not in words}
    return Progress(tuple(timesteps), columns)


def _samples(text: str) -> list[Sample]:
    samples = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"in line {number}"
        try:
            record = _object(_json(line), "the line")
        except _Malformed as error:
            raise _Malformed(f"line {number}: {error}") from error
        parts = _object(record.get("parts") or {}, f"`parts` {where}")
        samples.append(
            Sample(
                timesteps=_count(record.get("timesteps"), f"`timesteps` {where}"),
                prompt=_string(record.get("prompt"), f"`prompt` {where}"),
                completion=_string(record.get("completion"), f"`completion` {where}"),
                reward=_number(record.get("reward"), f"`reward` {where}"),
                parts={name: _number(v, f"`parts.{name}` {where}") for name, v in parts.items()},
            )
        )
    return sorted(samples, key=lambda s: s.timesteps)


def _evaluation(text: str) -> tuple[Measures | None, Measures | None, int | None]:
    stored = _object(_json(text), "the file")
    best = None if stored.get("best") is None else _count(stored["best"], "`best`")
    return _measures(stored.get("before"), "before"), _measures(stored.get("after"), "after"), best


def _measures(value: object, where: str) -> Measures | None:
    if value is None:
        return None
    stored = _object(value, f"`{where}`")

    def number(name: str) -> float | None:
        return None if stored.get(name) is None else _number(stored[name], f"`{where}.{name}`")

    def interval(value: object, name: str) -> Interval | None:
        if value is None:
            return None
        three = _list(value, f"`{where}.{name}`")
        _check(len(three) == 3, f"`{where}.{name}`", "[mean, low, high]", three)
        mean, low, high = (_number(x, f"`{where}.{name}`") for x in three)
        return mean, low, high

    parts = {
        name: interval(v, f"parts.{name}") for name, v in _object(stored.get("parts") or {}, f"`{where}.parts`").items()
    }
    return Measures(
        episodes=None if stored.get("episodes") is None else _count(stored["episodes"], f"`{where}.episodes`"),
        reward=interval(stored.get("reward"), "reward"),
        success=interval(stored.get("success"), "success"),
        kl=number("kl"),
        perplexity=number("perplexity"),
        distinct_1=number("distinct_1"),
        distinct_2=number("distinct_2"),
        length=number("length"),
        parts={name: v for name, v in parts.items() if v is not None},
    )


def _episodes(text: str) -> list[Episode]:
    episodes = []
    for i, value in enumerate(_list(_json(text), "the file")):
        where = f"episode {i}"
        stored = _object(value, where)
        tokens = []
        for k, entry in enumerate(_list(stored.get("tokens"), f"`tokens` of {where}")):
            place = f"of token {k} of {where}"
            token = _object(entry, f"token {k} of {where}")
            numbers = {
                name: _number(token.get(name), f"`{name}` {place}")
                for name in ("probability", "reference_probability", "value", "kl", "reward", "advantage")
            }
            tokens.append(Token(text=_string(token.get("text"), f"`text` {place}"), **numbers))
        episodes.append(
            Episode(
                prompt=_string(stored.get("prompt"), f"`prompt` of {where}"),
                tokens=tokens,
                total=_number(stored.get("return"), f"`return` of {where}"),
                finish_reason=_string(stored.get("finish_reason") or "", f"`finish_reason` of {where}"),
            )
        )
    return episodes
