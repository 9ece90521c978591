"""Every algorithm keeps the contract of Stable-Baselines3, saves itself, resumes exactly, and learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, tiny_gpt2, toy_algorithm, toy_vector
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecMonitor
from test_ppo import Call, Keep, assert_equal, differ, state_of
from test_rollout import DECODINGS, collect

from textgym_agents import (
    A2C,
    DPO,
    DQN,
    GAIL,
    GRPO,
    ILQL,
    NLPO,
    PPO,
    REINFORCE,
    RLOO,
    SFT,
    TRPO,
    BestOfN,
    Distillation,
)
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.checkpoint import CheckpointError
from textgym_agents.algorithms.options import AlgorithmOptions, PPOOptions, arguments_of
from textgym_agents.algorithms.registry import ALGORITHMS, hyperparameters_of, load_algorithm
from textgym_agents.vec_env import GymVecEnv

CASES: dict[str, tuple[type[TextAlgorithm], dict[str, Any]]] = {
    "a2c": (A2C, {"normalize_advantage": True}),
    "best of n": (BestOfN, {"num_generations": 4, "batch_size": 4}),
    "dpo": (DPO, {"batch_size": 2}),
    "dpo, ipo": (DPO, {"batch_size": 2, "loss_type": "ipo", "num_generations": 2}),
    "gail": (GAIL, {"batch_size": 4, "n_epochs": 2, "discriminator_learning_rate": 1e-3}),
    "dqn": (DQN, {"batch_size": 8, "n_step": 4, "buffer_size": 60, "backup": "double", "learning_rate": 3e-3}),
    "grpo": (GRPO, {"num_generations": 4, "batch_size": 4}),
    "ilql": (ILQL, {"batch_size": 4, "learning_starts": 150, "learning_rate": 1e-2}),
    "nlpo": (NLPO, {"mask_top_p": 0.7, "mask_update_interval": 3, "batch_size": 4, "n_epochs": 2}),
    "ppo": (PPO, {"batch_size": 4, "n_epochs": 2}),
    "reinforce": (REINFORCE, {}),
    "reinforce, none": (REINFORCE, {"baseline": "none", "kl_coef": 0.0}),
    "reinforce, value": (REINFORCE, {"baseline": "value", "gamma": 0.98}),
    "reinforce, greedy": (REINFORCE, {"baseline": "greedy", "top_p": 0.9}),
    "rloo": (RLOO, {"num_generations": 4, "batch_size": 4}),
    "trpo": (TRPO, {"cg_max_steps": 3, "sub_sampling_factor": 2}),
}
PAIRS = [{"prompt": p, "chosen": "b d f", "rejected": "a c e"} for p in ("a", "b c", "d")]
OFFLINE: dict[str, tuple[type[TextAlgorithm], dict[str, Any]]] = {
    "distillation, word": (Distillation, {"teacher": tiny_gpt2(1, vocab_size=len(WORDS)), "batch_size": 4}),
    "distillation, sequence": (Distillation, {"teacher": tiny_gpt2(1, vocab_size=len(WORDS)), "level": "sequence"}),
    "dpo, dataset": (DPO, {"dataset": PAIRS, "batch_size": 4}),
    "sft": (SFT, {"batch_size": 4, "augmentation": {"deletion": 0.2, "insertion": 0.2}}),
}
"""They learn from what others wrote, and do not play."""

every = pytest.mark.parametrize("case", CASES)
all_of_them = pytest.mark.parametrize("case", [*CASES, *OFFLINE])


def make(case: str, **kwargs: Any) -> TextAlgorithm:
    cls, settings = {**CASES, **OFFLINE}[case]
    return toy_algorithm(cls, **{**settings, **kwargs})


def given_again(case: str) -> dict[str, Any]:
    """What a checkpoint does not contain."""
    return {k: v for k, v in {**CASES, **OFFLINE}[case][1].items() if k == "teacher"}


def env_for(algorithm: TextAlgorithm, n: int = 8) -> Any:
    needed = type(algorithm).needed_env_kwargs({k: getattr(algorithm, k, None) for k in arguments_of(type(algorithm))})
    return toy_vector(n, **needed)


def played(n: int) -> VecMonitor:
    """Environments to evaluate in."""
    return VecMonitor(GymVecEnv(toy_vector(n)))


def everything(algorithm: Any) -> dict[str, torch.Tensor]:
    """Every number that training goes on with, other models' weights included."""
    found = state_of(algorithm)
    for name, model in algorithm._models().items():
        found |= {f"{name}.{k}": v.clone() for k, v in model.state_dict().items()}
    progress = algorithm._progress()
    more = {k: progress[k] for k in ("running_mean", "mask_age") if progress.get(k) is not None}
    return found | {k: torch.tensor(v, dtype=torch.float64) for k, v in more.items()}


def test_all_of_them_are_here() -> None:
    assert {cls for cls, _ in [*CASES.values(), *OFFLINE.values()]} == set(ALGORITHMS.values())
    assert set(ALGORITHMS) == {cls.__name__.lower() for cls in ALGORITHMS.values()}


@all_of_them
def test_learn_counts_tokens_logs_and_changes_the_policy(case: str) -> None:
    algorithm, keep = make(case), Keep()
    assert isinstance(algorithm, OnPolicyAlgorithm)
    before = {k: v.clone() for k, v in algorithm.policy.state_dict().items()}
    algorithm.set_logger(keep)
    assert algorithm.learn(300) is algorithm
    assert 300 <= algorithm.num_timesteps < 400
    known = set().union(*keep.dumped, keep.name_to_value)
    if case in CASES:
        assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "train/entropy_loss"} <= known
    documented = type(algorithm).__doc__ or ""
    for name in sorted(k for k in known if k.startswith("train/")):
        assert name in documented + (PPO.__doc__ or ""), f"{name} is logged and not explained"
    assert differ(before, algorithm.policy.state_dict())
    numbers = [
        v for d in keep.dumped for k, v in d.items() if k.startswith("train/") and k != "train/explained_variance"
    ]
    assert np.isfinite(numbers).all()


@all_of_them
def test_callbacks_and_evaluation(case: str, tmp_path: Path) -> None:
    algorithm = make(case)
    steps: list[int] = []
    algorithm.learn(300, callback=[Call(3, lambda a: steps.append(a.num_timesteps) or True)])  # type: ignore[func-returns-value]
    assert len(steps) == 1
    if case in CASES:
        assert 8 <= steps[0] <= 24
    algorithm.learn(300, callback=CheckpointCallback(3, str(tmp_path)))
    assert list(tmp_path.glob("*.zip"))
    mean, spread = evaluate_policy(algorithm, played(4), n_eval_episodes=8)
    assert 0 <= mean <= 1
    assert spread >= 0
    stop = StopTrainingOnRewardThreshold(-1)
    algorithm.learn(10_000, callback=EvalCallback(played(4), stop, n_eval_episodes=4, eval_freq=1, verbose=0))
    assert algorithm.num_timesteps < 1000


@all_of_them
def test_predict_save_and_load(case: str, tmp_path: Path) -> None:
    algorithm = make(case)
    algorithm.learn(100)
    algorithm.save(tmp_path / "saved")
    loaded = load_algorithm(tmp_path / "saved", device="cpu", **given_again(case))
    assert type(loaded) is type(algorithm)
    observations, _ = toy_vector(5).reset(seed=1)
    for deterministic in (True, False):
        tokens, state = algorithm.predict(observations, deterministic=deterministic)
        assert tokens.shape == (5,)
        assert state is None
        if deterministic:
            assert np.array_equal(loaded.predict(observations, deterministic=True)[0], tokens)
    for name in arguments_of(type(algorithm)):
        if name not in ("policy", "env", "env_kwargs", "policy_kwargs", "device", "ref_model", "_init_setup_model"):
            own = name in vars(algorithm)
            assert not own or getattr(loaded, name) == getattr(algorithm, name), name
    for other in {PPO, A2C} - {type(algorithm)}:
        with pytest.raises(CheckpointError, match=f"Expected a saved {other.__name__}"):
            other.load(tmp_path / "saved")


TOTAL = 400


@all_of_them
def test_a_training_that_was_killed_equals_bit_for_bit_the_one_that_was_not(case: str, tmp_path: Path) -> None:
    def save(algorithm: Any) -> bool:
        assert algorithm.num_timesteps > algorithm._rollout_start["num_timesteps"] > 0
        algorithm.save(tmp_path / "killed")
        return False

    # in the third or fourth rollout; those of the others are one step each, and then longer
    total, step = (TOTAL, 32) if case in CASES else (2 * TOTAL, 6)
    whole = everything(make(case, seed=4).learn(total))
    killed = make(case, seed=4).learn(total, callback=Call(step, save))
    resumed = type(killed).load(tmp_path / "killed", env=env_for(killed), device="cpu", **given_again(case))
    assert 0 < resumed.num_timesteps < total - 100
    resumed.learn(total - resumed.num_timesteps, reset_num_timesteps=False)
    assert_equal(everything(resumed), whole)


@every
@pytest.mark.parametrize("decoding", ["plain", "everything"])
def test_stored_log_probabilities_are_those_of_the_policy(case: str, decoding: str) -> None:
    """The ratio is 1 before the first update, whatever narrows the distribution."""
    settings = {k: v for k, v in CASES[case][1].items() if k != "top_p"}
    algorithm = toy_algorithm(CASES[case][0], **{**settings, **DECODINGS[decoding]})
    collect(algorithm)  # type: ignore[arg-type]
    sequences = algorithm.rollout_buffer.sequences
    with torch.no_grad():
        log_probs, _, entropies = algorithm.policy.evaluate_sequences(
            sequences, algorithm.decoding.temperature, entropies=True
        )
    mask = sequences.action_mask
    torch.testing.assert_close(log_probs[mask], sequences.log_probs[mask], rtol=0, atol=1e-4)
    torch.testing.assert_close(entropies[mask], sequences.entropies[mask], rtol=0, atol=1e-4)


def test_schedules_are_followed_saved_and_resumed(tmp_path: Path) -> None:
    settings = {"kl_coef": "lin_0.2", "temperature": "lin_1.5_0.5", "learning_rate": "lin_1e-3"}
    seen: list[tuple[float, float, float]] = []

    def look(algorithm: Any) -> bool:
        seen.append((algorithm._current_progress_remaining, algorithm.kl.coef, algorithm.decoding.temperature))
        return True

    def save(algorithm: Any) -> bool:
        algorithm.save(tmp_path / "killed")
        return False

    whole = everything(toy_algorithm(PPO, batch_size=4, **settings).learn(600, callback=Each(look)))
    for left, coef, temperature in seen:
        assert coef == pytest.approx(0.2 * left)
        assert temperature == pytest.approx(0.5 + left)
    assert len(set(seen)) > 3
    killed = toy_algorithm(PPO, batch_size=4, **settings).learn(600, callback=Call(40, save))
    resumed = PPO.load(tmp_path / "killed", env=env_for(killed), device="cpu")
    resumed.learn(600 - resumed.num_timesteps, reset_num_timesteps=False)
    assert_equal(everything(resumed), whole)
    collect(resumed)  # type: ignore[arg-type]
    played_now = resumed.rollout_buffer.sequences
    with torch.no_grad():
        log_probs, _, _ = resumed.policy.evaluate_sequences(played_now, resumed.decoding.temperature)
    torch.testing.assert_close(log_probs, played_now.log_probs, rtol=0, atol=1e-4)


class Each(BaseCallback):
    """Calls a function with the algorithm at every step."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look

    def _on_step(self) -> bool:
        return bool(self.look(self.model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": "lin_1.0"}, "Expected `temperature` to be a schedule that stays above 0"),
        ({"temperature": "cos_1"}, "Expected `temperature` to be a number, a function, or a text such as"),
        ({"kl_coef": "lin_a"}, "Expected `kl_coef` to be a number, a function, or a text such as"),
        ({"learning_rate": "lin_1_2_3"}, "Expected `learning_rate` to be a number, a function"),
        ({"kl_coef": "lin_0.1", "kl_target": 2.0}, "None where kl_coef is a schedule"),
        ({"whiten_rewards": 1}, "Expected `whiten_rewards` to be True or False"),
    ],
)
def test_bad_schedules(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_algorithm(PPO, **settings)


@pytest.mark.parametrize("cls", [PPO, RLOO])
def test_with_whitened_rewards_their_scale_does_not_matter(cls: Any) -> None:
    def times(factor: float) -> dict[str, torch.Tensor]:
        def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
            return [factor * len(set(c.split())) for c in completions]

        kwargs = cls.needed_env_kwargs({**arguments_of(cls), "num_generations": 4})
        env = toy_vector(8, reward=reward, **kwargs)
        more = {"num_generations": 4} if cls is RLOO else {}
        return state_of(toy_algorithm(cls, env, batch_size=4, kl_coef=0.0, whiten_rewards=True, **more).learn(200))

    small, large = times(1.0), times(64.0)
    for name, value in small.items():
        torch.testing.assert_close(value, large[name], rtol=1e-3, atol=1e-5)


LEARNED = 0.85  # of tokens are even; 0.52 at random
QUICK: dict[str, Any] = {"learning_rate": 3e-3, "kl_coef": 0.0}
RISING: dict[str, dict[str, Any]] = {  # settings with which it rises within 6,000 tokens
    "dpo, ipo": {"learning_rate": 3e-3, "beta": 0.02},
    "ilql": {"learning_starts": 2000, "n_step": 16, "tau": 0.1, "cql_coef": 0.01, "advantage_weight": 30.0},
    "reinforce, none": QUICK,
    "reinforce, value": QUICK,
    "reinforce, greedy": QUICK,
}


@pytest.mark.parametrize(
    "case", RISING
)  # the others learn whole tasks in test_diagnostics.py, and gail in test_gail.py
def test_the_reward_rises(case: str) -> None:
    algorithm = make(case, seed=0, **RISING[case])
    before, _ = evaluate_policy(algorithm, played(16), n_eval_episodes=64, deterministic=False)
    algorithm.learn(6000)
    after, _ = evaluate_policy(algorithm, played(16), n_eval_episodes=64, deterministic=False)
    assert before < 0.65
    assert after > LEARNED


# ---- options ---------------------------------------------------------------------------------------------------------------


def decided_by(cls: type) -> set[str]:
    return set().union(*(vars(base).get("decided", ()) for base in cls.__mro__))


def test_the_options_are_those_of_the_base_and_documented() -> None:
    own = set(arguments_of(TextAlgorithm))
    shared = set(get_type_hints(AlgorithmOptions))
    assert shared <= own
    for name in shared - {"_init_setup_model"}:
        assert f"        {name}: " in (AlgorithmOptions.__doc__ or "")
    for cls in ALGORITHMS.values():
        assert set(arguments_of(cls)) >= shared - decided_by(cls)
        doc = cls.__init__.__doc__ or ""
        if "All other arguments of :class:`PPO`" in doc:
            assert issubclass(cls, PPO)
            doc += PPO.__init__.__doc__ or ""
        for name in set(arguments_of(cls)) - shared:
            assert f"            {name}: " in doc, f"{cls.__name__} does not explain {name}"


def test_the_options_of_ppo_are_all_of_its_arguments() -> None:
    assert set(get_type_hints(PPOOptions)) == set(arguments_of(PPO)) - {"policy", "env"}


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (A2C, "batch_size"),
        (A2C, "target_kl"),
        (REINFORCE, "gae_lambda"),
        (TRPO, "n_epochs"),
        (DPO, "kl_coef"),
        (SFT, "kl_coef"),
        (SFT, "rollout_backend"),
        (Distillation, "ent_coef"),
        (BestOfN, "target_kl"),
        (RLOO, "gamma"),
        (PPO, "x"),
    ],
)
def test_what_an_algorithm_has_decided_on_cannot_be_given(cls: Any, name: str) -> None:
    assert name not in arguments_of(cls)
    with pytest.raises(TypeError, match=name):
        toy_algorithm(cls, **{name: 1})
    with pytest.raises(ValueError, match=f"Unknown hyperparameter '{name}' of {cls.__name__.lower()}"):
        hyperparameters_of(cls.__name__.lower(), {name: 1})
