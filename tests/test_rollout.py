"""Rollouts: exact behaviour log-probabilities, whole episodes, several speakers, every kind of vector environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fixtures import ENV_ID, EOS, WORDS, Chat, single, tiny_ppo, toy_ppo, toy_single, toy_vector, vector
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor

from textgym import load_tokenizer
from textgym_agents import PPO, Decoding
from textgym_agents.algorithms.kl import KLController
from textgym_agents.models.token_scores import unpack_bits
from textgym_agents.rollouts.buffers import Episode, SequenceBuffer, Sequences, pack_bits
from textgym_agents.vec_env import GymVecEnv

DECODINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.8},
    "everything": {"temperature": 0.7, "top_k": 6, "top_p": 0.8},
}
decodings = pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS)


class Recorder(BaseCallback):
    """Keeps what every step of the environments showed."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def _on_step(self) -> bool:
        names = ("slots", "rewards", "dones", "infos", "new_obs", "actions")
        self.steps.append({name: np.copy(v) if isinstance(v := self.locals[name], np.ndarray) else v for name in names})
        return self.stop_after is None or len(self.steps) < self.stop_after

    def final_infos(self) -> dict[int, dict[str, Any]]:
        """The info of the first episode to end in each slot."""
        found: dict[int, dict[str, Any]] = {}
        for step in self.steps:
            for slot in step["slots"][step["dones"][step["slots"]]]:
                found.setdefault(int(slot), step["infos"][slot])
        return found


def collect(ppo: PPO, recorder: Recorder | None = None) -> Recorder:
    """One rollout, without training on it."""
    recorder = recorder or Recorder()
    _, callback = ppo._setup_learn(1, recorder, reset_num_timesteps=False)
    assert ppo.env is not None
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, ppo.n_steps)
    return recorder


def supports_of(sequences: Sequences, vocab_size: int) -> list[np.ndarray]:
    """For each episode, which tokens could be drawn in place of each of the policy's own, ``(tokens, V)``."""
    allowed = torch.zeros(sequences.num_tokens, vocab_size)
    found = sequences.support()
    if found is not None:
        found.restrict_(allowed)
    return [part.numpy() for part in torch.isfinite(allowed).split(sequences.action_mask.sum(-1).tolist())]


def assert_ratio_1(ppo: PPO) -> None:
    """The policy that would be trained gives the log-probabilities and values that were stored: the ratio is 1."""
    for batch in ppo.rollout_buffer.batches(3):
        mask = batch.action_mask
        with torch.no_grad():
            log_probs, values, entropies = ppo.policy.evaluate_sequences(
                batch, ppo.decoding.temperature, entropies=True
            )
            numbers = ppo._loss(batch)[1]
        ratio = (log_probs - batch.log_probs)[mask].exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-4)
        torch.testing.assert_close(values[mask], batch.values[mask], rtol=0, atol=1e-4)
        torch.testing.assert_close(entropies[mask], batch.entropies[mask], rtol=0, atol=1e-4)
        assert numbers["clip_fraction"] == 0
        assert abs(numbers["approx_kl"]) < 1e-6


# ---- exact behaviour log-probabilities -----------------------------------------------------------------------------------


@decodings
@pytest.mark.parametrize("min_new_tokens", [0, 6])
def test_the_ratio_is_1_on_the_first_minibatch(decoding: dict[str, Any], min_new_tokens: int) -> None:
    ppo = toy_ppo(toy_vector(12, min_new_tokens=min_new_tokens), **decoding)
    collect(ppo)
    sequences = ppo.rollout_buffer.sequences
    lengths = sequences.action_mask.sum(-1)
    assert len(set(lengths.tolist())) > 1  # ragged, so that padding is at work
    if min_new_tokens:
        assert int(lengths.min()) > min_new_tokens  # a token of the minimum is never the end token
    assert_ratio_1(ppo)


@decodings
def test_the_ratio_is_1_with_the_bundled_vocabulary(decoding: dict[str, Any]) -> None:
    ppo = tiny_ppo(vector(6, min_new_tokens=3), **decoding)
    collect(ppo)
    assert_ratio_1(ppo)


def test_log_probabilities_of_the_unfiltered_distribution_would_be_far_off() -> None:
    """What other libraries store: the test above can fail."""
    ppo = toy_ppo(toy_vector(12), **DECODINGS["everything"])
    collect(ppo)
    sequences = ppo.rollout_buffer.sequences
    mask = sequences.action_mask
    with torch.no_grad():
        unfiltered, _, _ = ppo.policy.evaluate_sequences(replace(sequences, supports=None, limits=None), 1.0)
    assert float((unfiltered - sequences.log_probs)[mask].abs().mean()) > 0.3


@decodings
def test_the_distance_to_the_reference_is_0_before_training(decoding: dict[str, Any]) -> None:
    ppo = toy_ppo(toy_vector(8, min_new_tokens=2), kl_coef=0.1, **decoding)
    collect(ppo)
    sequences = ppo.rollout_buffer.sequences
    torch.testing.assert_close(sequences.ref_log_probs, sequences.log_probs, rtol=0, atol=1e-4)
    assert abs(ppo.logger.name_to_value["rollout/kl"]) < 1e-4


# ---- whole episodes ------------------------------------------------------------------------------------------------------


def test_one_whole_episode_in_every_environment_as_the_environment_reports_it() -> None:
    ppo = tiny_ppo(vector(5, max_new_tokens=12, reward={"length": 1.0, "repetition": -0.5}), n_steps=1)
    ppo.policy.model.lm_head.bias = torch.nn.Parameter(torch.zeros(ppo.policy.vocab_size))
    with torch.no_grad():
        ppo.policy.model.lm_head.bias[EOS] = 5.0  # so that some episodes end early
    infos, tokenizer = collect(ppo).final_infos(), load_tokenizer()
    episodes = ppo.rollout_buffer.episodes
    assert len(episodes) == len(infos) == 5
    assert {infos[slot]["finish_reason"] for slot in infos} == {"stop", "length"}
    for slot, episode in enumerate(episodes):
        info = infos[slot]
        assert tokenizer.decode(episode.prompt) == info["prompt"]
        assert tokenizer.decode(episode.tokens) == info["completion"]
        assert (episode.tokens[-1] == EOS) == (info["finish_reason"] == "stop")
        assert EOS not in episode.tokens[:-1]
        assert sum(episode.rewards) == pytest.approx(info["reward/length"] - 0.5 * info["reward/repetition"])
        assert info["episode"]["l"] == len(episode.tokens)
        assert info["episode"]["r"] == pytest.approx(sum(episode.rewards), abs=1e-5)
        assert episode.last_value == 0.0
        assert len(episode.log_probs) == len(episode.values) == len(episode.tokens)


def test_a_rollout_goes_on_in_whole_rounds_until_it_has_enough_tokens() -> None:
    ppo = toy_ppo(toy_vector(4), n_steps=25)
    recorder = collect(ppo)
    episodes = ppo.rollout_buffer.episodes
    assert len(episodes) % 4 == 0
    assert len(episodes) >= 12  # an episode has at most 10 tokens
    tokens = [len(e.tokens) for e in episodes]
    assert sum(tokens) >= 25 * 4 > sum(tokens[:-4])
    assert ppo.num_timesteps == sum(tokens) == ppo.rollout_buffer.num_tokens
    rounds = [max(tokens[i : i + 4]) for i in range(0, len(tokens), 4)]
    assert len(recorder.steps) == recorder.n_calls == sum(rounds)  # on_step: once a step of the environments


def test_slots_rest_after_their_episode_until_the_last_one_has_ended() -> None:
    ppo = toy_ppo(toy_vector(8))
    recorder = collect(ppo)
    ended_at: dict[int, int] = {}
    for t, step in enumerate(recorder.steps):
        assert set(step["slots"]) == set(range(8)) - set(ended_at)
        for slot, first in ended_at.items():
            assert not step["dones"][slot]
            assert step["rewards"][slot] == 0
            before = recorder.steps[first]["new_obs"]["input_ids"][slot]
            assert np.array_equal(step["new_obs"]["input_ids"][slot], before)
        ended_at.update({int(slot): t for slot in step["slots"] if step["dones"][slot]})
    assert len(set(ended_at.values())) > 2


def test_a_callback_can_stop_in_the_middle_of_a_rollout() -> None:
    ppo = toy_ppo()
    ppo.learn(1000, callback=Recorder(stop_after=3))
    assert ppo.num_timesteps <= 3 * 8
    assert ppo._n_updates == 0


# ---- several speakers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def chat() -> tuple[PPO, Recorder]:
    ppo = toy_ppo(toy_vector(16, Chat(), max_new_tokens=14), temperature=0.9, top_k=9, kl_coef=0.1)
    return ppo, collect(ppo)


def test_replies_are_in_the_sequence_and_not_in_the_action_mask(chat: tuple[PPO, Recorder]) -> None:
    ppo, recorder = chat
    finals, replies = recorder.final_infos(), 0
    for slot, episode in enumerate(ppo.rollout_buffer.episodes):
        last = finals[slot]["terminal_observation"]
        seen = last["attention_mask"] == 1
        assert last["input_ids"][seen].tolist() == episode.prompt + episode.tokens
        assert last["completion_mask"][seen].tolist() == [0] * len(episode.prompt) + [int(c) for c in episode.chosen]
        words = [WORDS[token] for token, own in zip(episode.tokens, episode.chosen, strict=True) if own]
        assert finals[slot]["completion"].split() == [w for w in words if w != "<|endoftext|>"]
        replies += episode.chosen.count(False)
    assert replies > 16
    sequences = ppo.rollout_buffer.sequences
    assert (
        int(sequences.action_mask.sum()) == ppo.num_timesteps == sum(sum(e.chosen) for e in ppo.rollout_buffer.episodes)
    )


def test_the_ratio_is_1_behind_replies_too(chat: tuple[PPO, Recorder]) -> None:
    assert_ratio_1(chat[0])
    sequences = chat[0].rollout_buffer.sequences
    torch.testing.assert_close(
        sequences.ref_log_probs[sequences.action_mask], sequences.log_probs[sequences.action_mask], rtol=0, atol=1e-4
    )


def test_what_stands_beside_a_reply_does_not_contribute_to_the_loss(chat: tuple[PPO, Recorder]) -> None:
    ppo, _ = chat
    (batch,) = ppo.rollout_buffer.batches(100)
    others = ~batch.action_mask
    assert others.any()

    def loss_and_gradients(changed: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        ppo.policy.zero_grad()
        loss, _ = ppo._loss(batch.with_(**changed))
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in ppo.policy.parameters() if p.grad is not None)]

    ppo.ent_coef, ppo.clip_range_vf = 0.01, 0.2
    names = ("log_probs", "values", "advantages", "returns", "rewards")
    garbage = {n: torch.where(others, torch.tensor(torch.nan), getattr(batch, n)) for n in names}
    for clean, dirty in zip(loss_and_gradients({}), loss_and_gradients(garbage), strict=True):
        assert torch.isfinite(dirty).all()
        torch.testing.assert_close(dirty, clean)
    assert (batch.advantages[others] == 0).all()


def test_a_reply_takes_part_as_context(chat: tuple[PPO, Recorder]) -> None:
    """Otherwise the tests above would pass on a policy that cannot hear."""
    ppo, _ = chat
    (batch,) = ppo.rollout_buffer.batches(100)
    ids, width = batch.input_ids.clone(), batch.action_mask.shape[1]
    replies = ~batch.action_mask & (batch.action_mask.int().cumsum(-1) > 0)
    ids[:, -width:][replies] = 5
    with torch.no_grad():
        changed, _, _ = ppo.policy.evaluate_sequences(batch.with_(input_ids=ids), 0.9)
    assert float((changed - batch.log_probs)[batch.action_mask].abs().max()) > 0.01


# ---- cut off from outside --------------------------------------------------------------------------------------------------


def test_a_time_limit_bootstraps_the_value_of_the_last_state() -> None:
    env = DummyVecEnv([lambda: TimeLimit(toy_single(), max_episode_steps=4) for _ in range(8)])
    ppo = toy_ppo(env, gamma=0.9, gae_lambda=0.8, kl_coef=0.0)
    finals = collect(ppo).final_infos()
    sequences, cut = ppo.rollout_buffer.sequences, 0
    for slot, episode in enumerate(ppo.rollout_buffer.episodes):
        truncated = finals[slot]["TimeLimit.truncated"]
        assert truncated == (episode.tokens[-1] != 1)  # the only other way to end is the end token
        if truncated:
            with torch.no_grad():
                out = ppo.policy.model(torch.tensor([episode.prompt + episode.tokens]), output_hidden_states=True)
                value = ppo.policy.value_head(out.hidden_states[-1][0, -1]).item()
            assert episode.last_value == pytest.approx(value, abs=1e-5) != 0
            cut += 1
        else:
            assert episode.last_value == 0
        assert len(episode.tokens) <= 4
        wanted = episode.rewards[-1] + 0.9 * episode.last_value - episode.values[-1]
        assert sequences.advantages[slot, -1].item() == pytest.approx(wanted, abs=1e-5)
    assert 0 < cut < 8


# ---- the same through every kind of vector environment -------------------------------------------------------------------


def toy_sync(mode: str) -> gym.vector.SyncVectorEnv:
    return gym.vector.SyncVectorEnv([lambda: toy_single(Chat()) for _ in range(6)], autoreset_mode=mode)


def make_toy_single() -> gym.Env[Any, Any]:
    return Monitor(toy_single(Chat()))


VECTOR_ENVS: dict[str, Callable[[], Any]] = {
    "same step": lambda: toy_vector(6, Chat(), autoreset_mode="SameStep"),
    "next step": lambda: toy_vector(6, Chat(), autoreset_mode="NextStep"),
    "disabled": lambda: toy_vector(6, Chat(), autoreset_mode="Disabled"),
    "GymVecEnv": lambda: GymVecEnv(toy_vector(6, Chat(), autoreset_mode="Disabled")),
    "VecMonitor": lambda: VecMonitor(GymVecEnv(toy_vector(6, Chat()))),
    "dummy": lambda: DummyVecEnv([make_toy_single] * 6),
    "dummy and VecMonitor": lambda: VecMonitor(DummyVecEnv([lambda: toy_single(Chat())] * 6)),
    "dummy of wrapped": lambda: DummyVecEnv([lambda: Monitor(TimeLimit(toy_single(Chat()), 1000))] * 6),
    "sync, same step": lambda: toy_sync("SameStep"),
    "sync, next step": lambda: toy_sync("NextStep"),
    "sync, disabled": lambda: toy_sync("Disabled"),
    "statistics, same step": lambda: VectorRecordEpisodeStatistics(toy_vector(6, Chat(), autoreset_mode="SameStep")),
    "statistics, next step": lambda: VectorRecordEpisodeStatistics(toy_vector(6, Chat(), autoreset_mode="NextStep")),
    "list, same step": lambda: DictInfoToList(toy_vector(6, Chat(), autoreset_mode="SameStep")),
    "list, next step": lambda: DictInfoToList(toy_vector(6, Chat(), autoreset_mode="NextStep")),
}


def played(env: Any, rounds: int = 2) -> tuple[list[Episode], list[dict[str, Any]]]:
    ppo = toy_ppo(env, seed=3, top_p=0.95)
    episodes, infos = [], []
    for _ in range(rounds):
        recorder = collect(ppo)
        episodes += ppo.rollout_buffer.episodes
        infos += [info for _, info in sorted(recorder.final_infos().items())]
    assert ppo.ep_info_buffer is not None
    assert [e["l"] for e in ppo.ep_info_buffer] and len(ppo.ep_info_buffer) == len(episodes)
    return episodes, infos


@pytest.fixture(scope="module")
def native() -> tuple[list[Episode], list[dict[str, Any]]]:
    return played(toy_vector(6, Chat()))


@pytest.mark.parametrize("kind", VECTOR_ENVS)
def test_the_same_seed_gives_the_same_episodes_in_every_vector_environment(
    kind: str, native: tuple[list[Episode], list[dict[str, Any]]]
) -> None:
    found, infos = played(VECTOR_ENVS[kind]())
    assert len(found) == 12
    for episode, wanted, info, wanted_info in zip(found, native[0], infos, native[1], strict=True):
        assert (episode.prompt, episode.tokens, episode.chosen) == (wanted.prompt, wanted.tokens, wanted.chosen)
        assert episode.rewards == wanted.rewards
        np.testing.assert_allclose(episode.log_probs, wanted.log_probs, atol=1e-5)
        for key in ("prompt", "completion", "finish_reason", "reward/even"):
            assert info[key] == wanted_info[key]
        for key, last in wanted_info["terminal_observation"].items():
            np.testing.assert_array_equal(info["terminal_observation"][key], last)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_episodes_in_processes() -> None:
    env = SubprocVecEnv([make_toy_single] * 2, start_method="forkserver")
    try:
        found, _ = played(env)
    finally:
        env.close()
    wanted, _ = played(DummyVecEnv([make_toy_single] * 2))
    assert [e.tokens for e in found] == [e.tokens for e in wanted]


def test_gymnasiums_own_vectorisation_of_wrapped_environments_keeps_the_masks() -> None:
    env = gym.make_vec(ENV_ID, num_envs=3, vectorization_mode="sync", max_new_tokens=8, min_new_tokens=4)
    ppo = tiny_ppo(env)
    assert ppo.policy.limits.min_new_tokens == 4
    collect(ppo)
    assert all(not allowed[0, EOS] for allowed in supports_of(ppo.rollout_buffer.sequences, 3072))
    assert_ratio_1(ppo)


def test_rewards_are_those_of_the_wrapped_environment() -> None:
    ppo = toy_ppo(NormalizeReward(toy_vector(6)))
    collect(ppo)
    plain = toy_ppo(toy_vector(6))
    collect(plain)
    assert [e.tokens for e in ppo.rollout_buffer.episodes] == [e.tokens for e in plain.rollout_buffer.episodes]
    assert [e.rewards for e in ppo.rollout_buffer.episodes] != [e.rewards for e in plain.rollout_buffer.episodes]


def test_single_environments_are_accepted_as_they_are() -> None:
    for env in (single(), Monitor(single()), DummyVecEnv([single])):
        ppo = tiny_ppo(env)
        collect(ppo)
        assert len(ppo.rollout_buffer.episodes) == 1


def test_an_async_vector_environment_is_refused_with_the_way_out() -> None:
    env = gym.vector.AsyncVectorEnv([single], shared_memory=False)
    try:
        with pytest.raises(TypeError, match=r"actual: an AsyncVectorEnv. Use gym.make_vec\(id, num_envs=n\)"):
            tiny_ppo(env)
    finally:
        env.close()


def test_methods_and_attributes_of_slots_through_both_kinds_of_vector_environment() -> None:
    kinds: list[VecEnv] = [GymVecEnv(toy_vector(6)), DummyVecEnv([toy_single] * 6)]
    results = []
    for env in kinds:
        env.seed(5)
        env.reset()
        states = env.env_method("get_state", indices=[1, 4])
        masks = np.stack(env.env_method("action_masks", indices=[0, 2]))
        first = env.reset()["input_ids"]  # type: ignore[index,call-overload]
        for slot, state in zip((1, 4), states, strict=True):
            env.env_method("set_state", state, indices=[slot])
        again = env.reset()["input_ids"]  # type: ignore[index,call-overload]
        assert [np.array_equal(a, b) for a, b in zip(first, again, strict=True)] == [False, True, False] * 2
        assert env.has_attr("hold")
        assert not env.has_attr("no_such_thing")
        results.append((states, masks.tolist(), first.tolist()))
    assert results[0] == results[1]


# ---- penalty against the reference -----------------------------------------------------------------------------------------


def moved(ppo: PPO) -> PPO:
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in ppo.policy.model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return ppo


def test_rewards_are_penalised_by_the_coefficient_times_the_log_ratio() -> None:
    ppo = moved(toy_ppo(toy_vector(8), kl_coef=0.3, gamma=0.9, gae_lambda=0.7, temperature=0.8))
    collect(ppo)
    sequences = ppo.rollout_buffer.sequences
    kls = []
    for row, episode in enumerate(ppo.rollout_buffer.episodes):
        n, p = len(episode.tokens), len(episode.prompt)
        with torch.no_grad():
            assert ppo.reference is not None
            logits = ppo.reference(torch.tensor([episode.prompt + episode.tokens])).logits[0, p - 1 : -1]
        supports = torch.from_numpy(supports_of(sequences, len(WORDS))[row])
        reference = (logits / 0.8).masked_fill(~supports, -torch.inf).log_softmax(-1)
        ratio = [
            lp - reference[t, token].item()
            for t, (lp, token) in enumerate(zip(episode.log_probs, episode.tokens, strict=True))
        ]
        kls.append(sum(ratio))
        rewards = [r - 0.3 * x for r, x in zip(episode.rewards, ratio, strict=True)]
        following = 0.0
        for t in reversed(range(n)):
            next_value = episode.values[t + 1] if t + 1 < n else 0.0
            following = rewards[t] + 0.9 * next_value - episode.values[t] + 0.63 * following
            column = sequences.advantages.shape[1] - n + t
            assert sequences.advantages[row, column].item() == pytest.approx(following, abs=1e-4)
            assert sequences.returns[row, column].item() == pytest.approx(following + episode.values[t], abs=1e-4)
            assert sequences.rewards[row, column].item() == pytest.approx(episode.rewards[t])  # the environment's own
    assert ppo.logger.name_to_value["rollout/kl"] == pytest.approx(np.mean(kls), abs=1e-4)
    assert abs(np.mean(kls)) > 0.1


def test_the_controller_by_hand() -> None:
    fixed = KLController(0.1)
    fixed.update(100.0, 64)
    assert fixed.coef == 0.1
    adaptive = KLController(0.1, target=5.0, horizon=1000)
    adaptive.update(5.5, 100)  # error 0.1
    assert adaptive.coef == pytest.approx(0.1 * (1 + 0.1 * 100 / 1000))
    adaptive.update(50.0, 100)  # clipped to 0.2
    assert adaptive.coef == pytest.approx(0.1 * 1.01 * 1.02)
    adaptive.update(0.0, 500)  # clipped to -0.2
    assert adaptive.coef == pytest.approx(0.1 * 1.01 * 1.02 * 0.9)


def test_the_controller_moves_once_a_rollout_after_its_penalty_was_paid() -> None:
    ppo = moved(toy_ppo(toy_vector(8), kl_coef=0.1, kl_target=1e-3, kl_horizon=100))
    collect(ppo)
    assert ppo.logger.name_to_value["train/kl_coef"] == 0.1
    sign = np.sign(ppo.logger.name_to_value["rollout/kl"])
    assert ppo.kl.coef == pytest.approx(0.1 * (1 + sign * 0.2 * 8 / 100))
    assert ppo.kl_coef == 0.1


def test_a_reference_of_another_size_and_one_that_is_the_policys_own_model() -> None:
    from agent_fixtures import tiny_gpt2

    model = tiny_gpt2(vocab_size=len(WORDS))
    wide = tiny_gpt2(5, vocab_size=len(WORDS) + 4, n_embd=64)
    other = toy_ppo(toy_vector(4), model=model, ref_model=wide, kl_coef=0.1)
    collect(other)
    assert other.reference is wide
    assert torch.isfinite(other.rollout_buffer.sequences.ref_log_probs).all()
    same = toy_ppo(toy_vector(4), model=model, ref_model=model, kl_coef=0.1)
    assert same.reference is not same.policy.model
    assert all(p.requires_grad for p in same.policy.model.parameters())
    before = same.reference.state_dict()["transformer.wte.weight"].clone()
    same.learn(50)
    assert torch.equal(same.reference.state_dict()["transformer.wte.weight"], before)
    assert not torch.equal(same.policy.model.transformer.wte.weight, before)


# ---- the buffer ------------------------------------------------------------------------------------------------------------


def stacked() -> SequenceBuffer:
    buffer = toy_ppo().rollout_buffer
    buffer.reset()
    one = Sequences.of([[3, 4, 5]], [[6, 7, 9, 10, 1]], None).with_(
        action_mask=torch.tensor([[True, True, False, False, True]]),
        rewards=torch.tensor([[0.25, 0.25, 0, 0, 1.0]]),
        supports=torch.tensor([[[255, 7], [255, 7], [255, 7], [255, 7], [2, 0]]], dtype=torch.uint8),
    )
    two = Sequences.of([[8]], [[1]], None).with_(
        rewards=torch.tensor([[2.0]]),
        log_probs=torch.tensor([[-0.5]]),
        supports=torch.tensor([[[2, 0]]], dtype=torch.uint8),
    )
    buffer.add_sequences(one)
    buffer.add_sequences(two)
    buffer.stack()
    return buffer


def test_the_buffer_aligns_episodes_at_the_right() -> None:
    sequences = stacked().sequences
    assert sequences.input_ids.tolist() == [[3, 4, 5, 6, 7, 9, 10, 1], [0, 0, 0, 0, 0, 0, 8, 1]]
    assert sequences.attention_mask.int().tolist() == [[1] * 8, [0] * 6 + [1, 1]]
    assert sequences.action_mask.int().tolist() == [[1, 1, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert sequences.rewards.tolist() == [[0.25, 0.25, 0, 0, 1.0], [0, 0, 0, 0, 2.0]]
    first, second = supports_of(sequences, len(WORDS))
    assert first.shape == (3, len(WORDS))
    assert first[:2].all()
    assert np.flatnonzero(first[2]).tolist() == np.flatnonzero(second[0]).tolist() == [1]
    assert stacked().num_tokens == 4
    assert [e.prompt for e in stacked().episodes] == [[3, 4, 5], [8]]
    assert [e.chosen for e in stacked().episodes] == [[True, True, False, False, True], [True]]


def test_a_selection_drops_columns_that_none_of_its_rows_needs() -> None:
    buffer = stacked()
    small = buffer.sequences.select(torch.tensor([1]))
    assert small.input_ids.tolist() == [[8, 1]]
    assert small.action_mask.tolist() == [[True]]
    assert small.log_probs.tolist() == [[-0.5]]
    whole = buffer.sequences.select(torch.tensor([1, 0]))
    assert whole.input_ids.shape == (2, 8)
    assert whole.last_values.shape == (2,)
    first = buffer.sequences.select(torch.tensor([0]))
    assert first.action_mask.tolist() == [
        [True, True, False, False, True]
    ]  # replies are kept, and what was before them
    assert [len(b) for b in buffer.batches(1)] == [1, 1]
    shuffled = [b.input_ids.shape[1] for s in range(8) for b in buffer.batches(1, torch.Generator().manual_seed(s))]
    assert set(shuffled[::2]) == {2, 8}  # the first minibatch is not always the first episode


def test_single_transitions_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="takes whole episodes: add_sequences"):
        stacked().add()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 50])
def test_packed_bits_come_back(size: int) -> None:
    mask = torch.rand(5, size, generator=torch.Generator().manual_seed(size)) < 0.5
    packed = pack_bits(mask)
    assert packed.shape == (5, -(-size // 8))
    assert torch.equal(unpack_bits(torch.from_numpy(packed), size), mask)


def test_decoding_of_a_rollout_is_that_of_the_algorithm() -> None:
    ppo = toy_ppo(**DECODINGS["everything"])
    assert ppo.decoding == Decoding(0.7, 6, 0.8)
    collect(ppo)
    sizes = [int(n) for allowed in supports_of(ppo.rollout_buffer.sequences, len(WORDS)) for n in allowed.sum(-1)]
    assert 1 <= min(sizes) <= max(sizes) <= 6
