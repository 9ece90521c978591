"""One file that holds an algorithm: settings as JSON, tensors as safetensors, in a zip. Loading it runs nobody's code."""

from __future__ import annotations

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import Tensor

from textgym.core import TextGymError

FORMAT = 1
_CONFIG = "config.json"


class CheckpointError(TextGymError, ValueError):
    """A checkpoint cannot be written, or is not one."""


@dataclass
class Checkpoint:
    """What is in the file.

    Attributes:
        config: JSON-able settings and counters.
        tensors: Groups of named tensors, such as ``{"policy": state_dict, ...}``.
    """

    config: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def write_checkpoint(path: str | pathlib.Path | io.BufferedIOBase, checkpoint: Checkpoint) -> None:
    """Writes it; a file appears complete or not at all (written beside, flushed, renamed).

    Args:
        path: A path (``.zip`` is added unless it ends so) or a binary file object.
        checkpoint: What to write.

    Raises:
        CheckpointError: The settings cannot be written as JSON.
    """
    try:
        text = json.dumps({"format": FORMAT, **checkpoint.config}, indent=1, allow_nan=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"Could not write the settings as JSON: {error}") from error
    if isinstance(path, (str, pathlib.Path)):
        target = _with_suffix(pathlib.Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                _write(file, text, checkpoint.tensors)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    else:
        _write(path, text, checkpoint.tensors)


def _write(file: Any, text: str, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_CONFIG, text)
        for group, named in tensors.items():
            plain = {
                k: v.detach().cpu().contiguous().clone() for k, v in named.items()
            }  # safetensors wants no shared memory
            archive.writestr(f"{group}.safetensors", save_tensors(plain))


def read_checkpoint(path: str | pathlib.Path | io.BufferedIOBase) -> Checkpoint:
    """Reads what :func:`write_checkpoint` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is not a checkpoint (a pickle of stock SB3, for one), is damaged, or of a newer format.
    """
    if isinstance(path, (str, pathlib.Path)):
        path = find_file(path)
        if not path.is_file():
            raise FileNotFoundError(f"Expected a saved algorithm, but there is no file {str(path)!r}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if _CONFIG not in names:
                raise CheckpointError(
                    f"{path!s} is a zip, but not of textgym: expected {_CONFIG!r} in it, actual: {sorted(names)[:8]}"
                )
            config = json.loads(archive.read(_CONFIG))
            groups = [n.removesuffix(".safetensors") for n in names if n.endswith(".safetensors")]
            tensors = {group: load_tensors(archive.read(f"{group}.safetensors")) for group in groups}
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"Could not read {path!s} as a saved algorithm: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else config
        raise CheckpointError(f"Expected a file of format {FORMAT}, actual: {found!r} in {path!s}")
    return Checkpoint(config, tensors)


def find_file(path: str | pathlib.Path) -> pathlib.Path:
    """The file that is meant: ``path``, or if there is none of that name, with ``.zip``."""
    plain = pathlib.Path(path)
    return plain if plain.is_file() else _with_suffix(plain)


def _with_suffix(path: pathlib.Path) -> pathlib.Path:
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


# ---- values that JSON does not know ------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A hyperparameter as JSON: numbers, text, lists and dicts as they are, SB3's schedules and torch's optimizers by name.

    Any other object becomes a note that :func:`from_json` refuses, so that a file can be written, and loaded with the object
    given anew (``custom_objects``).
    """
    if isinstance(value, FloatSchedule):
        value = value.value_schedule
    if isinstance(value, ConstantSchedule):
        return to_json(value.val)
    if isinstance(value, LinearSchedule):
        return {"__linear_schedule__": [value.start, value.end, value.end_fraction]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, pathlib.Path):
        return str(value)
    name = getattr(value, "__name__", "")
    if isinstance(value, type) and vars(torch.optim).get(name) is value:
        return {"__optimizer__": name}
    return {"__object__": getattr(value, "__qualname__", type(value).__qualname__)}


def from_json(name: str, value: Any) -> Any:
    """The inverse of :func:`to_json`.

    Raises:
        CheckpointError: ``value`` notes an object that JSON could not hold.
    """
    if isinstance(value, dict):
        if "__linear_schedule__" in value:
            return LinearSchedule(*value["__linear_schedule__"])
        if "__optimizer__" in value:
            optimizer = getattr(torch.optim, value["__optimizer__"], None)
            if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
                raise CheckpointError(
                    f"Expected {name!r} to name an optimizer of torch.optim, actual: {value['__optimizer__']!r}"
                )
            return optimizer
        if "__object__" in value:
            raise CheckpointError(
                f"{name!r} was {value['__object__']!r}, which is code and is not stored; give it anew: "
                f"load(path, custom_objects={{{name!r}: ...}})"
            )
        return {k: from_json(name, v) for k, v in value.items()}
    if isinstance(value, list):
        return [from_json(name, v) for v in value]
    return value


def flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's ``state_dict`` as tensors, and the rest as JSON."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                scalars[f"{index}.{key}"] = value
    groups = [
        {k: v.item() if isinstance(v, Tensor) else to_json(v) for k, v in g.items()} for g in state["param_groups"]
    ]
    return tensors, {"param_groups": groups, "scalars": scalars}


def unflatten_optimizer(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten_optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *rest["scalars"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": rest["param_groups"]}
