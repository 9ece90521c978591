"""What both sides are told: one dictionary of settings an algorithm, in plain numbers. Standard library only.

`episodes` a rollout are read in minibatches of `minibatch` episodes, `epochs` times; `group` is how many of them share a
prompt. PPO has a single minibatch, because TRL whitens advantages over a rollout and textgym over a minibatch: so they are
the same. TRL's PPO does not clip gradients, so nor does ours (`max_grad_norm` is null). Completions have at most 24 tokens, not
the task's 52, so that few tokens are many episodes.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]

COMMON: Settings = {"env": "TextGen-Sentiment-v0", "max_new_tokens": 24, "tokens": 15_000, "threads": 1}

ALGORITHMS: dict[str, Settings] = {
    "ppo": {
        "episodes": 32,
        "minibatch": 32,
        "epochs": 2,
        "learning_rate": 3e-4,
        "clip_range": 0.2,
        "kl_coef": 0.035,
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "vf_coef": 0.5,
        "max_grad_norm": None,
    },
    "grpo": {
        "episodes": 64,
        "minibatch": 16,
        "epochs": 1,
        "group": 8,
        "learning_rate": 5e-4,
        "clip_range": 0.2,
        "kl_coef": 0.15,
        "max_grad_norm": 1.0,
    },
}
