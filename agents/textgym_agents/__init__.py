"""textgym_agents: language-model policies, and algorithms for them that are Stable-Baselines3 algorithms."""

from textgym_agents.decoding import Limits
from textgym_agents.policies import CausalLMPolicy
from textgym_agents.ppo import PPO
from textgym_agents.sampling import Decoding

__all__ = ["PPO", "CausalLMPolicy", "Decoding", "Limits"]
