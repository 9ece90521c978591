"""The environments alone: token-steps a second with random tokens, without any model.

Every episode has a prompt of exactly 16 tokens and exactly 48 new tokens and restarts in the step in which it ended. A reward
that returns zeros keeps the time of rewards out.

``python -m compare_cases.environment '{"native": true, "slots": 64, "prompts": FILE}'``
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from compare_cases.rows import Context, Row, Side, guarded, measure
from compare_cases.serving import Session, options, serve
from compare_cases.workload import NEW_TOKENS, PROMPT_TOKENS, SAME_LENGTHS, read_prompts
from textgym.rewards import Reward

ENV_ID = "TextGen-Sentiment-v0"
ALONE = f"no model: random tokens; {SAME_LENGTHS}; a reward that is always 0; episodes restart in the step in which they end"


@dataclass(frozen=True)
class EnvironmentRate:
    """Token-steps a second of the native vector environment, in millions."""

    name: str = "environment"
    target: float = 3.0
    slots: int = 1024
    optional: bool = False

    def run(self, context: Context) -> Row:
        """Measures it."""
        side = environment(native=True, slots=self.slots)
        row = Row(self.name, side.name, "none", self.target, unit=" M/s", same=ALONE)
        return guarded(row, lambda: self._run(row, side, context))

    def _run(self, row: Row, side: Side, context: Context) -> None:
        rounds, _ = measure([side], context)
        row.measured([rate / 1e6 for rate in rounds.rates(0)], rounds)


def environment(native: bool, slots: int) -> Side:
    """A worker that steps ``slots`` environments."""
    name = f"{'textgym' if native else 'Gymnasium SyncVectorEnv'}, {slots:,} slots"
    return Side(name, "environment", {"native": native, "slots": slots})


# ---- in the process ---------------------------------------------------------------------------------------------------


class Nothing(Reward):
    """Zero for everything."""

    name = "nothing"
    range = (0.0, 0.0)

    def __call__(self, completions: Any) -> Any:
        return np.zeros(len(completions), dtype=np.float32)


def make(native: bool, slots: int, prompts: list[str]) -> VectorEnv[Any, Any, Any]:
    if native:
        how: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP.value}
    else:
        how = {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}, "vectorization_mode": "sync"}
    return gym.make_vec(
        ENV_ID,
        num_envs=slots,
        prompts=prompts,
        reward=Nothing(),
        max_prompt_tokens=PROMPT_TOKENS,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        **how,
    )


def main() -> None:
    asked, session = options(), Session()
    envs = make(asked["native"], asked["slots"], read_prompts(asked["prompts"])["texts"])
    observations, _ = envs.reset(seed=0)
    if (observations["attention_mask"].sum(axis=1) != PROMPT_TOKENS).any():
        raise RuntimeError(f"Expected prompts of {PROMPT_TOKENS} tokens")
    rng, shape = np.random.default_rng(0), (NEW_TOKENS, asked["slots"])

    def play() -> int:
        """One whole episode in every slot."""
        for actions in rng.integers(2, envs.single_action_space.n, size=shape):
            _, _, terminated, _, _ = envs.step(actions)
        if not terminated.all():
            raise RuntimeError(f"Expected every episode to end after {NEW_TOKENS} tokens")
        return int(np.prod(shape))

    gc.freeze()  # a thousand environments would be looked through again and again
    serve(play, session)


if __name__ == "__main__":
    main()
