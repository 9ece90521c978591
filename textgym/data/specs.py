"""What the environment argument ``dataset`` stands for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from textgym.core import SPLITS, Example, Split, expected
from textgym.data.presets import PRESETS, Preset
from textgym.data.records import PromptError, Reading
from textgym.data.sources import Rows, hub_rows, local_rows

_KEYS = {
    "hub", "preset", "path", "config", "revision", "splits", "columns", "prompt_words", "template", "labels",
}  # fmt: skip
_FOLDS = 10  # one row in so many of a training split becomes dev where there is no dev split


def dataset_examples(dataset: object, template: str, split: Split) -> Iterator[Example]:
    """The examples of ``split`` of a data set.

    Args:
        dataset: ``"hub:PRESET"`` (see :data:`textgym.data.PRESETS`), ``"hub:owner/name"``, or a mapping with

            * one of ``preset`` (a name), ``hub`` (a preset's name or ``owner/name``); with ``path``, the data set is read from
              there instead (see :func:`textgym.data.sources.local_rows`), and ``path`` alone is any file of one's own;
            * of a Hub data set ``config``, ``revision``, and ``splits``, such as
              ``{"train": "train[:5000]", "dev": "validation"}``;
            * ``columns``, ``prompt_words``, ``template``, ``labels``: see :class:`textgym.data.records.Reading`. A preset
              knows all that; ``columns`` reads its rows in another way.
        template: The task's, where the data set has none of its own.
        split: ``"train"``, ``"dev"`` or ``"test"``.

    Raises:
        PromptError: A bad entry, an unknown preset, or a source that cannot be read.
        TypeError: ``dataset`` is neither a text nor a mapping that JSON can hold.
        ImportError: The package ``datasets`` is needed and not installed.
    """
    spec = _mapping(dataset)
    preset = _preset(spec)
    if preset is not None:
        spec = {
            "config": preset.config,
            "revision": preset.revision,
            "splits": preset.splits,
            **spec,
            "hub": preset.hub,
        }
        if preset.template is not None and "columns" not in spec:
            template = preset.template
    reading, origin = Reading.of(spec, template), str(spec.get("path") or spec["hub"])
    rows = _rows(spec, preset, split)
    if preset is None or "columns" in spec:
        return (reading.example(row, f"record {number} of {origin}") for number, row in rows)
    words = preset.prompt_words if reading.prompt_words is None else reading.prompt_words
    records = _records(preset, words, rows, origin)
    reading = Reading(template=reading.template)
    examples = (reading.example(record, where) for where, record in records)
    return _merged(examples) if preset.merge else examples


def _mapping(dataset: object) -> dict[str, Any]:
    if isinstance(dataset, str):
        if not dataset.startswith("hub:") or not dataset[4:]:
            raise PromptError(
                expected(
                    "dataset", dataset, "'hub:' and the name of a preset or of a data set of the Hub, or a mapping"
                )
            )
        return {"hub": dataset[4:]}
    try:
        json.dumps(dataset)
    except (TypeError, ValueError) as error:
        raise TypeError(expected("dataset", dataset, "a text or a mapping that JSON can hold")) from error
    if not isinstance(dataset, Mapping):
        raise TypeError(expected("dataset", dataset, "a text or a mapping that JSON can hold"))
    if unknown := set(dataset) - _KEYS:
        raise PromptError(expected("dataset", sorted(map(str, unknown)), f"a mapping with keys among {sorted(_KEYS)}"))
    if not {"hub", "preset", "path"} & set(dataset) or {"hub", "preset"} <= set(dataset):
        raise PromptError(expected("dataset", dataset, "a mapping with 'hub' or 'preset', or with 'path'"))
    for name in ("hub", "preset", "path", "config", "revision"):
        if name in dataset and not isinstance(dataset[name], str) and not (name == "config" and dataset[name] is None):
            raise PromptError(expected(name, dataset[name], "a text"))
    splits = dataset.get("splits", {})
    if (
        not isinstance(splits, Mapping)
        or set(splits) - set(SPLITS)
        or not all(isinstance(s, str) for s in splits.values())
    ):
        raise PromptError(expected("splits", splits, f"a mapping of {SPLITS} to the data set's own names"))
    return dict(dataset)


def _preset(spec: Mapping[str, Any]) -> Preset | None:
    name = spec.get("preset", spec.get("hub"))
    if name is None or name in PRESETS:
        return None if name is None else PRESETS[name]
    if "preset" in spec or "/" not in name:
        raise PromptError(expected("dataset", name, f"a preset, one of {sorted(PRESETS)}, or 'owner/name' of the Hub"))
    return None


def _rows(spec: Mapping[str, Any], preset: Preset | None, split: Split) -> Rows:
    """The rows of the split; where a preset has no dev split, a tenth of train."""
    own = "splits" not in spec or spec["splits"] is (preset and preset.splits)
    folded = preset is not None and preset.dev_of_train and own and split != "test"
    folded = folded and ("path" not in spec or "{split}" in spec["path"] or Path(spec["path"]).is_dir())
    source: Split = "train" if folded else split
    if "path" in spec:
        rows = local_rows(spec["path"], source)
    else:
        name = {"dev": "validation", **spec.get("splits", {})}.get(source, source)
        rows = hub_rows(spec["hub"], spec.get("config"), name, spec.get("revision"))
    if not folded:
        return rows
    return (pair for i, pair in enumerate(rows) if (i % _FOLDS == _FOLDS - 1) == (split == "dev"))


def _records(preset: Preset, words: int | None, rows: Rows, origin: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in rows:
        where = f"record {number} of {origin}"
        if not isinstance(row, Mapping):
            raise PromptError(f"{where}: " + expected("record", row, "a mapping of column names to values"))
        try:
            records = list(preset.convert(row, words, where))
        except PromptError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError) as error:  # a value of another kind than the schema's
            raise PromptError(
                f"{where} is not of the schema of {preset.hub!r}: {type(error).__name__}: {error}"
            ) from error
        yield from ((where, record) for record in records)


def _merged(examples: Iterable[Example]) -> Iterator[Example]:
    found: dict[str, Example] = {}
    for example in examples:
        known = found.get(example.prompt, example)
        references = tuple(dict.fromkeys((*known.references, *example.references)))
        found[example.prompt] = Example(known.prompt, references, known.meta)
    yield from found.values()
