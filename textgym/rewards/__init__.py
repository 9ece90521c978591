"""Rewards: score a batch of completions, compose by arithmetic, become dense by shaping."""

from textgym.rewards.base import Constant, Product, Reward, RewardError, WeightedSum, checked_scores
from textgym.rewards.functions import REWARDS, FunctionReward, as_reward
from textgym.rewards.length import Length
from textgym.rewards.repetition import Repetition
from textgym.rewards.sentiment import Sentiment
from textgym.rewards.shaping import Shaped

__all__ = [
    "REWARDS",
    "Constant",
    "FunctionReward",
    "Length",
    "Product",
    "Repetition",
    "Reward",
    "RewardError",
    "Sentiment",
    "Shaped",
    "WeightedSum",
    "as_reward",
    "checked_scores",
]
