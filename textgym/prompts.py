"""Where an environment's prompts come from: the task's generator, a list, a JSON Lines file, a Hugging Face dataset."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textgym.core import SPLITS, Example, Split, TextGymError, expected
from textgym.tasks import Task, split_of


class PromptError(TextGymError, ValueError):
    """Prompts cannot be read, or do not fit the environment."""


class Prompts(ABC):
    """Draws examples."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Example:
        """One example, by ``rng`` alone."""


@dataclass(frozen=True)
class GeneratedPrompts(Prompts):
    """The examples of one split that a task's generator writes; they do not end."""

    task: Task
    split: Split
    difficulty: str

    def draw(self, rng: np.random.Generator) -> Example:
        """See :meth:`Prompts.draw`."""
        while True:
            example = self.task.sample(rng, self.difficulty)
            if split_of(example.prompt) == self.split:
                return example


@dataclass(frozen=True)
class FixedPrompts(Prompts, Sequence[Example]):
    """A given set of examples, drawn uniformly with replacement; also a sequence, for going through it once."""

    examples: tuple[Example, ...]

    def draw(self, rng: np.random.Generator) -> Example:
        """See :meth:`Prompts.draw`."""
        return self.examples[int(rng.integers(len(self.examples)))]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        """The example (or the slice of examples) at ``index``."""
        return self.examples[index]


_SPLIT_NAMES: dict[object, Split] = {**{s: s for s in SPLITS}, "validation": "dev", "valid": "dev"}
"""What data sets call the splits."""


def load_prompts(prompts: object, task: Task, split: Split, difficulty: str) -> Prompts:
    """The prompts that ``prompts`` stands for.

    Args:
        prompts: One of

            * ``None``: the task's own generator;
            * a list of texts, :class:`Example` or mappings with ``prompt`` and, if wanted, ``references`` and more
              (everything else becomes ``meta``); it is taken as the split asked for;
            * the path of a JSON Lines file (``.jsonl``, also ``.jsonl.gz``) of such mappings. ``{split}`` in the path is
              replaced by the split's name. Records that have a ``split`` are filtered by it; else the file is taken as
              the split asked for;
            * a Hugging Face ``Dataset`` (taken as the split asked for) or ``DatasetDict`` (its ``train``,
              ``dev``/``validation``, ``test``);
            * a mapping ``{"path": ..., "columns": {"prompt": "text"}, "prompt_words": 6}``: a file with other column
              names, of whose prompts only the first words are taken;
            * a mapping of split names to any of the above; or a :class:`Prompts`.
        task: Writes the prompts where none are given.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        difficulty: Level of the generator.

    Raises:
        PromptError: A file that cannot be read, a missing column, an empty or ill-typed prompt, no prompts at all.
        TypeError: Something else.
    """
    if prompts is None:
        return GeneratedPrompts(task, split, difficulty)
    if isinstance(prompts, Prompts):
        return prompts
    if isinstance(prompts, (str, Path)):
        return _fixed(_read_lines(prompts, split), {}, None, split, origin=str(prompts))
    if isinstance(prompts, Mapping):
        if "path" in prompts:
            return _from_mapping(prompts, split)
        names = [name for name, means in _SPLIT_NAMES.items() if means == split]
        found = next((name for name in names if name in prompts), None)
        if found is None:
            raise PromptError(
                expected("prompts", sorted(map(str, prompts)), f"a mapping with 'path', or with the split {split!r}")
            )
        return load_prompts(prompts[found], task, split, difficulty)
    if isinstance(prompts, Iterable) and not hasattr(prompts, "columns"):  # a data frame would give its columns' names
        return _fixed(enumerate(prompts), {}, None, split, origin="prompts")
    raise TypeError(expected("prompts", prompts, "None, a list, the path of a JSON Lines file, a dataset or a mapping"))


def _from_mapping(spec: Mapping[str, Any], split: Split) -> FixedPrompts:
    known = {"path", "columns", "prompt_words"}
    if unknown := set(spec) - known:
        raise PromptError(expected("prompts", sorted(map(str, unknown)), f"a mapping with keys among {sorted(known)}"))
    words = spec.get("prompt_words")
    if words is not None and (isinstance(words, bool) or not isinstance(words, int) or words < 1):
        raise PromptError(expected("prompt_words", words, "None or a whole number of at least 1"))
    columns = spec.get("columns", {})
    if not isinstance(columns, Mapping) or set(columns) - {"prompt", "references"}:
        raise PromptError(expected("columns", columns, "a mapping of 'prompt' and 'references' to column names"))
    return _fixed(_read_lines(spec["path"], split), columns, words, split, origin=str(spec["path"]))


def _read_lines(path: str | Path, split: Split) -> Iterator[tuple[int, Any]]:
    file = Path(str(path).replace("{split}", split))
    if not os.path.isfile(file):  # not `file.is_file()`, which raises where a text is too long for a path
        raise PromptError(f"Expected `prompts` to be the path of a JSON Lines file, but there is no file {str(file)!r}")
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


def _fixed(
    records: Iterable[tuple[int, Any]], columns: Mapping[str, str], words: int | None, split: Split, *, origin: str
) -> FixedPrompts:
    examples = []
    for number, record in records:
        where = f"record {number} of {origin}"
        example = _example(record, columns, where)
        wanted = example.meta.get("split")
        if wanted is not None and wanted not in list(_SPLIT_NAMES):  # a list: what came need not be hashable
            raise PromptError(f"{where}: " + expected("split", wanted, f"one of {SPLITS}"))
        if wanted is not None and _SPLIT_NAMES[wanted] != split:
            continue
        if words is not None:
            start = " ".join(example.prompt.split()[:words])
            example = Example(start, example.references, example.meta)
        examples.append(example)
    if not examples:
        raise PromptError(f"Expected at least one prompt for the split {split!r}, but {origin} has none")
    return FixedPrompts(tuple(examples))


def _example(record: Any, columns: Mapping[str, str], where: str) -> Example:
    if isinstance(record, Example):
        example = record
    elif isinstance(record, str):
        example = Example(record)
    elif isinstance(record, Mapping):
        fields = dict(record)
        prompt_column, references_column = columns.get("prompt", "prompt"), columns.get("references", "references")
        if prompt_column not in fields:
            raise PromptError(f"{where} has no column {prompt_column!r}, only {sorted(map(str, fields))}")
        if "references" in columns and references_column not in fields:
            raise PromptError(f"{where} has no column {references_column!r}, only {sorted(map(str, fields))}")
        prompt = fields.pop(prompt_column)
        references = fields.pop(references_column, ())
        references = (references,) if isinstance(references, str) else references
        if not isinstance(references, (list, tuple)) or not all(isinstance(r, str) for r in references):
            raise PromptError(f"{where}: " + expected("references", references, "a text or a list of texts"))
        example = Example(prompt, tuple(references), fields)
    else:
        raise PromptError(f"{where}: " + expected("prompt", record, "a text, an Example or a mapping with 'prompt'"))
    if not isinstance(example.prompt, str) or not example.prompt.strip():
        raise PromptError(f"{where}: " + expected("prompt", example.prompt, "a text that is not empty"))
    return example
