"""Rows of files on this machine, and of data sets of the Hugging Face Hub."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from textgym.core import Split, expected
from textgym.data.records import PromptError, names_of

Rows = Iterable[tuple[int, Any]]
"""Pairs of a number, for messages, and a row."""

CONVERTED = "refs/convert/parquet"
"""The revision in which the Hub keeps, as plain tables, data sets that come with a loading script: we run no such script."""

_OFFLINE = (
    "Offline choices: a copy of it on this machine, dataset={'preset': ..., 'path': 'folder/{split}.jsonl'} or "
    "{'path': ..., 'columns': {...}}; prompts=...; the task's own prompts"
)


def given_rows(
    dataset: str | os.PathLike[str] | Sequence[Any], name: str = "dataset", split: Split = "train"
) -> list[tuple[int, Any]]:
    """Records that somebody gives: those of a file, see :func:`local_rows`, or of a list, which are numbered from 1.

    Args:
        dataset: The path or the list.
        name: What errors call it.
        split: What ``{split}`` in a path stands for.

    Raises:
        PromptError: The file cannot be read, or there is no record.
        TypeError: It is neither.
    """
    if isinstance(dataset, (str, os.PathLike)):
        rows = list(local_rows(os.fspath(dataset), split, name))
    elif isinstance(dataset, Sequence):
        rows = list(enumerate(dataset, start=1))
    else:
        raise TypeError(expected(name, dataset, "a JSON Lines file or a list of records"))
    if not rows:
        raise PromptError(expected(name, dataset, "at least one record"))
    return rows


def local_rows(path: str | Path, split: Split, name: str = "prompts") -> Rows:
    """The rows of a file or folder.

    Args:
        path: JSON Lines (also ``.gz``), Parquet, or a folder that ``datasets`` saved with ``save_to_disk``. ``{split}`` in
            it stands for the split's name, for ``dev`` also ``validation`` and ``valid``.
        split: The split asked for.
        name: What errors call it.

    Raises:
        PromptError: There is no such file, or it cannot be read.
        ImportError: Parquet or a saved data set without the package ``datasets``.
    """
    files = [Path(str(path).replace("{split}", name)) for name in names_of(split)]
    file = next((file for file in files if os.path.exists(file)), files[0])  # not `exists()`: a text may be too long
    if _is_saved(file):
        return _saved_rows(file, split)
    if not os.path.isfile(file):
        raise PromptError(f"Expected `{name}` to be the path of a JSON Lines file, but there is no file {str(file)!r}")
    return _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)


def _is_saved(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in ("state.json", "dataset_dict.json"))


def _json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as lines:  # editors on Windows may begin a file with a mark
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except json.JSONDecodeError as error:
                        raise PromptError(f"Line {number} of {str(file)!r} is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{str(file)!r} is not UTF-8 text: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise PromptError(f"Could not read {str(file)!r}: {error}") from error


def _parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"Reading {str(file)!r} needs datasets: pip install 'textgym[hub]'") from error
    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches():
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise PromptError(f"Could not read {str(file)!r} as Parquet: {error}") from error


def _saved_rows(folder: Path, split: Split) -> Rows:
    datasets = _datasets(f"Reading {str(folder)!r}")
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise PromptError(f"Could not read {str(folder)!r} as a saved data set: {error}") from error
    if not isinstance(found, datasets.DatasetDict):
        return enumerate(found)
    name = next((name for name in names_of(split) if name in found), None)
    if name is None:
        raise PromptError(f"Expected {str(folder)!r} to have the split {split!r}, actual: {sorted(found)}")
    return enumerate(found[name])


def hub_rows(name: str, config: str | None, split: str, revision: str | None) -> Rows:
    """The rows of a data set of the Hub, downloaded on first use; never runs code that comes with it.

    Args:
        name: ``owner/name``.
        config: Its configuration; ``None`` for the default.
        split: Its own name of the split, also with a slice: ``"train[:1000]"``.
        revision: Branch, tag or commit; :data:`CONVERTED` for the Hub's own conversion.

    Raises:
        PromptError: It cannot be loaded; the message names it and the offline choices.
        ImportError: The package ``datasets`` is not installed.
    """
    datasets = _datasets(f"The dataset {name!r} of the Hub")
    part = split.partition("[")[0]
    try:
        if revision == CONVERTED:
            files = f"hf://datasets/{name}@{CONVERTED}/{config or 'default'}/{part}/*.parquet"
            found = datasets.load_dataset("parquet", data_files={part: files}, split=split)
        else:
            found = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # whatever network, cache, file formats and arguments may cause
        reason = (str(error).strip().splitlines() or [""])[0]
        raise PromptError(
            f"Could not load the split {split!r} of the dataset {name!r}{f', {config}' if config else ''}, from the Hugging "
            f"Face Hub: {type(error).__name__}: {reason}. {_OFFLINE}"
        ) from error
    return enumerate(found)


def _datasets(what: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{what} needs datasets: pip install 'textgym[hub]'. {_OFFLINE}") from error
    return datasets
