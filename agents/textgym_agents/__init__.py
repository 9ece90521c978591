"""textgym_agents: language-model policies, and algorithms for them that are Stable-Baselines3 algorithms."""

from textgym_agents.algorithms.grpo import GRPO
from textgym_agents.algorithms.ppo import PPO
from textgym_agents.algorithms.rloo import RLOO
from textgym_agents.policies import CausalLMPolicy, LMPolicy, Seq2SeqLMPolicy
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.rollouts.sampling import Decoding

__all__ = ["GRPO", "PPO", "RLOO", "CausalLMPolicy", "Decoding", "LMPolicy", "Limits", "Seq2SeqLMPolicy"]
