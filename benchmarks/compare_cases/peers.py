"""The peers' own Python environment: found where the caller says, or made once in a cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "textgym-peers"
TORCH = ("torch==2.13.0",)
TRL = ("trl==1.16.0", "transformers==5.23.0")
LAST_TRL_WITH_PPO = "trl==1.12.0"
PPO_FOLDER = "trl112"


class PeersMissingError(RuntimeError):
    """The peers cannot be run; the message says why."""


@dataclass(frozen=True)
class Peers:
    """Where the peers are."""

    python: Path
    ppo_folder: Path  # goes on PYTHONPATH for TRL's PPO

    def check(self) -> Peers:
        """Itself.

        Raises:
            PeersMissingError: Python, TRL or the folder with its PPO is not there.
        """
        code = "import importlib.metadata as m; print(m.version('trl'), m.version('transformers'), m.version('torch'))"
        try:
            found = subprocess.run([self.python, "-c", code], capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeersMissingError(f"the peers' Python {self.python} does not run: {error}") from error
        if found.returncode:
            raise PeersMissingError(f"the peers' Python {self.python} lacks something: {_last_line(found.stderr)}")
        if not (self.ppo_folder / "trl").is_dir():
            raise PeersMissingError(
                f"expected {LAST_TRL_WITH_PPO} in {self.ppo_folder}: pip install --no-deps --target {self.ppo_folder} "
                f"{LAST_TRL_WITH_PPO}"
            )
        return self


def at(python: Path) -> Peers:
    """Peers whose Python the caller names; TRL 1.12 is in the folder `trl112` beside their environment.

    Raises:
        PeersMissingError: Something is not there.
    """
    python = Path(os.path.abspath(python))  # not resolved: a virtual environment's Python is a link
    return Peers(python, python.parents[2] / PPO_FOLDER).check()


def made_in(folder: Path, say: object = print) -> Peers:
    """Peers in ``folder``, installed there if they are not yet.

    Raises:
        PeersMissingError: pip failed, for want of a network for example.
    """
    peers = Peers(folder / "venv" / "bin" / "python", folder / PPO_FOLDER)
    finished = folder / "installed"  # written last: an installation that was broken off is made anew
    if not finished.is_file():
        assert callable(say)
        say(f"Installing the peers ({', '.join((*TORCH, *TRL, LAST_TRL_WITH_PPO))}) into {folder}, once ...")
        shutil.rmtree(folder / "venv", ignore_errors=True)
        shutil.rmtree(peers.ppo_folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        pip = (str(peers.python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
        _run(sys.executable, "-m", "venv", str(folder / "venv"))
        _run(*pip, *TORCH)
        _run(*pip, *TRL, *TORCH)
        _run(*pip, "--no-deps", "--target", str(peers.ppo_folder), LAST_TRL_WITH_PPO)
        finished.write_text("\n".join((*TORCH, *TRL, LAST_TRL_WITH_PPO)) + "\n")
    return peers.check()


def _run(*command: str) -> None:
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise PeersMissingError(f"could not make the peers' environment: {error}") from error
    if found.returncode:
        raise PeersMissingError(
            f"could not make the peers' environment: `{' '.join(command[-4:])}` failed: {_last_line(found.stderr)}"
        )


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]
