"""Curriculum, whole completions, forgetful observations, dense rewards."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import BAR, END, A, B, Talk, Watched, assert_same, play, shown, talk, word_tokenizer
from gymnasium.utils.env_checker import check_env

from textgym import Completion, Example
from textgym.core import TextGymError
from textgym.envs import InvalidActionError, TextGenEnv, TextGenVectorEnv
from textgym.prompts import PromptError
from textgym.rewards import Length, Shaped
from textgym.wrappers import (
    CurriculumWrapper,
    DenseRewardWrapper,
    HistoryWrapper,
    VectorCurriculumWrapper,
    VectorDenseRewardWrapper,
    VectorHistoryWrapper,
    WholeCompletionWrapper,
)

ID = "TextGen-Sentiment-v0"
MODES = ["NextStep", "SameStep", "Disabled"]


class Ladder(Talk):
    """Three levels, which the prompt names; solved by an ``a``. A harder level draws more random numbers."""

    id = "Ladder-v0"
    turn_end = None
    max_reply_tokens = 0
    difficulties = ("hi", "you", "we")
    default_difficulty = "you"
    max_new_tokens = 3
    random_score, oracle_score = 1.0, 3.0

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        extra = rng.choice(["a", "b", "c"], size=1 + self.difficulties.index(difficulty))
        return Example(f"{difficulty} {extra[0]} {extra[-1]}")

    def is_success(self, completion: Completion) -> bool | None:
        return "a" in completion.text


def ladder(**kwargs: Any) -> TextGenEnv:
    return TextGenEnv(Ladder(), tokenizer=word_tokenizer(), **kwargs)


def ladders(n: int = 3, **kwargs: Any) -> TextGenVectorEnv:
    return TextGenVectorEnv(Ladder(), num_envs=n, tokenizer=word_tokenizer(), **kwargs)


def level_of(prompt: str) -> str:
    return prompt.split()[0]


# ---- set_difficulty -------------------------------------------------------------------------------------------------


def test_set_difficulty_keeps_the_generator():
    env, other = ladder(difficulty="hi"), ladder(difficulty="hi")
    for each in (env, other):
        each.reset(seed=3)
    env.set_difficulty("we")
    assert env.get_state() == other.get_state()
    assert level_of(env.reset()[1]["prompt"]) == "we"
    assert env.setting.prompts.difficulty == "we"
    env.set_difficulty("hi")
    again = ladder(difficulty="hi")
    again.reset(seed=3)
    again.setting = again._episodes.change(prompts=again.setting.prompts)
    assert level_of(env.reset()[1]["prompt"]) == "hi"


def test_set_difficulty_of_a_vector_leaves_running_episodes():
    envs = ladders(2, difficulty="hi", autoreset_mode="SameStep")
    envs.reset(seed=0)
    envs.set_difficulty("we")
    obs, _, _, _, infos = envs.step(np.array([A, END]))
    assert level_of(shown({k: v[0] for k, v in obs.items()}).split(". ")[-1].strip()) == "hi"
    assert infos["_prompt"].tolist() == [False, True] and level_of(infos["prompt"][1]) == "we"


@pytest.mark.parametrize("make", [ladder, ladders])
def test_set_difficulty_of_what_has_none(make):
    with pytest.raises(ValueError, match=r"`difficulty` to be one of \('hi', 'you', 'we'\), actual value: 'hard'"):
        make().set_difficulty("hard")
    with pytest.raises(PromptError, match=r"only they have levels of difficulty, actual: a FixedPrompts"):
        make(prompts=["hi"]).set_difficulty("hi")


# ---- curriculum -----------------------------------------------------------------------------------------------------


def test_curriculum_goes_up_at_the_threshold():
    env = CurriculumWrapper(ladder(), threshold=0.75, window=4)
    seen = []
    for action in [A, END, A, A, A, A, A, A, A, END, END]:  # the first window is full after four, at 3/4
        _, info = env.reset(seed=0 if not seen else None)
        seen.append(level_of(info["prompt"]))
        assert info["difficulty"] == seen[-1]
        _, info = play(env, [action, END, END])
        assert info["difficulty"] == seen[-1]
    assert seen == ["hi"] * 4 + ["you"] * 4 + ["we"] * 3
    assert env.difficulty == "we"  # the last one: no further


def test_curriculum_below_the_threshold_stays():
    env = CurriculumWrapper(ladder(), threshold=0.76, window=4)
    for action in [A, A, A, END] * 5:
        env.reset(seed=0)
        play(env, [action, END, END])
        assert env.difficulty == "hi"


def test_curriculum_of_some_levels_and_by_reward():
    env = CurriculumWrapper(ladder(), threshold=0.5, window=2, levels=["you", "we"], metric="reward")
    for actions, level in [([A, END], "you"), ([A, END, 0], "you"), ([A, A, A], "we")]:  # normalised 0, 0 and 1
        env.reset(seed=0)
        assert env.difficulty == "you"
        play(env, actions)
        assert env.difficulty == level


def test_prompts_asked_for_do_not_count():
    env = CurriculumWrapper(ladder(), threshold=0.5, window=1)
    _, info = env.reset(options={"example": "hi"})
    assert "difficulty" not in info
    assert "difficulty" not in play(env, [A, END])[1] and env.difficulty == "hi"
    envs = CurriculumWrapper(ladders(2), threshold=0.5, window=1)
    _, infos = envs.reset(options={"examples": ["hi", "we"]})
    assert "difficulty" not in infos
    envs.step(np.array([A, A]))
    envs.step(np.array([END, END]))
    assert envs.difficulty == "hi"


@pytest.mark.parametrize("mode", MODES)
def test_curriculum_of_a_vector_counts_only_its_own_level(mode):
    """Slot 0 ends at once, again and again; slot 1's longer episode of the first level ends after the level was raised."""
    envs = CurriculumWrapper(ladders(2, autoreset_mode=mode), threshold=1, window=2)
    assert isinstance(envs, VectorCurriculumWrapper)
    _, infos = envs.reset(seed=0)
    assert infos["difficulty"].tolist() == ["hi", "hi"] and infos["_difficulty"].all()
    begun: list[list[str]] = [["hi"], ["hi"]]
    ended: list[list[str]] = [[], []]
    script = {0: [A, END], 1: [B, A, A]}
    place = [0, 0]
    waiting = [False, False]
    for _ in range(14):
        actions = np.array([script[i][place[i]] if not waiting[i] else 0 for i in range(2)])
        _, _, terminated, _, infos = envs.step(actions)
        for i in range(2):
            finals = infos.get("final_info", {}) if mode == "SameStep" else infos
            if terminated[i]:
                assert finals["_difficulty"][i]
                ended[i].append(finals["difficulty"][i])
            if waiting[i]:  # NEXT_STEP began an episode in this step
                waiting[i] = False
                assert infos["_difficulty"][i] and not terminated[i]
                begun[i].append(infos["difficulty"][i])
                assert level_of(infos["prompt"][i]) == begun[i][-1]
            else:
                place[i] += 1
            if terminated[i]:
                place[i] = 0
                if mode == "SameStep":
                    begun[i].append(infos["difficulty"][i])
                    assert level_of(infos["prompt"][i]) == begun[i][-1]
                elif mode == "NextStep":
                    waiting[i] = True
        if mode == "Disabled" and terminated.any():
            _, infos = envs.reset(options={"reset_mask": terminated.copy()})
            for i in np.flatnonzero(terminated):
                assert infos["_difficulty"].tolist() == terminated.tolist()
                begun[i].append(infos["difficulty"][i])
                assert level_of(infos["prompt"][i]) == begun[i][-1]
    for i in range(2):
        assert ended[i] == begun[i][: len(ended[i])] and len(begun[i]) - len(ended[i]) <= 1
        assert sorted(begun[i], key=["hi", "you", "we"].index) == begun[i]  # no way back
    # by hand: two successes at "hi" (of whatever slots) raise it; what ends later but began at "hi" is not counted
    assert envs.difficulty == "we"
    assert sum(level == "hi" for slot in ended for level in slot) >= 2


def test_a_late_episode_of_an_old_level_is_not_counted():
    envs = CurriculumWrapper(ladders(2, autoreset_mode="SameStep"), threshold=1, window=1)
    envs.reset(seed=0)
    envs.step(np.array([A, A]))
    envs.step(np.array([END, A]))  # slot 0 raises to "you"; slot 1 still plays "hi"
    assert envs.difficulty == "you"
    envs.step(np.array([B, A]))  # slot 1 ends with a success, of "hi"
    assert envs.difficulty == "you"
    assert envs.part_state() == {"level": "you", "scores": []}


def test_groups_change_level_together():
    """Slots of a group must draw the same prompts; a level that changes in between would part them."""
    envs = CurriculumWrapper(ladders(4, group_size=2, autoreset_mode="SameStep"), threshold=0.5, window=1)
    envs.reset(seed=0)
    for actions in ([A, B, B, B], [END, B, B, B], [B, A, A, B], [B, B, B, B], [B, END, B, B], [END, END, END, END]):
        envs.step(np.array(actions))
    assert envs.difficulty != "hi" and envs.unwrapped.setting.prompts.difficulty == "hi"
    envs.reset()
    assert envs.unwrapped.setting.prompts.difficulty == envs.difficulty


def test_state_of_a_curriculum():
    """Saved by whoever saves the environment's, as JSON; what follows is the same."""

    def run(envs: Any, steps: int) -> list[Any]:
        rng = np.random.default_rng(5)
        return [envs.step(rng.choice([A, B, END], size=3)) for _ in range(steps)]

    envs = CurriculumWrapper(ladders(), threshold=0.3, window=5)
    envs.reset(seed=1)
    run(envs, 9)
    state = json.loads(json.dumps(envs.unwrapped.get_state()))
    assert len(state[0]["attached"]["curriculum"]["scores"]) in range(6) and "attached" not in state[1]
    other = CurriculumWrapper(ladders(), threshold=0.3, window=5)
    other.reset(seed=99)
    other.unwrapped.set_state(state)
    assert other.difficulty == envs.difficulty
    assert_same(other.reset(), envs.reset())
    assert_same(run(other, 20), run(envs, 20))
    with pytest.raises(TextGymError, match="Expected an environment with 'curriculum' around it"):
        ladders().set_state(state)


def test_state_of_a_single_curriculum():
    env = CurriculumWrapper(ladder(), threshold=0.5, window=2)
    env.reset(seed=0)
    play(env, [A, END])
    state = json.loads(json.dumps(env.get_wrapper_attr("get_state")()))
    other = CurriculumWrapper(ladder(), threshold=0.5, window=2)
    other.get_wrapper_attr("set_state")(state)
    for each in (env, other):
        each.reset()
        play(each, [A, END])
    assert env.difficulty == other.difficulty == "you"
    assert_same(other.reset(), env.reset())


BAD_CURRICULA = [
    ({"threshold": 2}, r"`threshold` to be a number from -1 to 1, actual value: 2"),
    ({"window": 0}, r"`window` to be a whole number of at least 1, actual value: 0"),
    (
        {"levels": ["hi"]},
        r"`levels` to be at least two of the task's levels \('hi', 'you', 'we'\), actual value: \('hi',\)",
    ),
    ({"levels": ["hi", "hard"]}, r"`levels` to be at least two of the task's levels .*'hard'"),
    ({"levels": "hi"}, r"`levels` to be at least two of the task's levels"),
    ({"metric": "loss"}, r"`metric` to be 'success' or 'reward', actual value: 'loss'"),
]


@pytest.mark.parametrize(("kwargs", "text"), BAD_CURRICULA)
@pytest.mark.parametrize("make", [ladder, ladders])
def test_bad_curriculum(make, kwargs, text):
    with pytest.raises(ValueError, match=text):
        CurriculumWrapper(make(), **kwargs)


def test_curriculum_of_what_has_no_success():
    class Plain(Ladder):
        is_success = Talk.is_success

    with pytest.raises(ValueError, match="`metric` to be 'reward', as 'Ladder-v0' has no notion of success"):
        CurriculumWrapper(TextGenEnv(Plain(), tokenizer=word_tokenizer()))
    with pytest.raises(ValueError, match="Expected 'Ladder-v0' with its own reward"):
        CurriculumWrapper(ladder(reward="length"))
    with pytest.raises(PromptError, match="levels of difficulty"):
        CurriculumWrapper(ladder(prompts=["hi"]))


# ---- whole completions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [lambda e: WholeCompletionWrapper(e), lambda e: HistoryWrapper(e, 3)])
def test_check_env(wrapped):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(wrapped(TextGenEnv("sentiment", max_new_tokens=5)), skip_render_check=True)
    assert ["is different from the unwrapped version" in str(w.message) for w in caught] == [True]  # it is a wrapper


@pytest.mark.parametrize(
    "tokens", [[A, B, A, END], [A, B, A, END, -1, -1], [A, B, A], [A, B, A, -1, 7, 7], [A, B, A, END, A, A]]
)
def test_whole_completion_is_the_token_episode(tokens):
    env, plain = WholeCompletionWrapper(ladder(max_new_tokens=6)), ladder(max_new_tokens=6)
    assert_same(env.reset(seed=0), plain.reset(seed=0))
    for token in [A, B, A, END]:
        result = plain.step(token)
    obs, reward, terminated, truncated, info = env.step(np.array(tokens))
    assert (reward, terminated, truncated) == (2.0, True, False)
    assert_same(obs, result[0])
    assert_same(info, result[4])
    with pytest.raises(TextGymError, match="Expected `reset`"):
        env.step(np.array(tokens))


def test_whole_completion_of_nothing_and_of_the_full_budget():
    env = WholeCompletionWrapper(ladder(max_new_tokens=3))
    env.reset(seed=0)
    assert env.step([])[4]["completion"] == ""
    env.reset(seed=0)
    assert env.step([A, A, A])[4]["finish_reason"] == "length"


def test_whole_completion_sums_shaped_rewards():
    env = WholeCompletionWrapper(ladder(reward=Shaped(Watched()), max_new_tokens=6))
    env.reset(seed=0)
    assert env.step([A, A, B, END])[1] == pytest.approx(2.0)


def test_whole_completion_of_several_turns():
    env = WholeCompletionWrapper(talk())
    env.reset(seed=0)
    obs, reward, terminated, _, info = env.step([A, BAR, B, END])
    assert terminated and reward == 1 and info["completion"] == " a | b"
    assert shown(obs).endswith("A | you say B </S>")


def test_whole_completion_of_text():
    env = WholeCompletionWrapper(gym.make(ID), action="text")
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(" It was a delight, größer as ever.")
    assert terminated and info["completion"] == " It was a delight, größer as ever." and info["finish_reason"] == "stop"
    plain = gym.make(ID).unwrapped
    plain.reset(seed=0)
    ids = [*plain.setting.tokenizer.encode(" It was a delight, größer as ever."), plain.setting.tokenizer.eos_token_id]
    assert reward == play(plain, ids)[0][-1]
    env.action_space.seed(0)
    for _ in range(3):
        env.reset()
        text = env.action_space.sample()
        assert env.action_space.contains(text) and env.step(text)[2]


@pytest.mark.parametrize("action", [[[A]], [A] * 4, ["a"], 1.5, [0.5], "text", None])
def test_bad_whole_completions(action):
    env = WholeCompletionWrapper(ladder(max_new_tokens=3))
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"`action` to be at most max_new_tokens=3 token ids"):
        env.step(action)


def test_bad_arguments_of_whole_completions():
    with pytest.raises(ValueError, match="`action` to be 'tokens' or 'text', actual value: 'words'"):
        WholeCompletionWrapper(ladder(), action="words")
    env = WholeCompletionWrapper(ladder(), action="text")
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"`action` to be a text, actual value: \[3\]"):
        env.step([3])
    with pytest.raises(InvalidActionError, match="Expected a token id"):
        env = WholeCompletionWrapper(ladder())
        env.reset(seed=0)
        env.step([99])


# ---- history --------------------------------------------------------------------------------------------------------


def test_history():
    env, plain = HistoryWrapper(ladder(), tokens=2), ladder()
    pairs = [(env.reset(seed=0)[0], plain.reset(seed=0)[0])]
    pairs += [(env.step(token)[0], plain.step(token)[0]) for token in (A, B, A)]
    for short, full in pairs:
        assert_same(short, {key: value[-2:] for key, value in full.items()})
        assert env.observation_space.contains(short)
    assert shown(pairs[-1][0]) == "B A"


@pytest.mark.parametrize("mode", MODES)
def test_history_of_a_vector(mode):
    envs, plain = HistoryWrapper(ladders(autoreset_mode=mode), 2), ladders(autoreset_mode=mode)
    assert isinstance(envs, VectorHistoryWrapper)
    assert envs.single_observation_space["input_ids"].shape == (2,)
    obs, full = envs.reset(seed=0)[0], plain.reset(seed=0)[0]
    assert envs.observation_space.contains(obs)
    assert_same(obs, {key: value[:, -2:] for key, value in full.items()})
    for actions in ([A, END, A], [A, A, A])[: 1 if mode == "Disabled" else 2]:
        obs, *_, infos = envs.step(np.array(actions))
        full, *_, plain_infos = plain.step(np.array(actions))
        assert_same(obs, {key: value[:, -2:] for key, value in full.items()})
        for slot in np.flatnonzero(infos.get("_final_obs", [])):
            assert_same(
                infos["final_obs"][slot], {key: value[-2:] for key, value in plain_infos["final_obs"][slot].items()}
            )


@pytest.mark.parametrize("tokens", [0, 7, 1.5])
@pytest.mark.parametrize("make", [ladder, ladders])
def test_bad_history(make, tokens):
    with pytest.raises(ValueError, match=rf"`tokens` to be .*, actual value: {tokens}"):
        HistoryWrapper(make(), tokens)


# ---- dense rewards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("potential", [None, Length()])
def test_dense_rewards_are_shaped_ones(potential):
    env, plain = DenseRewardWrapper(ladder(), potential, 0.9), ladder(reward=Shaped(Watched(), potential, 0.9))
    for each in (env, plain):
        each.reset(seed=0)
    for token in (A, B, A):
        left, right = env.step(token), plain.step(token)
        assert left[1] == right[1]
    assert left[4]["is_success"] and left[4]["reward/watched"] == 2  # still the task's own
    assert_same({**left[4], "is_success": None}, {**right[4], "is_success": None})


def test_dense_rewards_of_a_vector():
    envs, plain = DenseRewardWrapper(ladders()), ladders(reward=Shaped(Watched()))
    assert isinstance(envs, VectorDenseRewardWrapper)
    for each in (envs, plain):
        each.reset(seed=0)
    for actions in ([A, B, A], [A, A, END]):
        assert_same(envs.step(np.array(actions))[1], plain.step(np.array(actions))[1])


@pytest.mark.parametrize("make", [ladder, ladders])
def test_bad_dense_rewards(make):
    env = make()
    env.reset(seed=0)
    with pytest.raises(TextGymError, match="Expected `shape_reward` before the first `reset`"):
        DenseRewardWrapper(env)
    with pytest.raises(ValueError, match=r"`gamma` to be a number in \(0, 1\], actual value: 2"):
        DenseRewardWrapper(make(), gamma=2)
    with pytest.raises(ValueError, match="`reward` to be a reward that is not dense already"):
        DenseRewardWrapper(DenseRewardWrapper(make()))


# ---- all of them ----------------------------------------------------------------------------------------------------

ALL = [
    (CurriculumWrapper, {}),
    (DenseRewardWrapper, {"gamma": 0.5}),
    (HistoryWrapper, {"tokens": 3}),
    (WholeCompletionWrapper, {"action": "text"}),
]


@pytest.mark.parametrize(("wrapper", "kwargs"), ALL)
def test_not_of_textgym(wrapper, kwargs):
    with pytest.raises(TypeError, match=r"`env` to be an environment of textgym"):
        wrapper(gym.make("CartPole-v1"), **kwargs)


@pytest.mark.parametrize(("wrapper", "kwargs"), ALL[:3])
def test_vector_not_of_textgym(wrapper, kwargs):
    with pytest.raises(TypeError, match=r"`env` to be an environment of textgym"):
        wrapper(gym.make_vec("CartPole-v1", num_envs=2), **kwargs)


@pytest.mark.parametrize(("wrapper", "kwargs"), ALL)
def test_spec_makes_the_wrapper_again(wrapper, kwargs):
    env = wrapper(gym.make(ID), **kwargs)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert type(again) is wrapper
    assert_same(again.reset(seed=1), env.reset(seed=1))
    assert again.action_space == env.action_space and again.observation_space == env.observation_space


def test_wrappers_can_be_copied():
    env = CurriculumWrapper(ladder(), threshold=0.5, window=1)
    env.reset(seed=0)
    twin = copy.deepcopy(env)
    play(twin, [A, END])
    assert (twin.difficulty, env.difficulty) == ("you", "hi")


# ---- in a training --------------------------------------------------------------------------------------------------


def test_ppo_in_a_curriculum(tmp_path):
    """Two rollouts reach another level; a training that is saved after one and resumed does the same."""
    pytest.importorskip("torch")
    from agent_fixtures import PPO, Echo, toy_ppo, toy_vector

    class Levels(Echo):
        difficulties = ("short", "long")
        default_difficulty = "long"

        def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
            words = rng.choice(list("abcdef"), size=2 if difficulty == "short" else 6)
            return Example(" ".join(words))

        def is_success(self, completion: Completion) -> bool | None:
            return True

    def curriculum() -> VectorCurriculumWrapper:
        return CurriculumWrapper(toy_vector(4, Levels(), autoreset_mode="SameStep"), window=6)

    straight = toy_ppo(curriculum(), n_steps=1)
    straight.learn(1)
    levels = [straight.env.get_attr("difficulty")[0]]
    straight.save(tmp_path / "half")
    straight.learn(1, reset_num_timesteps=False)
    levels.append(straight.env.get_attr("difficulty")[0])
    assert levels == ["short", "long"]
    resumed = PPO.load(tmp_path / "half", env=curriculum(), device="cpu")
    resumed.learn(1, reset_num_timesteps=False)
    assert resumed.env.get_attr("difficulty")[0] == "long"
    assert resumed.env.env_method("get_state") == straight.env.env_method("get_state")
    for left, right in zip(resumed.policy.parameters(), straight.policy.parameters(), strict=True):
        np.testing.assert_array_equal(left.detach().numpy(), right.detach().numpy())
