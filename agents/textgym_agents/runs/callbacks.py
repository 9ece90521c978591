"""What happens beside a training: its log, its checkpoints, its samples, and how it is told to stop."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat, filter_excluded_keys
from torch.utils.tensorboard import SummaryWriter

from textgym_agents.runs.folder import RunFolder
from textgym_agents.runs.validation import Validation

KEPT_CHECKPOINTS = 3


class Observer:
    """Is told how a run goes on; does nothing with it. Command lines and notebooks override what they show."""

    def phase(self, title: str, total: int, done: int = 0) -> None:
        """A stage begins that ends at ``total`` (tokens of a training, prompts of an evaluation) and stands at ``done``."""

    def advance(self, done: int) -> None:
        """How far the stage is."""

    def metrics(self, values: Mapping[str, Any]) -> None:
        """What the algorithm has logged in an iteration."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class CsvLog(KVWriter):
    """``progress.csv``: goes on with the file that is there, while SB3's starts anew."""

    def __init__(self, path: Path) -> None:
        """Args: path: The file."""
        self.path = path
        self.names: list[str] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.names = next(csv.reader(file), [])

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Adds a row; a name that was not there before becomes a new column at the right."""
        row = {k: _plain(v) for k, v in filter_excluded_keys(key_values, key_excluded, "csv").items()}
        fresh = sorted(set(row) - set(self.names))
        if fresh:
            rows: list[dict[str, Any]] = []
            if self.names:
                with self.path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            self.names += fresh
            with self.path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.names)
                writer.writeheader()
                writer.writerows(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.names).writerow(row)

    def close(self) -> None:
        """Nothing is open between two rows."""


class TensorBoardLog(TensorBoardOutputFormat):
    """TensorBoard's events; those of a first run after ``timesteps`` are hidden, as they are about to come again."""

    def __init__(self, folder: Path, timesteps: int) -> None:
        """Args: folder: Of the events. timesteps: Where training starts."""
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=timesteps + 1 if timesteps else None)
        self._is_closed = False


class ObserverLog(KVWriter):
    """Hands every row to an observer."""

    def __init__(self, observer: Observer) -> None:
        """Args: observer: Who gets them."""
        self.observer = observer

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """One iteration."""
        self.observer.metrics({k: _plain(v) for k, v in key_values.items()})

    def close(self) -> None:
        """Nothing to close."""


class StopSignals:
    """While entered, SIGINT and SIGTERM ask for a stop instead of causing one.

    Outside of :attr:`patient` stretches, and at the second signal, they raise ``KeyboardInterrupt``.

    Attributes:
        requested: Whether a signal came.
        patient: Whether somebody looks at ``requested``.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        """Args: on_request: Called at the first signal of a patient stretch."""
        self.requested = self.patient = False
        self._on_request = on_request
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # the only one that may
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.patient:
            raise KeyboardInterrupt
        self.requested = True
        self._on_request()


class RunCallback(BaseCallback):
    """Checkpoints and samples between two rollouts, news for the observer, and the end when a signal asks for it.

    Attributes:
        boundary: Tokens at the beginning of the rollout that is being played, where a checkpoint would continue.
    """

    def __init__(
        self,
        folder: RunFolder,
        observer: Observer,
        signals: StopSignals,
        checkpoint_every: int,
        sample_every: float,
        write_samples: Callable[[int], None],
        validation: Validation | None = None,
    ) -> None:
        """Args: folder, observer, signals, validation: Of the run. checkpoint_every, sample_every: Tokens."""
        super().__init__()
        self.folder, self.observer, self.signals = folder, observer, signals
        self.checkpoint_every, self.sample_every = checkpoint_every, sample_every
        self.write_samples, self.validation = write_samples, validation
        self.boundary: int | None = None
        self._stopped = False

    def save(self) -> Path:
        """Writes a checkpoint."""
        path = self.folder.checkpoint(self.boundary or 0)
        self.model.save(path)
        self.folder.prune(KEPT_CHECKPOINTS, None if self.validation is None else self.validation.best)
        return path

    def validate(self) -> None:
        """Scores the policy of the checkpoint to come, unless it has learned nothing yet; the score is a row of its own."""
        timesteps = self.boundary or 0
        if self.validation is None or self.model._n_updates == 0 or timesteps in self.validation.scores:
            return
        row = {"eval/mean_reward": self.validation.add(timesteps), "time/total_timesteps": timesteps}
        for output in self.logger.output_formats:
            if not isinstance(output, ObserverLog):  # which shows the last row
                output.write(row, dict.fromkeys(row, ()), timesteps)

    def _on_rollout_start(self) -> None:
        before, now = self.boundary, self.model.num_timesteps
        self.boundary = now
        if before is None:
            return
        if now // self.sample_every > before // self.sample_every:
            self.write_samples(now)
        if now // self.checkpoint_every > before // self.checkpoint_every:  # at the same times, stopped or not
            self.validate()
            self.save()

    def _on_step(self) -> bool:
        self.observer.advance(self.num_timesteps)
        self._stopped = self.signals.requested or (self.validation is not None and self.validation.over)
        return not self._stopped

    def _on_training_end(self) -> None:
        if not self._stopped:  # else the rollout was not finished
            self.boundary = self.model.num_timesteps


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and np.size(value) == 1 else value
