"""``textgym rate``: a person scores, ranks or compares completions."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from textgym.cli import options
from textgym.cli.options import bad_input, make_console
from textgym.core import TextGymError, expected
from textgym.rendering import harmless
from textgym.rewards.human import checked_scale

Read = Callable[[str, bool], str]
"""From a question, and whether one key answers it, to the answer; an empty text where the input has ended."""

_MOST_KEYS = 9  # candidates that a single digit tells apart


class Mode(str, Enum):
    """What is asked."""

    score = "score"
    rank = "rank"
    compare = "compare"


@dataclass(frozen=True)
class Item:
    """What one answer is about: one completion to score, two to compare, or several to rank, in the file's order."""

    prompt: str
    completions: tuple[str, ...]

    @property
    def id(self) -> str:
        """The same for the same texts, so that ratings are found again in a file that has grown."""
        texts = json.dumps([self.prompt, *self.completions]).encode()
        return hashlib.sha256(texts).hexdigest()[:16]


def rate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines of 'prompt' with 'completion' or 'completions', such as samples.jsonl of a run; or what "
            "'textgym eval --json' wrote.",
            show_default=False,
        ),
    ],
    mode: Annotated[
        Mode,
        typer.Option(help="Score each completion, rank those of a prompt, or compare them two at a time."),
    ] = Mode.score,
    scale: Annotated[tuple[int, int], typer.Option(metavar="LOW HIGH", help="Lowest and highest score.")] = (1, 5),
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON Lines of ratings; goes on where it stopped.",
            show_default="beside FILE: NAME.MODE.jsonl",
        ),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Rate completions yourself: blind, in random order, saved after every answer."""
    console = make_console()
    with bad_input():
        checked_scale(scale)
        items = make_items(read_candidates(file), mode)
        target = out or file.with_name(f"{Path(file.name.removesuffix('.gz')).stem}.{mode.value}.jsonl")
        session = Session(items, mode, scale, target, seed)
    _explain(console, session)
    session.run(console, read_answer)
    rated, skipped, left = session.counts()
    console.print(f"\n{rated} rated, {skipped} skipped, {left} left; written to {target}", soft_wrap=True)


def read_candidates(file: Path) -> dict[str, list[str]]:
    """Completions by prompt, each once.

    Raises:
        TextGymError: The file cannot be read, or a line of it has something else; the message names the line.
    """
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as stream:
            text = stream.read()
    except UnicodeDecodeError as error:
        raise TextGymError(f"{str(file)!r} is not UTF-8 text: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise TextGymError(f"Could not read {str(file)!r}: {error}") from error
    found: dict[str, dict[str, None]] = {}
    for where, record in _records(text, str(file)):
        prompt = record.get("prompt") if isinstance(record, dict) else None
        several = record.get("completions", [record.get("completion")]) if isinstance(record, dict) else []
        good = isinstance(several, list) and several and all(isinstance(completion, str) for completion in several)
        if not isinstance(prompt, str) or not good:
            wanted = "a record with 'prompt' and 'completion' (texts) or 'completions' (a list of texts)"
            raise TextGymError(f"{where}: " + expected("record", record, wanted))
        found.setdefault(prompt, {}).update(dict.fromkeys(several))
    return {prompt: list(completions) for prompt, completions in found.items()}


def _records(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """Records and where they are: lines, or the samples of an evaluation, which is one JSON value over many lines."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("samples"), list):
        yield from ((f"Sample {i} of {file!r}", sample) for i, sample in enumerate(whole["samples"]))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"Line {number} of {file!r}", json.loads(line)
            except ValueError as error:
                raise TextGymError(f"Line {number} of {file!r} is not JSON: {error}") from error


def make_items(candidates: dict[str, list[str]], mode: Mode) -> list[Item]:
    """What is asked about.

    Raises:
        TextGymError: There is nothing to ask, or too much to rank at a time.
    """
    if mode == Mode.score:
        items = [Item(prompt, (text,)) for prompt, texts in candidates.items() for text in texts]
    elif mode == Mode.compare:
        items = [
            Item(prompt, pair) for prompt, texts in candidates.items() for pair in itertools.combinations(texts, 2)
        ]
    else:
        items = [Item(prompt, tuple(texts)) for prompt, texts in candidates.items() if len(texts) > 1]
        if most := [item for item in items if len(item.completions) > _MOST_KEYS]:
            raise TextGymError(
                f"Expected at most {_MOST_KEYS} completions of a prompt to rank, actual: {len(most[0].completions)} of "
                f"{most[0].prompt!r}; --mode compare has no limit"
            )
    if not items:
        what = "at least one record" if mode == Mode.score else "two different completions of the same prompt"
        raise TextGymError(f"Expected {what} to {mode.value}, but there is none")
    return items


class Session:
    """The items that are not rated yet, and the file of those that are."""

    def __init__(self, items: Sequence[Item], mode: Mode, scale: tuple[int, int], out: Path, seed: int) -> None:
        """Args: items: All. mode, scale: What is asked. out: The file, which may have ratings. seed: Of the order.

        Raises:
            TextGymError: ``out`` has something else than ratings of this mode and scale.
        """
        self.mode, self.scale, self.out = mode, scale, out
        order = np.random.default_rng(seed).permutation(len(items))
        self.items = [items[i] for i in order]
        self._seed = seed
        self._ids = {item.id for item in items}
        self._ratings = self._saved()
        self._done = Counter(rating["id"] for rating in self._ratings)

    def run(self, console: Console, read: Read) -> None:
        """Asks until all is rated, the rater quits, or the input ends."""
        while (item := self._next()) is not None:
            shown = self._order(item)
            _show(console, self, item, shown)
            answer = self._answer(read, len(shown))
            if answer is None:
                return
            if answer == "u":
                console.print("One back." if self._undo() else "There is nothing to undo.", style="dim")
            else:
                self._save(self._record(item, shown, answer))

    def counts(self) -> tuple[int, int, int]:
        """Numbers of items that are rated, skipped and left."""
        skipped = {rating["id"] for rating in self._ratings if "skipped" in rating} & self._ids
        done = self._ids & set(self._done)
        return len(done) - len(skipped), len(skipped), len(self._ids) - len(done)

    def question(self, count: int) -> str:
        """What can be answered."""
        low, high = self.scale
        if self.mode == Mode.score:
            return f"score {low} to {high}"
        return "better: 1, 2, or 0 for a tie" if self.mode == Mode.compare else f"best first, such as {_digits(count)}"

    def _answer(self, read: Read, count: int) -> Any:
        """An answer: a number, an order, ``"s"`` or ``"u"``; ``None`` to end."""
        one_key = self.mode == Mode.compare or (self.mode == Mode.score and 0 <= self.scale[0] < self.scale[1] <= 9)
        while True:
            text = read(f"{self.question(count)} [s, u, q]: ", one_key)
            word = text.strip().lower()
            if not text or word == "q":
                return None
            if word in ("s", "u"):
                return word
            if (answer := self._parsed(word, count)) is not None:
                return answer

    def _parsed(self, word: str, count: int) -> int | list[int] | None:
        if self.mode == Mode.rank:
            order = [int(digit) for digit in re.findall(r"[1-9]", word)]
            clean = re.fullmatch(r"[1-9,> ]+", word) is not None
            return order if clean and sorted(order) == list(range(1, count + 1)) else None
        low, high = self.scale if self.mode == Mode.score else (0, 2)
        number = int(word) if re.fullmatch(r"-?[0-9]{1,9}", word) else None
        return number if number is not None and low <= number <= high else None

    def _record(self, item: Item, shown: Sequence[int], answer: Any) -> dict[str, Any]:
        record: dict[str, Any] = {"id": item.id, "mode": self.mode.value, "prompt": item.prompt}
        one = len(item.completions) == 1
        record |= {"completion": item.completions[0]} if one else {"completions": list(item.completions)}
        if answer == "s":
            return {**record, "skipped": True}
        if self.mode == Mode.score:
            return {**record, "score": answer, "scale": list(self.scale)}
        if self.mode == Mode.rank:
            ranks = [0] * len(shown)
            for rank, number in enumerate(answer, start=1):
                ranks[shown[number - 1]] = rank
            return {**record, "ranks": ranks}
        if answer == 0:
            return {**record, "better": None}
        better = shown[answer - 1]
        return {
            **record,
            "better": better,
            "chosen": item.completions[better],
            "rejected": item.completions[1 - better],
        }

    def _order(self, item: Item) -> list[int]:
        """In which order the candidates are shown: the same whenever the item is."""
        rng = np.random.default_rng([self._seed, int(item.id, 16)])
        return [int(i) for i in rng.permutation(len(item.completions))]

    def _next(self) -> Item | None:
        return next((item for item in self.items if item.id not in self._done), None)

    def _save(self, record: dict[str, Any]) -> None:
        with bad_input():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with self.out.open("a", encoding="utf-8", errors="surrogatepass") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        self._ratings.append(record)
        self._done[record["id"]] += 1

    def _undo(self) -> bool:
        if not self._ratings or self._ratings[-1]["id"] not in self._ids:
            return False
        self._done[self._ratings.pop()["id"]] -= 1
        self._done = +self._done
        with bad_input():
            self._rewrite(self._ratings)
        return True

    def _rewrite(self, ratings: Sequence[dict[str, Any]]) -> None:
        temporary = self.out.with_name(f".{self.out.name}.{os.getpid()}.tmp")
        text = "".join(map(_line, ratings))
        temporary.write_text(text, encoding="utf-8", errors="surrogatepass")
        os.replace(temporary, self.out)

    def _saved(self) -> list[dict[str, Any]]:
        if not self.out.exists():
            return []
        *lines, rest = self.out.read_text(encoding="utf-8", errors="surrogatepass").split("\n")
        ratings = []
        for number, line in enumerate(lines, start=1):
            where = f"Line {number} of {str(self.out)!r}"
            try:
                rating = json.loads(line)
            except ValueError as error:
                raise TextGymError(f"{where} is not JSON: {error}") from error
            if not isinstance(rating, dict) or not isinstance(rating.get("id"), str):
                raise TextGymError(f"{where}: " + expected("rating", rating, "one that textgym rate wrote"))
            if rating.get("mode") != self.mode.value or rating.get("scale", list(self.scale)) != list(self.scale):
                asked = f"mode {self.mode.value!r}, scale {self.scale}"
                raise TextGymError(f"{where} is not of {asked}; give another --out, or the options of then")
            ratings.append(rating)
        if rest:  # what a crash left half-written
            self._rewrite(ratings)
        return ratings


def read_answer(question: str, one_key: bool) -> str:
    """Asks at the terminal, where one key is enough if ``one_key``; else reads a line of standard input."""
    if one_key and sys.stdin.isatty():
        typer.echo(question, nl=False)
        key = typer.getchar()
        typer.echo(harmless(key) if key.isprintable() else "")
        return "" if key == "\x04" else f"{key} "  # Ctrl-D
    typer.echo(question, nl=False)
    return sys.stdin.readline()


def _explain(console: Console, session: Session) -> None:
    rated, skipped, left = session.counts()
    before = f", {rated + skipped} done before" if rated + skipped else ""
    console.print(f"{left} to {session.mode.value}{before}; s skips, u undoes, q quits", style="bold")


def _show(console: Console, session: Session, item: Item, shown: Sequence[int]) -> None:
    """The prompt and the candidates, and nothing that tells where they come from."""
    _, _, left = session.counts()
    console.print(f"\n{len(session.items) - left + 1} of {len(session.items)}", style="dim")
    console.print(Text(harmless(item.prompt), style="dim"), soft_wrap=False)
    for number, index in enumerate(shown, start=1):
        label = "" if len(shown) == 1 else f"{number}: "
        console.print(Text.assemble((label, "bold"), (harmless(item.completions[index]), "green")), soft_wrap=False)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _digits(count: int) -> str:
    return "".join(map(str, range(1, count + 1)[::-1]))
