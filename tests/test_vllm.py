"""Rollouts written by vLLM: with the real one where it is installed, and with a stand-in of the same interface everywhere."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from agent_fixtures import WORDS, Chat, tiny_gpt2, toy_ppo, toy_vector
from transformers import AutoConfig, AutoModelForCausalLM

from textgym_agents import GRPO, PPO
from textgym_agents.models.loading import ModelError


@dataclass
class SamplingParams:
    """The arguments of vLLM's that we use."""

    temperature: float
    max_tokens: int
    min_tokens: int
    stop_token_ids: list[int]
    allowed_token_ids: list[int]
    logprobs: int
    detokenize: bool
    seed: int


@dataclass
class LLM:
    """Samples as vLLM does, one prefix after the other, with a model of its own."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    made = []

    def __init__(self, model: str, **options: Any) -> None:
        self.options, self.resets = options, 0
        assert options["load_format"] == "dummy"
        config = AutoConfig.from_pretrained(model, **options["hf_overrides"])
        self.network = AutoModelForCausalLM.from_config(config).eval()
        LLM.made.append(self)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        self.network.load_state_dict(dict(kwargs["weights_iterator"]))

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    @torch.no_grad()
    def generate(self, prompts: list[Any], asked: list[SamplingParams], use_tqdm: bool) -> list[Any]:
        outputs = []
        for prompt, wanted in zip(prompts, asked, strict=True):
            generator, ids, log_probs = torch.Generator().manual_seed(wanted.seed), list(prompt["prompt_token_ids"]), []
            for written in range(wanted.max_tokens):
                logits = self.network(torch.tensor([ids])).logits[0, -1] / wanted.temperature
                forbidden = torch.ones(len(logits), dtype=torch.bool)
                forbidden[wanted.allowed_token_ids] = False
                if written < wanted.min_tokens:
                    forbidden[wanted.stop_token_ids] = True
                found = logits.masked_fill(forbidden, -torch.inf).log_softmax(-1)
                token = int(torch.multinomial(found.exp(), 1, generator=generator))
                ids.append(token)
                log_probs.append({token: SimpleNamespace(logprob=float(found[token]))})
                if token in wanted.stop_token_ids:
                    break
            new = ids[len(prompt["prompt_token_ids"]) :]
            outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=new, logprobs=log_probs)]))
        return outputs


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    module.__spec__ = importlib.util.spec_from_loader("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", module)
    LLM.made.clear()
    return LLM


def collect(ppo: PPO) -> Any:
    _, callback = ppo._setup_learn(1, None, reset_num_timesteps=False)
    assert ppo.env is not None
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, ppo.n_steps)
    return ppo.rollout_buffer.sequences


def assert_same_policy(ppo: PPO, sequences: Any, tolerance: float) -> None:
    """What the other side recorded is what our policy says of the same tokens."""
    mask = sequences.action_mask
    with torch.no_grad():
        log_probs, values, entropies = ppo.policy.evaluate_sequences(sequences, ppo.temperature, entropies=True)
    torch.testing.assert_close(log_probs[mask], sequences.log_probs[mask], rtol=0, atol=tolerance)
    torch.testing.assert_close(values[mask], sequences.values[mask], rtol=0, atol=1e-4)
    torch.testing.assert_close(entropies[mask], sequences.entropies[mask], rtol=0, atol=1e-4)
    assert float(sequences.entropies[mask].min()) > 0


def test_episodes_of_a_stand_in_are_the_policys(stand_in: type[LLM]) -> None:
    ppo = toy_ppo(toy_vector(12, min_new_tokens=2), rollout_backend="vllm", temperature=0.7)
    sequences = collect(ppo)
    lengths = sequences.action_mask.sum(-1)
    assert len(set(lengths.tolist())) > 1 and int(lengths.min()) > 2
    assert_same_policy(ppo, sequences, 1e-4)
    assert all(0 not in episode.tokens for episode in sequences.episodes())  # the padding token is forbidden
    assert float(sequences.rewards.sum()) > 0


def test_new_weights_reach_the_other_side_before_the_next_rollout(stand_in: type[LLM]) -> None:
    ppo = toy_ppo(toy_vector(8), rollout_backend="vllm", learning_rate=0.05)
    before = ppo.policy.model.transformer.wte.weight.clone()
    ppo.learn(2 * 8 * 10)
    assert not torch.equal(before, ppo.policy.model.transformer.wte.weight)
    sequences = collect(ppo)
    (engine,) = stand_in.made
    assert engine.resets >= 2
    assert_same_policy(ppo, sequences, 1e-4)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_adapters_are_merged_for_the_other_side(stand_in: type[LLM]) -> None:
    policy_kwargs = {"lora": {"r": 4}, "share_features_extractor": False}
    ppo = toy_ppo(toy_vector(8), rollout_backend="vllm", learning_rate=0.05, policy_kwargs=policy_kwargs)
    ppo.learn(2 * 8 * 10)
    assert_same_policy(ppo, collect(ppo), 1e-4)


def test_the_seed_decides(stand_in: type[LLM]) -> None:
    first, again, other = (collect(toy_ppo(toy_vector(6), seed=s, rollout_backend="vllm")) for s in (1, 1, 2))
    assert torch.equal(first.input_ids, again.input_ids)
    assert first.input_ids.shape != other.input_ids.shape or not torch.equal(first.input_ids, other.input_ids)


def test_options_reach_vllm_and_no_statistics_leave(stand_in: type[LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    collect(toy_ppo(rollout_backend="vllm", rollout_kwargs={"gpu_memory_utilization": 0.7}))
    import os

    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    options = stand_in.made[0].options
    assert options["gpu_memory_utilization"] == 0.7
    assert options["logprobs_mode"] == "processed_logprobs" and options["trust_remote_code"] is False


def test_without_vllm_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs vLLM, which is not installed here: pip install vllm"):
        toy_ppo(rollout_backend="vllm")


def test_what_vllm_cannot_do_is_refused_at_once(stand_in: type[LLM]) -> None:
    with pytest.raises(ValueError, match="top_k=0 and top_p=1"):
        toy_ppo(rollout_backend="vllm", top_p=0.9)
    with pytest.raises(ValueError, match="Expected `rollout_backend` to be one of"):
        toy_ppo(rollout_backend="tgi")
    with pytest.raises(ValueError, match="Expected `rollout_kwargs`"):
        toy_ppo(rollout_kwargs={"dtype": "half"})
    with pytest.raises(ModelError, match="a task in which nobody replies"):
        toy_ppo(toy_vector(4, Chat()), rollout_backend="vllm")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_one_on_a_small_gpt2() -> None:
    """Numbers of two implementations: log-probabilities agree to 1e-3 (float32, other kernels)."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    ppo = toy_ppo(
        toy_vector(16, min_new_tokens=2),
        model=tiny_gpt2(vocab_size=len(WORDS), n_embd=64, scale=0.15),
        rollout_backend="vllm",
        rollout_kwargs={"enforce_eager": True, "kv_cache_memory_bytes": 2**28},
        learning_rate=1e-2,
        temperature=2.0,
    )
    sequences = collect(ppo)
    lengths = sequences.action_mask.sum(-1)
    assert len(set(lengths.tolist())) > 1 and int(lengths.min()) > 2
    assert_same_policy(ppo, sequences, 1e-3)
    before = sequences.log_probs
    ppo.train()
    with torch.no_grad():
        moved, _, _ = ppo.policy.evaluate_sequences(sequences, ppo.temperature)
    assert float((moved - before)[sequences.action_mask].abs().max()) > 0.05
    sequences = collect(ppo)
    assert_same_policy(ppo, sequences, 1e-3)  # the new weights have arrived
    assert all(0 not in episode.tokens for episode in sequences.episodes())  # the padding token is forbidden


def test_a_group_algorithm_takes_it_too(stand_in: type[LLM]) -> None:
    model = tiny_gpt2(vocab_size=len(WORDS), scale=0.15)
    envs = toy_vector(8, group_size=4)
    grpo = GRPO(
        "CausalLMPolicy",
        envs,
        num_generations=4,
        policy_kwargs={"model": model},
        rollout_backend="vllm",
        seed=0,
        device="cpu",
    )
    grpo.learn(40)
    assert grpo.num_timesteps >= 40
