"""Ready settings for the public data sets of the GRUE benchmark (Ramamurthy et al. 2022, https://arxiv.org/abs/2210.01241).

Each says where a data set lies on the Hub, what its splits are called, and what a row of it becomes. The schemas, as the
Hub has them (checked against their documentation, not against the Hub itself):

============= ================================================================================================
imdb          ``text``, ``label`` (0 negative, 1 positive)
cnn_dailymail ``article``, ``highlights``, ``id``
common_gen    ``concept_set_idx``, ``concepts`` (list of words), ``target`` (a sentence; a row each; empty in test)
totto         ``id``, ``table_page_title``, ``table_webpage_url``, ``table_section_title``, ``table_section_text``, ``table``
              (rows of cells ``{column_span, is_header, row_span, value}``), ``highlighted_cells`` (pairs of row and column),
              ``example_id``, ``sentence_annotations`` (``final_sentence`` and others, each a list), ``overlap_subset``
narrativeqa   ``document`` (``id``, ``summary`` with ``text``, ...), ``question`` and ``answers`` (each with ``text``)
iwslt2017     ``translation`` (``de``, ``en``)
daily_dialog  ``dialog`` (list of utterances), ``act``, ``emotion`` (a number an utterance)
============= ================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from textgym.core import Split
from textgym.data.records import first_words, value_at
from textgym.data.sources import CONVERTED

Row = Mapping[str, Any]
Convert = Callable[[Row, "int | None", str], Iterable[dict[str, Any]]]
"""From a row, ``prompt_words`` and where the row is (for errors) to records with ``prompt``, ``references`` and ``meta``."""

_SENTIMENTS = ("negative", "positive")
_HISTORY = 5  # utterances before the one to be written, as in GRUE


@dataclass(frozen=True)
class Preset:
    """What is known of a data set.

    Attributes:
        hub: Its name on the Hub.
        task: Short name of the task that it is meant for; any other takes it as well.
        convert: Makes records of a row.
        config: Its configuration on the Hub.
        revision: See :func:`textgym.data.sources.hub_rows`.
        splits: Its own names of the splits; a split that it lacks is missing here.
        dev_of_train: It has no dev split: every tenth row of the training split becomes dev, and is not in train.
        merge: Rows with the same prompt are one example with all their references.
        prompt_words: Default of ``prompt_words``.
        template: In place of the task's own.
    """

    hub: str
    task: str
    convert: Convert
    config: str | None = None
    revision: str | None = None
    splits: Mapping[Split, str] = field(default_factory=lambda: {"train": "train", "dev": "validation", "test": "test"})
    dev_of_train: bool = False
    merge: bool = False
    prompt_words: int | None = None
    template: str | None = None


def _text(row: Row, where: str) -> tuple[str, str]:
    """Text and label of a review of IMDB, which has line breaks of HTML in it."""
    label = value_at(row, "label", where)
    return re.sub(r"\s*<br />\s*", " ", value_at(row, "text", where)), _SENTIMENTS[label] if label in (0, 1) else ""


def _imdb(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    text, label = _text(row, where)
    prompt = first_words(text, words)
    yield {"prompt": prompt, "references": " ".join(text.split()[len(prompt.split()) :]), "label": label}


def _imdb_labels(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    text, label = _text(row, where)
    yield {"prompt": first_words(text, words), "references": label}


def _cnn_dailymail(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    prompt = first_words(value_at(row, "article", where), words)
    yield {"prompt": prompt, "references": value_at(row, "highlights", where), "id": row.get("id")}


def _common_gen(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    concepts = list(value_at(row, "concepts", where))
    meta = {"words": concepts, "concept_set_idx": row.get("concept_set_idx")}
    yield {"prompt": ", ".join(concepts), "references": value_at(row, "target", where), **meta}


def _totto(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    """Highlighted cells as ``column[value]``, after the titles; columns are named by the nearest header above the cell."""
    table, cells = value_at(row, "table", where), value_at(row, "highlighted_cells", where)
    titles = [
        [name, value_at(row, f"table_{name.replace(' ', '_')}", where)] for name in ("page title", "section title")
    ]
    grid = _grid(table)
    told = [[_header(table, grid, r, c), value_at(table[r][c], "value", where).strip()] for r, c in cells]
    shown = [[name, value] for name, value in (*titles, *told) if value]
    yield {
        "prompt": first_words(", ".join(f"{name}[{value}]" for name, value in shown), words),
        "references": list(value_at(row, "sentence_annotations.final_sentence", where)),
        "table": [[name, value] for name, value in (titles[0], *told) if value],
        "example_id": row.get("example_id"),
    }


def _grid(table: Any) -> list[list[int]]:
    """The column that each cell of each row begins in, once cells that span several rows or columns have taken theirs."""
    taken: set[tuple[int, int]] = set()
    starts: list[list[int]] = []
    for r, cells in enumerate(table):
        starts.append([])
        column = 0
        for cell in cells:
            while (r, column) in taken:
                column += 1
            starts[-1].append(column)
            for down in range(cell.get("row_span", 1)):
                taken.update((r + down, column + i) for i in range(cell.get("column_span", 1)))
            column += cell.get("column_span", 1)
    return starts


def _header(table: Any, grid: list[list[int]], row: int, cell: int) -> str:
    column = grid[row][cell]
    for r in range(row - 1, -1, -1):
        for start, above in zip(grid[r], table[r], strict=True):
            if above.get("is_header") and start <= column < start + above.get("column_span", 1):
                return str(above["value"]).strip() or "value"
    return "value"


def _narrativeqa(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    """``prompt_words`` shortens the summary, not the question."""
    summary = first_words(value_at(row, "document.summary.text", where).strip(), words)
    question = value_at(row, "question.text", where).strip()
    answers = value_at(row, "answers.text", where)
    document = value_at(row, "document", where).get("id")
    yield {"prompt": f"Passage: {summary}\nQuestion: {question}", "references": answers, "document": document}


def _iwslt2017(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    german, english = (value_at(row, f"translation.{language}", where) for language in ("de", "en"))
    yield {"prompt": first_words(german, words), "references": english}


def _daily_dialog(row: Row, words: int | None, where: str) -> Iterable[dict[str, Any]]:
    """An example for every utterance but the first; ``prompt_words`` drops the oldest utterances before it."""
    dialog = [utterance.strip() for utterance in value_at(row, "dialog", where)]
    for turn in range(1, len(dialog)):
        first = max(0, turn - _HISTORY)
        while words is not None and first < turn - 1 and len(" ".join(dialog[first:turn]).split()) > words:
            first += 1
        lines = [f"{'AB'[i % 2]}: {dialog[i]}" for i in range(first, turn)]
        acts = {name: row[name][turn] for name in ("act", "emotion") if name in row}
        yield {"prompt": "\n".join([*lines, f"{'AB'[turn % 2]}:"]), "references": dialog[turn], "turn": turn, **acts}


PRESETS: dict[str, Preset] = {
    "cnn_dailymail": Preset("abisee/cnn_dailymail", "summarize", _cnn_dailymail, "3.0.0"),
    "common_gen": Preset("allenai/common_gen", "concepts", _common_gen, merge=True),
    "daily_dialog": Preset(
        "li2017dailydialog/daily_dialog", "reply", _daily_dialog, revision=CONVERTED, template="{prompt}"
    ),
    "imdb": Preset(
        "stanfordnlp/imdb",
        "sentiment",
        _imdb,
        splits={"train": "train", "test": "test"},
        dev_of_train=True,
        prompt_words=6,
    ),
    "imdb_labels": Preset(
        "stanfordnlp/imdb", "classify", _imdb_labels, splits={"train": "train", "test": "test"}, dev_of_train=True
    ),
    "iwslt2017": Preset("IWSLT/iwslt2017", "translate", _iwslt2017, "iwslt2017-en-de", CONVERTED),
    "narrativeqa": Preset("deepmind/narrativeqa", "answer", _narrativeqa),
    "totto": Preset("google-research-datasets/totto", "describe", _totto, revision=CONVERTED),
}
"""Presets by name."""
