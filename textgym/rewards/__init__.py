"""Rewards: score a batch of completions, compose by arithmetic, become dense by shaping."""

from typing import TYPE_CHECKING

from textgym.rewards.base import Constant, Product, Reward, RewardError, WeightedSum, checked_scores
from textgym.rewards.functions import REWARDS, FunctionReward, as_reward
from textgym.rewards.human import Human
from textgym.rewards.length import Length
from textgym.rewards.model import RewardModel
from textgym.rewards.repetition import Repetition
from textgym.rewards.sentiment import Sentiment
from textgym.rewards.shaping import Shaped
from textgym.rewards.transforms import Clipped, Normalized, Whitened
from textgym.rewards.word_order import Slips

if TYPE_CHECKING:
    from textgym.rewards.judge import Judge, JudgeError

__all__ = [
    "REWARDS",
    "Clipped",
    "Constant",
    "FunctionReward",
    "Human",
    "Judge",
    "JudgeError",
    "Length",
    "Normalized",
    "Product",
    "Repetition",
    "Reward",
    "RewardError",
    "RewardModel",
    "Sentiment",
    "Shaped",
    "Slips",
    "WeightedSum",
    "Whitened",
    "as_reward",
    "checked_scores",
]


def __getattr__(name: str) -> object:
    if name in ("Judge", "JudgeError"):  # on use: few need a client for HTTP
        from textgym.rewards import judge

        return getattr(judge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
