"""DQN: its targets and losses against loops, what its values mean, its target network, replay buffer and exploration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, toy_algorithm, toy_vector
from test_rollout import collect

from textgym.core import TextGymError
from textgym_agents import DQN
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.rollouts.replay import SequenceReplay
from textgym_agents.value_losses import expectile_loss, huber_loss, n_step_targets

V = len(WORDS)


def random_rows(seed: int = 0, b: int = 6, t: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(b, t, generator=generator) for _ in range(2)]
    mask = torch.rand(b, t, generator=generator) < 0.6
    mask[:, -1] = True
    return {
        "rewards": noise[0],
        "bootstrap": noise[1],
        "mask": mask,
        "last_values": torch.randn(b, generator=generator),
    }


# ---- targets and losses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_targets_equal_a_slow_loop(n: int, gamma: float) -> None:
    rows = random_rows(n)
    found = n_step_targets(**rows, gamma=gamma, n_step=n)
    for i, mask in enumerate(rows["mask"]):
        steps = mask.nonzero().flatten().tolist()
        for k, t in enumerate(steps):
            ahead = steps[k : k + n]
            wanted = sum(gamma**j * float(rows["rewards"][i, s]) for j, s in enumerate(ahead))
            behind = rows["bootstrap"][i, steps[k + n]] if k + n < len(steps) else rows["last_values"][i]
            wanted += gamma ** len(ahead) * float(behind)
            assert float(found[i, t]) == pytest.approx(wanted, abs=1e-5)
    assert (found[~rows["mask"]] == 0).all()


def test_targets_of_an_episode_of_three_steps_by_hand() -> None:
    rewards, worth = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[10.0, 20.0, 40.0]])
    mask, ended, cut_off = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1), torch.tensor([80.0])

    def targets(last: torch.Tensor, n: int) -> list[float]:
        found: list[float] = n_step_targets(rewards, worth, mask, last, 0.5, n)[0].tolist()
        return found

    assert targets(ended, 1) == [1 + 10, 2 + 20, 4]
    assert targets(ended, 2) == [1 + 1 + 10, 2 + 2, 4]
    assert targets(ended, 3) == [1 + 1 + 1, 2 + 2, 4]
    assert targets(cut_off, 1) == [1 + 10, 2 + 20, 4 + 40]
    assert targets(cut_off, 9) == [1 + 1 + 1 + 10, 2 + 2 + 20, 4 + 40]


def test_losses_equal_loops_and_read_nothing_outside_the_mask() -> None:
    rows = random_rows(3)
    q, y, mask = 2 * rows["rewards"], rows["bootstrap"], rows["mask"]
    errors = [float(a - b) for a, b in zip(q[mask], y[mask], strict=True)]
    huber = np.mean([e**2 / 2 if abs(e) < 1 else abs(e) - 0.5 for e in errors])
    expectile = np.mean([(0.8 if e < 0 else 0.2) * e**2 for e in errors])  # e < 0: the value is below the target
    spoiled = torch.where(mask, q, torch.nan).requires_grad_()
    for loss, wanted in ((huber_loss(spoiled, y, mask), huber), (expectile_loss(spoiled, y, mask, 0.8), expectile)):
        assert loss.item() == pytest.approx(wanted, rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, spoiled)
        assert torch.isfinite(gradient).all()
        assert (gradient[~mask] == 0).all()


# ---- what the values are ---------------------------------------------------------------------------------------------------


def part_of(algorithm: DQN) -> Sequences:
    collect(algorithm)  # type: ignore[arg-type]
    return algorithm.rollout_buffer.sequences


def test_every_value_is_0_before_the_first_update_and_the_policy_is_the_reference() -> None:
    algorithm = toy_algorithm(DQN, temperature=0.8, top_p=0.9, n_step=2)
    part = part_of(algorithm)
    loss, numbers = algorithm._loss(part)
    assert abs(numbers["q_mean"]) < 1e-6
    assert abs(numbers["advantage_mean"]) < 1e-6
    ends = part.rewards[part.action_mask]
    wanted = sum(float(r) ** 2 / 2 for r in torch.where(torch.isnan(ends), 0, ends)) / part.num_tokens
    last_two = part.with_(last_values=torch.zeros(len(part)))
    assert numbers["td_error"] >= float(ends.mean()) - 1e-6
    assert loss.item() >= wanted - 1e-6
    assert algorithm._targets(last_two, torch.zeros(0)).sum() > 0


def different(algorithm: DQN) -> DQN:
    """Policy, target and reference get weights of their own, and values that are not 0."""
    torch.manual_seed(7)
    with torch.no_grad():
        for module in (algorithm.policy.model, algorithm.target, algorithm.reference):
            for parameter in module.parameters():  # type: ignore[union-attr]
                parameter += 0.05 * torch.randn_like(parameter)
        torch.nn.init.normal_(algorithm.target["value_head"].weight)
        torch.nn.init.normal_(algorithm.policy.value_head.weight)
    return algorithm


def log_probs_at(model: Any, prefix: list[int], written: int, limits: Limits) -> torch.Tensor:
    logits = model(torch.tensor([prefix])).logits[0, -1]
    return logits.masked_fill(~limits.mask(torch.tensor([written]))[0], -torch.inf).log_softmax(-1)


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
@pytest.mark.parametrize("backup", ["soft", "greedy", "double"])
def test_the_worth_of_states_by_definition(backup: str, task: Any) -> None:
    algorithm = different(
        toy_algorithm(DQN, toy_vector(6, task, min_new_tokens=3), backup=backup, n_step=1, gamma=0.5, kl_coef=0.3)
    )
    part = part_of(algorithm)
    assert algorithm.limits is not None
    hidden = algorithm.policy.backbone.hidden_states(
        part.input_ids, part.attention_mask, part.action_mask, part.action_mask.shape[1]
    )
    found = algorithm._targets(part, hidden[part.action_mask])
    target, early = algorithm.target["model"], 0
    with torch.no_grad():
        for row, episode in enumerate(part.episodes()):
            own = [t for t, chosen in enumerate(episode.chosen) if chosen]
            start = part.action_mask.shape[1] - len(episode.tokens)
            for k, t in enumerate(own):
                wanted = episode.rewards[t]
                if k + 1 < len(own):
                    prefix = episode.prompt + episode.tokens[: own[k + 1]]
                    state = target.base_model(torch.tensor([prefix])).last_hidden_state[0, -1]
                    worth = float(algorithm.target["value_head"](state))
                    if backup != "soft":
                        theirs = log_probs_at(target, prefix, k + 1, algorithm.limits)
                        reference = log_probs_at(algorithm.reference, prefix, k + 1, algorithm.limits)
                        policy = log_probs_at(algorithm.policy.model, prefix, k + 1, algorithm.limits)
                        best = int((theirs if backup == "greedy" else policy).argmax())
                        worth += 0.3 * float(theirs[best] - reference[best])
                        early += int(target(torch.tensor([prefix])).logits[0, -1].argmax() != best)
                    wanted += 0.5 * worth
                assert float(found[row, start + t]) == pytest.approx(wanted, abs=1e-4)
    assert early or backup == "soft", "the mask or the other network must matter somewhere"


def test_the_value_is_the_soft_maximum_of_the_action_values() -> None:
    """And their Boltzmann distribution, with the reference as prior, is the policy."""
    algorithm = different(toy_algorithm(DQN, kl_coef=0.3))
    policy, reference = (torch.randn(5, V, generator=torch.Generator().manual_seed(s)).log_softmax(-1) for s in (0, 1))
    value, scale = torch.randn(5, 1), algorithm.kl.coef
    q = value + scale * (policy - reference)
    torch.testing.assert_close(scale * (reference + q / scale).logsumexp(-1, keepdim=True), value)
    torch.testing.assert_close((reference + q / scale).log_softmax(-1), policy)


def test_a_long_n_needs_no_target_network() -> None:
    algorithm = toy_algorithm(DQN, n_step=64)
    part = part_of(algorithm)
    algorithm._target_backbone = None  # type: ignore[assignment]
    targets = algorithm._targets(part, torch.zeros(0))
    totals = torch.where(part.action_mask, part.rewards, torch.zeros(())).sum(-1, keepdim=True)
    torch.testing.assert_close(
        targets, torch.where(part.action_mask, totals, torch.zeros(()))
    )  # rewards come at the end


def test_the_value_head_makes_normalised_steps_and_is_nothing_to_the_optimizer() -> None:
    algorithm = toy_algorithm(DQN, n_step=64)
    part = part_of(algorithm)
    mask = part.action_mask
    hidden = algorithm.policy.backbone.hidden_states(part.input_ids, part.attention_mask, mask, mask.shape[1])[mask]
    error = algorithm._targets(part, hidden)[mask]  # every value is 0, and no error so large that it is clipped
    scale = hidden.square().sum(-1).mean() + 1
    numbers = algorithm._accumulate(part)
    assert "state_size" not in numbers
    head = algorithm.policy.value_head
    torch.testing.assert_close(head.weight[0], (error[:, None] * hidden).mean(0) / scale)
    torch.testing.assert_close(head.bias[0], error.mean() / scale)
    stepped = head.weight.clone()
    algorithm._step()
    assert torch.equal(head.weight, stepped)


# ---- target network --------------------------------------------------------------------------------------------------------


def test_the_target_follows_every_so_many_updates_by_tau() -> None:
    algorithm = toy_algorithm(
        DQN, gradient_steps=1, target_update_interval=2, tau=0.25, batch_size=4, learning_rate=1e-2
    )
    start = [p.clone() for p in algorithm.target.parameters()]
    collect(algorithm)  # type: ignore[arg-type]
    algorithm.train()
    assert algorithm._n_updates == 1
    assert all(torch.equal(a, b) for a, b in zip(start, algorithm.target.parameters(), strict=True))
    algorithm.train()
    online = list(algorithm._online().parameters())
    moved = 0
    for before, after, now in zip(start, algorithm.target.parameters(), online, strict=True):
        torch.testing.assert_close(after, before + 0.25 * (now - before))
        assert not after.requires_grad
        moved += int(not torch.equal(before, after))
    assert moved > 10


def test_tau_of_1_copies() -> None:
    algorithm = toy_algorithm(DQN, gradient_steps=3, target_update_interval=3, tau=1.0, batch_size=4).learn(30)
    pairs = zip(algorithm._online().parameters(), algorithm.target.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_learning_starts_when_it_is_told() -> None:
    algorithm = toy_algorithm(DQN, learning_starts=150, gradient_steps=2, batch_size=4)
    before = {k: v.clone() for k, v in algorithm.policy.state_dict().items()}
    algorithm.learn(90)
    assert algorithm._n_updates == 0
    assert all(torch.equal(before[k], v) for k, v in algorithm.policy.state_dict().items())
    tokens = algorithm.replay.num_tokens
    assert tokens == algorithm.num_timesteps
    algorithm.learn(120, reset_num_timesteps=False)
    assert algorithm._n_updates >= 2


# ---- replay buffer ---------------------------------------------------------------------------------------------------------


def episodes(first: int, n: int, length: int = 3) -> Sequences:
    """Episodes with a number in them."""
    prompts = [[2] * (1 + i % 3) for i in range(n)]
    found = Sequences.of(prompts, [[3 + (first + i) % 7] * (length + i % 2) for i in range(n)], None)
    return found.with_(last_values=torch.arange(first, first + n).float())


def test_the_oldest_episodes_give_way() -> None:
    replay = SequenceReplay(5)
    assert len(replay) == replay.num_tokens == 0
    with pytest.raises(TextGymError, match="Expected episodes in the replay buffer"):
        replay.sample(1, torch.Generator())
    for first, length in ((0, 3), (3, 6), (6, 2)):
        replay.add(episodes(first, 3, length))
    assert len(replay) == 5
    held = replay.sequences
    assert held is not None
    assert held.last_values.tolist() == [4, 5, 6, 7, 8]
    wanted = [*episodes(3, 3, 6).episodes()[1:], *episodes(6, 3, 2).episodes()]
    assert held.episodes() == wanted
    replay.add(episodes(9, 12))
    assert len(replay) == 5
    assert replay.sequences is not None
    assert replay.sequences.episodes() == episodes(9, 12).episodes()[-5:]


def test_minibatches_are_uniform_and_a_function_of_the_generator() -> None:
    replay = SequenceReplay(8)
    replay.add(episodes(0, 8))
    draws = replay.sample(4000, torch.Generator().manual_seed(0)).last_values
    assert torch.equal(draws, replay.sample(4000, torch.Generator().manual_seed(0)).last_values)
    assert float((draws.long().bincount(minlength=8) / 4000 - 1 / 8).abs().max()) < 0.02


@pytest.mark.parametrize("supports", [False, True])
def test_a_replay_buffer_comes_back_from_its_tensors(supports: bool) -> None:
    limits = Limits(V, 1, 10, forbidden=(0,))
    replay, other = SequenceReplay(4), SequenceReplay(4, limits)
    other.load_state_dict(replay.state_dict())
    assert len(other) == 0
    made = replace(episodes(0, 3), limits=limits)
    if supports:
        made = made.with_(supports=torch.randint(255, (*made.action_mask.shape, 2)).byte())
    replay.add(made)
    other.load_state_dict(replay.state_dict())
    assert other.state_dict().keys() == replay.state_dict().keys()
    assert all(torch.equal(v, replay.state_dict()[k]) for k, v in other.state_dict().items())
    other.add(made)
    with pytest.raises(TextGymError, match="Expected episodes of the environment whose episodes"):
        other.add(replace(made, limits=None, supports=torch.zeros(0) if not supports else None))


# ---- exploration -----------------------------------------------------------------------------------------------------------


def test_recorded_log_probabilities_are_those_of_the_mixture() -> None:
    rate = 0.3
    algorithm = toy_algorithm(
        DQN, toy_vector(8, min_new_tokens=2), exploration_initial_eps=rate, exploration_final_eps=rate, temperature=0.7
    )
    part = part_of(algorithm)
    assert algorithm.limits is not None
    with torch.no_grad():
        own, _, _ = algorithm.policy.evaluate_sequences(part, 0.7)
    written = part.action_mask.long().cumsum(-1) - 1
    allowed = algorithm.limits.mask(written[part.action_mask]).sum(-1)
    wanted = ((1 - rate) * own[part.action_mask].exp() + rate / allowed).log()
    torch.testing.assert_close(part.log_probs[part.action_mask], wanted, rtol=0, atol=1e-4)


def test_the_exploration_rate_falls_and_is_kept() -> None:
    algorithm = toy_algorithm(
        DQN, exploration_initial_eps=1.0, exploration_final_eps=0.2, exploration_fraction=0.5, gradient_steps=1
    )
    assert algorithm.exploration_rate == 1.0
    for remaining, wanted in ((0.75, 0.6), (0.5, 0.2), (0.0, 0.2)):
        algorithm._current_progress_remaining = remaining
        assert algorithm.exploration_rate == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_coef": 0}, "Expected `kl_coef` to be above 0 with DQN"),
        ({"n_step": 0}, "Expected `n_step` to be a whole number of at least 1"),
        ({"backup": "hard"}, "Expected `backup` to be one of"),
        ({"tau": 0}, "Expected `tau` to be in \\(0, 1]"),
        ({"buffer_size": 0}, "Expected `buffer_size`"),
        ({"gradient_steps": 0}, "Expected `gradient_steps`"),
        ({"learning_starts": -1}, "Expected `learning_starts`"),
        ({"target_update_interval": 0}, "Expected `target_update_interval`"),
        ({"exploration_final_eps": 1.5}, "Expected `exploration_final_eps`"),
        ({"exploration_final_eps": 0.1, "top_k": 5}, "Expected `top_k` to be 0"),
        ({"exploration_initial_eps": 0.1, "rollout_backend": "vllm"}, "`rollout_backend` 'transformers'"),
        ({"ent_coef": 0.1}, "Expected `ent_coef` to be 0"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_algorithm(DQN, **settings)
