"""Heavy rewards are computed while episodes that still run go on, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, current_thread, main_thread
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import EvenTokens, toy_ppo, toy_vector
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from textgym import Completion, TextGymError
from textgym.envs.scoring import BackgroundScorer
from textgym.rewards import FunctionReward, RewardError, Shaped
from textgym_agents.vec_env import GymVecEnv, heavy_rewards

PATIENCE = 30.0  # seconds until a test that waits for another thread gives up


class Heavy(EvenTokens):
    """Remembers in which thread it was called, and with how many completions."""

    heavy = True

    def __init__(self) -> None:
        self.calls: list[tuple[bool, int]] = []

    def __call__(self, completions: Sequence[Completion]) -> Any:
        self.calls.append((current_thread() is main_thread(), len(completions)))
        return super().__call__(completions)


class Steps(BaseCallback):
    """Does something at every step of the environments."""

    def __init__(self, do: Any) -> None:
        super().__init__()
        self.do = do

    def _on_step(self) -> bool:
        return bool(self.do(self.locals))


def rollout(reward: Any, callback: BaseCallback | None = None, **kwargs: Any) -> Any:
    ppo = toy_ppo(toy_vector(12, reward=reward, **kwargs))
    _, used = ppo._setup_learn(1, callback, reset_num_timesteps=False)
    assert ppo.env is not None
    ppo.collect_rollouts(ppo.env, used, ppo.rollout_buffer, ppo.n_steps)
    return ppo


def test_a_heavy_reward_gives_what_a_light_one_gives() -> None:
    reward = Heavy()
    light, heavy = rollout(EvenTokens()), rollout(reward)
    assert not any(in_main for in_main, _ in reward.calls)
    assert sum(n for _, n in reward.calls) == 12
    ours, theirs = heavy.rollout_buffer.sequences, light.rollout_buffer.sequences
    for name in ("input_ids", "rewards", "advantages", "returns", "log_probs"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert float(theirs.rewards.abs().sum()) > 0
    assert heavy.logger.name_to_value["rollout/reward/even"] == light.logger.name_to_value["rollout/reward/even"]
    assert [(e["r"], e["l"]) for e in heavy.ep_info_buffer] == [(e["r"], e["l"]) for e in light.ep_info_buffer]


def test_the_infos_that_callbacks_saw_are_completed() -> None:
    seen: list[dict[str, Any]] = []

    def keep(step: dict[str, Any]) -> bool:
        for slot in step["slots"][step["dones"][step["slots"]]]:
            info = step["infos"][slot]
            assert "completion" not in info and step["rewards"][slot] == 0
            seen.append(info)
        return True

    rollout(Heavy(), Steps(keep))
    assert len(seen) == 12
    assert all({"prompt", "completion", "finish_reason", "reward/even"} <= set(info) for info in seen)
    assert all(info["episode"]["r"] == pytest.approx(info["reward/even"]) for info in seen)


def test_episodes_go_on_while_the_first_to_end_are_scored() -> None:
    gone_on = Event()
    ended = steps_behind = 0

    def score(completions: list[str], **_: Any) -> list[float]:
        assert gone_on.wait(PATIENCE), "the rollout has waited for the reward"
        return [1.0] * len(completions)

    def step(found: dict[str, Any]) -> bool:
        nonlocal ended, steps_behind
        steps_behind += ended > 0
        ended += int(found["dones"][found["slots"]].sum())
        if steps_behind == 2:
            gone_on.set()
        return True

    ppo = rollout(FunctionReward(score, heavy=True), Steps(step))
    assert steps_behind >= 2
    assert ppo.rollout_buffer.sequences.rewards.sum() == 12


def test_what_waits_is_scored_in_one_call() -> None:
    go, began, sizes = Event(), Event(), []

    def score(completions: Sequence[Completion]) -> Any:
        began.set()
        sizes.append(len(completions))
        assert go.wait(PATIENCE)
        return np.arange(len(completions), dtype=np.float32), {"text": [c.text for c in completions]}

    scorer = BackgroundScorer(score)
    scorer.put([3], [Completion("p", "a")])
    assert began.wait(PATIENCE)
    for slot, text in ((5, "b"), (1, "c"), (2, "d")):
        scorer.put([slot], [Completion("p", text)])
    go.set()
    found = scorer.settle()
    assert sizes == [1, 3]
    assert [(slots, infos["text"]) for slots, _, infos in found] == [([3], ["a"]), ([5, 1, 2], ["b", "c", "d"])]
    assert scorer.settle() == []
    scorer.close()


def test_a_reward_that_fails_is_told_and_the_environments_stay_usable() -> None:
    def broken(completions: list[str], **_: Any) -> list[float]:
        raise ConnectionError("the judge does not answer")

    with pytest.raises(RewardError, match="Reward 'broken' raised ConnectionError: the judge does not answer"):
        rollout(FunctionReward(broken, heavy=True))
    envs = toy_vector(2, reward=Heavy(), max_new_tokens=1, autoreset_mode="SameStep")
    ppo = toy_ppo(envs)
    ppo.learn(1)
    envs.reset(seed=0)
    infos = envs.step(np.array([3, 4]))[4]  # rewards are paid at once again
    assert set(infos["final_info"]) >= {"completion", "reward/even"}


def test_a_rollout_that_is_stopped_leaves_no_thread() -> None:
    reward = Heavy()
    ppo = rollout(reward, Steps(lambda _: False))
    assert ppo.env is not None
    native = heavy_rewards(ppo.env)
    assert native is not None and native._scorer is None


def test_settling_what_was_not_deferred_is_refused() -> None:
    with pytest.raises(TextGymError, match="Expected `defer_scores"):
        toy_vector(2).settle()


def test_who_has_to_see_every_reward_at_once_does(tmp_path: Any) -> None:
    def envs(reward: Any) -> GymVecEnv:
        return GymVecEnv(toy_vector(2, reward=reward))

    assert heavy_rewards(VecMonitor(envs(Heavy()))) is not None
    assert heavy_rewards(envs(0.5 * Heavy() + EvenTokens())) is not None
    assert heavy_rewards(envs(Heavy() * EvenTokens())) is not None
    assert heavy_rewards(envs(EvenTokens())) is None
    assert heavy_rewards(envs(Shaped(EvenTokens()) + Heavy())) is None  # dense: asked at every step as well
    assert heavy_rewards(VecMonitor(envs(Heavy()), filename=str(tmp_path / "log"))) is None  # writes it to a file
    assert heavy_rewards(VecNormalize(envs(Heavy()), norm_obs=False)) is None  # scales it
