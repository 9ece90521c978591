"""Where an environment's prompts come from: the task's generator, a list, a JSON Lines file, a Hugging Face dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from textgym.core import SPLITS, Example, Split, expected
from textgym.data.records import SPLIT_NAMES, PromptError, Reading, names_of
from textgym.data.sources import Rows, local_rows
from textgym.data.specs import dataset_examples
from textgym.rewards import Reward
from textgym.tasks import Task, split_of

__all__ = [
    "FixedPrompts",
    "GeneratedPrompts",
    "PromptError",
    "Prompts",
    "at_level",
    "check_references",
    "known_difficulty",
    "load_prompts",
]


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


def load_prompts(prompts: object, task: Task, split: Split, difficulty: str, dataset: object = None) -> Prompts:
    """The prompts that ``prompts`` or ``dataset`` stands for.

    Texts and records of a user's own are put into ``task.template``, so that they look like the task's prompts;
    :class:`Example` objects are taken as they are.

    Args:
        prompts: One of

            * ``None``: the task's own generator;
            * a list of texts, :class:`Example` or mappings with ``prompt`` and, if wanted, ``references`` and more
              (everything else becomes ``meta``); it is taken as the split asked for;
            * the path of a JSON Lines file (``.jsonl``, also ``.jsonl.gz``) of such mappings, of a Parquet file, or of a
              folder that ``datasets`` saved. ``{split}`` in the path is replaced by the split's name. Records that have a
              ``split`` are filtered by it; else the file is taken as the split asked for;
            * a Hugging Face ``Dataset`` (taken as the split asked for) or ``DatasetDict`` (its ``train``,
              ``dev``/``validation``, ``test``);
            * a mapping ``{"path": ..., "columns": {"prompt": "text", "stars": "rating"}, "prompt_words": 6, "template":
              "{prompt} Label:", "labels": ["bad", "good"]}``: a file with other column names, of whose prompts
              only the first words are taken, with a template of its own, and with numbers for references; everything but
              ``path`` may be left out. Columns may be nested, see :func:`textgym.data.records.value_at`;
            * a mapping of split names to any of the above; or a :class:`Prompts`.
        task: Writes the prompts where none are given.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        difficulty: Level of the generator.
        dataset: A data set, see :func:`textgym.data.specs.dataset_examples`.

    Raises:
        PromptError: A file that cannot be read, a missing column, an empty or ill-typed prompt, no prompts at all.
        TypeError: Something else.
        ValueError: Both ``prompts`` and ``dataset``.
    """
    if dataset is not None:
        if prompts is not None:
            raise ValueError(expected("prompts", prompts, f"None where a dataset is given ({dataset!r})"))
        return _of_split(enumerate(dataset_examples(dataset, task.template, split)), Reading(), split, f"{dataset!r}")
    if prompts is None:
        return GeneratedPrompts(task, split, difficulty)
    if isinstance(prompts, Prompts):
        return prompts
    reading = Reading(template=task.template)
    if isinstance(prompts, (str, Path)):
        return _of_split(local_rows(prompts, split), reading, split, str(prompts))
    if isinstance(prompts, Mapping):
        if "path" in prompts:
            return _from_mapping(prompts, task, split)
        found = next((name for name in names_of(split) if name in prompts), None)
        if found is None:
            raise PromptError(
                expected("prompts", sorted(map(str, prompts)), f"a mapping with 'path', or with the split {split!r}")
            )
        return load_prompts(prompts[found], task, split, difficulty)
    if isinstance(prompts, Iterable) and not hasattr(prompts, "columns"):  # a data frame would give its columns' names
        return _of_split(enumerate(prompts), reading, split, "prompts")
    raise TypeError(expected("prompts", prompts, "None, a list, the path of a JSON Lines file, a dataset or a mapping"))


def _from_mapping(spec: Mapping[str, Any], task: Task, split: Split) -> FixedPrompts:
    known = {"path", "columns", "labels", "prompt_words", "template"}
    if unknown := set(spec) - known:
        raise PromptError(expected("prompts", sorted(map(str, unknown)), f"a mapping with keys among {sorted(known)}"))
    reading = Reading.of(spec, task.template)
    return _of_split(local_rows(spec["path"], split), reading, split, str(spec["path"]))


def _of_split(rows: Rows, reading: Reading, split: Split, origin: str) -> FixedPrompts:
    """The examples of the rows that belong to ``split``: those that say so, and those that say nothing."""
    examples = []
    for number, row in rows:
        where = f"record {number} of {origin}"
        example = reading.example(row, where)
        wanted = example.meta.get("split")
        if wanted is not None and wanted not in list(SPLIT_NAMES):  # a list: what came need not be hashable
            raise PromptError(f"{where}: " + expected("split", wanted, f"one of {SPLITS}"))
        if wanted is None or SPLIT_NAMES[wanted] == split:
            examples.append(example)
    if not examples:
        raise PromptError(f"Expected at least one prompt for the split {split!r}, but {origin} has none")
    return FixedPrompts(tuple(examples))


def known_difficulty(task: Task, level: object) -> str:
    """``level``, if it is one of the task's.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(level, str) or level not in task.difficulties:
        raise ValueError(expected("difficulty", level, f"one of {task.difficulties}"))
    return level


def at_level(prompts: Prompts, level: str) -> GeneratedPrompts:
    """The prompts of another level of the same task and split.

    Raises:
        ValueError: Not a level of the task.
        PromptError: ``prompts`` do not come from the task's generator.
    """
    if not isinstance(prompts, GeneratedPrompts):
        raise PromptError(
            f"Expected prompts that the task's generator writes, as only they have levels of difficulty, actual: a "
            f"{type(prompts).__name__}"
        )
    return replace(prompts, difficulty=known_difficulty(prompts.task, level))


def check_references(reward: Reward, examples: Sequence[Example]) -> None:
    """Makes sure that every example has references if a part of the reward compares with them.

    Raises:
        PromptError: One has none; the message names reward and prompt.
    """
    lacking = next((example for example in examples if not example.references), None)
    if lacking is None:
        return
    for part in _leaves(reward):
        if getattr(part, "needs_references", False):
            raise PromptError(
                f"Reward {part.name!r} compares with references, but the prompt {lacking.prompt!r} has none"
            )


def _leaves(reward: Reward) -> Iterator[Reward]:
    """The rewards that a sum, a product or a reward around another is made of."""
    parts = [part for _, part in getattr(reward, "terms", ())]
    parts += [getattr(reward, name, None) for name in ("left", "right", "reward")]
    inner = [part for part in parts if isinstance(part, Reward)]
    for part in inner:
        yield from _leaves(part)
    if not inner:
        yield reward
