"""Reinforcement learning from human feedback as one run: candidates, ratings, reward model, policy, report."""

from textgym_agents.rlhf.candidates import STRATEGIES, Candidates, draw_prompts, sample_candidates
from textgym_agents.rlhf.loop import Outcome, RLHFRun
from textgym_agents.rlhf.optimise import Point
from textgym_agents.rlhf.rater import SimulatedRaters, agreement, records_of
from textgym_agents.rlhf.settings import ALGOS, RLHFSettings

__all__ = [
    "ALGOS",
    "STRATEGIES",
    "Candidates",
    "Outcome",
    "Point",
    "RLHFRun",
    "RLHFSettings",
    "SimulatedRaters",
    "agreement",
    "draw_prompts",
    "records_of",
    "sample_candidates",
]
