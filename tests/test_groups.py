"""GRPO and RLOO: the contract of Stable-Baselines3, and gradients against loops over completions and tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import ENV_ID, WORDS, Algorithm, Chat, tiny_gpt2, toy_groups, toy_ppo, toy_single, toy_vector
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from test_ppo import Call, Keep, assert_equal, differ, state_of
from test_rollout import DECODINGS, assert_ratio_1, collect
from torch import Tensor

from textgym_agents import GRPO, PPO, RLOO
from textgym_agents.algorithms.checkpoint import CheckpointError
from textgym_agents.algorithms.groups import GroupAlgorithm
from textgym_agents.algorithms.registry import load_algorithm
from textgym_agents.rollouts.buffers import Episode, Sequences
from textgym_agents.vec_env import GymVecEnv

V = len(WORDS)
CLASSES: list[type[GroupAlgorithm]] = [GRPO, RLOO]
both = pytest.mark.parametrize("cls", CLASSES, ids=["grpo", "rloo"])


def logged(algorithm: GroupAlgorithm, timesteps: int = 300, **kwargs: Any) -> list[dict[str, Any]]:
    """What a training dumped, an iteration each."""
    keep = Keep()
    algorithm.set_logger(keep)
    algorithm.learn(timesteps, **kwargs)
    return keep.dumped


def collected(algorithm: GroupAlgorithm) -> Sequences:
    """One rollout, without training on it."""
    collect(algorithm)  # type: ignore[arg-type]
    return algorithm.rollout_buffer.sequences


def moved(algorithm: Algorithm, by: float = 0.05) -> Algorithm:
    """The same with other weights, so that ratios are not 1 and there is a distance to the reference."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in algorithm.policy.model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return algorithm


# ---- the contract of Stable-Baselines3 -------------------------------------------------------------------------------------


@both
def test_learn_counts_tokens_logs_its_keys_and_changes_the_policy(cls: type[GroupAlgorithm]) -> None:
    algorithm = toy_groups(cls, kl_coef=0.1)
    before = state_of(algorithm)  # type: ignore[arg-type]
    dumped = logged(algorithm)
    assert algorithm.num_timesteps >= 300
    assert differ(before, state_of(algorithm))  # type: ignore[arg-type]
    rollout = {"ep_rew_mean", "ep_len_mean", "kl", "reward/even"}
    train = {"policy_gradient_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss", "reward_std", "kl_coef"}
    own = {"train/ref_kl", "train/idle_groups"} if cls is GRPO else set()
    assert {f"rollout/{k}" for k in rollout} | {f"train/{k}" for k in train} | own <= set(dumped[-1])
    for numbers in dumped:
        assert all(np.isfinite(v) for v in numbers.values())
        assert "train/value_loss" not in numbers  # there is no critic ...
    value_head = {"policy.value_head.weight", "policy.value_head.bias"}
    assert not value_head & set(differ(before, state_of(algorithm)))  # type: ignore[arg-type]  # ... and nothing trains it


@both
def test_the_id_of_an_environment_is_enough(cls: type[GroupAlgorithm]) -> None:
    algorithm = cls(
        "CausalLMPolicy",
        ENV_ID,
        n_envs=4,
        num_generations=2,
        env_kwargs={"max_new_tokens": 4, "split": "dev"},
        policy_kwargs={"model": tiny_gpt2()},
        device="cpu",
    )
    assert algorithm.learn(10) is algorithm
    assert algorithm.n_envs == 4
    assert [algorithm.env.get_attr("group_size", indices=i) for i in (0, 3)] == [[2], [2]]  # type: ignore[union-attr]


@both
def test_callbacks_count_the_steps_of_the_environments(cls: type[GroupAlgorithm]) -> None:
    class Count(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[str, int]] = []

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
    algorithm = toy_groups(cls, toy_vector(8, group_size=4, min_new_tokens=9))  # 9 or 10 tokens each
    algorithm.learn(150, callback=count)
    assert [kind for kind, _ in count.seen] == (["start"] + ["step"] * 10 + ["end"]) * 2
    assert count.n_calls == 20
    steps = [n for kind, n in count.seen if kind == "step"]
    assert steps[:9] == [8 * (i + 1) for i in range(9)]
    assert all(8 >= b - a > 0 for a, b in itertools.pairwise(steps))
    assert steps[-1] == algorithm.num_timesteps


@both
def test_a_callback_stops_a_training(cls: type[GroupAlgorithm]) -> None:
    algorithm = toy_groups(cls).learn(1000, callback=Call(3, lambda _: False))
    assert algorithm.num_timesteps <= 3 * 8
    assert algorithm._n_updates == 0


@both
def test_predict_and_generate(cls: type[GroupAlgorithm]) -> None:
    algorithm = toy_groups(cls)
    obs, _ = toy_vector(6).reset(seed=0)
    tokens, state = algorithm.predict(obs, deterministic=True)
    assert tokens.shape == (6,)
    assert state is None
    prompts = [obs["input_ids"][i][obs["attention_mask"][i] == 1].tolist() for i in range(6)]
    assert tokens.tolist() == [text[0] for text in algorithm.policy.generate(prompts, deterministic=True)]
    one, _ = algorithm.predict({k: v[2] for k, v in obs.items()}, deterministic=True)
    assert one == tokens[2]
    assert len({tuple(algorithm.predict(obs, temperature=5.0)[0]) for _ in range(4)}) > 1


@both
def test_evaluate_policy_and_its_callback(cls: type[GroupAlgorithm], tmp_path: Path) -> None:
    algorithm = toy_groups(cls)
    held_out = VecMonitor(GymVecEnv(toy_vector(5, split="dev", autoreset_mode="SameStep")))
    held_out.seed(3)
    rewards, lengths = evaluate_policy(algorithm, held_out, 10, return_episode_rewards=True)
    assert len(rewards) == len(lengths) == 10  # type: ignore[arg-type]
    assert all(0 <= r <= 1 for r in rewards)  # type: ignore[union-attr]
    assert all(1 <= n <= 10 for n in lengths)  # type: ignore[union-attr]
    evaluation = EvalCallback(held_out, best_model_save_path=str(tmp_path), n_eval_episodes=5, eval_freq=5, verbose=0)
    algorithm.learn(100, callback=evaluation)
    assert cls.load(tmp_path / "best_model").policy.limits == algorithm.policy.limits


@both
def test_a_loaded_algorithm_predicts_the_same_and_has_the_same_settings(
    cls: type[GroupAlgorithm], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "ent_coef": 0.01, "n_epochs": 2, "target_kl": 9.0}
    if cls is GRPO:
        settings |= {"loss_type": "dr_grpo", "scale_rewards": "batch", "importance_sampling_level": "sequence"}
        settings |= {"clip_range_high": 0.3, "kl_coef": 0.02}
    else:
        settings |= {"kl_coef": 0.1, "kl_target": 0.5, "kl_horizon": 20}
    algorithm = toy_groups(cls, toy_vector(6, group_size=3), num_generations=3, **settings).learn(100)
    algorithm.save(tmp_path / "saved")
    obs, _ = toy_vector(5).reset(seed=0)
    wanted = algorithm.predict(obs, deterministic=True)[0], algorithm.predict(obs)[0]
    loaded = cls.load(tmp_path / "saved")
    for name, value in {**settings, "num_generations": 3, "batch_size": 4, "clip_range": 0.2}.items():
        assert getattr(loaded, name) == value, name
    assert loaded.kl.coef == algorithm.kl.coef
    assert (loaded.num_timesteps, loaded._n_updates) == (algorithm.num_timesteps, algorithm._n_updates)
    assert_equal(loaded.policy.state_dict(), algorithm.policy.state_dict())
    assert loaded.reference is not None and algorithm.reference is not None
    assert_equal(loaded.reference.state_dict(), algorithm.reference.state_dict())
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], wanted[0])
    assert np.array_equal(loaded.predict(obs)[0], wanted[1])
    assert type(load_algorithm(tmp_path / "saved.zip")) is cls


@both
def test_an_algorithm_of_any_class_is_found_without_the_zip_in_its_name_too(
    cls: type[GroupAlgorithm], tmp_path: Path
) -> None:
    toy_groups(cls).save(tmp_path / "saved")
    assert type(cls.load(tmp_path / "saved")) is cls
    assert type(load_algorithm(tmp_path / "saved")) is cls


@both
def test_a_file_of_another_algorithm_is_refused(cls: type[GroupAlgorithm], tmp_path: Path) -> None:
    toy_groups(cls).save(tmp_path / "saved")
    for other in {GRPO, RLOO, PPO} - {cls}:
        with pytest.raises(
            CheckpointError, match=f"Expected a saved {other.__name__}, actual: a saved '{cls.__name__}'"
        ):
            other.load(tmp_path / "saved")


TOTAL = 500
RESUMED: dict[str, tuple[type[GroupAlgorithm], dict[str, Any]]] = {
    "grpo": (GRPO, {}),
    "grpo, two epochs, top-p": (GRPO, {"n_epochs": 2, "top_p": 0.9, "kl_coef": 0.0, "loss_type": "dapo"}),
    "grpo, schedules": (
        GRPO,
        {"learning_rate": LinearSchedule(5e-3, 0, 1.0), "clip_range": LinearSchedule(0.3, 0, 1.0)},
    ),
    "rloo": (RLOO, {}),
    "rloo, adaptive KL": (RLOO, {"kl_coef": 0.1, "kl_target": 0.3, "kl_horizon": 50, "n_epochs": 2, "n_steps": 12}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_training_that_was_killed_equals_bit_for_bit_the_one_that_was_not(case: str, tmp_path: Path) -> None:
    cls, settings = RESUMED[case]

    def fresh() -> GroupAlgorithm:
        return toy_groups(cls, seed=4, **settings)

    def save(algorithm: Any) -> bool:
        assert algorithm.num_timesteps > algorithm._rollout_start["num_timesteps"] > 0
        algorithm.save(tmp_path / "killed")
        return False

    whole = state_of(fresh().learn(TOTAL))  # type: ignore[arg-type]
    fresh().learn(TOTAL, callback=Call(25, save))
    resumed = cls.load(tmp_path / "killed", env=toy_vector(8, group_size=4), device="cpu")
    assert 0 < resumed.num_timesteps < TOTAL - 100
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    assert_equal(state_of(resumed), whole)  # type: ignore[arg-type]


@both
def test_saving_does_not_disturb_a_training_and_seeds_matter(cls: type[GroupAlgorithm], tmp_path: Path) -> None:
    def run(seed: int, callback: BaseCallback | None = None) -> dict[str, Tensor]:
        return state_of(toy_groups(cls, seed=seed).learn(200, callback=callback))  # type: ignore[arg-type]

    quiet = run(0)
    assert_equal(run(0, CheckpointCallback(7, str(tmp_path))), quiet)
    assert len(list(tmp_path.iterdir())) > 1
    assert differ(run(1), quiet)


# ---- groups and advantages -------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("n", "size", "n_steps"), [(8, 4, 1), (8, 4, 12), (6, 2, 1), (9, 3, 1), (5, 5, 1)])
def test_completions_of_a_group_have_the_same_prompt(
    cls: type[GroupAlgorithm], n: int, size: int, n_steps: int
) -> None:
    algorithm = toy_groups(cls, toy_vector(n, group_size=size), num_generations=size, n_steps=n_steps)
    prompts, completions = set(), set()
    for _ in range(2):
        collected(algorithm)
        episodes = algorithm.rollout_buffer.episodes
        assert len(episodes) >= (n if n_steps == 1 else 2 * n)  # several rounds stand one behind the other
        for first in range(0, len(episodes), size):
            group = episodes[first : first + size]
            assert len({tuple(e.prompt) for e in group}) == 1
            prompts.add(tuple(group[0].prompt))
            completions |= {tuple(e.tokens) for e in group}
    assert len(prompts) > 1
    assert len(completions) > len(prompts)


def by_hand(returns: list[float], size: int, scale: str) -> list[float]:
    """Advantages of completions, one at a time."""
    found = []
    for i, paid in enumerate(returns):
        group = returns[i - i % size : i - i % size + size]
        if scale == "others":
            found.append(paid - (sum(group) - paid) / (size - 1))
            continue
        among = {"group": group, "batch": returns, "none": [0.0, 0.0]}[scale]
        mean = sum(among) / len(among)
        spread = math.sqrt(sum((x - mean) ** 2 for x in among) / (len(among) - 1)) + 1e-4 if scale != "none" else 1.0
        found.append((paid - sum(group) / size) / spread)
    return found


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_gives_every_token_the_advantage_of_its_completion(scale: str, task: Any) -> None:
    env = toy_vector(8, task, group_size=4)
    algorithm = moved(toy_groups(GRPO, env, scale_rewards=scale, kl_coef=0.5))
    sequences = collected(algorithm)
    returns = [sum(e.rewards) for e in algorithm.rollout_buffer.episodes]
    assert len(set(returns)) > 3
    assert algorithm.logger.name_to_value["rollout/kl"] > 0.01  # which the advantage does not know of
    for row, wanted in enumerate(by_hand(returns, 4, scale)):
        here = sequences.action_mask[row]
        assert sequences.advantages[row][here].tolist() == pytest.approx([wanted] * int(here.sum()), abs=1e-5)
    assert (sequences.advantages[~sequences.action_mask] == 0).all()


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
def test_rloo_compares_penalised_returns_with_those_of_the_others(task: Any) -> None:
    env = toy_vector(8, task, group_size=4)
    algorithm = moved(toy_groups(RLOO, env, kl_coef=0.3))
    sequences = collected(algorithm)
    assert algorithm.reference is not None
    returns = []
    for episode in algorithm.rollout_buffer.episodes:
        reference = [float(x) for x in token_log_probs(algorithm, algorithm.reference, episode)]
        old = [x for x, own in zip(episode.log_probs, episode.chosen, strict=True) if own]
        returns.append(sum(episode.rewards) - 0.3 * (sum(old) - sum(reference)))
    plain = by_hand([sum(e.rewards) for e in algorithm.rollout_buffer.episodes], 4, "others")
    for row, wanted in enumerate(by_hand(returns, 4, "others")):
        here = sequences.action_mask[row]
        assert sequences.advantages[row][here].tolist() == pytest.approx([wanted] * int(here.sum()), abs=1e-4)
    assert max(abs(a - b) for a, b in zip(plain, by_hand(returns, 4, "others"), strict=True)) > 0.1
    assert (sequences.advantages[~sequences.action_mask] == 0).all()


@both
@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS)
def test_the_ratio_is_1_on_the_first_minibatch(cls: type[GroupAlgorithm], decoding: dict[str, Any]) -> None:
    algorithm = toy_groups(cls, toy_vector(12, group_size=4, min_new_tokens=3), **decoding)
    collected(algorithm)
    assert_ratio_1(algorithm)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.5, 0.3])
@pytest.mark.parametrize(
    ("cls", "settings"),
    [*((GRPO, {"scale_rewards": scale}) for scale in ("group", "batch", "none")), (RLOO, {})],
    ids=["group", "batch", "none", "rloo"],
)
def test_rewards_that_are_all_the_same_teach_nothing(
    cls: type[GroupAlgorithm], settings: dict[str, Any], value: float
) -> None:
    """0.3 is not a binary fraction, so that a mean of 8 of them may be another number."""
    env = toy_vector(16, group_size=8, reward=lambda text: value)
    algorithm = toy_groups(cls, env, num_generations=8, kl_coef=0.0, n_epochs=2, **settings)
    before = {k: v.clone() for k, v in algorithm.policy.state_dict().items()}
    dumped = logged(algorithm, 300)
    assert all(np.isfinite(v) for numbers in dumped for v in numbers.values())
    assert dumped[-1]["train/reward_std"] == 0
    if cls is GRPO:
        assert dumped[-1]["train/idle_groups"] == 1.0
    assert_equal(algorithm.policy.state_dict(), before)
    assert (algorithm.rollout_buffer.sequences.advantages == 0).all()


def test_grpo_counts_the_groups_in_which_all_do_alike() -> None:
    env = toy_vector(16, group_size=2, min_new_tokens=2, reward=lambda text: float("a" in text.split()))
    algorithm = toy_groups(GRPO, env, num_generations=2)
    returns = collected(algorithm).rewards.sum(-1).view(-1, 2)
    idle = float((returns[:, 0] == returns[:, 1]).float().mean())
    assert 0 < idle < 1
    assert algorithm.logger.name_to_value["train/idle_groups"] == pytest.approx(idle)
    spread = np.std(returns.numpy(), axis=1, ddof=1).mean()
    assert algorithm.logger.name_to_value["train/reward_std"] == pytest.approx(spread, abs=1e-5)


# ---- losses against loops --------------------------------------------------------------------------------------------------


def token_log_probs(algorithm: GroupAlgorithm, model: Any, episode: Episode, entropies: bool = False) -> list[Tensor]:
    """Log-probabilities of an episode's own tokens, one by one, from a pass over it alone (or entropies there)."""
    logits, found, written = model(torch.tensor([episode.prompt + episode.tokens])).logits[0], [], 0
    assert algorithm.limits is not None
    for t, (token, own) in enumerate(zip(episode.tokens, episode.chosen, strict=True)):
        if own:
            mask = algorithm.limits.mask(torch.tensor([written]))[0]
            here = logits[len(episode.prompt) + t - 1] / algorithm.temperature
            log_p = here.masked_fill(~mask, -torch.inf).log_softmax(-1)
            possible = log_p[mask]
            found.append(-(possible.exp() * possible).sum() if entropies else log_p[token])
            written += 1
    return found


def grpo_loss(algorithm: GRPO, episodes: list[Episode], advantages: list[float], high: float) -> Tensor:
    """The paper's formula, completion by completion and token by token."""
    total, of_completions, count = torch.zeros(()), torch.zeros(()), 0
    for episode, advantage in zip(episodes, advantages, strict=True):
        new = token_log_probs(algorithm, algorithm.policy.model, episode)
        spread = token_log_probs(algorithm, algorithm.policy.model, episode, entropies=True)
        reference = [x.detach() for x in token_log_probs(algorithm, algorithm.reference, episode)]
        old = [x for x, own in zip(episode.log_probs, episode.chosen, strict=True) if own]
        ratios = [(n - o).exp() for n, o in zip(new, old, strict=True)]
        if algorithm.importance_sampling_level == "sequence":
            geometric = (sum(new) - sum(old)) / len(new)
            ratios = [torch.as_tensor(geometric).exp()] * len(new)
        terms = torch.zeros(())
        for t, ratio in enumerate(ratios):
            clipped = min(max(float(ratio.detach()), 1 - 0.2), 1 + high)
            inside = clipped == float(ratio.detach())
            gain = torch.minimum(ratio * advantage, (ratio if inside else torch.tensor(clipped)) * advantage)
            log_ratio = reference[t] - new[t]
            distance = log_ratio.exp() - 1 - log_ratio
            terms = terms - gain + algorithm.kl.coef * distance - algorithm.ent_coef * spread[t]
        total, count = total + terms, count + len(new)
        of_completions = of_completions + terms / len(new)
    if algorithm.loss_type == "grpo":
        return of_completions / len(episodes)
    if algorithm.loss_type == "dapo":
        return total / count
    return total / (len(episodes) * 14)  # max_new_tokens


def gradients(algorithm: GroupAlgorithm, loss: Callable[[], Tensor]) -> tuple[float, list[Tensor]]:
    """A loss and its gradient."""
    algorithm.policy.zero_grad()
    found = loss()
    found.backward()
    return float(found.detach()), [p.grad.clone() for p in algorithm.policy.model.parameters() if p.grad is not None]


def assert_same_gradients(one: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> None:
    """Within 1e-5 absolute of the loss, and 1e-4 of the largest entry of each gradient."""
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    assert len(one[1]) == len(other[1]) > 20
    for mine, wanted in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-4 * max(1e-2, float(wanted.abs().max())))


@pytest.mark.parametrize(("level", "clip_range_high"), [("token", None), ("token", 0.28), ("sequence", 0.28)])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_loss_of_grpo_and_its_gradient_equal_a_loop(
    scale: str, loss_type: str, level: str, clip_range_high: float | None
) -> None:
    algorithm = toy_groups(
        GRPO,
        toy_vector(8, Chat() if scale == "none" else None, group_size=4, max_new_tokens=14),
        scale_rewards=scale,
        loss_type=loss_type,
        importance_sampling_level=level,
        clip_range_high=clip_range_high,
        temperature=0.8,
        kl_coef=0.3,
        ent_coef=0.02,
        model=tiny_gpt2(vocab_size=V, scale=0.3),
    )
    sequences = collected(algorithm)
    moved(algorithm)
    numbers: dict[str, float] = {}

    def ours() -> Tensor:
        loss, found = algorithm._loss(sequences)
        numbers.update(found)
        return loss

    episodes = algorithm.rollout_buffer.episodes
    advantages = by_hand([sum(e.rewards) for e in episodes], 4, scale)
    high = 0.2 if clip_range_high is None else clip_range_high
    found, wanted = (gradients(algorithm, f) for f in (ours, lambda: grpo_loss(algorithm, episodes, advantages, high)))
    assert_same_gradients(found, wanted)
    assert numbers["ref_kl"] > 1e-3
    assert 0 < numbers["clip_fraction"] < 1 or level == "sequence"


def test_grpo_without_a_reference_has_no_term_for_it() -> None:
    algorithm = toy_groups(GRPO, kl_coef=0.0)
    (batch,) = [collected(algorithm)]
    assert algorithm.reference is None
    loss, numbers = algorithm._loss(batch)
    assert "ref_kl" not in numbers
    assert float(loss.detach()) == pytest.approx(numbers["policy_gradient_loss"])
    # -A averaged over completions, and advantages of a group add up to 0
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)


def test_clipping_higher_lets_unlikely_tokens_rise_further() -> None:
    """Ratio 1.25, advantage 1: clipped at 1.2 and not at 1.28; with a negative one it makes no difference."""
    part = Sequences.of([[3, 4]] * 2, [[5, 6]] * 2, None)
    for high, clipped in ((None, 0.5), (0.28, 0.0), (0.1, 0.5)):
        algorithm = toy_groups(GRPO, kl_coef=0.0, clip_range_high=high)
        with torch.no_grad():
            now, _, _ = algorithm.policy.evaluate_sequences(part, 1.0)
        batch = part.with_(log_probs=now - math.log(1.25), advantages=torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        loss, numbers = algorithm._loss(batch)
        assert numbers["clip_fraction"] == clipped
        assert float(loss.detach()) == pytest.approx(-(min(1.25, 1 + (high or 0.2)) - 1.25) / 2, abs=1e-5)


def test_rloo_clips_the_ratio_of_whole_completions() -> None:
    """Of two tokens each: in sum 1.5, 1.5, 0.5 and 0.5 times as likely as they were, with advantages 1 and -1."""
    part = Sequences.of([[3, 4]] * 4, [[5, 6]] * 4, None)
    algorithm = toy_groups(RLOO, kl_coef=0.0, clip_range=0.2)
    now, _, _ = algorithm.policy.evaluate_sequences(part, 1.0)
    halves = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()[:, None] / 2
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None].expand(4, 2)
    loss, numbers = algorithm._loss(part.with_(log_probs=now.detach() - halves, advantages=advantages))
    assert float(loss.detach()) == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4, abs=1e-5)
    assert numbers["clip_fraction"] == 1.0
    within = algorithm._loss(part.with_(log_probs=now.detach() - 0.04, advantages=advantages))[1]
    assert within["clip_fraction"] == 0.0  # exp(0.08) is 1.083


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_at_ratio_1_the_gradient_of_rloo_is_that_of_reinforce(task: Any, temperature: float) -> None:
    """Written as a slow loop: the sum over episodes of ``-A_i * sum_t log pi(a_t)``, over their number."""
    algorithm = toy_groups(RLOO, toy_vector(8, task, group_size=4), kl_coef=0.0, temperature=temperature)
    sequences = collected(algorithm)
    episodes = algorithm.rollout_buffer.episodes
    returns = [sum(e.rewards) for e in episodes]

    def reinforce() -> Tensor:
        loss = torch.zeros(())
        for i, episode in enumerate(episodes):
            others = [returns[j] for j in range(i - i % 4, i - i % 4 + 4) if j != i]
            advantage = returns[i] - sum(others) / 3
            loss = loss - advantage * torch.stack(token_log_probs(algorithm, algorithm.policy.model, episode)).sum()
        return loss / len(episodes)

    found, wanted = (gradients(algorithm, f) for f in (lambda: algorithm._loss(sequences)[0], reinforce))
    assert max(float(g.abs().max()) for g in wanted[1]) > 0.01
    # of the losses only the gradients are the same: one is a ratio, the other a logarithm
    assert_same_gradients((0.0, found[1]), (0.0, wanted[1]))


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
def test_the_loss_of_rloo_and_its_gradient_equal_a_loop(task: Any) -> None:
    algorithm = toy_groups(RLOO, toy_vector(8, task, group_size=4), kl_coef=0.0, ent_coef=0.03, clip_range=0.3)
    sequences = collected(algorithm)
    moved(algorithm, by=0.01)
    episodes = algorithm.rollout_buffer.episodes
    advantages = by_hand([sum(e.rewards) for e in episodes], 4, "others")
    outside = 0

    def loop() -> Tensor:
        nonlocal outside
        loss = torch.zeros(())
        for episode, advantage in zip(episodes, advantages, strict=True):
            new = token_log_probs(algorithm, algorithm.policy.model, episode)
            old = [x for x, own in zip(episode.log_probs, episode.chosen, strict=True) if own]
            ratio = (torch.stack(new).sum() - sum(old)).exp()
            if abs(float(ratio.detach()) - 1) > 0.3:
                outside += 1
                edge = torch.tensor(1.3 if ratio > 1 else 0.7)
                loss = loss - torch.minimum(ratio * advantage, edge * advantage)
            else:
                loss = loss - ratio * advantage
            spread = token_log_probs(algorithm, algorithm.policy.model, episode, entropies=True)
            loss = loss - 0.03 * torch.stack(spread).mean()
        return loss / len(episodes)

    found, wanted = (gradients(algorithm, f) for f in (lambda: algorithm._loss(sequences)[0], loop))
    assert_same_gradients(found, wanted)
    assert 0 < outside < len(episodes)
    assert algorithm._loss(sequences)[1]["clip_fraction"] == pytest.approx(outside / len(episodes))


# ---- they learn ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("seed", [0, 1])
def test_the_reward_rises(cls: type[GroupAlgorithm], seed: int) -> None:
    model = tiny_gpt2(seed, vocab_size=V, scale=0.15)
    env = toy_vector(32, group_size=4, min_new_tokens=4)
    algorithm = toy_groups(cls, env, seed=seed, model=model, batch_size=32, learning_rate=3e-3, kl_coef=0.0)
    dumped = logged(algorithm, 3000)
    before, after = (
        float(np.mean([numbers["rollout/ep_rew_mean"] for numbers in some])) for some in (dumped[:1], dumped[-1:])
    )
    assert before < 0.65
    assert after > before + 0.2


# ---- bad input -------------------------------------------------------------------------------------------------------------


def make(cls: type[GroupAlgorithm], env: Any = None, **kwargs: Any) -> GroupAlgorithm:
    """An algorithm with one thing wrong."""
    return toy_groups(cls, toy_vector(4, group_size=4) if env is None else env, **kwargs)


@both
@pytest.mark.parametrize("value", [1, 0, -4, 2.0, True, None, "4"])
def test_fewer_than_two_completions_of_a_prompt(cls: type[GroupAlgorithm], value: Any) -> None:
    with pytest.raises(
        ValueError, match="Expected `num_generations` to be a whole number of at least 2, actual value: "
    ):
        make(cls, toy_vector(4), num_generations=value)


@both
@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("clip_range", 0, "above 0"),
        ("clip_range", None, "above 0"),
        ("batch_size", 0, "a whole number of at least 1"),
        ("n_epochs", 0, "a whole number of at least 1"),
        ("micro_batch_tokens", 0, "a whole number of at least 1"),
        ("micro_batch_tokens", 1e4, "a whole number of at least 1"),
        ("kl_coef", -0.1, "a number of at least 0"),
        ("ent_coef", math.nan, "a number from -inf to inf"),
        ("target_kl", 0, "above 0, or None for none"),
        ("temperature", 0, "a number above 0"),
        ("env_kwargs", {"group_size": 4}, "None where `env` is not an id: it is made already"),
    ],
)
def test_a_hyperparameter_out_of_range(cls: type[GroupAlgorithm], name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{name}` to be {wanted}, actual value: "):
        make(cls, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("loss_type", "bnpo", r"one of \('grpo', 'dapo', 'dr_grpo'\), actual value: 'bnpo'"),
        ("loss_type", None, r"one of \('grpo', 'dapo', 'dr_grpo'\), actual value: None"),
        ("loss_type", ["grpo"], r"one of \('grpo', 'dapo', 'dr_grpo'\)"),
        ("scale_rewards", True, r"one of \('group', 'batch', 'none'\), actual value: True"),
        ("importance_sampling_level", "word", r"one of \('token', 'sequence'\), actual value: 'word'"),
        ("clip_range_high", 0, "above 0, or None for none, actual value: 0"),
        ("clip_range_high", "high", "above 0, or None for none, actual value: 'high'"),
    ],
)
def test_an_unknown_variant_of_grpo(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{name}` to be {wanted}"):
        make(GRPO, **{name: value})


def test_a_target_without_a_penalty_in_rloo() -> None:
    with pytest.raises(ValueError, match="`kl_coef` to be above 0 where kl_target is given"):
        make(RLOO, kl_coef=0.0, kl_target=1.0)


@both
@pytest.mark.parametrize("n_envs", [6, 2])
def test_environments_that_are_not_a_multiple_of_the_group(cls: type[GroupAlgorithm], n_envs: int) -> None:
    with pytest.raises(
        ValueError, match=f"Expected `n_envs` to be a multiple of num_generations=4, actual value: {n_envs}"
    ):
        make(cls, ENV_ID, n_envs=n_envs, model=tiny_gpt2())


WRONG = (
    r"Expected `the environments' group_size` to be num_generations=4, as in gym.make_vec\(id, num_envs=n, group_size"
)
WRONG_ENVS: dict[str, tuple[Callable[[], Any], str]] = {
    "another size": (lambda: toy_vector(8, group_size=2), "2"),
    "no groups": (lambda: toy_vector(8), "1"),
    "wrapped": (lambda: VecMonitor(GymVecEnv(toy_vector(8, group_size=8))), "8"),
    "single environments": (lambda: DummyVecEnv([toy_single] * 8), "None"),
    "one environment": (toy_single, "None"),
}


@both
@pytest.mark.parametrize("kind", WRONG_ENVS)
def test_environments_that_are_grouped_in_another_way(cls: type[GroupAlgorithm], kind: str, tmp_path: Path) -> None:
    wrong, size = WRONG_ENVS[kind]
    message = f"{WRONG}=...\\), actual value: {size}"
    with pytest.raises(ValueError, match=message):
        make(cls, wrong())
    make(cls, toy_vector(8, group_size=4)).save(tmp_path / "saved")
    with pytest.raises(ValueError, match=message):
        cls.load(tmp_path / "saved", env=wrong())
    if kind != "one environment":  # SB3 itself refuses another number of environments
        loaded = cls.load(tmp_path / "saved")
        with pytest.raises(ValueError, match=message):
            loaded.set_env(wrong())


@both
def test_a_group_size_among_the_arguments_of_the_environment_that_is_another(cls: type[GroupAlgorithm]) -> None:
    with pytest.raises(ValueError, match=f"{WRONG}=...\\), actual value: 2"):
        make(cls, ENV_ID, n_envs=4, env_kwargs={"group_size": 2}, model=tiny_gpt2())


def test_ppo_can_be_trained_in_groups_too() -> None:
    ppo = toy_ppo(toy_vector(8, group_size=4)).learn(60)
    assert ppo.num_timesteps >= 60
