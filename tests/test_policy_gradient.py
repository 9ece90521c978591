"""A2C and REINFORCE: losses against loops over tokens, and the baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import Chat, toy_algorithm, toy_vector
from test_groups import assert_same_gradients, gradients, token_log_probs
from test_ppo import Keep
from test_rollout import collect
from torch import Tensor

from textgym_agents import A2C, REINFORCE
from textgym_agents.losses import policy_gradient_loss
from textgym_agents.rollouts.buffers import Episode, Sequences

tasks = pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])


def collected(algorithm: Any) -> Sequences:
    collect(algorithm)
    found: Sequences = algorithm.rollout_buffer.sequences
    return found


def own(values: list[float], episode: Episode) -> list[float]:
    return [v for v, chosen in zip(values, episode.chosen, strict=True) if chosen]


def to_go(rewards: list[float], gamma: float) -> list[float]:
    """The discounted sum from every step on, by its definition."""
    return [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]


def test_the_loss_by_hand() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, torch.nan]])
    advantages, mask = torch.tensor([[2.0, -1.0], [0.5, 7.0]]), torch.tensor([[True, True], [True, False]])
    assert float(policy_gradient_loss(log_probs, advantages, mask)) == pytest.approx((2 - 2 + 1.5) / 3)


@tasks
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_gradient_of_reinforce_equals_a_loop(task: Any, gamma: float) -> None:
    algorithm = toy_algorithm(
        REINFORCE, toy_vector(8, task), baseline="none", gamma=gamma, kl_coef=0.0, temperature=0.8
    )
    sequences = collected(algorithm)
    episodes = algorithm.rollout_buffer.episodes

    def loop() -> Tensor:
        total, count = torch.zeros(()), 0
        for episode in episodes:
            returns = to_go(own(episode.rewards, episode), gamma)
            for log_p, g in zip(token_log_probs(algorithm, algorithm.policy.model, episode), returns, strict=True):  # type: ignore[arg-type]
                total, count = total - log_p * g, count + 1
        return total / count

    found, wanted = (gradients(algorithm, f) for f in (lambda: algorithm._loss(sequences)[0], loop))  # type: ignore[arg-type]
    assert max(float(g.abs().max()) for g in wanted[1]) > 0.01
    assert_same_gradients(found, wanted)


@tasks
def test_the_gradient_of_a2c_equals_a_loop(task: Any) -> None:
    settings = {"kl_coef": 0.0, "vf_coef": 0.3, "ent_coef": 0.05, "gae_lambda": 0.7, "gamma": 0.9}
    algorithm = toy_algorithm(A2C, toy_vector(8, task), **settings)
    torch.nn.init.normal_(algorithm.policy.value_head.weight)
    sequences = collected(algorithm)
    episodes = algorithm.rollout_buffer.episodes

    def loop() -> Tensor:
        total, count = torch.zeros(()), 0
        for episode in episodes:
            model = algorithm.policy.model
            log_probs = token_log_probs(algorithm, model, episode)  # type: ignore[arg-type]
            spread = token_log_probs(algorithm, model, episode, entropies=True)  # type: ignore[arg-type]
            rewards, values = own(episode.rewards, episode), own(episode.values, episode)
            deltas = [r + 0.9 * v - u for r, v, u in zip(rewards, [*values[1:], 0.0], values, strict=True)]
            states = model.base_model(torch.tensor([episode.prompt + episode.tokens])).last_hidden_state[0]
            places = [len(episode.prompt) + t - 1 for t, chosen in enumerate(episode.chosen) if chosen]
            for t, log_p in enumerate(log_probs):
                advantage = sum((0.9 * 0.7) ** k * d for k, d in enumerate(deltas[t:]))
                error = algorithm.policy.value_head(states[places[t]])[0] - (advantage + values[t])
                total = total - log_p * advantage + 0.3 * error**2 - 0.05 * spread[t]
                count += 1
        return total / count

    found, wanted = (gradients(algorithm, f) for f in (lambda: algorithm._loss(sequences)[0], loop))  # type: ignore[arg-type]
    assert_same_gradients(found, wanted)


def test_the_penalty_is_part_of_the_return() -> None:
    algorithm = toy_algorithm(REINFORCE, baseline="none", kl_coef=0.5)
    algorithm.learn(100)  # away from the reference
    sequences = collected(algorithm)
    mask = sequences.action_mask
    charged = torch.where(mask, sequences.rewards - 0.5 * (sequences.log_probs - sequences.ref_log_probs), 0.0)
    wanted = charged.flip(-1).cumsum(-1).flip(-1)
    assert float((sequences.log_probs - sequences.ref_log_probs)[mask].abs().max()) > 0.01
    torch.testing.assert_close(sequences.advantages[mask], wanted[mask])


def test_the_running_mean_is_that_of_earlier_rollouts() -> None:
    algorithm, means = toy_algorithm(REINFORCE, kl_coef=0.0, learning_rate=0.0), []
    for k in range(3):
        sequences = collected(algorithm)
        mask, returns = sequences.action_mask, sequences.returns
        mean = float(returns[mask].mean())
        known = mean if k == 0 else means[-1]
        torch.testing.assert_close(sequences.advantages[mask], (returns - known)[mask])
        means.append(known + 0.1 * (mean - known))
        assert algorithm.running_mean == pytest.approx(means[-1])


def test_values_are_the_baseline_where_asked_for_and_are_learned() -> None:
    algorithm = toy_algorithm(REINFORCE, baseline="value", kl_coef=0.0)
    torch.nn.init.normal_(algorithm.policy.value_head.weight)
    sequences = collected(algorithm)
    mask, earned = sequences.action_mask, sequences.rewards.sum(-1, keepdim=True)
    torch.testing.assert_close(sequences.advantages[mask], (earned - sequences.values)[mask])
    before = algorithm.policy.value_head.weight.clone()
    algorithm.train()
    assert not torch.equal(algorithm.policy.value_head.weight, before)
    other = toy_algorithm(REINFORCE, kl_coef=0.0)
    other.learn(50)
    assert not other.policy.value_head.weight.any(), "without values nothing trains their head"


def test_self_critical_compares_with_the_greedy_completion_of_the_same_prompt() -> None:
    algorithm = toy_algorithm(REINFORCE, toy_vector(8, group_size=2), baseline="greedy", kl_coef=0.0, n_steps=15)
    played: list[Sequences] = []
    original = algorithm._with_advantages

    whole: list[Sequences] = []
    stack = algorithm.rollout_buffer.stack

    def kept() -> Sequences:
        whole.append(stack())
        return whole[-1]

    algorithm.rollout_buffer.stack = kept  # type: ignore[method-assign]
    algorithm._with_advantages = lambda s, p: played.append(s) or original(s, p)  # type: ignore[method-assign,func-returns-value]
    sequences = collected(algorithm)
    everything, sampled = whole[0], played[0]
    assert len(everything) == 2 * len(sequences) == 2 * len(sampled) > 8
    for k, (chosen, greedy) in enumerate(zip(everything.episodes()[::2], everything.episodes()[1::2], strict=True)):
        assert chosen.prompt == greedy.prompt
        [wanted] = algorithm.policy.generate([greedy.prompt], deterministic=True)
        assert greedy.tokens == wanted
        mask = sequences.action_mask[k]
        advantage = sum(chosen.rewards) - sum(greedy.rewards)
        assert sequences.advantages[k][mask].numpy() == pytest.approx(advantage, abs=1e-6)
    assert float(sequences.advantages.abs().max()) > 0.05


def test_a_baseline_changes_the_variance_and_not_the_mean() -> None:
    """Gradients of the last layer's norm over many rollouts of the same policy: equal means, less variance."""
    found = {}
    for baseline in ("none", "mean"):
        algorithm = toy_algorithm(REINFORCE, toy_vector(64), baseline=baseline, kl_coef=0.0)
        if baseline == "mean":
            algorithm.running_mean = 0.5
        rows = []
        for _ in range(40):
            algorithm.running_mean = 0.5 if baseline == "mean" else None
            sequences = collected(algorithm)
            algorithm.policy.zero_grad()
            # sums over episodes, not means over tokens, are what the policy gradient theorem is about
            (algorithm._loss(sequences)[0] * sequences.num_tokens / len(sequences)).backward()
            rows.append(algorithm.policy.model.transformer.ln_f.bias.grad.numpy().copy())
        found[baseline] = np.array(rows)
    spread = {k: v.var(axis=0).sum() for k, v in found.items()}
    assert spread["mean"] < 0.7 * spread["none"]
    error = np.sqrt((spread["mean"] + spread["none"]) / 40)
    distance = np.linalg.norm(found["mean"].mean(axis=0) - found["none"].mean(axis=0))
    assert distance < 2 * error


def test_what_is_logged_of_a_baseline() -> None:
    algorithm, keep = toy_algorithm(REINFORCE, kl_coef=0.0), Keep()
    algorithm.set_logger(keep)
    algorithm.learn(200)
    last = keep.dumped[-1]
    assert last["train/baseline"] == pytest.approx(0.5, abs=0.2)
    assert 0 < last["train/advantage_std"] < 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "median"}, r"Expected `baseline` to be one of \('none', 'mean', 'value', 'greedy'\)"),
        ({"vf_coef": -1}, "Expected `vf_coef`"),
        ({"baseline": "greedy", "env": toy_vector(8)}, "group_size` to be 2 for baseline='greedy'"),
        ({"baseline": "greedy", "rollout_backend": "vllm"}, "Expected `rollout_backend` to be 'transformers'"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_algorithm(REINFORCE, **settings)


def test_the_id_of_an_environment_is_enough_for_pairs() -> None:
    algorithm = REINFORCE(
        "CausalLMPolicy", "TextGen-Copy-v0", baseline="greedy", n_envs=4, env_kwargs={"max_new_tokens": 4}, device="cpu"
    )
    collect(algorithm)  # type: ignore[arg-type]
    assert len(algorithm.rollout_buffer.sequences) == 2
