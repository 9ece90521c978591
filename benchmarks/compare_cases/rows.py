"""A row of the report: what was compared, how it came out, against which target."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from compare_cases.pairing import Rounds, take_turns
from compare_cases.peers import Peers, PeersMissingError
from compare_cases.workers import Worker, WorkerError
from compare_cases.workload import SAME_LENGTHS, SAME_MODEL

MOST_IDLE_WORK = 0.02  # share of the machine that a waiting worker may use before the report warns


@dataclass
class Context:
    """What every comparison is run with."""

    prompts: Path
    repetitions: int
    patience: float
    peers: Callable[[], Peers]  # raises PeersMissingError


@dataclass(frozen=True)
class Side:
    """A worker that can be started."""

    name: str
    module: str  # of this package
    options: Mapping[str, Any] = field(default_factory=dict)
    python: Literal["ours", "trl", "trl with ppo"] = "ours"

    def start(self, context: Context, folder: Path) -> Worker:
        """The worker, not yet running.

        Raises:
            PeersMissingError: It needs the peers, and they are not there.
        """
        python, path = sys.executable, list(filter(None, [os.environ.get("PYTHONPATH")]))
        if self.python != "ours":
            peers = context.peers()
            python, path = str(peers.python), [str(peers.ppo_folder)] if self.python == "trl with ppo" else []
        asked = {**self.options, "prompts": str(context.prompts), "folder": str(folder)}
        command = (python, "-m", f"compare_cases.{self.module}", json.dumps(asked))
        return Worker(self.name, command, folder, path)


@dataclass
class Row:
    """One line of the table."""

    name: str
    ours: str
    peer: str
    target: float
    at_most: bool = False  # the target is a limit from above
    unit: str = "×"
    same: str = ""
    differs: str = ""
    status: Literal["measured", "not run", "failed"] = "not run"
    reason: str = ""
    ratio: float | None = None  # median of the rounds
    ratios: list[float] = field(default_factory=list)
    quiet: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the target was; ``None`` where nothing was measured."""
        if self.ratio is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def measured(self, ratios: Sequence[float], rounds: Rounds | None = None) -> Row:
        """Takes the result."""
        self.status, self.ratios, self.ratio = "measured", list(ratios), statistics.median(ratios)
        if rounds is not None:
            self.details.update(rounds.to_json())
            self.quiet = rounds.quiet
            if max(share for found in rounds.counted for share in found.idle) > MOST_IDLE_WORK:
                self.reason = "a waiting worker used the CPU"
        return self

    def to_json(self) -> dict[str, Any]:
        """Everything, the verdict included."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True)
class Comparison:
    """One of ours against one of a peer's, by tokens a second."""

    name: str
    ours: Side
    peer: Side
    target: float
    same: str = ""
    differs: str = ""
    common: str = f"{SAME_MODEL}; {SAME_LENGTHS}"
    optional: bool = False  # runs only when asked for

    def run(self, context: Context) -> Row:
        """Measures it, or says why not."""
        same = "; ".join(part for part in (self.common, self.same) if part)
        row = Row(self.name, self.ours.name, self.peer.name, self.target, same=same, differs=self.differs)
        return guarded(row, lambda: self._run(row, context))

    def _run(self, row: Row, context: Context) -> None:
        rounds, workers = measure((self.ours, self.peer), context)
        row.details["facts"] = {worker.name: worker.facts for worker in workers}
        row.measured(rounds.ratios(), rounds)


def measure(sides: Sequence[Side], context: Context) -> tuple[Rounds, list[Worker]]:
    """Starts the sides, one after the other, so that no warm-up disturbs another, and lets them take turns."""
    with tempfile.TemporaryDirectory(prefix="textgym-compare-") as made, ExitStack() as stack:
        workers: list[Worker] = []
        for i, side in enumerate(sides):
            folder = Path(made) / str(i)
            folder.mkdir()
            workers.append(stack.enter_context(side.start(context, folder)))
            workers[-1].wait_until_ready()
        return take_turns(workers, context.repetitions, patience=context.patience), workers


def guarded(row: Row, run: Callable[[], None]) -> Row:
    """The row after ``run``; a failure is written into it and never stops the other rows."""
    try:
        run()
    except PeersMissingError as error:
        row.status, row.reason = "not run", str(error)
    except WorkerError as error:
        row.status, row.reason = "failed", str(error)
    return row
