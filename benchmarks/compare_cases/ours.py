"""Our algorithms on the reference workload, and the one place that knows how to play a rollout with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecMonitor

import textgym_agents
from compare_cases.workload import NEW_TOKENS, PROMPT_TOKENS, language_model, letter_share
from textgym.core import Completion
from textgym.envs import TextGenVectorEnv
from textgym.rewards import Reward
from textgym_agents.models.flat_step import PAYS_AFTER
from textgym_agents.vec_env import GymVecEnv

ENV_ID = "TextGen-Sentiment-v0"
WARM_UP_TOKENS = 64 * PAYS_AFTER  # until then decoding steps are not recorded yet


class LetterShare(Reward):
    """`letter_share` as a reward of ours."""

    name = "letter_share"
    range = (0.0, 1.0)

    def __call__(self, completions: list[Completion]) -> NDArray[np.float32]:
        return np.array(letter_share([completion.text for completion in completions]), dtype=np.float32)


def env_kwargs(known: dict[str, Any], new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """Prompts of exactly 16 tokens and completions of exactly ``new_tokens``: the end token is forbidden before."""
    return {
        "prompts": known["texts"],
        "reward": LetterShare(),
        "max_prompt_tokens": PROMPT_TOKENS,
        "max_new_tokens": new_tokens,
        "min_new_tokens": new_tokens,
    }


class LengthsAsDrawn(TextGenVectorEnv):
    """Ends slot ``i`` after ``lengths[i]`` tokens, by putting the end token in place of the action that came, and never
    before, by putting another token in place of an end token.

    So the environment, not the model or the algorithm, decides on the length, and whatever is measured has no part in it. The
    policy draws from its distribution at every step, the last one of an episode included, as it does everywhere else.
    """

    lengths: NDArray[np.int64]

    def step(self, actions: Any) -> Any:
        eos = self.setting.tokenizer.eos_token_id
        last = self._episodes.written + 1 >= self.lengths
        return super().step(np.where(last, eos, np.where(actions == eos, eos + 1, actions)))


def of_drawn_lengths(known: dict[str, Any], slots: int, lengths: NDArray[np.int64]) -> GymVecEnv:
    """The environments for episodes of these lengths."""
    kwargs = {**env_kwargs(known), "min_new_tokens": 0}
    envs = LengthsAsDrawn("sentiment", num_envs=slots, autoreset_mode="SameStep", **kwargs)
    envs.lengths = lengths
    return GymVecEnv(envs)


class Rollouts:
    """Plays rollouts as the algorithm itself does in `learn`: through `collect_rollouts`, with `_setup_learn` once before.

    What is timed is the whole of it: decoding, stepping the environments, log-probabilities and values of every token, the
    rewards, and stacking it all with its advantages in the buffer.
    """

    def __init__(
        self,
        known: dict[str, Any],
        slots: int,
        new_tokens: int = NEW_TOKENS,
        lengths: NDArray[np.int64] | None = None,
        n_positions: int = 128,
    ) -> None:
        self._texts, self._rng, self._slots = known["texts"], np.random.default_rng(0), slots
        mixed = None if lengths is None else of_drawn_lengths(known, slots, lengths)
        self.algorithm = textgym_agents.PPO(
            "CausalLMPolicy",
            ENV_ID if mixed is None else VecMonitor(mixed),
            n_envs=slots,
            kl_coef=0.0,  # no reference model: a rollout, nothing else
            env_kwargs=env_kwargs(known, new_tokens) if mixed is None else None,
            policy_kwargs={"model": language_model(known, n_positions)},
            device="cpu",
            seed=0,
        )
        _, self._callback = self.algorithm._setup_learn(10**9, None)
        self._wanted = slots * new_tokens if lengths is None else int(lengths.sum())

    def play(self) -> int:
        """One rollout of one episode a slot, all with different prompts; returns its tokens."""
        algorithm, env = self.algorithm, self.algorithm.env
        assert env is not None
        chosen = self._rng.choice(len(self._texts), self._slots, replace=False)
        env.set_options({"examples": [self._texts[i] for i in chosen]})
        before = algorithm.num_timesteps
        algorithm.collect_rollouts(env, self._callback, algorithm.rollout_buffer, n_rollout_steps=1)
        tokens = algorithm.num_timesteps - before
        if tokens != self._wanted:
            raise RuntimeError(f"Expected one rollout of {self._wanted} tokens, actual: {tokens}")
        return tokens

    def check(self) -> None:
        """That the last rollout had as many different prompts as slots, or it would not be the same work as the peer's."""
        ids = self.algorithm.rollout_buffer.sequences.input_ids  # [B, S], left-padded
        mask = self.algorithm.rollout_buffer.sequences.attention_mask
        prompts = {tuple(row[kept][:PROMPT_TOKENS]) for row, kept in zip(ids.numpy(), mask.numpy(), strict=True)}
        if len(prompts) != self._slots:
            raise RuntimeError(f"Expected {self._slots} different prompts, actual: {len(prompts)}")


def trainer(known: dict[str, Any], algorithm: str, epochs: int = 1, slots: int = 64) -> Any:
    """One of our algorithms set up like the peer's: one minibatch of all episodes, one rollout a step, a reference model."""
    kwargs: dict[str, Any] = {"PPO": {"kl_coef": 0.05}, "GRPO": {"kl_coef": 0.04}, "RLOO": {"kl_coef": 0.04}}[algorithm]
    if algorithm != "PPO":
        kwargs["num_generations"] = 8
    return getattr(textgym_agents, algorithm)(
        "CausalLMPolicy",
        ENV_ID,
        n_envs=slots,
        batch_size=slots,
        n_epochs=epochs,
        learning_rate=1e-5,
        env_kwargs=env_kwargs(known),
        policy_kwargs={"model": language_model(known)},
        device="cpu",
        seed=0,
        **kwargs,
    )


def learn_once(algorithm: Any, tokens: int) -> int:
    """One rollout and its updates, as ``learn`` does them; returns the tokens."""
    before = algorithm.num_timesteps
    algorithm.learn(tokens, reset_num_timesteps=False)
    if algorithm.num_timesteps - before != tokens:
        raise RuntimeError(f"Expected one rollout of {tokens} tokens, actual: {algorithm.num_timesteps - before}")
    return tokens
