"""textgym_agents: language-model policies, and algorithms for them that are Stable-Baselines3 algorithms."""

from textgym_agents.algorithms.a2c import A2C
from textgym_agents.algorithms.best_of_n import BestOfN
from textgym_agents.algorithms.distillation import Distillation
from textgym_agents.algorithms.dpo import DPO
from textgym_agents.algorithms.dqn import DQN
from textgym_agents.algorithms.gail import GAIL
from textgym_agents.algorithms.grpo import GRPO
from textgym_agents.algorithms.ilql import ILQL
from textgym_agents.algorithms.nlpo import NLPO
from textgym_agents.algorithms.ppo import PPO
from textgym_agents.algorithms.reinforce import REINFORCE
from textgym_agents.algorithms.rloo import RLOO
from textgym_agents.algorithms.sft import SFT
from textgym_agents.algorithms.trpo import TRPO
from textgym_agents.policies import CausalLMPolicy, LMPolicy, Seq2SeqLMPolicy
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.rollouts.sampling import Decoding

__all__ = [
    "A2C",
    "DPO",
    "DQN",
    "GAIL",
    "GRPO",
    "ILQL",
    "NLPO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "SFT",
    "TRPO",
    "BestOfN",
    "CausalLMPolicy",
    "Decoding",
    "Distillation",
    "LMPolicy",
    "Limits",
    "Seq2SeqLMPolicy",
]
