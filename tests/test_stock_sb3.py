"""Algorithms of Stable-Baselines3 and sb3-contrib, as they come, on our environments and with our policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import ENV_ID, WORDS, single, tiny_gpt2, toy_single, toy_vector, vector
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_maskable
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from textgym_agents import CausalLMPolicy, Limits
from textgym_agents.vec_env import GymVecEnv, vectorised

V = len(WORDS)
REWARD = {"sentiment": 1.0, "length": 0.1}  # a random policy's sentiment alone is mostly 0: nothing to learn from
ENVS: dict[str, Callable[[], Any]] = {
    "single": lambda: single(reward=REWARD),
    "GymVecEnv": lambda: GymVecEnv(vector(3, reward=REWARD)),
    "native, same step": lambda: GymVecEnv(vector(3, autoreset_mode="SameStep", reward=REWARD)),
    "monitored": lambda: VecMonitor(vectorised(ENV_ID, 2, max_new_tokens=8, reward=REWARD)),
    "dummy": lambda: DummyVecEnv([lambda: single(reward=REWARD)] * 2),
}
environments = pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)


class Actions(BaseCallback):
    """Keeps the actions and the infos of finished episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[int] = []
        self.infos: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.actions += self.locals["actions"].flatten().tolist()
        self.infos += [i for i, done in zip(self.locals["infos"], self.locals["dones"], strict=True) if done]
        return True


@environments
def test_ppo_with_multi_input_policy(env: Callable[[], Any]) -> None:
    actions = Actions()
    model = PPO("MultiInputPolicy", env(), n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    model.learn(30, callback=actions)
    assert actions.infos
    assert {"prompt", "completion", "finish_reason", "reward/sentiment"} <= set(actions.infos[0])
    obs = model.get_env().reset()  # type: ignore[union-attr]
    assert model.predict(obs)[0].shape == (model.n_envs,)  # type: ignore[arg-type]


@environments
def test_maskable_ppo_never_takes_what_the_mask_forbids(env: Callable[[], Any]) -> None:
    made, actions = env(), Actions()
    model = MaskablePPO("MultiInputPolicy", made, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    vec_env: VecEnv = model.get_env()  # type: ignore[assignment]
    assert is_masking_supported(vec_env)
    assert get_action_masks(vec_env).shape == (model.n_envs, 3072)
    model.learn(30, callback=actions)
    assert 0 not in actions.actions  # the padding token
    assert actions.infos


def test_masks_decide_where_few_tokens_are_allowed() -> None:
    """In a vocabulary of 11, an algorithm without masks takes forbidden tokens soon, and MaskablePPO never."""
    taken = {}
    for algorithm in (PPO, MaskablePPO):
        actions = Actions()
        env = GymVecEnv(toy_vector(4, min_new_tokens=10, autoreset_mode="NextStep"))
        model = algorithm("MultiInputPolicy", env, n_steps=40, batch_size=40, n_epochs=1, device="cpu", seed=0)
        model.learn(160, callback=actions)
        taken[algorithm] = set(actions.actions)
    assert {0, 1} <= taken[PPO]
    assert not {0, 1} & taken[MaskablePPO]
    masked_eval, _ = evaluate_maskable(model, toy_single(), n_eval_episodes=2, warn=False)  # type: ignore[arg-type]
    assert 0 <= float(masked_eval) <= 1  # type: ignore[arg-type]


@environments
def test_stock_ppo_trains_our_policy(env: Callable[[], Any]) -> None:
    policy_kwargs = {"model": tiny_gpt2(), "limits": Limits(3072, 1, 8, min_new_tokens=3, forbidden=(0, 7))}
    actions = Actions()
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu", "seed": 0}
    model = PPO(CausalLMPolicy, env(), policy_kwargs=policy_kwargs, **settings)  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in model.policy.state_dict().items()}
    model.learn(30, callback=actions)
    after = model.policy.state_dict()
    assert not torch.equal(before["model.transformer.wte.weight"], after["model.transformer.wte.weight"])
    assert not torch.equal(before["value_head.weight"], after["value_head.weight"])
    assert not {0, 7} & set(actions.actions)
    assert all(len(info["completion"]) for info in actions.infos)


def test_stock_ppo_sees_a_ratio_of_1_with_our_policy() -> None:
    """So rollout and training read an observation in the same way."""
    policy_kwargs = {"model": tiny_gpt2(vocab_size=V)}
    model = PPO(CausalLMPolicy, GymVecEnv(toy_vector(4)), n_steps=16, policy_kwargs=policy_kwargs, device="cpu")  # type: ignore[arg-type]
    _, callback = model._setup_learn(64)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)  # type: ignore[arg-type]
    for data in model.rollout_buffer.get(32):
        _, log_probs, entropies = model.policy.evaluate_actions(data.observations, data.actions.flatten())
        torch.testing.assert_close(log_probs, data.old_log_prob, rtol=0, atol=1e-4)
        assert (entropies > 0).all()  # type: ignore[operator]


def test_a2c_and_evaluate_policy_run_with_our_policy() -> None:
    model = A2C(
        CausalLMPolicy,  # type: ignore[arg-type]
        GymVecEnv(toy_vector(3)),
        n_steps=5,
        policy_kwargs={
            "model": tiny_gpt2(vocab_size=V),
            "optimizer_class": torch.optim.RMSprop,
            "optimizer_kwargs": {"weight_decay": 0},
        },
        device="cpu",
    )
    model.learn(30)
    mean, _ = evaluate_policy(model, toy_single(), n_eval_episodes=3, warn=False)
    assert 0 <= float(mean) <= 1  # type: ignore[arg-type]


def test_observations_reach_our_policy_as_the_environment_gives_them() -> None:
    """SB3 casts and one-hots observations for its own policies: ours must see token numbers."""
    env = toy_single()
    obs, _ = env.reset(seed=0)
    model = PPO(CausalLMPolicy, env, policy_kwargs={"model": tiny_gpt2(vocab_size=V)}, device="cpu")  # type: ignore[arg-type]
    token, _ = model.predict(obs, deterministic=True)
    ids = torch.tensor(obs["input_ids"][obs["attention_mask"] == 1])
    with torch.no_grad():
        assert token == model.policy.model(ids[None]).logits[0, -1].argmax()  # type: ignore[operator]


@pytest.mark.filterwarnings("error")
def test_check_env_of_sb3_has_nothing_to_say() -> None:
    check_env(single())


def test_a_truncated_episode_gives_stock_ppo_a_terminal_observation_to_bootstrap_from() -> None:
    from gymnasium.wrappers import TimeLimit

    env = DummyVecEnv([lambda: TimeLimit(toy_single(min_new_tokens=10), 3)])
    env.reset()
    for _ in range(3):
        _, _, dones, infos = env.step(np.array([5]))
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"]
    assert set(infos[0]["terminal_observation"]) == {"input_ids", "attention_mask", "completion_mask"}
