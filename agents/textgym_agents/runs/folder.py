"""The folder of a training run: what lies where, and how it is read back."""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from textgym.core import TextGymError, whole_number

_CHECKPOINT = re.compile(r"tokens-(\d+)\.zip")


class RunError(TextGymError, ValueError):
    """A folder is not that of a training run, or cannot become one."""


@dataclass
class RunConfig:
    """Everything that decides a run, JSON-able.

    Attributes:
        env_id: Environment id.
        algo: Name of the algorithm, see :data:`textgym_agents.algorithms.registry.ALGORITHMS`.
        total_timesteps: Tokens to train for.
        seed: Of everything random.
        hyperparameters: Keyword arguments of the algorithm, ``n_envs`` and ``policy_kwargs`` (less the model) among them.
        model: ``name`` (``"bundled"``, a folder, a Hub id) and ``parameters`` (their number).
        env_kwargs: Arguments of the training environments; the split is ``"train"``.
        eval_prompts: Held-out prompts, if they are not those of the environment's ``"dev"`` split.
        eval_episodes: Number of held-out prompts that the run is judged by.
        checkpoint_every: Tokens between two checkpoints.
        patience: Checkpoints in a row that may score no better on validation prompts before training ends; the best one is then
            the result. ``None``: train to the end and take the last.
        tensorboard: Whether events for TensorBoard are written.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        versions: Of Python and the packages that matter.
        command: The command line that started it.
    """

    env_id: str
    algo: str
    total_timesteps: int
    seed: int
    hyperparameters: dict[str, Any]
    model: dict[str, Any]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    eval_prompts: Any = None
    eval_episodes: int = 200
    checkpoint_every: int = 20_000
    patience: int | None = None
    tensorboard: bool = True
    device: str = "auto"
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("total_timesteps", "eval_episodes", "checkpoint_every"):
            whole_number(name, getattr(self, name), 1)
        if self.patience is not None:
            whole_number("patience", self.patience, 1)

    @property
    def eval_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment with the held-out prompts."""
        prompts = {} if self.eval_prompts is None else {"prompts": self.eval_prompts, "dataset": None}
        return {**self.env_kwargs, **prompts, "split": "dev"}


class RunFolder:
    """Files of a run.

    ``config.json``, ``progress.csv``, ``samples.jsonl``, ``checkpoints/``, ``model.zip``, ``evaluation.json``,
    ``validation.json`` (with a patience), ``episodes.json``, ``learning_curve.png``, ``report.html`` and TensorBoard's events.
    """

    def __init__(self, path: str | Path) -> None:
        """Args: path: The folder, which need not exist yet."""
        self.path = Path(path)
        self.progress, self.samples = self.path / "progress.csv", self.path / "samples.jsonl"
        self.model = self.path / "model.zip"

    def check_free(self) -> None:
        """Makes sure that a new run can be put here.

        Raises:
            RunError: There is something already.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            known = (self.path / "config.json").is_file()
            hint = f"to go on with that run: textgym train --resume {self.path}" if known else "choose another --out"
            raise RunError(f"Expected an empty or new folder for the run, but {str(self.path)!r} is not empty; {hint}")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"Expected a folder for the run, but {str(self.path)!r} is a file")

    def write_config(self, config: RunConfig) -> None:
        """Writes ``config.json``, and makes the folder if there is none."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", asdict(config))

    def read_config(self) -> RunConfig:
        """Reads ``config.json``.

        Raises:
            RunError: There is none, or it is not that of a run.
        """
        stored = self.read_json("config.json")
        if stored is None:
            what = "has no config.json" if self.path.is_dir() else "does not exist"
            raise RunError(f"Expected the folder of a training run, but {str(self.path)!r} {what}")
        names = {f.name for f in fields(RunConfig)}
        try:
            return RunConfig(**{k: v for k, v in stored.items() if k in names})
        except (AttributeError, TypeError, ValueError) as error:
            raise RunError(f"{str(self.path / 'config.json')!r} is not that of a training run: {error}") from error

    def read_json(self, name: str) -> Any:
        """What is in a JSON file of the folder; ``None`` if there is no such file.

        Raises:
            RunError: It is not JSON.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"Could not read {str(self.path / name)!r} as JSON: {error}") from error

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file of the folder; it appears complete or not at all."""
        _replace(self.path / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def append_samples(self, records: Iterable[dict[str, Any]]) -> None:
        """Adds lines to ``samples.jsonl``."""
        with self.samples.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def checkpoint(self, timesteps: int) -> Path:
        """Where the checkpoint of this many tokens lies."""
        return self.path / "checkpoints" / f"tokens-{timesteps:09d}.zip"

    def checkpoints(self) -> list[tuple[int, Path]]:
        """All checkpoints by their number of tokens, the oldest first."""
        found = [(m, p) for p in (self.path / "checkpoints").glob("*.zip") if (m := _CHECKPOINT.fullmatch(p.name))]
        return sorted((int(m.group(1)), p) for m, p in found)

    def prune(self, keep: int, best: int | None = None) -> None:
        """Deletes checkpoints but the newest ``keep`` and that of ``best`` tokens, and what a killed run left half-written."""
        for timesteps, path in self.checkpoints()[:-keep]:
            if timesteps != best:
                path.unlink(missing_ok=True)
        for path in (self.path / "checkpoints").glob(".*.zip.*"):
            path.unlink(missing_ok=True)

    def publish(self, checkpoint: Path) -> None:
        """Makes ``model.zip`` the same file as a checkpoint, or a copy of it where the disk has no links."""
        temporary = self.path / ".model.zip"
        temporary.unlink(missing_ok=True)
        try:
            os.link(checkpoint, temporary)
        except OSError:
            temporary.write_bytes(checkpoint.read_bytes())
        os.replace(temporary, self.model)

    def saved_model(self) -> Path:
        """``model.zip``, or the newest checkpoint where training has not ended.

        Raises:
            RunError: There is neither.
        """
        if self.model.is_file():
            return self.model
        saved = self.checkpoints()
        if not saved:
            raise RunError(
                f"The run {str(self.path)!r} has saved no model yet; go on with: textgym train --resume {self.path}"
            )
        return saved[-1][1]

    def rewind(self, timesteps: int) -> None:
        """Drops what the log, the samples and the scores say of the time after ``timesteps``; it is about to come again."""
        if scores := self.read_json("validation.json"):
            self.write_json("validation.json", [row for row in scores if row["timesteps"] <= timesteps])
        if self.samples.is_file():
            lines = self.samples.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _timesteps_of(line) <= timesteps]
            _replace(self.samples, "".join(line + "\n" for line in kept))
        if self.progress.is_file():
            with self.progress.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            with self.progress.open("w", newline="", encoding="utf-8") as file:
                if rows:
                    writer = csv.DictWriter(file, [name for name in rows[0] if name is not None], extrasaction="ignore")
                    writer.writeheader()
                    writer.writerows(r for r in rows if float(r.get("time/total_timesteps") or "inf") <= timesteps)


def find_run(path: str | Path) -> tuple[RunFolder | None, Path]:
    """The run and the saved model that ``path`` means: a run folder, or a zip inside or outside of one.

    Raises:
        RunError: Neither; or a run without a saved model.
    """
    path = Path(path)
    if path.is_file():
        homes = [folder for folder in path.resolve().parents[:2] if (folder / "config.json").is_file()]
        return (RunFolder(homes[0]) if homes else None), path
    if not path.is_dir():
        raise RunError(f"Expected the folder of a training run or a saved model, but there is no {str(path)!r}")
    folder = RunFolder(path)
    folder.read_config()
    return folder, folder.saved_model()


def _timesteps_of(line: str) -> float:
    try:
        return float(json.loads(line)["timesteps"])
    except (ValueError, KeyError, TypeError):  # a line that a killed run left half-written
        return float("inf")


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
