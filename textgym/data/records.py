"""From a record of somebody's data (a text, a mapping, a row of a data set) to an ``Example``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from textgym.core import SPLITS, Example, Split, TextGymError, expected

_STEP = re.compile(r"\[-?\d+\]|[^.\[\]]+")


class PromptError(TextGymError, ValueError):
    """Prompts cannot be read, or do not fit the environment."""


SPLIT_NAMES: dict[object, Split] = {**{s: s for s in SPLITS}, "validation": "dev", "valid": "dev"}
"""What data sets call the splits."""


def names_of(split: Split) -> list[str]:
    """What data sets call ``split``, our own name first."""
    return [str(name) for name, means in SPLIT_NAMES.items() if means == split]


@dataclass(frozen=True)
class Reading:
    """How records are read.

    Attributes:
        columns: Where ``prompt``, ``references`` and further names, which become ``meta``, are found; see :func:`value_at`.
        prompt_words: Take only this many words, the first, of the prompt.
        template: What the prompt is put into, ``{prompt}`` standing for it.
        labels: Texts of references that are numbers, as ``{"0": "negative", "1": "positive"}``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    prompt_words: int | None = None
    template: str = "{prompt}"
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Mapping[str, Any], template: str) -> Reading:
        """The reading that a mapping of a user's asks for; ``template`` unless it has its own.

        Raises:
            PromptError: An entry of ``spec`` is bad.
        """
        words, columns = spec.get("prompt_words"), spec.get("columns", {})
        if words is not None and (isinstance(words, bool) or not isinstance(words, int) or words < 1):
            raise PromptError(expected("prompt_words", words, "None or a whole number of at least 1"))
        texts = isinstance(columns, Mapping) and all(isinstance(c, str) and c for c in (*columns, *columns.values()))
        if not texts or ("prompt" in columns.values() and "prompt" not in columns):  # the wrong way round
            raise PromptError(expected("columns", columns, "a mapping of 'prompt' and 'references' to column names"))
        template = spec.get("template", template)
        if not isinstance(template, str) or "{prompt}" not in template:
            raise PromptError(expected("template", template, "a text with {prompt} in it"))
        given = spec.get("labels", {})
        labels = dict(enumerate(given)) if isinstance(given, (list, tuple)) else given
        if not isinstance(labels, Mapping) or not all(isinstance(label, str) for label in labels.values()):
            raise PromptError(expected("labels", given, "a list of texts, or a mapping of numbers to texts"))
        return cls(columns, words, template, {str(number): label for number, label in labels.items()})

    def example(self, record: Any, where: str) -> Example:
        """The example that ``record`` stands for; an :class:`Example` is taken as it is.

        Raises:
            PromptError: A column is missing or has something else than a text; the message begins with ``where``.
        """
        if isinstance(record, Example):
            return _checked(record, where)
        references: tuple[str, ...] = ()
        meta: dict[str, Any] = {}
        if isinstance(record, str):
            prompt: Any = record
        elif isinstance(record, Mapping):
            prompt, references, meta = self._fields(record, where)
        else:
            raise PromptError(
                f"{where}: " + expected("prompt", record, "a text, an Example or a mapping with 'prompt'")
            )
        _checked(Example(prompt), where)
        if self.prompt_words is not None:
            prompt = first_words(prompt, self.prompt_words)
        return Example(self.template.replace("{prompt}", prompt), references, meta)

    def _fields(self, record: Mapping[str, Any], where: str) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
        columns = {"prompt": "prompt", **self.columns}
        if "references" in record:
            columns.setdefault("references", "references")
        found = {name: value_at(record, column, where) for name, column in columns.items()}
        prompt, references = found.pop("prompt"), found.pop("references", ())
        used = set(columns.values())
        meta = {**{key: value for key, value in record.items() if key not in used}, **found}
        return prompt, self._references(references, where), meta

    def _references(self, value: Any, where: str) -> tuple[str, ...]:
        """One text or several; blank ones are none."""
        values = [] if value is None else list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
        texts = [self.labels.get(str(v), v) for v in values] if self.labels else values
        if not all(isinstance(text, str) for text in texts):
            what = "a text or a list of texts" + (f", or one of the labels {list(self.labels)}" if self.labels else "")
            raise PromptError(f"{where}: " + expected("references", value, what))
        return tuple(text for text in texts if text.strip())


def value_at(record: Mapping[str, Any], column: str, where: str) -> Any:
    """What ``column`` of ``record`` has.

    Args:
        record: A row.
        column: A name, or a path through nested values: ``"translation.de"``, ``"dialog[0]"``, ``"answers.text"`` (of a list
            of mappings: the text of each).
        where: The beginning of an error's message.

    Raises:
        PromptError: There is no such column; the message says which there are.
    """
    if column in record:
        return record[column]
    value: Any = record
    passed = ""
    for step in _STEP.findall(column):
        value = _step(value, step, column, passed, where)
        passed += step if step.startswith("[") or not passed else f".{step}"
    return value


def _step(value: Any, step: str, column: str, passed: str, where: str) -> Any:
    index = step.strip("[]")
    if isinstance(value, (list, tuple, np.ndarray)) and (step.startswith("[") or index.isdigit()):
        if -len(value) <= int(index) < len(value):
            return value[int(index)]
        raise PromptError(f"{where} has no column {column!r}: {passed!r} has only {len(value)} entries")
    if isinstance(value, Mapping) and step in value:
        return value[step]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_step(entry, step, column, passed, where) for entry in value]
    if not passed:
        raise PromptError(f"{where} has no column {column!r}, only {sorted(map(str, value))}")
    has = f"only {sorted(map(str, value))}" if isinstance(value, Mapping) else f"no columns, it is {value!r}"
    raise PromptError(f"{where} has no column {column!r}: {passed!r} has {has}")


def first_words(text: str, count: int | None) -> str:
    """The first ``count`` words of ``text``, with single spaces between them; all of it, as it is, for ``None``."""
    return text if count is None else " ".join(text.split()[:count])


def _checked(example: Example, where: str) -> Example:
    if not isinstance(example.prompt, str) or not example.prompt.strip():
        raise PromptError(f"{where}: " + expected("prompt", example.prompt, "a text that is not empty"))
    return example
