"""The vector environment: the same episodes as single environments, whatever runs beside them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import BAR, END, PAD, WORDS, YOU, A, B, Talk, Watched, assert_same, shown, word_tokenizer
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics

from textgym import Example
from textgym.core import Completion, TextGymError
from textgym.envs import TextGenEnv, TextGenVectorEnv
from textgym.rewards import Length, Sentiment, Shaped

MODES = list(AutoresetMode)
SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "sentiment": lambda: {"task": "sentiment", "max_new_tokens": 9},
    "hard": lambda: {"task": "sentiment", "max_new_tokens": 6, "min_new_tokens": 4, "difficulty": "hard"},
    "dense": lambda: {
        "task": "sentiment",
        "max_new_tokens": 6,
        "reward": 0.3 * Shaped(Sentiment(), gamma=0.9) + Length(),
    },
    "turns": lambda: {"task": Talk(), "tokenizer": word_tokenizer()},
    "list": lambda: {"task": Talk(), "tokenizer": word_tokenizer(), "prompts": ["hi", "we you", Example("a", ("b",))]},
}


def toys(num_envs: int, **kwargs: Any) -> TextGenVectorEnv:
    return TextGenVectorEnv(**{"task": Talk(), "tokenizer": word_tokenizer(), "num_envs": num_envs, **kwargs})


def actions_of(envs: VectorEnv, rng: np.random.Generator, num_envs: int) -> np.ndarray:
    """Any tokens, and the end token often, so that slots end at different times."""
    tokens = rng.integers(envs.single_action_space.n, size=num_envs)
    return np.where(rng.random(num_envs) < 0.15, END, tokens)


def record(envs: VectorEnv, mode: AutoresetMode, steps: int = 60, seed: Any = 3) -> list[Any]:
    """All that comes back from random play; DISABLED slots are reset as soon as they end."""
    rng = np.random.default_rng(0)
    seen: list[Any] = [envs.reset(seed=seed)]
    for _ in range(steps):
        seen.append(envs.step(actions_of(envs, rng, envs.num_envs)))
        done = seen[-1][2]
        if mode == AutoresetMode.DISABLED and done.any():
            seen.append(envs.reset(options={"reset_mask": done.copy()}))
    return seen


# ---- equal to single environments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_agrees_with_single_environments(mode, setting):
    kwargs = SETTINGS[setting]
    native = record(TextGenVectorEnv(**kwargs(), num_envs=5, autoreset_mode=mode), mode)
    single = record(SyncVectorEnv([lambda: TextGenEnv(**kwargs())] * 5, autoreset_mode=mode), mode)
    assert len(native) == len(single)
    for step, (one, other) in enumerate(zip(native, single, strict=True)):
        assert_same(one, other, f"step {step}")
    ends = [set(np.flatnonzero(result[2])) for result in native if len(result) == 5 and result[2].any()]
    assert len(ends) > 5 and set().union(*ends) == set(range(5)) and any(len(slots) < 5 for slots in ends)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_make_vec_agrees_with_its_own_sync_mode(mode):
    made = []
    for how in ("vector_entry_point", "sync"):
        kwargs = {"autoreset_mode": mode.value} if how != "sync" else {"vector_kwargs": {"autoreset_mode": mode}}
        envs = gym.make_vec("TextGen-Sentiment-v0", num_envs=3, vectorization_mode=how, max_new_tokens=4, **kwargs)
        assert envs.metadata["autoreset_mode"] == mode
        made.append(envs)
    assert made[0].observation_space == made[1].observation_space
    assert made[0].action_space == made[1].action_space
    assert made[0].single_observation_space == made[1].single_observation_space
    assert_same(record(made[0], mode, 10), record(made[1], mode, 10))


def test_spaces_hold_what_comes_back():
    envs = toys(3)
    assert envs.reset(seed=0)[0] in envs.observation_space
    for _ in range(12):
        obs, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert obs in envs.observation_space
        assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
        assert not truncated.any()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.value)
def test_episode_does_not_depend_on_what_runs_beside_it(mode):
    def slot_of(num_envs: int, slot: int) -> list[Any]:
        envs = TextGenVectorEnv("sentiment", num_envs=num_envs, autoreset_mode=mode, max_new_tokens=5)
        rngs = [np.random.default_rng(100 + i - slot) for i in range(num_envs)]
        obs, infos = envs.reset(seed=[40 + i - slot for i in range(num_envs)])
        seen: list[Any] = [{key: value[slot] for key, value in obs.items()}, infos["prompt"][slot]]
        for _ in range(30):
            actions = np.concatenate([actions_of(envs, rng, 1) for rng in rngs])
            obs, rewards, terminated, _, infos = envs.step(actions)
            seen += [{key: value[slot] for key, value in obs.items()}, rewards[slot], terminated[slot]]
            seen += [infos["prompt"][slot]] if "prompt" in infos and infos["_prompt"][slot] else []
        return seen

    alone = slot_of(1, 0)
    for num_envs, slot in ((2, 1), (7, 0), (7, 3), (16, 15)):
        assert_same(slot_of(num_envs, slot), alone, f"slot {slot} of {num_envs}")


# ---- autoreset, partial resets, hold --------------------------------------------------------------------------------


def test_next_step_ignores_the_action_after_an_end():
    envs = toys(2, max_new_tokens=2)
    envs.reset(options={"examples": ["hi", "we"]})
    envs.step([A, A])
    _, rewards, terminated, _, infos = envs.step([A, END])
    assert rewards.tolist() == [2, 1] and terminated.all()
    assert infos["finish_reason"].tolist() == ["length", "stop"]
    obs, rewards, terminated, _, infos = envs.step([-5, 99])  # not even a token
    assert rewards.tolist() == [0, 0] and not terminated.any()
    assert not obs["completion_mask"].any()
    assert set(infos) == {"prompt", "_prompt"} and infos["_prompt"].all()


def test_same_step_gives_the_last_observation_apart():
    envs = toys(2, autoreset_mode="SameStep")
    envs.reset(options={"examples": ["hi", "we"]})
    obs, rewards, terminated, _, infos = envs.step([END, A])
    assert terminated.tolist() == [True, False]
    assert shown(infos["final_obs"][0]) == ". " * 11 + "hi </S>"
    assert infos["final_obs"][1] is None
    assert infos["final_info"]["prompt"].tolist() == ["hi", None]
    assert infos["_final_info"].tolist() == infos["_prompt"].tolist() == [True, False]
    assert not obs["completion_mask"][0].any() and obs["completion_mask"][1].sum() == 1
    assert (rewards == 0).all()


def test_disabled_waits_for_a_reset_or_hold():
    envs = toys(3, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step([END, A, END])
    with pytest.raises(TextGymError, match=r"Expected a reset \(or hold\) of slots \[0, 2\]"):
        envs.step([A, A, A])
    envs.hold(np.array([True, False, False]))
    envs.reset(options={"reset_mask": np.array([False, False, True])})
    obs, *_ = envs.step([A, A, A])
    assert obs["completion_mask"].sum(axis=1).tolist() == [1, 2, 1]


def test_partial_reset_leaves_the_others_alone():
    envs = toys(4, autoreset_mode="Disabled")
    envs.reset(seed=0)
    states = envs.get_state()
    envs.step([A, A, A, A])
    mask = np.array([False, True, False, True])
    options = {"reset_mask": mask}
    obs, infos = envs.reset(seed=50, options=options)
    assert list(options) == ["reset_mask"] and mask.tolist() == [False, True, False, True]
    assert infos["_prompt"].tolist() == mask.tolist() and infos["prompt"][0] is None
    assert [row[-1] for row in obs["input_ids"]][::2] == [A, A]
    assert obs["completion_mask"].sum(axis=1).tolist() == [1, 0, 1, 0]
    assert [one == other for one, other in zip(envs.get_state(), states, strict=True)] == [True, False, True, False]
    assert envs.np_random_seed == (0, 51, 2, 53)


def test_partial_reset_from_examples():
    envs = toys(2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step([A, A])
    obs, _ = envs.reset(options={"examples": ["hi", "we"], "reset_mask": np.array([False, True])})
    assert shown({key: value[1] for key, value in obs.items()}).endswith(". we")
    assert obs["input_ids"][0, -1] == A


def test_reset_of_all_from_one_example():
    single = SyncVectorEnv([lambda: TextGenEnv(Talk(), tokenizer=word_tokenizer())] * 3)
    options = {"example": Example("we you", ("ref",))}
    assert_same(toys(3).reset(seed=0, options=dict(options)), single.reset(seed=0, options=dict(options)))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_hold(mode):
    envs = toys(3, autoreset_mode=mode)
    envs.reset(seed=0)
    first, *_ = envs.step([A, B, A])
    envs.hold(np.array([False, True, False]))
    for _ in range(4):
        obs, rewards, terminated, _, _ = envs.step([A, -1, A])  # the action of a held slot does not matter
        assert_same(obs["input_ids"][1], first["input_ids"][1])
        assert rewards[1] == 0 and not terminated[1]
    obs, _ = envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert not obs["completion_mask"][1].any()
    obs, *_ = envs.step([A, B, A])
    assert obs["input_ids"][1, -1] == B


def test_observations_are_fresh_arrays():
    envs = toys(3)
    first, _ = envs.reset(seed=0)
    kept = copy.deepcopy(first)
    second, *_ = envs.step([A, A, A])
    assert_same(first, kept)
    for obs in (first, second):
        for value in obs.values():
            value[:] = 1
    third, *_ = envs.step([B, B, B])
    assert third["completion_mask"].sum() == 6


class Plain:
    """One slot's observation, built from lists: what the environment's buffers must show."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.prompt: list[int] = []
        self.after: list[tuple[int, int]] = []  # tokens, and whether they are the policy's

    def begin(self, prompt: str) -> None:
        self.prompt, self.after = [WORDS.index(word) for word in prompt.split()], []

    def append(self, token: int) -> None:
        self.after.append((token, 1))
        if token == BAR and [token for token, own in self.after if own][-2:] != [BAR, BAR]:
            self.after.append((YOU, 0))

    def observe(self) -> dict[str, np.ndarray]:
        ids, own = [*self.prompt, *(t for t, _ in self.after)], [0] * len(self.prompt) + [own for _, own in self.after]
        left = self.width - len(ids)
        return {
            "input_ids": np.array([PAD] * left + ids, dtype=np.int64),
            "attention_mask": np.array([0] * left + [1] * len(ids), dtype=np.int8),
            "completion_mask": np.array([0] * left + own, dtype=np.int8),
        }


@pytest.mark.parametrize("ends", [0.0, 0.2], ids=["lockstep", "apart"])
@pytest.mark.parametrize("answers", [False, True], ids=["alone", "turns"])
def test_observations_over_many_episodes(ends, answers):
    """Nothing of an earlier episode, with a longer prompt or other replies, shows in a later one."""
    prompts = ["hi", "we you", "a b c", "you hi we"]
    envs = toys(5, task=Talk(answer="you"), prompts=prompts, autoreset_mode="SameStep")
    slots, rng = [Plain(envs.setting.width) for _ in range(5)], np.random.default_rng(0)
    obs, infos = envs.reset(seed=0)
    for slot, prompt in zip(slots, infos["prompt"], strict=True):
        slot.begin(prompt)
    for _ in range(90):
        actions = rng.choice([A, B, BAR] if answers else [A, B], size=5)
        actions[rng.random(5) < ends] = END
        obs, _, terminated, _, infos = envs.step(actions)
        for k, slot in enumerate(slots):
            token = int(actions[k])
            if terminated[k]:
                slot.after.append((token, 1))
                assert_same(infos["final_obs"][k], slot.observe())
                slot.begin(infos["prompt"][k])
            else:
                slot.append(token)
        for key in obs:
            assert_same(obs[key], np.stack([slot.observe()[key] for slot in slots]))
            assert obs[key].flags.c_contiguous and obs[key].flags.writeable


def test_observations_share_no_memory():
    envs = toys(3, autoreset_mode="SameStep", max_new_tokens=2)
    made = [envs.reset(seed=0)[0]]
    for _ in range(4):
        obs, _, _, _, infos = envs.step([A, A, B])
        made.append(obs)
        if "final_obs" in infos:
            made += list(infos["final_obs"])
    arrays = [array for obs in made for array in obs.values()]
    assert len(arrays) == 3 * (5 + 2 * 3)
    for i, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:i])


class Sometimes(Talk):
    """Knows success only of what is not empty."""

    def is_success(self, completion: Completion) -> bool | None:
        return "a" in completion.text if completion.text else None


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_success_is_left_out_where_the_task_does_not_know_it(mode):
    kwargs: dict[str, Any] = {"task": Sometimes(), "tokenizer": word_tokenizer()}
    native = TextGenVectorEnv(**kwargs, num_envs=3, autoreset_mode=mode)
    single = SyncVectorEnv([lambda: TextGenEnv(**kwargs)] * 3, autoreset_mode=mode)
    assert_same(record(native, mode), record(single, mode))
    native.reset(seed=0)
    native.step([A, A, B])
    native.reset(options={"reset_mask": np.array([False, True, False])})
    *_, infos = native.step([END, END, A])
    final = infos["final_info"] if mode == AutoresetMode.SAME_STEP else infos
    assert (final["_completion"].tolist(), final["_is_success"].tolist()) == ([True, True, False], [True, False, False])
    assert final["is_success"].tolist() == [True, False, False] and final["is_success"].dtype == np.bool_
    native.reset(seed=0)
    *_, infos = native.step([END, END, END])
    assert "is_success" not in (infos["final_info"] if mode == AutoresetMode.SAME_STEP else infos)


# ---- seeds, groups, state -------------------------------------------------------------------------------------------


def test_seeds():
    envs = toys(4)
    envs.reset(seed=7)
    assert envs.np_random_seed == (7, 8, 9, 10)
    by_number = envs.reset(seed=7)
    assert_same(envs.reset(seed=[7, 8, 9, 10]), by_number)
    assert_same(envs.reset(seed=np.array([7, 8, 9, 10])), by_number)
    envs.reset(seed=[1, None, 2, None])
    assert envs.np_random_seed == (1, 8, 2, 10)
    assert len(set(toys(4).np_random_seed)) == 4, "without a seed, each slot has its own"


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_groups_share_prompts_though_slots_run_at_their_own_speed(mode):
    envs = TextGenVectorEnv("sentiment", num_envs=6, group_size=3, autoreset_mode=mode, max_new_tokens=6)
    _, infos = envs.reset(seed=11)
    assert envs.np_random_seed == (11, 11, 11, 12, 12, 12)
    prompts: list[list[str]] = [[prompt] for prompt in infos["prompt"]]
    rng = np.random.default_rng(1)
    for _ in range(80):
        obs, _, terminated, _, infos = envs.step(actions_of(envs, rng, 6))
        if mode == AutoresetMode.DISABLED and terminated.any():
            obs, infos = envs.reset(options={"reset_mask": terminated.copy()})
        begun = obs["completion_mask"].sum(axis=1) == 0
        if mode != AutoresetMode.NEXT_STEP:
            assert (begun == terminated).all(), "no slot waits for another"
        for slot in np.flatnonzero(begun):
            prompts[slot].append(infos["prompt"][slot])
    counts = [len(seen) for seen in prompts]
    assert min(counts) > 8 and len(set(counts)) > 2, "the slots did run at different speeds"
    for group in (prompts[:3], prompts[3:]):
        for kth in zip(*group, strict=False):
            assert len(set(kth)) == 1
    assert prompts[0][:8] != prompts[3][:8]
    assert len(set(prompts[0])) == len(prompts[0])


def test_groups_without_a_seed():
    envs = toys(6, group_size=2)
    _, infos = envs.reset()
    seeds = envs.np_random_seed
    assert seeds[::2] == seeds[1::2] and len(set(seeds)) == 3
    assert infos["prompt"][::2].tolist() == infos["prompt"][1::2].tolist()


def test_group_is_like_single_environments_with_one_seed():
    grouped = toys(4, group_size=2, autoreset_mode="SameStep")
    listed = toys(4, autoreset_mode="SameStep")
    one = record(grouped, AutoresetMode.SAME_STEP, 30, seed=5)
    assert_same(record(listed, AutoresetMode.SAME_STEP, 30, seed=[5, 5, 6, 6]), one)


def test_state_decides_the_episodes_to_come():
    envs = toys(3)
    envs.reset(seed=1)
    state = envs.get_state()
    wanted = [envs.reset()[1]["prompt"].tolist() for _ in range(3)]
    other = toys(3)
    other.set_state(state)
    assert [other.reset()[1]["prompt"].tolist() for _ in range(3)] == wanted
    assert [rng.bit_generator.state for rng in envs.np_random] == envs.get_state()


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda envs: pickle.loads(pickle.dumps(envs))], ids=["copy", "pickle"]
)
def test_copies_go_on_by_themselves(clone):
    envs = toys(3)
    envs.reset(seed=0)
    envs.step([A, BAR, B])
    twin = clone(envs)
    rng = np.random.default_rng(0)
    actions = [actions_of(envs, rng, 3) for _ in range(20)]
    wanted = [envs.step(a) for a in actions]
    assert_same([twin.step(a) for a in actions], wanted)


# ---- rewards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_rewards_of_a_step_are_scored_in_one_call(mode):
    reward = Watched()
    envs = toys(8, reward=reward, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    together = 0
    for _ in range(40):
        reward.batches.clear()
        _, rewards, terminated, _, infos = envs.step(actions_of(envs, rng, 8))
        ended = np.flatnonzero(terminated)
        assert [len(batch) for batch in reward.batches] == ([len(ended)] if len(ended) else [])
        if len(ended):
            together = max(together, len(ended))
            final = infos["final_info"] if mode == AutoresetMode.SAME_STEP else infos
            assert [c.text for c in reward.batches[0]] == final["completion"][ended].tolist()
            assert rewards[ended].tolist() == final["reward/watched"][ended].tolist()
            if mode == AutoresetMode.DISABLED:
                envs.reset(options={"reset_mask": terminated})
    assert together > 1


def test_potentials_of_a_step_are_scored_in_one_call():
    reward = Watched()
    envs = toys(4, reward=Shaped(reward))
    envs.reset(seed=0)
    assert [len(batch) for batch in reward.batches] == [4]
    envs.step([A, A, END, A])
    assert [len(batch) for batch in reward.batches[1:]] == [3, 1]  # those that go on, the one that ended


# ---- Gymnasium's tools ----------------------------------------------------------------------------------------------


def test_record_episode_statistics():
    envs = RecordEpisodeStatistics(toys(2, autoreset_mode="SameStep"))
    envs.reset(seed=0)
    envs.step(np.array([A, A]))
    _, _, _, _, infos = envs.step(np.array([END, A]))
    assert infos["_episode"].tolist() == [True, False]
    assert (infos["episode"]["r"][0], infos["episode"]["l"][0]) == (1.0, 2)
    _, _, _, _, infos = envs.step(np.array([A, END]))
    assert (infos["episode"]["r"][1], infos["episode"]["l"][1]) == (2.0, 3)


def test_normalize_reward():
    envs = NormalizeReward(toys(4, autoreset_mode="SameStep"))
    plain = record(toys(4, autoreset_mode="SameStep"), AutoresetMode.SAME_STEP)
    normal = record(envs, AutoresetMode.SAME_STEP)
    for one, other in zip(plain[1:], normal[1:], strict=True):
        assert ((one[1] == 0) == (other[1] == 0)).all()
    assert any((one[1] != other[1]).any() for one, other in zip(plain[1:], normal[1:], strict=True))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.value)
def test_dict_info_to_list(mode):
    envs = DictInfoToList(toys(2, autoreset_mode=mode))
    _, infos = envs.reset(options={"examples": ["hi", "we"]})
    assert infos == [{"prompt": "hi"}, {"prompt": "we"}]
    _, _, _, _, infos = envs.step(np.array([A, END]))
    assert infos[0] == {}
    final = infos[1]["final_info"] if mode == AutoresetMode.SAME_STEP else infos[1]
    assert final["finish_reason"] == "stop" and final["reward/watched"] == 0.0 and final["prompt"] == "we"


def test_render():
    envs = toys(2, render_mode="ansi", reward=Shaped(Watched()))
    envs.reset(options={"examples": ["hi", "we"]})
    envs.step([A, A])
    envs.step([A, B])
    first, second = envs.render()
    assert "hi" in first and " a a" in first and "2/6" in first and "+2.00" in first
    assert "we" in second and " a b" in second and "+1.00" in second
    pictures = gym.make_vec("TextGen-Sentiment-v0", num_envs=2, render_mode="rgb_array")
    pictures.reset(seed=0)
    frames = pictures.render()
    assert isinstance(frames, tuple) and len(frames) == 2
    assert frames[0].shape == frames[1].shape and frames[0].dtype == np.uint8
    assert toys(2).render() is None


def test_async_vector_env_of_single_environments():
    kwargs: dict[str, Any] = {"num_envs": 2, "max_new_tokens": 3, "vectorization_mode": "async"}
    envs = gym.make_vec("textgym:TextGen-Sentiment-v0", vector_kwargs={"context": "spawn"}, **kwargs)
    try:
        found = record(envs, AutoresetMode.NEXT_STEP, 8)
    finally:
        envs.close()
    native = TextGenVectorEnv("sentiment", num_envs=2, max_new_tokens=3)
    assert_same(found, record(native, AutoresetMode.NEXT_STEP, 8))
