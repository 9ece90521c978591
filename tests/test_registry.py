"""What must hold for every registered environment."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import ENV_IDS, assert_same, play
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordVideo
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from textgym import TASKS, make_task
from textgym.tasks import Task

every_env = pytest.mark.parametrize("env_id", ENV_IDS)
MODES = ("ansi", "rgb_array", "human")


def fresh_python(code: str, **environ: str) -> Any:
    """What ``code`` prints as JSON in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_two(env_id: str, **kwargs: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(env_id, num_envs=2, **kwargs)


def by_json(spec: EnvSpec) -> EnvSpec:
    return EnvSpec.from_json(spec.to_json())


def by_pickle(spec: EnvSpec) -> EnvSpec:
    return pickle.loads(pickle.dumps(spec))


def task_of(env_id: str) -> Task:
    return make_task(env_id)


# ---- Gymnasium's and Stable-Baselines3's contracts -----------------------------------------------------------------


@every_env
def test_is_a_task(env_id):
    assert {task.id for task in TASKS.values()} == set(ENV_IDS)
    assert make_task(env_id).id == env_id


@every_env
def test_gymnasium_check_env(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped)


@every_env
def test_sb3_check_env(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gym.make(env_id).unwrapped)


@every_env
@pytest.mark.parametrize("through", [by_json, by_pickle])
@pytest.mark.parametrize("make", [gym.make, make_two])
def test_spec_survives(env_id, make, through):
    assert through(gym.spec(env_id)) == gym.spec(env_id)
    task = task_of(env_id)
    env = make(env_id, split="test", max_new_tokens=5, min_new_tokens=2, difficulty=task.difficulties[-1])
    spec = through(env.spec)
    assert spec == env.spec
    again = gym.make(spec) if isinstance(env, gym.Env) else gym.make_vec(spec)
    assert_same(env.reset(seed=3), again.reset(seed=3))
    assert again.unwrapped.setting.max_new_tokens == 5


def test_make_without_import():
    code = (
        "import json, sys, gymnasium as gym; found = {}; "
        f"[found.update({{i: gym.make('textgym:' + i).reset(seed=5)}}) for i in {ENV_IDS}]; "
        "print(json.dumps({i: [info['prompt'], obs['input_ids'].tolist()] for i, (obs, info) in found.items()}))"
    )
    here = {}
    for env_id in ENV_IDS:
        obs, info = gym.make(env_id).reset(seed=5)
        here[env_id] = [info["prompt"], obs["input_ids"].tolist()]
    assert fresh_python(code, PYTHONHASHSEED="1") == here  # and not by chance of the hash seed
    assert fresh_python(code, PYTHONHASHSEED="2") == here


def test_neither_torch_nor_transformers_is_imported():
    code = (
        "import json, sys, gymnasium as gym, textgym\n"
        f"for env_id in {ENV_IDS}:\n"
        "    env = gym.make(env_id, render_mode='ansi', max_new_tokens=1)\n"
        "    env.reset(seed=0)\n"
        "    env.step(int(env.unwrapped.action_masks().argmax()))\n"
        "    env.render()\n"
        "    gym.make_vec(env_id, num_envs=2).reset()\n"
        "print(json.dumps(sorted({'torch', 'transformers', 'stable_baselines3', 'PIL', 'textgym_agents'} & set(sys.modules))))"
    )
    assert fresh_python(code) == []


# ---- rendering ------------------------------------------------------------------------------------------------------


@every_env
@pytest.mark.parametrize("mode", MODES)
def test_render_modes(env_id, mode, capsys):
    env = gym.make(env_id, render_mode=mode)
    assert env.metadata["render_modes"] == ["human", "ansi", "rgb_array"]
    _, info = env.reset(seed=0)
    first = env.render()
    allowed = np.flatnonzero(env.unwrapped.action_masks())
    _, last = play(env, np.random.default_rng(0).choice(allowed, 1000))
    frame = env.render()
    env.close()
    env.close()
    if mode == "human":
        assert first is frame is None
        assert info["prompt"] in capsys.readouterr().out
    elif mode == "ansi":
        assert info["prompt"] in frame and last["finish_reason"] in frame
        assert frame != first
    else:
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
        assert frame.shape == first.shape and (frame != first).any()


@every_env
def test_record_video(env_id, tmp_path):
    env = RecordVideo(
        gym.make(env_id, render_mode="rgb_array", max_new_tokens=3), str(tmp_path / "videos"), disable_logger=True
    )
    env.reset(seed=0)
    play(env, [int(env.unwrapped.action_masks().argmax())] * 3)
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 500


# ---- randomness ----------------------------------------------------------------------------------------------------


@every_env
@pytest.mark.parametrize("make", [gym.make, make_two])
def test_deterministic_per_seed(env_id, make):
    def episode(env: Any, seed: int) -> list[Any]:
        rng = np.random.default_rng(1)
        seen = [env.reset(seed=seed), env.reset()]
        for _ in range(40):
            action = rng.integers(2, 50, env.action_space.shape)
            seen.append(env.step(action if isinstance(env, gym.vector.VectorEnv) else int(action)))
            if np.any(seen[-1][2]):
                break
        return seen

    env = make(env_id)
    first = episode(env, 7)
    assert_same(episode(env, 7), first)
    assert_same(episode(make(env_id), 7), first)
    assert not np.array_equal(first[0][0]["input_ids"], first[1][0]["input_ids"]), "the next episode is another"
    assert not np.array_equal(env.reset(seed=8)[0]["input_ids"], first[0][0]["input_ids"])


@every_env
def test_global_random_state_is_left_alone(env_id):
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()
    env = gym.make(env_id)
    env.reset(seed=0)
    play(env, np.random.default_rng(0).choice(np.flatnonzero(env.unwrapped.action_masks()), 1000))
    gym.make(env_id).reset()
    assert_same((random.getstate(), np.random.get_state()), before)
    first = gym.make(env_id).reset(seed=0)[1]
    random.seed(2)
    np.random.seed(2)
    assert gym.make(env_id).reset(seed=0)[1] == first, "and is not read either"
