"""Simulated people: what they say of texts is the true reward, seen through each one's taste and errors."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from textgym.core import expected, number, whole_number
from textgym_agents.reward_models.evaluation import spearman
from textgym_agents.rlhf.candidates import Candidates
from textgym_agents.rlhf.settings import Mode

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SimulatedRaters:
    """Several raters, whose taste stays and whose errors do not.

    Rater ``i`` gives text ``x``, whose true reward is ``r(x)``, the score

        ``(r(x) - mean) / std + taste_i(x) + error``

    where ``taste_i(x) ~ N(0, disagreement^2)`` is the same whenever the rater meets the text, and ``error ~ N(0, noise^2)``
    is new every time. Averaging over raters lessens both.

    Attributes:
        raters: How many.
        noise: Standard deviation of the error, in standard deviations of the true reward.
        disagreement: Standard deviation of the taste, same unit.
        seed: Of both.

    Raises:
        ValueError: A value is out of range.
    """

    raters: int = 3
    noise: float = 0.5
    disagreement: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("raters", self.raters, 1)
        whole_number("seed", self.seed, 0)
        for name in ("noise", "disagreement"):
            number(name, getattr(self, name), 0, math.inf, wanted="a number of at least 0")

    def rate(self, candidates: Sequence[Candidates], mean: float, std: float, session: int = 0) -> list[Array]:
        """Scores of every rater for every text.

        Args:
            candidates: The texts.
            mean: Of the true reward, over texts that the raters' scale is made for.
            std: The same; 0 counts as 1, as all texts are then alike.
            session: Errors of different ones are different.

        Returns:
            For every prompt an array ``(raters, texts)``, in standard deviations of the true reward.
        """
        number("std", std, 0, math.inf, wanted="a number of at least 0")
        errors = np.random.default_rng([self.seed, session])
        found = []
        for item in candidates:
            scores = (np.array(item.rewards) - mean) / (std or 1.0) + np.zeros((self.raters, 1))
            scores += self.noise * errors.standard_normal(scores.shape)
            if self.disagreement:
                scores += self.disagreement * np.stack([self._taste(item.prompt, text) for text in item.completions], 1)
            found.append(scores)
        return found

    def _taste(self, prompt: str, text: str) -> Array:
        """What the raters think differently of a text, ``(raters,)``: drawn by the text itself, so that it stays the same."""
        digest = hashlib.sha256(json.dumps([prompt, text]).encode()).digest()
        return np.random.default_rng([self.seed, *np.frombuffer(digest, np.uint32)]).standard_normal(self.raters)


def records_of(candidates: Sequence[Candidates], votes: Sequence[Array], mode: Mode) -> list[dict[str, Any]]:
    """What raters said, as :class:`RewardModelTrainer` reads it.

    Args:
        candidates: The texts.
        votes: What :meth:`SimulatedRaters.rate` gave.
        mode: ``"scores"``: a record a text, with one of ``ratings`` a rater. ``"rankings"``: a record a prompt, with the
            ``ranks`` of the raters' mean scores. ``"comparisons"``: a record a pair of a prompt's texts; ``chosen`` is that
            which more raters prefer (of a draw, that with the higher mean score), ``votes`` how many do.

    Raises:
        ValueError: An unknown mode.
    """
    if mode not in ("scores", "rankings", "comparisons"):
        raise ValueError(expected("mode", mode, "'scores', 'rankings' or 'comparisons'"))
    records: list[dict[str, Any]] = []
    for item, scores in zip(candidates, votes, strict=True):
        mean = scores.mean(0)
        if mode == "scores":
            for text, column in zip(item.completions, scores.T, strict=True):
                ratings = [round(float(vote), 4) for vote in column]
                records.append({"prompt": item.prompt, "completion": text, "ratings": ratings})
        elif mode == "rankings" and len(item.completions) > 1:
            ranks = [1 + int((mean > value).sum()) for value in mean]
            records.append({"prompt": item.prompt, "completions": list(item.completions), "ranks": ranks})
        elif mode == "comparisons":
            for a, b in itertools.combinations(range(len(mean)), 2):
                ahead = float(np.sign(scores[:, a] - scores[:, b]).sum())
                better = a if (ahead or mean[a] - mean[b]) >= 0 else b
                chosen, rejected = item.completions[better], item.completions[a + b - better]
                count = int((scores[:, better] > scores[:, a + b - better]).sum())
                records.append({"prompt": item.prompt, "chosen": chosen, "rejected": rejected, "votes": count})
    return records


def agreement(candidates: Sequence[Candidates], votes: Sequence[Array]) -> dict[str, float | None]:
    """How well raters agree with one another, and with the truth.

    Returns:
        ``spearman``: rank correlation of two raters' scores over all texts, mean over pairs of raters. ``same_order``: share
        of the pairs of a prompt's texts that two raters put in the same order, likewise. ``truth``: share of those pairs,
        of different true rewards, that the raters' mean score puts in the true order. ``None`` where there is nothing to
        compare.
    """
    whole = np.concatenate(list(votes), axis=1)  # [raters, all texts]
    pairs = list(itertools.combinations(range(len(whole)), 2))
    signs = [_signs(scores) for scores in votes]
    together = np.concatenate(signs, axis=1) if signs else np.zeros((len(whole), 0))
    right = []
    for item, scores in zip(candidates, votes, strict=True):
        true, said = _signs(np.array(item.rewards)[None])[0], _signs(scores.mean(0, keepdims=True))[0]
        right += list(((said * true + 1) / 2)[true != 0])
    same = [float((together[a] == together[b]).mean()) for a, b in pairs if together.size]
    return {
        "spearman": float(np.mean([spearman(whole[a], whole[b]) for a, b in pairs])) if pairs else None,
        "same_order": float(np.mean(same)) if same else None,
        "truth": float(np.mean(right)) if right else None,
    }


def _signs(scores: Array) -> Array:
    """Of the differences of all pairs of columns: ``(rows, texts)`` to ``(rows, pairs)``."""
    first, second = np.triu_indices(scores.shape[1], 1)
    return np.asarray(np.sign(scores[:, first] - scores[:, second]))
