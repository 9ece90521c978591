"""What people said of texts, read from JSON Lines or lists of mappings: scores, comparisons and rankings."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from textgym.core import Split, TextGymError, expected
from textgym.data.records import PromptError
from textgym.data.sources import given_rows

Kind = Literal["scores", "comparisons", "rankings"]
Dataset = str | os.PathLike[str] | Sequence[Mapping[str, Any]]
"""A file (JSON Lines, also ``.gz``; Parquet), or its records."""

_FORMS = "'text' with 'rating' or 'ratings'; 'chosen' with 'rejected'; or 'completions' with 'ranks' or 'ratings'"


class DataError(TextGymError, ValueError):
    """A record has something else than it should; the message names its number, the field and what was expected."""


@dataclass(frozen=True)
class Judged:
    """One record: texts, and what was said of them.

    Attributes:
        texts: Prompt and completion as one text each; one for a score, two of a comparison, several of a ranking.
        values: One a text, higher is better. Of scores and rankings with ``ratings``: the ratings.
        votes: Single ratings of the text of a score; the rating itself if there are none.
        kind: What the record is.
        rated: Whether ``values`` are ratings, rather than an order alone.
        where: The record's place, for errors.
    """

    texts: tuple[str, ...]
    values: tuple[float, ...]
    votes: tuple[float, ...]
    kind: Kind
    rated: bool
    where: str


def read_judgements(dataset: Dataset, name: str = "train_dataset", split: Split = "train") -> list[Judged]:
    """Reads a data set; all of its records are of one kind.

    * Scores: ``text`` (or ``completion``), ``rating`` (or ``score``), or the single votes ``ratings``, whose mean is the
      rating where none is given.
    * Comparisons, by TRL's names: ``chosen``, ``rejected``. What else there is (``score_chosen``, ...) is not read.
    * Rankings: ``completions``, at least two, with ``ranks`` (1 is the best; equal ones are ties) or ``ratings`` (higher is
      better).

    Each may have a ``prompt``, which is put in front as it is. These are also the formats that ``textgym rate`` writes.

    Args:
        dataset: A file or its records.
        name: What errors call it.
        split: What ``{split}`` in a path stands for.

    Raises:
        DataError: It cannot be read, is empty, has records of several kinds, or a record has a bad field.
    """
    try:
        rows = given_rows(dataset, name, split)
    except (PromptError, TypeError) as error:
        raise DataError(str(error)) from error
    name = str(dataset) if isinstance(dataset, (str, os.PathLike)) else name
    read = [_judged(record, f"{name}, record {i}") for i, record in rows]
    found = [item for item in read if item is not None]
    if not found:
        raise DataError(f"Expected {name!r} to have at least one record, actual: {len(rows)} of which none can be used")
    first = found[0]
    for item in found:
        if item.kind != first.kind:
            raise DataError(f"{item.where}: expected {first.kind}, as in {first.where}, actual: {item.kind}")
    return found


def _judged(record: Any, where: str) -> Judged | None:
    """The record, read; ``None`` for a comparison that ended in a tie, as ``textgym rate`` writes it."""
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: " + expected("record", record, f"a mapping with {_FORMS}"))
    prompt = _text(record, "prompt", where) if record.get("prompt") is not None else ""
    if "chosen" in record or "rejected" in record:
        texts = tuple(prompt + _text(record, key, where) for key in ("chosen", "rejected"))
        return Judged(texts, (1.0, 0.0), (), "comparisons", False, where)
    if "better" in record and record["better"] is None:
        return None
    if "completions" in record:
        return _ranking(record, prompt, where)
    key = next((key for key in ("text", "completion") if key in record), None)
    if key is None:
        raise DataError(f"{where}: " + expected("record", record, f"a mapping with {_FORMS}"))
    text = prompt + _text(record, key, where)
    votes = _numbers(record, "ratings", where) if record.get("ratings") is not None else ()
    given = next((key for key in ("rating", "score") if record.get(key) is not None), None)
    if given is None and not votes:
        raise DataError(
            f"{where}: " + expected("rating", record.get("rating"), "a finite number, or `ratings` a list of some")
        )
    rating = _number(record[given], given, where) if given else math.fsum(votes) / len(votes)
    return Judged((text,), (rating,), votes or (rating,), "scores", True, where)


def _ranking(record: Mapping[str, Any], prompt: str, where: str) -> Judged:
    completions = record["completions"]
    good = isinstance(completions, (list, tuple)) and len(completions) >= 2
    if not good or not all(isinstance(text, str) for text in completions):
        raise DataError(f"{where}: " + expected("completions", completions, "a list of at least two texts"))
    key = next((key for key in ("ranks", "ratings") if record.get(key) is not None), None)
    if key is None:
        raise DataError(f"{where}: " + expected("ranks", record.get("ranks"), "a list of numbers, or `ratings` one"))
    values = _numbers(record, key, where)
    if len(values) != len(completions):
        raise DataError(
            f"{where}: " + expected(key, record[key], f"{len(completions)} numbers, one for each completion")
        )
    if key == "ranks":
        values = tuple(-value for value in values)
    return Judged(tuple(prompt + text for text in completions), values, (), "rankings", key == "ratings", where)


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: " + expected(key, value, "a text"))
    return value


def _number(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{where}: " + expected(key, value, "a finite number"))
    return float(value)


def _numbers(record: Mapping[str, Any], key: str, where: str) -> tuple[float, ...]:
    values = record[key]
    if not isinstance(values, (list, tuple)) or not values:
        raise DataError(f"{where}: " + expected(key, values, "a list of finite numbers"))
    return tuple(_number(value, key, where) for value in values)
