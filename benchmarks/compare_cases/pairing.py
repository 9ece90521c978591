"""Workers that take turns, so that a drift of the machine hits all of them alike, and ratios of neighbours in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from measuring import CORES, cpu_seconds_of, foreign_share, look_at_clocks, wait_until_quiet

from compare_cases.workers import Answer, Worker


@dataclass
class Round:
    """One repetition of every worker, in their order."""

    answers: list[Answer]
    foreign: list[float]  # share of the machine that others used in each
    idle: list[float]  # ... and that the workers used whose turn it was not; they should use none


@dataclass
class Rounds:
    """The rounds that count."""

    names: list[str]
    counted: list[Round] = field(default_factory=list)
    discarded: int = 0
    quiet: bool = True  # false: not enough quiet windows, so that busy rounds count as well

    def rates(self, which: int) -> list[float]:
        """Tokens a second of a worker, once a round."""
        return [found.answers[which].rate for found in self.counted]

    def ratios(self, which: int = 0, over: int = 1) -> list[float]:
        """How many times as fast one worker was as another, round by round."""
        return [found.answers[which].rate / found.answers[over].rate for found in self.counted]

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {
            "sides": {
                name: {
                    "tokens_per_second": statistics.median(self.rates(i)),
                    "repetitions": [asdict(found.answers[i]) for found in self.counted],
                    "foreign": [found.foreign[i] for found in self.counted],
                    "idle_workers": [found.idle[i] for found in self.counted],
                }
                for i, name in enumerate(self.names)
            },
            "discarded_rounds": self.discarded,
            "quiet": self.quiet,
        }


def take_turns(workers: Sequence[Worker], repetitions: int, limit: float = 0.05, patience: float = 300.0) -> Rounds:
    """Lets every worker do a repetition, in their order, and again until ``repetitions`` rounds count.

    Args:
        workers: Ready. Only one works at a time; the others wait.
        repetitions: Rounds that count.
        limit: A round in which others used more of the machine during a repetition is thrown away as a whole.
        patience: Seconds that may be spent on waiting for quiet, all in all; then busy rounds count as well.
    """
    found, left = Rounds([worker.name for worker in workers]), patience
    pids = [worker.pid for worker in workers]
    while len(found.counted) < repetitions:
        began = time.perf_counter()
        wait_until_quiet(limit, max(0.0, left), pids)
        left -= time.perf_counter() - began
        one, began = Round([], [], []), time.perf_counter()
        for worker in workers:
            idlers = [pid for pid in pids if pid != worker.pid]
            before, idle = look_at_clocks(pids), sum(map(cpu_seconds_of, idlers))
            one.answers.append(worker.go())
            after, idle = look_at_clocks(pids), sum(map(cpu_seconds_of, idlers)) - idle
            one.foreign.append(round(foreign_share(before, after), 4))
            one.idle.append(round(idle / ((after[0] - before[0]) * CORES), 4))
            if one.foreign[-1] > limit and left > 0:
                break
        if max(one.foreign) > limit and left > 0:
            found.discarded += 1
            left -= time.perf_counter() - began
            continue
        found.quiet &= max(one.foreign) <= limit
        found.counted.append(one)
    return found
