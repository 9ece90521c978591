"""textgym_agents: language-model policies, and algorithms for them that are Stable-Baselines3 algorithms."""

from textgym_agents.decoding import Limits
from textgym_agents.grpo import GRPO
from textgym_agents.policies import CausalLMPolicy, LMPolicy, Seq2SeqLMPolicy
from textgym_agents.ppo import PPO
from textgym_agents.rloo import RLOO
from textgym_agents.sampling import Decoding

__all__ = ["GRPO", "PPO", "RLOO", "CausalLMPolicy", "Decoding", "LMPolicy", "Limits", "Seq2SeqLMPolicy"]
