"""Honest timing on a machine that others use too: how busy others keep it, and what it is.

The load check needs Linux (`/proc/stat`); elsewhere nothing is waited for and nothing is thrown away.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
CORES = os.cpu_count() or 1
_STAT = Path("/proc/stat")


Clocks = tuple[float, float, float]
"""Wall clock, CPU seconds of the whole machine, CPU seconds of our own processes."""


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds that a process and the children it waited for have used so far; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()  # the name before may hold spaces
    except (OSError, IndexError):
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def look_at_clocks(workers: Iterable[int] = ()) -> Clocks:
    """Now. Own are this process with the children it waited for, and the ``workers``, running children's process ids."""
    own = sum(os.times()[:4]) + sum(cpu_seconds_of(pid) for pid in workers)
    if not _STAT.exists():
        return time.perf_counter(), own, own
    ticks = [int(x) for x in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    working = sum(ticks[:3]) + sum(ticks[5:8])  # not idle, not waiting for a disk; what a hypervisor took away counts
    return time.perf_counter(), working / os.sysconf("SC_CLK_TCK"), own


def foreign_share(before: Clocks, after: Clocks) -> float:
    """Share of all cores that others used between two looks at the clocks, in [0, 1]."""
    wall, machine, own = (b - a for a, b in zip(before, after, strict=True))
    return min(1.0, max(0.0, machine - own) / max(wall * CORES, 1e-9))


def wait_until_quiet(limit: float, patience: float, workers: Iterable[int] = ()) -> bool:
    """Waits until others use less than ``limit`` of the machine; at most ``patience`` seconds. Whether they do."""
    end, workers = time.perf_counter() + patience, tuple(workers)
    while True:
        before = look_at_clocks(workers)
        time.sleep(0.4)
        if foreign_share(before, look_at_clocks(workers)) < limit:
            return True
        if time.perf_counter() > end:
            return False


def machine(*packages: str) -> dict[str, Any]:
    """What a number was measured on."""
    return {
        "cpu": _cpu(),
        "cores": CORES,
        "memory_gib": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("textgym", *packages)},
        "commit": _commit(),
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")},
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
