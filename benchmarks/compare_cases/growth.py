"""How the cost of a token grows with the length of the completion."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from compare_cases.rows import Context, Row, Side, guarded, measure
from compare_cases.workload import PROMPT_TOKENS, SAME_MODEL

LENGTHS = (48, 96, 192, 384)
POSITIONS = 512


@dataclass(frozen=True)
class LengthGrowth:
    """Our rollout with 48, 96, 192 and 384 new tokens: seconds a token, relative to 48."""

    name: str = "length-growth"
    target: float = 1.5
    optional: bool = False

    def run(self, context: Context) -> Row:
        """Measures it."""
        shortest, longest = LENGTHS[0], LENGTHS[-1]
        row = Row(
            self.name,
            f"rollout, {longest} new tokens",
            f"rollout, {shortest} new tokens",
            self.target,
            at_most=True,
            same=f"{SAME_MODEL} with {POSITIONS} positions; 64 slots; prompts of {PROMPT_TOKENS} tokens",
            differs="the length of the completions; the ratio is seconds a token over seconds a token",
        )
        return guarded(row, lambda: self._run(row, context))

    def _run(self, row: Row, context: Context) -> None:
        def side(length: int) -> Side:
            options = {"how": "rollout", "new_tokens": length, "n_positions": POSITIONS, "profile": True}
            return Side(f"{length} new tokens", "run_ours", options)

        rounds, workers = measure([side(length) for length in LENGTHS], context)
        cost: dict[str, float] = {}
        profiles: dict[str, Any] = {}
        for i, (length, worker) in enumerate(zip(LENGTHS, workers, strict=True)):
            cost[str(length)] = statistics.median(rounds.ratios(0, i))
            profiles[str(length)] = worker.facts["profile"]
        row.details.update(cost_of_a_token=cost, profiles=profiles)
        row.measured(rounds.ratios(0, len(LENGTHS) - 1), rounds)
