"""PPO under the contract of Stable-Baselines3, and what it promises beyond: exact resuming, files without code."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import (
    ENV_ID,
    VOCAB,
    WORDS,
    Chat,
    policy_of,
    single,
    tiny_gpt2,
    tiny_llama,
    tiny_ppo,
    toy_ppo,
    toy_single,
    toy_vector,
    vector,
)
from safetensors.torch import load as load_tensors
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from transformers import GPT2LMHeadModel, PreTrainedModel

from textgym_agents import PPO, Decoding
from textgym_agents.algorithms.checkpoint import CheckpointError
from textgym_agents.algorithms.updates import TrainingError
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.vec_env import GymVecEnv

V = len(WORDS)


def state_of(ppo: PPO) -> dict[str, torch.Tensor]:
    """Every number that training goes on with: weights, optimizer, random states, coefficient, counters."""
    found = {f"policy.{k}": v.clone() for k, v in ppo.policy.state_dict().items()}
    for index, entries in ppo.policy.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{k}": torch.as_tensor(v).clone() for k, v in entries.items()}
    assert ppo.policy.generator is not None
    assert ppo.env is not None
    found |= {"random": ppo.generator.get_state(), "predict": ppo.policy.generator.get_state()}
    if ppo.reference is not None:
        found |= {f"reference.{k}": v.clone() for k, v in ppo.reference.state_dict().items()}
    counters = [ppo.num_timesteps, ppo._n_updates, ppo.kl.coef, ppo._current_progress_remaining]
    prompts = [s["state"]["state"] % 2**60 for s in ppo.env.env_method("get_state")]
    return found | {"counters": torch.tensor(counters, dtype=torch.float64), "prompts": torch.tensor(prompts)}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


class Call(BaseCallback):
    """Calls a function at the k-th step of the environments, and stops if it returns false."""

    def __init__(self, at: int, function: Callable[[PPO], bool]) -> None:
        super().__init__()
        self.at, self.function = at, function

    def _on_step(self) -> bool:
        return self.n_calls != self.at or self.function(self.model)  # type: ignore[arg-type]


class Keep(Logger):
    """A logger that keeps everything that was dumped."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.dumped: list[dict[str, Any]] = []

    def dump(self, step: int = 0) -> None:
        self.dumped.append(dict(self.name_to_value))
        super().dump(step)


def logged(ppo: PPO, timesteps: int = 400, **kwargs: Any) -> list[dict[str, Any]]:
    """What a training dumped; the numbers of an update appear with the next rollout, as in SB3."""
    keep = Keep()
    ppo.set_logger(keep)
    ppo.learn(timesteps, **kwargs)
    return keep.dumped


# ---- learn and its callbacks -----------------------------------------------------------------------------------------------


def test_the_one_line_of_the_readme() -> None:
    env_kwargs = {"max_new_tokens": 4, "split": "dev"}
    policy_kwargs = {"model": tiny_gpt2()}
    ppo = PPO("CausalLMPolicy", ENV_ID, n_envs=3, env_kwargs=env_kwargs, policy_kwargs=policy_kwargs, device="cpu")
    assert ppo.learn(10) is ppo
    assert ppo.num_timesteps >= 10
    assert ppo.n_envs == 3


def test_learn_counts_tokens_logs_its_keys_and_changes_the_policy() -> None:
    ppo = toy_ppo(kl_coef=0.1, clip_range_vf=0.3)
    before = state_of(ppo)
    dumped = logged(ppo, 300)
    assert ppo.num_timesteps >= 300
    assert differ(before, state_of(ppo))
    assert set(dumped[0]) >= {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "rollout/kl",
        "rollout/reward/even",
        "train/kl_coef",
        "time/fps",
        "time/iterations",
        "time/time_elapsed",
        "time/total_timesteps",
    }
    assert set(dumped[-1]) >= {
        "train/policy_gradient_loss",
        "train/value_loss",
        "train/entropy_loss",
        "train/loss",
        "train/approx_kl",
        "train/clip_fraction",
        "train/clip_range",
        "train/clip_range_vf",
        "train/explained_variance",
        "train/learning_rate",
        "train/n_updates",
    }
    for numbers in dumped:
        assert all(np.isfinite(v) for k, v in numbers.items() if k != "train/explained_variance")
    assert dumped[0]["rollout/kl"] == pytest.approx(0, abs=1e-4)
    assert dumped[-1]["rollout/kl"] != pytest.approx(0, abs=1e-4)
    # entropies in nats a token, at most log V
    assert -np.log(V) <= dumped[-1]["train/entropy_loss"] < 0


def test_callbacks_see_every_step_of_the_environments() -> None:
    class Count(BaseCallback):
        seen: list[tuple[str, int]]

        def _init_callback(self) -> None:
            self.seen = []

        def _on_training_start(self) -> None:
            assert self.locals["total_timesteps"] == 200

        def _on_rollout_start(self) -> None:
            self.seen.append(("start", self.model.num_timesteps))

        def _on_step(self) -> bool:
            assert len(self.locals["infos"]) == len(self.locals["dones"]) == self.training_env.num_envs
            self.seen.append(("step", self.num_timesteps))
            return True

        def _on_rollout_end(self) -> None:
            assert len(self.locals["rollout_buffer"].episodes) == 8
            self.seen.append(("end", self.model.num_timesteps))

    count = Count()
    ppo = toy_ppo(toy_vector(8, min_new_tokens=9))  # 9 or 10 tokens each
    ppo.learn(200, callback=count)
    kinds = [kind for kind, _ in count.seen]
    assert kinds == (["start"] + ["step"] * 10 + ["end"]) * 3
    assert count.n_calls == 30
    steps = [n for kind, n in count.seen if kind == "step"]
    assert steps[:9] == [8 * (i + 1) for i in range(9)]
    assert all(8 >= b - a > 0 for a, b in itertools.pairwise(steps))


def test_eval_callback_saves_the_best_model_and_a_threshold_stops(tmp_path: Path) -> None:
    ppo = toy_ppo(toy_vector(8, min_new_tokens=4))
    stop = StopTrainingOnRewardThreshold(-1.0, verbose=0)
    evaluation = EvalCallback(
        VecMonitor(GymVecEnv(toy_vector(4, split="dev", autoreset_mode="SameStep"))),
        callback_on_new_best=stop,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        n_eval_episodes=6,
        eval_freq=3,
        verbose=0,
    )
    ppo.learn(10_000, callback=evaluation)
    assert ppo.num_timesteps == 3 * 8  # stopped at the first evaluation
    assert len(np.load(tmp_path / "evaluations.npz")["results"][0]) == 6
    best = PPO.load(tmp_path / "best_model")
    assert_same_weights(best, ppo)


def assert_same_weights(one: PPO, other: PPO) -> None:
    assert_equal(one.policy.state_dict(), other.policy.state_dict())


def test_checkpoint_callback_writes_files_that_load(tmp_path: Path) -> None:
    ppo = toy_ppo(toy_vector(8, min_new_tokens=9))
    ppo.learn(300, callback=CheckpointCallback(save_freq=10, save_path=str(tmp_path), name_prefix="ppo"))
    files = sorted(tmp_path.iterdir(), key=lambda f: int(f.stem.split("_")[1]))
    assert len(files) >= 3
    first, last = PPO.load(files[0]), PPO.load(files[-1])
    assert differ(first.policy.state_dict(), last.policy.state_dict())
    assert 0 <= first.num_timesteps < last.num_timesteps


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    toy_ppo().learn(100, progress_bar=True)
    captured = capsys.readouterr()
    assert "100" in captured.out + captured.err


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ppo = toy_ppo(tensorboard_log=str(tmp_path), kl_coef=0.1)
    ppo.learn(300)
    events = EventAccumulator(str(tmp_path / "PPO_1"))
    events.Reload()
    assert {"rollout/ep_rew_mean", "rollout/kl", "train/loss"} <= set(events.Tags()["scalars"])
    steps = [event.step for event in events.Scalars("rollout/kl")]
    assert steps == sorted(steps)
    assert len(steps) >= 3


def test_evaluate_policy_equals_playing_greedily() -> None:
    ppo = toy_ppo()
    env = Monitor(toy_single(split="dev"))
    env.reset(seed=9)
    rewards, lengths = evaluate_policy(ppo, env, n_eval_episodes=5, return_episode_rewards=True)
    other = toy_single(split="dev")
    other.reset(seed=9)
    for reward, length in zip(rewards, lengths, strict=True):  # type: ignore[arg-type]
        obs, _ = other.reset()
        prompt = obs["input_ids"][obs["attention_mask"] == 1].tolist()
        text = ppo.policy.generate([prompt], deterministic=True)[0]
        for token in text:
            obs, paid, terminated, _, _ = other.step(token)
        assert terminated
        assert (len(text), paid) == (length, pytest.approx(reward))


def test_evaluate_policy_on_a_batch_of_environments_of_different_age() -> None:
    mean, _ = evaluate_policy(toy_ppo(), VecMonitor(GymVecEnv(toy_vector(5, autoreset_mode="SameStep"))), 12)
    assert 0 <= float(mean) <= 1  # type: ignore[arg-type]


def test_learning_goes_on_where_it_stopped_unless_it_is_told_to_start_anew() -> None:
    ppo = toy_ppo()
    ppo.learn(100)
    first = ppo.num_timesteps
    ppo.learn(100, reset_num_timesteps=False)
    assert ppo.num_timesteps >= first + 100
    ppo.learn(50)
    assert 50 <= ppo.num_timesteps < first + 100


def test_two_trainings_with_the_same_seed_are_equal_and_with_another_are_not() -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        ppo = toy_ppo(toy_vector(8), seed=seed, model=tiny_gpt2(vocab_size=V, scale=0.15), kl_coef=0.05)
        return state_of(ppo.learn(200))

    one, again, other = run(0), run(0), run(1)
    assert_equal(one, again)
    assert differ(one, other)


# ---- predict ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def player() -> PPO:
    return toy_ppo(toy_vector(6, min_new_tokens=2))


def observations(n: int = 6, steps: int = 3) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Observations and action masks in the middle of episodes, each of another length."""
    envs = toy_vector(n, min_new_tokens=2)
    obs, _ = envs.reset(seed=1)
    for _ in range(steps):
        obs, *_ = envs.step(np.full(n, 5))
    return obs, envs.action_masks()


def logits_of(ppo: PPO, obs: dict[str, np.ndarray], row: int) -> torch.Tensor:
    ids = obs["input_ids"][row][obs["attention_mask"][row] == 1]
    with torch.no_grad():
        return ppo.policy.model(torch.tensor(ids)[None]).logits[0, -1]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_greedy_prediction_is_the_most_likely_allowed_token(player: PPO, steps: int) -> None:
    obs, masks = observations(steps=steps)
    tokens, state = player.predict(obs, deterministic=True)
    assert state is None
    assert tokens.shape == (6,)
    for row in range(6):
        wanted = logits_of(player, obs, row).masked_fill(~torch.tensor(masks[row]), -torch.inf).argmax()
        one, _ = player.predict({k: v[row] for k, v in obs.items()}, deterministic=True)
        assert tokens[row] == wanted == one
        assert np.ndim(one) == 0
        toy_single().action_space.contains(one)


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}, {"num_beams": 1}])
def test_narrow_settings_come_down_to_greedy(player: PPO, settings: dict[str, Any]) -> None:
    obs, _ = observations()
    greedy, _ = player.predict(obs, deterministic=True)
    found, _ = player.predict(obs, deterministic="num_beams" in settings, **settings)
    assert np.array_equal(found, greedy)


def test_sampled_predictions_have_the_frequencies_of_the_filtered_distribution(player: PPO) -> None:
    obs, masks = observations(1)
    many = {k: np.repeat(v, 3000, axis=0) for k, v in obs.items()}
    tokens, _ = player.predict(many, temperature=0.8, top_k=6, top_p=0.9)
    logits = logits_of(player, obs, 0).masked_fill(~torch.tensor(masks[0]), -torch.inf)
    from textgym_agents.rollouts.sampling import log_softmax_on, support

    kept = support(logits[None], None, Decoding(0.8, 6, 0.9))
    wanted = log_softmax_on(logits[None], kept, 0.8)[0].exp().numpy()
    found = np.bincount(tokens, minlength=V) / 3000
    assert (found[wanted == 0] == 0).all()
    np.testing.assert_allclose(found, wanted, atol=0.04)
    assert (wanted > 0).sum() > 2


def test_what_is_not_given_to_predict_is_as_in_training() -> None:
    ppo = toy_ppo(top_k=1)
    obs, _ = observations()
    assert np.array_equal(ppo.predict(obs)[0], ppo.predict(obs, deterministic=True)[0])
    draws = {tuple(ppo.predict(obs, top_k=0, temperature=3.0)[0]) for _ in range(5)}
    assert len(draws) > 1


def test_predict_with_beams_gives_the_first_token_of_the_best_completion(player: PPO) -> None:
    obs, _ = observations(steps=0)
    tokens, _ = player.predict(obs, num_beams=3)
    prompts = [obs["input_ids"][i][obs["attention_mask"][i] == 1].tolist() for i in range(6)]
    assert tokens.tolist() == [text[0] for text in player.policy.generate(prompts, num_beams=3)]
    later, _ = observations(steps=9)
    one, _ = player.predict({k: v[0] for k, v in later.items()}, num_beams=3)
    assert np.ndim(one) == 0


@pytest.mark.parametrize("settings", [{"deterministic": True}, {}, {"top_k": 3}, {"num_beams": 2}])
def test_action_masks_are_respected(player: PPO, settings: dict[str, Any]) -> None:
    obs, _ = observations()
    masks = np.zeros((6, V), dtype=bool)
    masks[:, 7] = True
    masks[3, [7, 8]] = [False, True]
    wanted = [7, 7, 7, 8, 7, 7]
    assert player.predict(obs, action_masks=masks, **settings)[0].tolist() == wanted
    assert player.predict({k: v[0] for k, v in obs.items()}, action_masks=masks[3], **settings)[0] == 8


def test_predict_never_ends_before_the_minimum_and_never_pads(player: PPO) -> None:
    many = {k: np.repeat(v, 200, axis=0) for k, v in observations(1, steps=1)[0].items()}
    tokens, _ = player.predict(many, temperature=10.0)
    assert not {0, 1} & set(tokens.tolist())
    late = {k: np.repeat(v, 200, axis=0) for k, v in observations(1, steps=2)[0].items()}
    assert 1 in player.predict(late, temperature=10.0)[0].tolist()


# ---- save and load ---------------------------------------------------------------------------------------------------------


def test_a_loaded_algorithm_predicts_and_goes_on_learning(tmp_path: Path) -> None:
    ppo = toy_ppo(toy_vector(4), temperature=0.9, top_p=0.95, gamma=0.99, ent_coef=0.01, stats_window_size=7)
    ppo.learn(100)
    ppo.save(tmp_path / "ppo")
    obs, _ = observations()
    wanted = ppo.predict(obs, deterministic=True)[0], ppo.predict(obs)[0]
    without = PPO.load(tmp_path / "ppo")
    assert np.array_equal(without.predict(obs, deterministic=True)[0], wanted[0])
    assert np.array_equal(without.predict(obs)[0], wanted[1])  # the state of the random generator is saved too
    for name in ("temperature", "top_p", "gamma", "ent_coef", "batch_size", "n_epochs", "learning_rate", "seed"):
        assert getattr(without, name) == getattr(ppo, name)
    assert without.decoding == ppo.decoding
    assert without.policy.limits == ppo.policy.limits
    assert without.ep_info_buffer is not None
    assert without.ep_info_buffer.maxlen == 7
    assert (without.num_timesteps, without._n_updates) == (ppo.num_timesteps, ppo._n_updates)
    assert without.get_env() is None
    without.set_env(toy_vector(4))
    assert without.learn(30).num_timesteps >= 30
    with_env = PPO.load(tmp_path / "ppo.zip", env=toy_vector(3), n_epochs=1)
    assert (with_env.n_envs, with_env.n_epochs) == (3, 1)
    assert with_env.learn(30).num_timesteps >= 30


def test_a_file_object_and_a_suffix_of_ones_own(tmp_path: Path) -> None:
    ppo, memory = toy_ppo(), io.BytesIO()
    ppo.save(memory)
    memory.seek(0)
    assert_same_weights(PPO.load(memory), ppo)
    ppo.save(tmp_path / "new" / "epoch.1")
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["epoch.1.zip"]
    assert_same_weights(PPO.load(tmp_path / "new" / "epoch.1"), ppo)


def test_a_saved_file_is_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        toy_ppo().save(tmp_path / "ppo")
    finally:
        os.umask(old)
    assert (tmp_path / "ppo.zip").stat().st_mode & 0o777 == 0o644


def test_parameters_come_and_go_as_a_dict_and_as_a_file(tmp_path: Path) -> None:
    one, other = toy_ppo(seed=0), toy_ppo(seed=1, model=tiny_gpt2(7, vocab_size=V))
    one.learn(100)
    parameters = one.get_parameters()
    assert set(parameters) == {"policy", "policy.optimizer"}
    assert differ(one.policy.state_dict(), other.policy.state_dict())
    other.set_parameters(parameters)
    assert_same_weights(one, other)
    one.save(tmp_path / "one")
    third = toy_ppo(model=tiny_gpt2(8, vocab_size=V))
    third.set_parameters(tmp_path / "one")
    assert_same_weights(one, third)
    mine, theirs = (p.policy.optimizer.state_dict()["state"] for p in (one, third))
    assert all(torch.equal(mine[i][k], theirs[i][k]) for i in mine for k in mine[i])
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        third.set_parameters({"policy": parameters["policy"]})
    third.set_parameters({"policy": parameters["policy"]}, exact_match=False)


def test_schedules_are_followed_saved_and_loaded(tmp_path: Path) -> None:
    ppo = toy_ppo(learning_rate=LinearSchedule(1e-2, 1e-4, 1.0), clip_range=LinearSchedule(0.3, 0.1, 0.5))
    dumped = logged(ppo, 500)[1:]
    rates = [numbers["train/learning_rate"] for numbers in dumped]
    assert rates == sorted(rates, reverse=True)
    assert 1e-4 < rates[-1] < rates[0] < 1e-2
    assert 0.1 <= dumped[-1]["train/clip_range"] < dumped[0]["train/clip_range"] < 0.3
    assert ppo.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)  # all timesteps are used up
    ppo.save(tmp_path / "ppo")
    loaded = PPO.load(tmp_path / "ppo")
    for schedule, wanted in ((loaded.learning_rate, 0.00505), (loaded.lr_schedule, 0.00505), (loaded.clip_range, 0.1)):
        assert callable(schedule)
        assert schedule(0.5) == pytest.approx(wanted)


def test_no_schedule_turns_negative_in_the_last_rollout_which_goes_beyond_the_total() -> None:
    seen: list[float] = []
    ppo = toy_ppo(learning_rate=lambda progress: seen.append(progress) or 1e-3 * progress)  # type: ignore[func-returns-value]
    ppo.learn(100)
    assert ppo.num_timesteps > 100
    assert min(seen) == 0


def test_a_schedule_that_is_code_has_to_be_given_anew(tmp_path: Path) -> None:
    ppo = toy_ppo(learning_rate=lambda progress: 1e-3 * progress)
    ppo.learn(50)
    ppo.save(tmp_path / "ppo")
    with pytest.raises(CheckpointError, match=r"'learning_rate' was '.*lambda.*custom_objects=\{'learning_rate': "):
        PPO.load(tmp_path / "ppo")
    loaded = PPO.load(tmp_path / "ppo", custom_objects={"learning_rate": 5e-4})
    assert loaded.lr_schedule(0.3) == 5e-4
    assert loaded.n_epochs == ppo.n_epochs


def test_an_optimizer_of_torch_is_stored_by_name_and_any_other_is_not(tmp_path: Path) -> None:
    class Adam(torch.optim.Adam):  # of the same name as torch's
        pass

    kwargs = {"momentum": np.float32(0.5)}
    ppo = toy_ppo(policy_kwargs={"optimizer_class": torch.optim.SGD, "optimizer_kwargs": kwargs})
    ppo.learn(50)
    ppo.save(tmp_path / "sgd")
    assert type(PPO.load(tmp_path / "sgd").policy.optimizer) is torch.optim.SGD
    toy_ppo(policy_kwargs={"optimizer_class": Adam}).save(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"custom_objects=\{'policy_kwargs': "):
        PPO.load(tmp_path / "own")
    loaded = PPO.load(tmp_path / "own", custom_objects={"policy_kwargs": {"optimizer_class": Adam}})
    assert type(loaded.policy.optimizer) is Adam


def test_hyperparameters_can_be_left_out_of_a_file(tmp_path: Path) -> None:
    toy_ppo(ent_coef=0.5, vf_coef=0.25).save(tmp_path / "ppo", exclude=["ent_coef"])
    loaded = PPO.load(tmp_path / "ppo")
    assert (loaded.ent_coef, loaded.vf_coef) == (0.0, 0.25)


def test_the_reference_is_saved_and_what_is_given_on_loading_replaces_it(tmp_path: Path) -> None:
    ppo = toy_ppo(kl_coef=0.2, kl_target=0.5, kl_horizon=20)
    ppo.learn(200)
    assert ppo.kl.coef != 0.2
    ppo.save(tmp_path / "ppo")
    loaded = PPO.load(tmp_path / "ppo")
    assert loaded.reference is not None and ppo.reference is not None
    assert_equal(loaded.reference.state_dict(), ppo.reference.state_dict())
    assert differ(loaded.reference.state_dict(), loaded.policy.model.state_dict())
    assert (loaded.kl.coef, loaded.kl_coef) == (ppo.kl.coef, 0.2)
    assert PPO.load(tmp_path / "ppo", kl_coef=0.7).kl.coef == 0.7
    assert PPO.load(tmp_path / "ppo", kl_coef=0.0, kl_target=None).reference is None
    other = tiny_gpt2(11, vocab_size=V)
    assert PPO.load(tmp_path / "ppo", ref_model=other).reference is other
    fresh_start = PPO.load(tmp_path / "ppo", seed=5).generator.get_state()
    assert torch.equal(fresh_start, torch.Generator().manual_seed(5).get_state())


def test_a_penalty_that_begins_on_loading_is_against_the_loaded_policy(tmp_path: Path) -> None:
    ppo = toy_ppo(kl_coef=0.0)
    ppo.learn(100)
    ppo.save(tmp_path / "ppo")
    loaded = PPO.load(tmp_path / "ppo", env=toy_vector(8), kl_coef=0.1)
    assert loaded.reference is not None
    assert_equal(loaded.reference.state_dict(), ppo.policy.model.state_dict())
    assert logged(loaded, 1, reset_num_timesteps=False)[0]["rollout/kl"] == pytest.approx(0, abs=1e-4)


def test_random_states_of_another_device_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """A file of a GPU has states of 16 bytes, which a CPU's generator refuses."""
    ppo = toy_ppo()
    ppo.save(tmp_path / "ppo")
    with zipfile.ZipFile(tmp_path / "ppo.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    from safetensors.torch import save as save_tensors

    states = {name: torch.zeros(16, dtype=torch.uint8) for name in ("rollouts", "predict")}
    members["random.safetensors"] = save_tensors(states)
    with zipfile.ZipFile(tmp_path / "gpu.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    PPO.load(tmp_path / "gpu", device="cpu", env=toy_vector(4)).learn(20)


def test_what_else_a_monitor_notes_does_not_stand_in_the_way(tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: Monitor(toy_single(), info_keywords=("completion",))])
    ppo = toy_ppo(env)
    ppo.learn(40)
    ppo.save(tmp_path / "ppo")
    assert PPO.load(tmp_path / "ppo").num_timesteps == ppo.num_timesteps


# ---- exact resuming --------------------------------------------------------------------------------------------------------

ENVS: dict[str, Callable[[], Any]] = {
    "native": lambda: toy_vector(8),
    "next step": lambda: toy_vector(8, Chat(), autoreset_mode="NextStep"),
    "dummy": lambda: DummyVecEnv([lambda: Monitor(toy_single())] * 8),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adaptive KL": {"kl_coef": 0.1, "kl_target": 0.3, "kl_horizon": 50},
    "top-p": {"top_p": 0.9, "temperature": 0.8, "n_steps": 12},
    "schedules": {"learning_rate": LinearSchedule(1e-2, 0, 1.0), "clip_range": LinearSchedule(0.3, 0.1, 1.0)},
    "frozen": {"policy_kwargs": {"trainable_layers": 1}, "kl_coef": 0.0},
    "SGD": {"policy_kwargs": {"optimizer_class": torch.optim.SGD}, "normalize_advantage": False},
}
TOTAL = 600
CASES = [("native", name) for name in SETTINGS] + [("next step", "plain"), ("dummy", "plain"), ("dummy", "adaptive KL")]


def fresh(env: str, settings: str, model: PreTrainedModel | None = None) -> PPO:
    return toy_ppo(ENVS[env](), seed=4, model=model or tiny_gpt2(vocab_size=V, scale=0.15), **SETTINGS[settings])


def interrupted(ppo: PPO, at: int, file: Path) -> None:
    """Trains until the ``at``-th step of the environments, saves there, in the middle of a rollout, and dies."""

    def save(ppo: PPO) -> bool:
        assert ppo._rollout_start is not None
        assert ppo.num_timesteps > ppo._rollout_start["num_timesteps"]
        ppo.save(file)
        return False

    ppo.learn(TOTAL, callback=Call(at, save))


def finish(file: Path, env: Any) -> PPO:
    ppo = PPO.load(file, env=env, device="cpu")
    return ppo.learn(TOTAL - ppo.num_timesteps, reset_num_timesteps=False)


@pytest.mark.parametrize(("env", "settings"), CASES)
def test_a_training_that_was_killed_equals_bit_for_bit_the_one_that_was_not(
    env: str, settings: str, tmp_path: Path
) -> None:
    whole = state_of(fresh(env, settings).learn(TOTAL))
    interrupted(fresh(env, settings), 35, tmp_path / "killed")
    with zipfile.ZipFile(tmp_path / "killed.zip") as archive:
        stood_at = json.loads(archive.read("config.json"))["progress"]["num_timesteps"]
    assert 0 < stood_at < TOTAL - 100
    assert_equal(state_of(finish(tmp_path / "killed", ENVS[env]())), whole)


def test_resuming_is_exact_in_the_very_first_rollout_and_twice_in_a_row(tmp_path: Path) -> None:
    whole = state_of(fresh("native", "adaptive KL").learn(TOTAL))
    interrupted(fresh("native", "adaptive KL"), 4, tmp_path / "first")
    again = PPO.load(tmp_path / "first", env=ENVS["native"]())
    again.learn(TOTAL, callback=Call(23, lambda ppo: bool(ppo.save(tmp_path / "second"))), reset_num_timesteps=False)
    assert_equal(state_of(finish(tmp_path / "second", ENVS["native"]())), whole)


def test_resuming_a_loaded_algorithm_that_was_saved_again_untouched(tmp_path: Path) -> None:
    whole = state_of(fresh("native", "plain").learn(TOTAL))
    interrupted(fresh("native", "plain"), 35, tmp_path / "one")
    PPO.load(tmp_path / "one", env=ENVS["native"]()).save(tmp_path / "two")
    PPO.load(tmp_path / "two").save(tmp_path / "three")  # without an environment
    assert_equal(state_of(finish(tmp_path / "three", ENVS["native"]())), whole)


def test_resuming_what_was_saved_before_any_learning(tmp_path: Path) -> None:
    whole = fresh("native", "plain")
    whole.save(tmp_path / "new")
    assert_equal(state_of(finish(tmp_path / "new", ENVS["native"]())), state_of(whole.learn(TOTAL)))


def test_resuming_between_rollouts_and_with_another_attention_and_architecture(tmp_path: Path) -> None:
    eager = GPT2LMHeadModel._from_config(tiny_gpt2(vocab_size=V).config, attn_implementation="eager")
    for number, model in enumerate([tiny_llama(vocab_size=V), eager]):
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        whole = state_of(fresh("native", "plain", model).learn(TOTAL))
        model.load_state_dict(weights)
        half = fresh("native", "plain", model)
        half.learn(TOTAL // 2)
        half._rollout_start = None
        half.save(tmp_path / str(number))
        loaded = finish(tmp_path / str(number), ENVS["native"]())
        assert_equal(state_of(loaded), whole)
        assert loaded.policy.model.config._attn_implementation == model.config._attn_implementation


def test_saving_does_not_disturb_a_training(tmp_path: Path) -> None:
    quiet = state_of(fresh("native", "plain").learn(TOTAL))
    busy = fresh("native", "plain")
    busy.learn(TOTAL, callback=CheckpointCallback(7, str(tmp_path)))
    assert_equal(state_of(busy), quiet)
    assert len(list(tmp_path.iterdir())) > 5


def test_resuming_with_another_number_of_environments_says_so(tmp_path: Path) -> None:
    fresh("native", "plain").learn(50).save(tmp_path / "ppo")
    ppo = PPO.load(tmp_path / "ppo", env=toy_vector(3))
    with pytest.warns(UserWarning, match="had 8 environments, this one has 3: it goes on with other prompts"):
        ppo.learn(30, reset_num_timesteps=False)


FRESH_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_ppo
from textgym_agents import PPO
file = Path(sys.argv[2])
obs, _ = test_ppo.observations()
print(PPO.load(file).predict(obs, deterministic=True)[0].tolist())
import torch
torch.save(test_ppo.state_of(test_ppo.finish(file, test_ppo.ENVS["native"]())), sys.argv[3])
"""


@pytest.mark.slow
def test_a_fresh_process_loads_predicts_and_resumes_exactly(tmp_path: Path) -> None:
    whole = state_of(fresh("native", "top-p").learn(TOTAL))
    interrupted(fresh("native", "top-p"), 35, tmp_path / "killed.zip")
    here = PPO.load(tmp_path / "killed").predict(observations()[0], deterministic=True)[0].tolist()
    arguments = [Path(__file__).parent, tmp_path / "killed.zip", tmp_path / "state.pt"]
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[0]) == here
    assert_equal(torch.load(tmp_path / "state.pt"), whole)


# ---- files that are safe ---------------------------------------------------------------------------------------------------


def test_a_saved_file_is_json_and_safetensors_and_nothing_else(tmp_path: Path) -> None:
    ppo = toy_ppo(kl_coef=0.1)
    ppo.learn(50)
    ppo.save(tmp_path / "ppo")
    with zipfile.ZipFile(tmp_path / "ppo.zip") as archive:
        names = set(archive.namelist())
        assert names == {"config.json", *(f"{n}.safetensors" for n in ("policy", "optimizer", "random", "reference"))}
        config = json.loads(archive.read("config.json"))
        for name in names - {"config.json"}:
            tensors = load_tensors(archive.read(name))
            assert tensors
        for name in names:
            with pytest.raises(Exception):  # noqa: B017  (whatever pickle says: it is none)
                pickle.loads(archive.read(name))
    assert config["format"] == 1
    assert config["hyperparameters"]["kl_coef"] == 0.1
    assert "model" not in config["policy_kwargs"]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_stock_sb3_with_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker, file = tmp_path / "executed", tmp_path / "stranger.zip"
    serialized = base64.b64encode(pickle.dumps(Evil(marker))).decode()
    data = {"policy_class": {":type:": "<class 'Evil'>", ":serialized:": serialized}}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", pickle.dumps(Evil(marker)))
        archive.writestr("pytorch_variables.pth", pickle.dumps(Evil(marker)))
    with pytest.raises(CheckpointError, match=r"is a zip, but not of textgym: expected 'config.json' in it.*'data'"):
        PPO.load(file)
    with pytest.raises(CheckpointError, match="not of textgym"):
        toy_ppo().set_parameters(file)
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017
        load_from_zip_file(file)
    assert marker.exists()  # it really is malicious: stock SB3 runs it


def test_a_malicious_member_beside_ours_is_not_read_and_a_configuration_cannot_name_code(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    toy_ppo().save(tmp_path / "ppo")
    with zipfile.ZipFile(tmp_path / "ppo.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["model_config"] |= {
        "auto_map": {"AutoModelForCausalLM": "stranger/code--modeling.Evil"},
        "_attn_implementation": "stranger/kernel",
        "attn_implementation": "stranger/kernel",
        "attention": "stranger/kernel",
    }
    members |= {"config.json": json.dumps(config).encode(), "data.pkl": pickle.dumps(Evil(marker))}
    with zipfile.ZipFile(tmp_path / "changed.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    loaded = PPO.load(tmp_path / "changed")
    assert loaded.policy.model.config._attn_implementation in ("sdpa", "eager")
    assert type(loaded.policy.model) is GPT2LMHeadModel
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.999])
def test_a_truncated_file_is_refused(keep: float, tmp_path: Path) -> None:
    file = tmp_path / "ppo.zip"
    toy_ppo().save(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(CheckpointError, match=r"Could not read .*ppo.zip as a saved algorithm"):
        PPO.load(file)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ppo.zip"
    toy_ppo().save(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"Could not read .*CRC"):
        PPO.load(file)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_saving_is_atomic(failure: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = toy_ppo()
    ppo.save(tmp_path / "ppo")
    before = (tmp_path / "ppo.zip").read_bytes()
    ppo.learn(50)
    from safetensors.torch import save

    written = []

    def fails_later(tensors: dict[str, torch.Tensor]) -> bytes:
        written.append(tensors)
        if len(written) == 2:
            raise failure("no space left")
        return save(tensors)

    monkeypatch.setattr("textgym_agents.algorithms.checkpoint.save_tensors", fails_later)
    with pytest.raises(failure, match="no space left"):
        ppo.save(tmp_path / "ppo")
    assert len(written) == 2
    assert (tmp_path / "ppo.zip").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["ppo.zip"]


# ---- the pieces of the loss at work ----------------------------------------------------------------------------------------


def test_target_kl_stops_the_updates_of_a_rollout() -> None:
    def updates(target_kl: float | None) -> tuple[int, dict[str, torch.Tensor], float]:
        ppo = toy_ppo(toy_vector(8), model=tiny_gpt2(vocab_size=V), n_epochs=6, learning_rate=0.02, target_kl=target_kl)
        before = state_of(ppo)
        ppo.learn(1)
        return ppo._n_updates, before, ppo.logger.name_to_value["train/approx_kl"]

    free, before, kl = updates(None)
    stopped, same_before, _ = updates(1e-4)
    assert_equal(*({k: v for k, v in state.items() if k != "prompts"} for state in (before, same_before)))
    assert free == 6
    assert kl > 1e-3
    assert stopped == 1
    assert updates(1e9)[0] == 6


def test_value_clipping_and_the_entropy_bonus_do_something() -> None:
    def trained(**settings: Any) -> PPO:
        return toy_ppo(model=tiny_gpt2(vocab_size=V, scale=0.3), n_epochs=8, learning_rate=5e-3, **settings).learn(400)

    plain, clipped = trained(), trained(clip_range_vf=0.01)
    assert differ(plain.policy.state_dict(), clipped.policy.state_dict())
    entropies = {}
    for coef in (0.0, 1.0):
        ppo = trained(ent_coef=coef, vf_coef=0.0)
        entropies[coef] = -ppo.logger.name_to_value["train/entropy_loss"]
    assert entropies[1.0] > entropies[0.0] + 0.2
    assert entropies[1.0] == pytest.approx(np.log(9), abs=0.3)  # the mask leaves 10 of 11 words


@pytest.mark.parametrize("layers", [0, 1])
def test_only_the_last_layers_and_the_value_head_train(layers: int) -> None:
    ppo = toy_ppo(
        model=tiny_gpt2(vocab_size=V, n_layer=3), policy_kwargs={"trainable_layers": layers}, learning_rate=0.01
    )
    before = {k: v.clone() for k, v in ppo.policy.state_dict().items()}
    ppo.learn(300)
    after = ppo.policy.state_dict()
    changed = set(differ(before, after))
    assert {"value_head.weight", "value_head.bias"} <= changed
    for name in before:
        last = name.startswith(("model.transformer.h.2.", "model.transformer.ln_f.", "value_head."))
        allowed = last if layers else name.startswith("value_head.")
        assert allowed or name not in changed
    trained = [n for n in changed if n.startswith("model.transformer.h.2.")]
    assert len(trained) == (12 if layers else 0)
    assert sum(p.requires_grad for p in ppo.policy.parameters()) == len(ppo.policy.optimizer.param_groups[0]["params"])


def test_dropout_is_off_in_every_architecture() -> None:
    model = tiny_llama(vocab_size=V)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    for made in (model, tiny_gpt2(vocab_size=V, attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)):
        policy = policy_of(made, vocab_size=V)
        policy.set_training_mode(True)  # as stock algorithms do
        rows = torch.randint(2, V, (4, 9)).tolist()
        batch = Sequences.of([row[:4] for row in rows], [row[4:] for row in rows], None)
        first, again = (policy.evaluate_sequences(batch, 1.0)[0] for _ in range(2))
        assert torch.equal(first, again)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_training_before_it_harms_the_weights(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = toy_ppo()
    before = {k: v.clone() for k, v in ppo.policy.state_dict().items()}

    def loss(*_: Any) -> tuple[torch.Tensor, dict[str, float]]:
        weight = ppo.policy.value_head.weight.sum()
        return (weight * torch.nan if broken == "loss" else (weight - weight.detach()).sqrt()), {"approx_kl": 0.0}

    monkeypatch.setattr(ppo, "_loss", loss)
    with pytest.raises(TrainingError, match=rf"The {broken} became (nan|inf).*the weights are those from before it"):
        ppo.learn(50)
    assert_equal(ppo.policy.state_dict(), before)


# ---- it learns -------------------------------------------------------------------------------------------------------------


def share_of_e(text: str) -> float:
    """Share of the letter e among all characters."""
    return text.count("e") / max(1, len(text))


def mean_reward(ppo: PPO, env: Any) -> float:
    mean, _ = evaluate_policy(ppo, env, n_eval_episodes=64, deterministic=False)
    return float(mean)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_reward_rises(seed: int) -> None:
    kwargs: dict[str, Any] = {"reward": share_of_e, "max_new_tokens": 8, "min_new_tokens": 4}
    held_out = VecMonitor(GymVecEnv(vector(64, split="test", autoreset_mode="SameStep", **kwargs)))
    ppo = tiny_ppo(
        vector(64, **kwargs),
        seed,
        tiny_gpt2(seed, scale=0.1),
        batch_size=16,
        n_epochs=4,
        learning_rate=5e-3,
        kl_coef=0.0,
    )
    held_out.seed(0)
    before = mean_reward(ppo, held_out)
    ppo.learn(10_000)
    held_out.seed(0)
    after = mean_reward(ppo, held_out)
    assert before < 0.15
    assert after > before + 0.25


def test_the_vocabulary_of_the_tests_is_the_bundled_one() -> None:
    assert single().action_space.n == VOCAB  # type: ignore[attr-defined]
