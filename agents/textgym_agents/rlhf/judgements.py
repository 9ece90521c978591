"""Ratings of all rounds, those held out, and the reward model that is trained on the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.core import Completion, TextGymError, expected
from textgym.rewards import RewardModel
from textgym_agents.reward_models import (
    RewardModelEvaluation,
    RewardModelTrainer,
    evaluate_reward_model,
    read_judgements,
)
from textgym_agents.rlhf.candidates import Candidates
from textgym_agents.rlhf.settings import Mode, RLHFSettings

Record = dict[str, Any]


def read_lines(path: Path) -> list[Record]:
    """Records of a JSON Lines file.

    Raises:
        TextGymError: It cannot be read, or a line is no JSON object.
    """
    records = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TextGymError(f"Could not read {str(path)!r}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise TextGymError(f"Line {number} of {str(path)!r} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise TextGymError(f"Line {number} of {str(path)!r}: " + expected("record", record, "a JSON object"))
            records.append(record)
    return records


def questions(candidates: Sequence[Candidates], mode: Mode) -> int:
    """How often ``textgym rate`` asks about these candidates."""
    counts = [len(item.completions) for item in candidates]
    if mode == "scores":
        return sum(counts)
    return sum(n > 1 for n in counts) if mode == "rankings" else sum(n * (n - 1) // 2 for n in counts)


def read_ratings(path: Path, mode: Mode) -> list[Record]:
    """Ratings of the wanted kind, without what was skipped or ended in a tie.

    Raises:
        TextGymError: The file has none, or something else.
    """
    records = [r for r in read_lines(path) if "skipped" not in r and r.get("better", 0) is not None]
    if not records:
        raise TextGymError(f"Expected {str(path)!r} to have at least one rating, actual: none")
    if strange := next((r for r in records if not isinstance(r.get("prompt"), str)), None):
        raise TextGymError(f"{str(path)!r}: " + expected("prompt", strange.get("prompt"), "a text, in every rating"))
    kind = read_judgements(records, str(path))[0].kind
    if kind != mode:
        raise TextGymError(f"Expected {str(path)!r} to have {mode}, actual: {kind}")
    return records


def held_out_prompts(rounds: Sequence[Iterable[str]], share: float, seed: int) -> set[str]:
    """Prompts whose ratings no reward model is trained on; once held out, a prompt is so in all later rounds.

    Args:
        rounds: Prompts of each round.
        share: Of a round's new prompts; at least one is held out, and one is not, where there are two.
        seed: Of the draw.
    """
    seen: set[str] = set()
    held: set[str] = set()
    for number, prompts in enumerate(rounds):
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in seen]
        seen.update(new)
        count = min(max(1, round(share * len(new))), len(new) - 1)
        order = np.random.default_rng([seed, number]).permutation(len(new))
        held |= {new[i] for i in order[: max(0, count)]}
    return held


def train_reward_model(
    records: Sequence[Record], held: set[str], settings: RLHFSettings, seed: int, folder: Path
) -> tuple[RewardModelEvaluation, int, int]:
    """Trains on the ratings of all prompts that are not held out, and saves the model.

    Args:
        records: Ratings of all rounds.
        held: See :func:`held_out_prompts`.
        settings: Of the run.
        seed: Of new weights and order.
        folder: Where the model is saved; what an interrupted run left there is overwritten.

    Returns:
        Its agreement with the held-out ratings, and the numbers of ratings trained and measured on.

    Raises:
        DataError: The ratings do not fit the objective.
        TextGymError: There are too few of them, or training cannot go on.
    """
    train, test = ([r for r in records if (r["prompt"] in held) == is_held] for is_held in (False, True))
    if not train or not test:
        raise TextGymError(
            f"Expected ratings of prompts to train on and of others to measure on, actual: {len(train)} and {len(test)}"
        )
    device = None if settings.device == "auto" else settings.device
    trainer = RewardModelTrainer(settings.reward_model, train, seed=seed, device=device, **settings.trainer_settings())
    trainer.train()
    shutil.rmtree(folder, ignore_errors=True)
    trainer.save(folder)
    return trainer.evaluate(test), len(train), len(test)


def scores_of(model: RewardModel, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """The reward model's scores of ``n`` prompts and completions (all that follows the prompt), shape ``(n,)``."""
    scores = model([Completion(prompt, text, transcript=text) for prompt, text in pairs])
    return np.asarray(scores, dtype=np.float64)


def against_truth(model: RewardModel, rated: Sequence[tuple[str, str, float]]) -> dict[str, Any]:
    """The reward model's agreement with the true reward of texts ``(prompt, completion, reward)``, JSON-able."""
    records = [{"prompt": prompt, "completion": text, "rating": reward} for prompt, text, reward in rated]
    found = evaluate_reward_model(model, records)
    return {"n": found.n, "spearman": found.spearman, "pairwise_accuracy": found.pairwise_accuracy}
