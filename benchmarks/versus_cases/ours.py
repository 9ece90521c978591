"""textgym's side: ``python -m versus_cases.ours '{"algorithm": "ppo", "seed": 0, "folder": FOLDER, ...settings}'``."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from compare_cases.workload import facts
from stable_baselines3.common.callbacks import BaseCallback

from textgym_agents import GRPO, PPO
from textgym_agents.losses import sequence_sum


class Curve(BaseCallback):
    """Keeps the tokens written so far and the mean reward, rollout by rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        sequences = self.locals["rollout_buffer"].sequences
        self.points.append((self.num_timesteps, sequence_sum(sequences.rewards, sequences.action_mask).mean().item()))


def algorithm(asked: dict[str, Any]) -> Any:
    """The algorithm that these settings ask for."""
    made, names = {
        "ppo": (PPO, ("gamma", "gae_lambda", "vf_coef")),
        "grpo": (GRPO, ()),
    }[asked["algorithm"]]
    own = {name: asked[name] for name in (*names, "learning_rate", "clip_range", "kl_coef")}
    if "group" in asked:
        own["num_generations"] = asked["group"]
    return made(
        "CausalLMPolicy",
        asked["env"],
        n_envs=asked["episodes"],
        env_kwargs={"max_new_tokens": asked["max_new_tokens"]},
        batch_size=asked["minibatch"],
        n_epochs=asked["epochs"],
        max_grad_norm=math.inf if asked["max_grad_norm"] is None else asked["max_grad_norm"],
        seed=asked["seed"],
        device="cpu",
        **own,
    )


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    folder, curve, model = Path(asked["folder"]), Curve(), algorithm(asked)
    start = time.perf_counter()
    model.learn(asked["tokens"], callback=curve)
    seconds = time.perf_counter() - start
    model.policy.save_pretrained(folder / "model")
    told = {
        "tokens": model.num_timesteps,
        "seconds": seconds,
        "curve": curve.points,
        "facts": facts("stable-baselines3", "gymnasium"),
    }
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
