"""Early stopping: checkpoints are scored on validation prompts, the best one is kept, and training ends when none is better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textgym_agents.runs.folder import RunFolder


class Validation:
    """Scores of a run's checkpoints, in its ``validation.json``, and what follows from them.

    Attributes:
        scores: Mean reward on the validation prompts by tokens trained for, the earliest first.
    """

    def __init__(self, folder: RunFolder, patience: int, score: Callable[[], float]) -> None:
        """Reads what there is.

        Args:
            folder: Of the run.
            patience: After so many scores in a row that were no better than the best one before them, it is over.
            score: Scores the policy as it is.
        """
        self._folder, self._patience, self._score = folder, patience, score
        stored = folder.read_json("validation.json") or []
        self.scores: dict[int, float] = {row["timesteps"]: row["reward"] for row in stored}

    @property
    def best(self) -> int | None:
        """Tokens after which the score was highest, the first such; ``None`` before the first score."""
        return max(self.scores, key=lambda t: self.scores[t]) if self.scores else None

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return sum(timesteps > (self.best or 0) for timesteps in self.scores) >= self._patience

    def add(self, timesteps: int) -> float:
        """Scores the policy as it is after this many tokens; once is enough."""
        if timesteps not in self.scores:
            self.scores[timesteps] = self._score()
            rows = [{"timesteps": t, "reward": reward} for t, reward in self.scores.items()]
            self._folder.write_json("validation.json", rows)
        return self.scores[timesteps]

    def best_checkpoint(self) -> tuple[int, Path]:
        """The checkpoint with the best score; the newest where none was scored, or where that one is gone."""
        saved = dict(self._folder.checkpoints())
        timesteps = self.best if self.best in saved else max(saved)
        assert timesteps is not None
        return timesteps, saved[timesteps]
