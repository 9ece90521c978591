"""Reward models: trained on what people said of texts, and measured against it."""

from textgym_agents.algorithms.updates import TrainingError
from textgym_agents.reward_models.data import DataError, read_judgements
from textgym_agents.reward_models.evaluation import RewardModelEvaluation, evaluate_reward_model
from textgym_agents.reward_models.trainer import RewardModelTrainer

__all__ = [
    "DataError",
    "RewardModelEvaluation",
    "RewardModelTrainer",
    "TrainingError",
    "evaluate_reward_model",
    "read_judgements",
]
