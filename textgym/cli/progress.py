"""How a training run shows itself: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from textgym.cli.tables import duration
from textgym_agents.runs.callbacks import Observer

_SECONDS_BETWEEN_LINES = 5.0


class TerminalObserver(Observer):
    """Shows a run on a console; a context manager, which takes the bar away at its end."""

    def __init__(self, console: Console) -> None:
        """Args: console: Where to; it knows whether it is a terminal."""
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[news]}"),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title, self._total, self._done, self._last_line = "", 0, 0, 0.0
        self._values: Mapping[str, Any] = {}
        self._rate = _Rate()

    def __enter__(self) -> TerminalObserver:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def phase(self, title: str, total: int, done: int = 0) -> None:
        """See :meth:`Observer.phase`."""
        self._title, self._total, self._done, self._values = title, total, done, {}
        self._rate = _Rate()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(title, total=total, completed=done, news="")
        if not self.console.is_terminal:
            self.console.print(f"{title} ...")
        self._last_line = time.monotonic()

    def advance(self, done: int) -> None:
        """See :meth:`Observer.advance`."""
        self._done = done
        self._show()

    def metrics(self, values: Mapping[str, Any]) -> None:
        """See :meth:`Observer.metrics`."""
        self._values = values
        self._rate.add(self._done)
        self._show()

    def note(self, text: str) -> None:
        """See :meth:`Observer.note`."""
        self.console.print(Text(text, style="yellow"), soft_wrap=True)

    def _show(self) -> None:
        news = self._news()
        if self._task is not None:
            self._bar.update(self._task, completed=self._done, news=news)
        if self.console.is_terminal or not self._values or time.monotonic() - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = time.monotonic()
        share = min(1.0, self._done / max(1, self._total))
        line = f"{self._title} {share:4.0%}  {self._done:,}/{self._total:,} tokens  {news}"
        self.console.print(line, soft_wrap=True)

    def _news(self) -> str:
        parts = [
            f"{label} {self._values[key]:.{digits}f}"
            for label, key, digits in (("reward", "rollout/ep_rew_mean", 2), ("KL", "rollout/kl", 1))
            if isinstance(self._values.get(key), (int, float)) and math.isfinite(self._values[key])
        ]
        rate = self._rate.per_second
        if self._values and rate:
            left = max(0, self._total - self._done) / rate
            parts += [f"{rate:,.0f} tokens/s", f"{duration(left)} left"]
        return "  ".join(parts)


class _Rate:
    """Tokens a second over the last few iterations, each with its rollout and its updates."""

    def __init__(self, window: int = 10) -> None:
        self._points: list[tuple[float, int]] = []
        self._window = window

    def add(self, done: int) -> None:
        """An iteration's rollout has ended at ``done`` tokens."""
        self._points = [*self._points, (time.monotonic(), done)][-self._window :]

    @property
    def per_second(self) -> float:
        """0 while nothing is known."""
        if len(self._points) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._points[0], self._points[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
