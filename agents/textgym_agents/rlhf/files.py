"""Where the files of a run of RLHF lie; each appears complete or not at all."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from textgym.core import TextGymError, expected
from textgym_agents.report.report import write_atomically
from textgym_agents.rlhf.candidates import Candidates
from textgym_agents.rlhf.judgements import read_lines
from textgym_agents.rlhf.optimise import Point, Rated
from textgym_agents.rlhf.settings import Mode, RLHFSettings

_ASKED = {"scores": "score", "rankings": "rank", "comparisons": "compare"}  # by `textgym rate --mode`


class RLHFFolder:
    """Files of a run: ``config.json``, ``base.jsonl``, a folder a round, the report."""

    def __init__(self, path: str | Path) -> None:
        """Args: path: The folder, which need not exist yet."""
        self.path = Path(path)
        self.base, self.curve = self.path / "base.jsonl", self.path / "overoptimization.csv"
        self.picture, self.report = self.path / "overoptimization.png", self.path / "report.md"

    def begin(self, settings: RLHFSettings) -> None:
        """Makes the folder, or makes sure that the run in it is the same.

        Raises:
            TextGymError: It has something else, or a run with other settings; the message names them.
        """
        config, wanted = self.path / "config.json", json.loads(json.dumps(settings.to_json(), default=repr))
        if config.is_file():
            try:
                known = json.loads(config.read_text(encoding="utf-8"))
            except ValueError as error:
                raise TextGymError(f"{str(config)!r} is not JSON: {error}") from error
            if changed := [name for name in wanted if not isinstance(known, dict) or known.get(name) != wanted[name]]:
                raise TextGymError(
                    f"Expected the settings of the run in {str(self.path)!r}, or a new folder; changed: {', '.join(changed)}"
                )
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise TextGymError(expected("folder", str(self.path), "new, empty, or that of a run of RLHF"))
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(config, wanted)

    def round(self, number: int) -> RoundFolder:
        """The folder of a round, counted from 1."""
        return RoundFolder(self.path / f"round-{number}")

    def read_base(self) -> list[Rated]:
        """What the model of the very start wrote after the held-out prompts."""
        return [(r["prompt"], r["completion"], r["reward"]) for r in read_lines(self.base)]

    def write_base(self, rated: Iterable[Rated]) -> None:
        """Writes that."""
        write_lines(self.base, ({"prompt": p, "completion": text, "reward": r} for p, text, r in rated))


class RoundFolder:
    """Files of a round."""

    def __init__(self, path: Path) -> None:
        """Args: path: The folder."""
        self.path = path
        self.candidates, self.truth = path / "candidates.jsonl", path / "true_rewards.jsonl"
        self.ratings, self.agreement = path / "ratings.jsonl", path / "agreement.json"
        self.reward_model, self.measured = path / "reward_model", path / "reward_model.json"
        self.progress, self.policy = path / "progress.csv", path / "policy.zip"
        self.curve, self.evaluation = path / "overoptimization.csv", path / "evaluation.json"

    def read_candidates(self) -> list[Candidates]:
        """The texts, and their true rewards."""
        pairs = zip(read_lines(self.candidates), read_lines(self.truth), strict=True)
        return [Candidates.read(record, truth) for record, truth in pairs]

    def write_candidates(self, candidates: Sequence[Candidates]) -> None:
        """Writes that; the rewards into a file of their own, as no rater may see them."""
        self.path.mkdir(exist_ok=True)
        write_lines(self.truth, ({"prompt": c.prompt, "rewards": list(c.rewards)} for c in candidates))
        write_lines(self.candidates, (c.record() for c in candidates))

    def rate_command(self, mode: Mode) -> str:
        """What a person types to rate the candidates."""
        files = ["--mode", _ASKED[mode], "--out", str(self.ratings)]
        return shlex.join(["textgym", "rate", str(self.candidates), *files])


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes JSON Lines."""
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads it."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_points(path: Path, points: Sequence[Point]) -> None:
    """Writes ``overoptimization.csv``."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Point)])
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    write_atomically(path, stream.getvalue().encode())


def read_points(path: Path) -> list[Point]:
    """Reads it."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Point.read(row) for row in csv.DictReader(file)]
