"""Options of policies: adapters (LoRA), a value network of its own, gradient checkpointing; alone and together."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fixtures import (
    WORDS,
    Chat,
    left_padded,
    policy_of,
    tiny_bart,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    toy_algorithm,
    toy_groups,
    toy_ppo,
    toy_seq2seq_ppo,
    toy_single,
    toy_vector,
)
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from test_ppo import Call, assert_equal, differ, logged, state_of
from test_rollout import assert_ratio_1, collect
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from textgym_agents import A2C, GRPO, NLPO, PPO, REINFORCE, TRPO, CausalLMPolicy, Seq2SeqLMPolicy
from textgym_agents.algorithms.trust_region import RolloutPart, fisher_products
from textgym_agents.models import flat_step
from textgym_agents.models.loading import ModelError
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.vec_env import GymVecEnv

V = len(WORDS)
LORA = {"r": 4, "lora_alpha": 16}
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LORA},
    "value network": {"share_features_extractor": False},
    "checkpointing": {"gradient_checkpointing": True},
    "all": {"lora": {**LORA, "use_dora": True}, "share_features_extractor": False, "gradient_checkpointing": True},
}
MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    "gpt2": lambda **kw: tiny_gpt2(vocab_size=V, scale=0.15, **kw),
    "llama": lambda **kw: tiny_llama(vocab_size=V, **kw),
    "t5": lambda **kw: tiny_t5(vocab_size=V, **kw),
    "bart": lambda **kw: tiny_bart(vocab_size=V, **kw),
}
models = pytest.mark.parametrize("name", MODELS)

has_peft = importlib.util.find_spec("peft") is not None
needs_peft = pytest.mark.skipif(not has_peft, reason="peft is not installed")
options = pytest.mark.parametrize(
    "option", [pytest.param(o, marks=needs_peft if "lora" in OPTIONS[o] else ()) for o in OPTIONS]
)


def make(name: str, option: str | dict[str, Any], env: Any = None, **kwargs: Any) -> PPO:
    policy_kwargs = OPTIONS[option] if isinstance(option, str) else option
    maker = toy_seq2seq_ppo if name in ("t5", "bart") else toy_ppo
    return maker(env, model=MODELS[name](), policy_kwargs=policy_kwargs, **kwargs)


def episodes(seed: int = 0, n: int = 6) -> Sequences:
    """Prompts of one to six tokens, completions of one to eight."""
    rng = np.random.default_rng(seed)
    draw = [[rng.integers(2, V, rng.integers(1, most)).tolist() for _ in range(n)] for most in (7, 9)]
    return Sequences.of(draw[0], draw[1], None)


# ---- all of them -----------------------------------------------------------------------------------------------------------


@options
@models
def test_the_ratio_is_1_also_after_updates(name: str, option: str) -> None:
    ppo = make(name, option, toy_vector(8, min_new_tokens=2), kl_coef=0.1, learning_rate=0.01)
    before = state_of(ppo)
    ppo.learn(60)
    collect(ppo)
    assert_ratio_1(ppo)
    sequences = ppo.rollout_buffer.sequences
    assert (sequences.ref_log_probs - sequences.log_probs)[sequences.action_mask].abs().max() > 1e-3
    assert not differ({k: v for k, v in before.items() if k.startswith("reference.")}, state_of(ppo))
    changed = set(differ(before, state_of(ppo)))
    for key, weight in ppo.policy.named_parameters():
        known = (
            key.endswith("k_proj.bias") or key == "value_model.lm_head.weight"
        )  # attention and values do not see those
        assert known or (f"policy.{key}" in changed) == weight.requires_grad, key


@options
def test_two_speakers(option: str) -> None:
    ppo = make("gpt2", option, toy_vector(8, Chat(), max_new_tokens=9))
    collect(ppo)
    assert_ratio_1(ppo)


TOTAL = 160


@options
def test_a_training_that_was_killed_equals_bit_for_bit_the_one_that_was_not(option: str, tmp_path: Path) -> None:
    name = "t5" if option == "all" else "gpt2"

    def save(ppo: PPO) -> bool:
        assert ppo._rollout_start is not None
        assert ppo.num_timesteps > ppo._rollout_start["num_timesteps"] > 0
        ppo.save(tmp_path / "killed")
        return False

    whole = make(name, option, seed=4).learn(TOTAL)
    make(name, option, seed=4).learn(TOTAL, callback=Call(13, save))
    resumed = PPO.load(tmp_path / "killed", env=toy_vector(), device="cpu")
    assert 0 < resumed.num_timesteps < TOTAL - 40
    observations, _ = toy_vector(5).reset(seed=1)
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    assert_equal(state_of(resumed), state_of(whole))
    assert np.array_equal(*(a.predict(observations, deterministic=True)[0] for a in (whole, resumed)))
    for key, value in OPTIONS[option].items():
        assert getattr(resumed.policy, key) == value
    with zipfile.ZipFile(tmp_path / "killed.zip") as archive:
        groups = {"policy", "optimizer", "random"} | (set() if "lora" in OPTIONS[option] else {"reference"})
        assert set(archive.namelist()) == {"config.json", *(f"{group}.safetensors" for group in groups)}
        assert (json.loads(archive.read("config.json"))["reference_config"] is None) == ("lora" in OPTIONS[option])


@needs_peft
@pytest.mark.parametrize("algorithm", [NLPO, GRPO, TRPO, REINFORCE])
def test_other_algorithms(algorithm: Any) -> None:
    """The ones with models, groups, second derivatives and baselines of their own."""
    values = algorithm in (NLPO, TRPO)
    policy_kwargs = {**OPTIONS["all"], "share_features_extractor": not values}
    made: Any = (toy_groups if algorithm is GRPO else toy_algorithm)(algorithm, policy_kwargs=policy_kwargs)
    before = {k: v.clone() for k, v in made.policy.named_parameters()}
    made.learn(100)
    after = dict(made.policy.named_parameters())
    assert differ(before, after)
    assert all(after[key].requires_grad for key in differ(before, after))
    if values:
        assert any(key.startswith("value_model.") for key in differ(before, after))


# ---- LoRA ------------------------------------------------------------------------------------------------------------------


@needs_peft
@models
def test_the_reference_is_the_model_without_adapters_and_takes_no_memory(name: str) -> None:
    plain, ppo = MODELS[name](), make(name, "lora", kl_coef=0.1, learning_rate=0.02)
    assert ppo.reference is not None
    own = {w.data_ptr() for w in ppo.policy.model.parameters()}
    assert {w.data_ptr() for w in ppo.reference.parameters()} < own
    with torch.no_grad():
        mine, theirs = (
            ppo.policy.evaluate_sequences(episodes(), 1.0, backbone=b)[0] for b in (None, ppo._reference_backbone)
        )
    assert torch.equal(mine, theirs)
    dumped = logged(ppo, 250)
    assert dumped[0]["rollout/kl"] == pytest.approx(0, abs=1e-5)
    assert np.mean([numbers["rollout/kl"] for numbers in dumped[-3:]]) > 0.01
    assert_equal(dict(ppo.reference.state_dict()), dict(plain.state_dict()))
    sequences = episodes()
    for backbone, other in ((ppo._reference_backbone, plain), (ppo.policy.backbone, ppo.policy.plain_model())):
        with torch.no_grad():
            found = backbone.logits(
                backbone.state_after(sequences.input_ids, sequences.attention_mask, _own(sequences))
            )
            assert found.shape == (6, V)
            torch.testing.assert_close(found, _last_logits(other, sequences), rtol=0, atol=1e-4)


def _own(sequences: Sequences) -> torch.Tensor:
    own = torch.zeros_like(sequences.input_ids, dtype=torch.bool)
    own[:, -sequences.action_mask.shape[1] :] = sequences.action_mask
    return own


def _last_logits(model: PreTrainedModel, sequences: Sequences) -> torch.Tensor:
    """After each episode, read on its own by ``transformers``."""
    rows = []
    for ids, mask, own in zip(sequences.input_ids, sequences.attention_mask, _own(sequences), strict=True):
        if model.config.is_encoder_decoder:
            start = torch.tensor([model.config.decoder_start_token_id])
            inputs = {"input_ids": ids[mask & ~own][None], "decoder_input_ids": torch.cat([start, ids[own]])[None]}
        else:
            inputs = {"input_ids": ids[mask][None]}
        rows.append(model(**inputs).logits[0, -1])
    return torch.stack(rows)


@needs_peft
def test_another_reference_can_be_given(tmp_path: Path) -> None:
    other = tiny_gpt2(seed=9, vocab_size=V)
    ppo = make("gpt2", "lora", ref_model=other, kl_coef=0.1)
    assert ppo.reference is other
    ppo.save(tmp_path / "saved")
    loaded = PPO.load(tmp_path / "saved")
    assert loaded.reference is not None
    assert_equal(loaded.reference.state_dict(), other.state_dict())
    ppo = make("gpt2", "lora", kl_coef=0.0)
    assert ppo.reference is None
    ppo.save(tmp_path / "saved")
    loaded = PPO.load(tmp_path / "saved", kl_coef=0.1)
    assert loaded.reference is not None
    assert_equal(dict(loaded.reference.state_dict()), dict(MODELS["gpt2"]().state_dict()))


@needs_peft
@models
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_plain_transformers_reads_the_merged_weights(name: str, dora: bool, tmp_path: Path) -> None:
    ppo = make(name, {"lora": {**LORA, "use_dora": dora}}, learning_rate=0.01).learn(100)
    before = state_of(ppo)
    ppo.policy.save_pretrained(tmp_path)
    auto = AutoModelForSeq2SeqLM if name in ("t5", "bart") else AutoModelForCausalLM
    read = auto.from_pretrained(tmp_path)
    assert read.state_dict().keys() == MODELS[name]().state_dict().keys()
    assert_equal(before, state_of(ppo))
    sequences, backbone = episodes(), ppo.policy.backbone
    with torch.no_grad():
        found = backbone.logits(backbone.state_after(sequences.input_ids, sequences.attention_mask, _own(sequences)))
        torch.testing.assert_close(found, _last_logits(read, sequences), rtol=0, atol=1e-4)
        assert (found - _last_logits(MODELS[name](), sequences)).abs().max() > 1e-2


@needs_peft
@pytest.mark.parametrize("static", [False, True], ids=["recorded", "static"])
def test_quick_decoding_steps_know_adapters(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_step, "PAYS_AFTER", 1)
    ppo = make("llama", {"lora": LORA, "static_shapes": static}, learning_rate=0.01, kl_coef=0.1).learn(60)
    collect(ppo)
    backbone = ppo.policy.backbone
    assert backbone._graphs._steps if backbone._graphs is not None else all(backbone._step._recorded.values())
    assert_ratio_1(ppo)


@needs_peft
def test_the_reward_rises_with_adapters_alone() -> None:
    algorithm = toy_algorithm(PPO, policy_kwargs={"lora": {**LORA, "target_modules": "all-linear"}}, **_QUICK)
    played = VecMonitor(GymVecEnv(toy_vector(16)))
    before, _ = evaluate_policy(algorithm, played, n_eval_episodes=64, deterministic=False)
    algorithm.learn(2000)
    after, _ = evaluate_policy(algorithm, played, n_eval_episodes=64, deterministic=False)
    assert before < 0.65
    assert after > 0.85


_QUICK: dict[str, Any] = {"kl_coef": 0.0, "learning_rate": 0.02, "batch_size": 4, "n_epochs": 2}


# ---- a value network of its own ----------------------------------------------------------------------------------------------


@models
def test_values_and_choices_are_learned_apart(name: str) -> None:
    policy = make(name, "value network").policy
    sequences = episodes()
    log_probs, values, _ = policy.evaluate_sequences(sequences, 1.0)
    torch.testing.assert_close(policy.evaluate_values(sequences), values)

    def reached(loss: torch.Tensor) -> set[str]:
        policy.zero_grad()
        loss.backward()
        return {n.split(".")[0] for n, p in policy.named_parameters() if p.grad is not None and bool(p.grad.any())}

    assert reached(log_probs.sum()) == {"model"}
    assert reached(values.sum()) == {"value_model", "value_head"}
    torch.nn.init.normal_(next(policy.value_model.parameters()))
    again, others, _ = policy.evaluate_sequences(sequences, 1.0)
    assert torch.equal(log_probs, again)
    assert (values - others)[sequences.action_mask].abs().max() > 1e-2


@models
def test_stepwise_values_are_those_of_whole_episodes(name: str) -> None:
    """The interface of stock SB3, one prefix at a time."""
    cls: Any = Seq2SeqLMPolicy if name in ("t5", "bart") else CausalLMPolicy
    policy = make(name, "value network").policy
    assert isinstance(policy, cls)
    ids, mask = left_padded([[7, 3, 9, 5, 4], [5, 6, 3]])
    own = torch.zeros_like(mask)
    own[:, -2:] = True
    obs = {"input_ids": ids, "attention_mask": mask, "completion_mask": own}
    with torch.no_grad():
        values = policy.predict_values(obs)
        assert torch.equal(policy.forward(obs)[1], values)
        assert torch.equal(policy.evaluate_actions(obs, torch.tensor([3, 4]))[0], values)
        longer = Sequences.of([[7, 3, 9], [5]], [[5, 4, 8], [6, 3, 8]], None)
        torch.testing.assert_close(policy.evaluate_values(longer)[:, -1:], values, rtol=0, atol=1e-5)


def test_an_episode_that_is_cut_off_is_worth_what_the_value_network_says() -> None:
    def cut() -> gym.Env[Any, Any]:
        return TimeLimit(toy_single(), 3)

    ppo = make("gpt2", "value network", DummyVecEnv([cut] * 4))
    torch.nn.init.normal_(ppo.policy.value_model.transformer.ln_f.bias)  # type: ignore[arg-type]
    collect(ppo)
    sequences = ppo.rollout_buffer.sequences
    assert int((sequences.last_values != 0).sum()) >= 2
    for row in (sequences.last_values != 0).nonzero().flatten().tolist():
        ids = sequences.input_ids[row][sequences.attention_mask[row]]
        with torch.no_grad():
            hidden = ppo.policy.value_model(ids[None], output_hidden_states=True).hidden_states[-1][0, -1]
            assert float(sequences.last_values[row]) == pytest.approx(float(ppo.policy.value_head(hidden)), abs=1e-4)


@needs_peft
def test_a_value_network_shares_what_is_not_trained() -> None:
    untied = tiny_gpt2(vocab_size=V, tie_word_embeddings=False)
    for model, kwargs in ((MODELS["llama"](), {"lora": True}), (untied, {"trainable_layers": 1})):
        policy = policy_of(model, vocab_size=V, share_features_extractor=False, **kwargs)
        own = {id(w) for w in policy.model.parameters()}
        for key, weight in policy.value_model.named_parameters():
            assert (id(weight) in own) == (not weight.requires_grad or key.startswith("lm_head.")), key
        policy.to(torch.float64)  # as to another device
        assert {id(w) for w in policy.model.parameters()} == own
    policy = policy_of(untied.requires_grad_(True), vocab_size=V, share_features_extractor=False)
    assert policy.value_model.lm_head.weight is policy.model.lm_head.weight


def test_a_separate_value_network_learns() -> None:
    ppo = toy_algorithm(A2C, toy_vector(32), policy_kwargs=OPTIONS["value network"], learning_rate=5e-3, kl_coef=0.0)
    losses = [numbers["train/value_loss"] for numbers in logged(ppo, 2500) if "train/value_loss" in numbers]  # type: ignore[arg-type]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


# ---- gradient checkpointing --------------------------------------------------------------------------------------------------


@models
def test_gradients_are_the_same_and_less_is_kept_for_them(name: str) -> None:
    sequences, kept, gradients = episodes(), [], []
    for option in ({}, OPTIONS["checkpointing"]):
        policy, sizes = make(name, option).policy, [0]
        policy.set_training_mode(False)

        def count(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes[0] += tensor.numel()
            return tensor

        with saved_tensors_hooks(count, lambda tensor: tensor):
            log_probs, values, _ = policy.evaluate_sequences(sequences, 0.9)
        assert not any(module.training for module in policy.modules())
        (log_probs.sum() + values.square().sum()).backward()
        kept.append(sizes[0])
        gradients.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    assert_equal(*gradients)  # type: ignore[arg-type]
    assert kept[1] < 0.4 * kept[0]


def test_nothing_is_computed_again_where_there_are_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make("gpt2", "checkpointing")
    (first, *_), passes = ppo.policy.model.transformer.h, []
    again = first._gradient_checkpointing_func
    first._gradient_checkpointing_func = lambda *args: passes.append(1) or again(*args)  # type: ignore[func-returns-value]
    collect(ppo)
    assert not passes
    ppo.train()
    assert passes


def test_second_derivatives_are_the_same() -> None:
    products = []
    for option in ({}, OPTIONS["checkpointing"]):
        algorithm = toy_algorithm(TRPO, toy_vector(4), policy_kwargs=option)
        collect(algorithm)  # type: ignore[arg-type]
        part = RolloutPart(algorithm.policy, algorithm._old_head(), algorithm.rollout_buffer.sequences, 1.0)
        weights = list(algorithm.policy.model.parameters())
        vector = torch.randn(sum(w.numel() for w in weights), generator=torch.Generator().manual_seed(0))
        products.append(fisher_products([part], weights)(vector))
    assert products[0].abs().max() > 1e-3
    torch.testing.assert_close(*products, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_dropout_is_off_in_training_mode_too(name: str) -> None:
    rates = {"dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5, "encoder_layerdrop": 0.5}
    rates = rates if name == "bart" else {"dropout_rate": 0.5}
    model = {"bart": tiny_bart, "t5": tiny_t5}[name](vocab_size=V, **rates)
    policy = toy_seq2seq_ppo(model=model).policy
    policy.set_training_mode(True)  # as stock algorithms do
    first, again = (policy.evaluate_sequences(episodes(), 1.0)[0] for _ in range(2))
    assert torch.equal(first, again)


# ---- what cannot be ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Model .*tie_word_embeddings:UserWarning", "ignore:fan_in_fan_out:UserWarning")
@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"share_features_extractor": 1}, ValueError, "`share_features_extractor` to be True or False"),
        ({"gradient_checkpointing": "yes"}, ValueError, "`gradient_checkpointing` to be True or False"),
        ({"lora": True, "trainable_layers": 1}, ValueError, "`trainable_layers` to be None with `lora`, which freezes"),
        ({"lora": 8}, ValueError, "`lora` to be None, True, or a dict with keys of .*'lora_alpha'"),
        ({"lora": {"rank": 8}}, ValueError, "`lora` to be .*actual value: {'rank': 8}"),
        ({"lora": {"lora_dropout": 0.1}}, ValueError, "`lora` to be"),
        pytest.param(
            {"lora": {"r": 0}}, ModelError, "adapters into GPT2LMHeadModel.*'r': 0.*positive", marks=needs_peft
        ),
        pytest.param(
            {"lora": {"target_modules": ["none"]}}, ModelError, "into GPT2LMHeadModel.*none", marks=needs_peft
        ),
        pytest.param({"lora": {"target_modules": ["wte"]}}, ModelError, "neither embeddings nor the", marks=needs_peft),
        pytest.param({"lora": {"target_modules": ["lm_head"]}}, ModelError, "neither embeddings nor", marks=needs_peft),
    ],
)
def test_bad_options_are_refused(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        policy_of(MODELS["gpt2"](), vocab_size=V, **kwargs)


def test_a_value_network_that_nothing_trains_is_refused() -> None:
    for made in (lambda **kw: toy_groups(GRPO, **kw), lambda **kw: toy_ppo(vf_coef=0.0, **kw)):
        with pytest.raises(ValueError, match="`share_features_extractor` to be True where vf_coef is 0"):
            made(policy_kwargs=OPTIONS["value network"])


def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"`lora` needs peft.*pip install 'textgym\[lora\]'"):
        policy_of(MODELS["gpt2"](), vocab_size=V, lora=True)


@needs_peft
def test_a_model_takes_adapters_once() -> None:
    model = MODELS["gpt2"]()
    policy_of(model, vocab_size=V, lora=True)
    with pytest.raises(ModelError, match="Expected a model without adapters with `lora`, actual: GPT2LMHeadModel"):
        policy_of(model, vocab_size=V, lora=True)


def test_a_model_that_cannot_recompute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textgym_agents.models.recompute.GradientCheckpointingLayer", torch.nn.LSTM)
    with pytest.raises(ModelError, match="computed again with gradient_checkpointing=True, actual: GPT2LMHeadModel"):
        policy_of(MODELS["gpt2"](), vocab_size=V, gradient_checkpointing=True)
