"""Rewards in a thread of their own, for those that take long: a large reward model, or a judge behind a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.core import Completion

Columns = dict[str, list[Any]]
"""The infos of several episodes, a key at a time; ``None`` where an episode has no such entry."""

Score = Callable[[Sequence[Completion]], tuple[npt.NDArray[np.float32], Columns]]
"""From ``m`` completions to their rewards ``(m,)`` and infos."""


class BackgroundScorer:
    """Scores completions while its caller goes on; what has come in since the last call is scored in one call."""

    def __init__(self, score: Score) -> None:
        """Args: score: Called in one other thread, never twice at a time."""
        self._score = score
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="textgym-rewards")
        self._lock = Lock()
        self._waiting: list[tuple[int, Completion]] = []
        self._calls: list[Future[tuple[list[int], npt.NDArray[np.float32], Columns] | None]] = []

    def put(self, slots: Sequence[int], completions: Sequence[Completion]) -> None:
        """Takes completions of ``slots`` to be scored."""
        with self._lock:
            self._waiting += zip(slots, completions, strict=True)
        self._calls.append(self._thread.submit(self._work))

    def settle(self) -> list[tuple[list[int], npt.NDArray[np.float32], Columns]]:
        """Waits until all are scored; returns the slots, rewards and infos of every call.

        Raises:
            RewardError: The reward failed.
        """
        calls, self._calls = self._calls, []
        return [found for call in calls if (found := call.result()) is not None]

    def close(self) -> None:
        """Forgets what is not scored yet, and ends the thread once its present call is over."""
        with self._lock:
            self._waiting = []
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> tuple[list[int], npt.NDArray[np.float32], Columns] | None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        if not batch:  # a call before has taken it
            return None
        return [slot for slot, _ in batch], *self._score([completion for _, completion in batch])
