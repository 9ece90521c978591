"""The side of a worker: does a piece of work whenever the parent says "go". Standard library only: peers' Pythons import it.

One line of JSON an answer on standard output, which is kept for that: whatever else is printed goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP = 2  # steps before the first repetition; the last of them says how many steps a repetition has


class Session:
    """Turns a loop of equal steps into repetitions of at least about a second, with a wait before each.

    A trainer owns its loop, so this is made to be called from a callback: `begin()` before the first step, `tick(tokens)` at
    the end of each. Between repetitions `tick` blocks in a read of standard input, which uses no CPU. It raises `SystemExit`
    when the parent has closed the pipe.
    """

    def __init__(self, least_seconds: float = 1.0, warm_up: int = WARM_UP) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._least, self._warm_up = least_seconds, warm_up
        self._steps, self._wanted, self._tokens = 0, 0, 0
        self._began = (0.0, 0.0)

    def begin(self, **facts: Any) -> None:
        """Starts the warm-up. ``facts`` are told to the parent once it is over."""
        self._facts = facts
        self._began = _clocks()

    def tick(self, tokens: int) -> None:
        """A step that made ``tokens`` tokens is over."""
        wall, cpu = _clocks()
        self._steps += 1
        self._tokens += tokens
        if not self._wanted:  # warming up
            if self._steps == self._warm_up:
                self._wanted = max(1, math.ceil(self._least / max(1e-6, wall - self._began[0])))
                self._answer(ready=True, steps=self._wanted, **self._facts)
                self._wait()
            else:
                self._began = _clocks()
        elif self._steps == self._wanted:
            self._answer(seconds=wall - self._began[0], cpu_seconds=cpu - self._began[1], tokens=self._tokens)
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if line.strip() != "go":
            raise SystemExit(0)
        self._steps = self._tokens = 0
        self._began = _clocks()

    def _answer(self, **answer: Any) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def serve(step: Callable[[], int], session: Session, **facts: Any) -> None:
    """Serves a function that does one step and returns its tokens, until the parent closes the pipe."""
    session.begin(**facts)
    while True:
        session.tick(step())


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def options() -> dict[str, Any]:
    """What the parent asked for: the JSON object that is the only argument on the command line."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found
