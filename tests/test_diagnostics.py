"""Every algorithm that plays learns three of the bundled tasks with the bundled model, each within a minute on two cores.

The threshold is half of the way from the untrained model to the oracle, on held-out prompts.
"""

from __future__ import annotations

from textgym_agents.algorithms.registry import ALGORITHMS

IMITATORS = {"distillation", "gail", "ilql", "sft"}  # they do not learn from a reward of their own play
TOKENS = {"Delay": 8000, "Sort": 6000, "Numbers": 9000}
HALF = 0.5


def test_every_algorithm_that_plays_is_here() -> None:
    assert set(ALGORITHMS) - IMITATORS == set(PLAYING)


PLAYING = sorted(set(ALGORITHMS) - IMITATORS)
