"""The parent's side of a worker: starts it, tells it to go, reads its answers, and says why it failed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compare_cases.workload import THREADS

BENCHMARKS = Path(__file__).resolve().parents[1]


class WorkerError(RuntimeError):
    """A worker died, hung, or answered something else; the message has the end of its standard error."""


@dataclass(frozen=True)
class Answer:
    """One repetition, by the worker's own clock."""

    seconds: float
    cpu_seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@dataclass
class Worker:
    """A process that sets up once, warms up, and does a repetition whenever it is told to."""

    name: str
    command: Sequence[str]
    folder: Path  # its own: working directory and temporary files
    python_path: Sequence[str] = ()
    patience: float = 600.0  # most seconds for the set-up, and for a repetition
    facts: dict[str, Any] = field(default_factory=dict)  # what it told when it was ready
    waits: bool = False  # for its next turn; otherwise it is at work, or dead

    def __enter__(self) -> Worker:
        self._errors = tempfile.TemporaryFile(dir=self.folder)
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self.folder,
            env=self._environment(),
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # where it is dead already
            self._process.stdin.close()  # a worker that waits ends by itself
        try:
            self._process.wait(timeout=10 if self.waits else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Returns once it has set up and warmed up.

        Raises:
            WorkerError: It has not.
        """
        answer = self._read()
        if answer.pop("ready", None) is not True:
            raise WorkerError(f"{self.name}: expected it to be ready, actual answer: {answer}")
        self.facts = answer

    def go(self) -> Answer:
        """One repetition.

        Raises:
            WorkerError: It died or hung.
        """
        assert self._process.stdin is not None
        self.waits = False
        with contextlib.suppress(BrokenPipeError):  # `_read` says what it died of
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        answer = self._read()
        try:
            return Answer(float(answer["seconds"]), float(answer["cpu_seconds"]), int(answer["tokens"]))
        except KeyError as error:
            raise WorkerError(f"{self.name}: expected {error} in its answer, actual: {answer}") from None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], self.patience)
        if not ready:
            raise WorkerError(f"{self.name}: no answer within {self.patience:g} s{self._last_words()}")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerError(f"{self.name}: ended with exit status {code}{self._last_words()}")
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise WorkerError(f"{self.name}: expected a line of JSON, actual: {line!r}") from None
        self.waits = True
        return answer

    def _last_words(self, lines: int = 8) -> str:
        self._errors.seek(0)
        found = self._errors.read().decode(errors="replace").strip().splitlines()[-lines:]
        return "; the end of its standard error:\n" + "\n".join(found) if found else ""

    def _environment(self) -> dict[str, str]:
        """Offline, no GPU, as many threads on all sides; nothing on the path but this folder and what was asked for."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *self.python_path]),
            "OMP_NUM_THREADS": str(THREADS),
            "MKL_NUM_THREADS": str(THREADS),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TRL_EXPERIMENTAL_SILENCE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TMPDIR": str(self.folder),
        }
