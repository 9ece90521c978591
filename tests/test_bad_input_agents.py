"""Bad input on the agents' side: each gets an error that names the value and what was expected."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agent_fixtures import ENV_ID, WORDS, policy_of, tiny_gpt2, toy_ppo, toy_single, toy_vector, vector
from stable_baselines3 import PPO as StockPPO
from transformers import GPT2Config, GPT2Model, T5Config, T5ForConditionalGeneration

from textgym import TextGymError
from textgym_agents import PPO
from textgym_agents.algorithms.checkpoint import CheckpointError
from textgym_agents.algorithms.kl import KLController
from textgym_agents.models.loading import ModelError, freeze_all_but_last, model_from_config

V = len(WORDS)


def make(env: Any = None, model: Any = None, policy_kwargs: Any = None, **kwargs: Any) -> PPO:
    """PPO with one thing wrong."""
    if policy_kwargs is None:
        policy_kwargs = {"model": tiny_gpt2(vocab_size=V) if model is None else model}
    return PPO("CausalLMPolicy", toy_vector(2) if env is None else env, policy_kwargs=policy_kwargs, **kwargs)


# ---- hyperparameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("learning_rate", -1e-3, "a number of at least 0 or a schedule"),
        ("learning_rate", "fast", "a number, a function, or a text such as 'lin_0.1' or 'lin_1.0_0.7'"),
        ("learning_rate", math.nan, "a number of at least 0 or a schedule"),
        ("n_steps", 0, "a whole number of at least 1"),
        ("batch_size", 0, "a whole number of at least 1"),
        ("batch_size", 2.5, "a whole number of at least 1"),
        ("n_epochs", -1, "a whole number of at least 1"),
        ("gamma", 1.5, "a number from 0 to 1"),
        ("gamma", None, "a number from 0 to 1"),
        ("gae_lambda", -0.1, "a number from 0 to 1"),
        ("clip_range", 0, "above 0"),
        ("clip_range", None, "above 0"),
        ("clip_range_vf", -0.2, "above 0, or None for none"),
        ("target_kl", 0.0, "above 0, or None for none"),
        ("ent_coef", math.nan, "a number from -inf to inf"),
        ("vf_coef", -0.5, "a number from 0 to inf"),
        ("max_grad_norm", -1, "a number above 0, or inf"),
        ("kl_coef", -0.1, "a number of at least 0"),
        ("kl_coef", True, "a number of at least 0"),
        ("kl_target", 0, r"None or a number above 0 \(nats an episode\)"),
        ("kl_horizon", 0, "a whole number of at least 1"),
        ("temperature", 0, "a number above 0"),
        ("temperature", "hot", "a number, a function, or a text such as 'lin_0.1' or 'lin_1.0_0.7'"),
        ("top_k", -1, "a whole number of at least 0"),
        ("top_p", 0, r"in \(0, 1\]"),
        ("top_p", 1.5, r"in \(0, 1\]"),
        ("n_envs", 0, "a whole number of at least 1"),
        ("stats_window_size", 0, "a whole number of at least 1"),
        ("seed", -1, "a whole number of at least 0"),
        ("seed", 2**32, r"None or a whole number below 2\*\*32"),
        ("env_kwargs", {"split": "dev"}, "None where `env` is not an id: it is made already"),
    ],
)
def test_a_hyperparameter_out_of_range(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{name}` to be {wanted}, actual value: "):
        make(**{name: value})


def test_a_target_without_a_penalty() -> None:
    with pytest.raises(
        ValueError, match="`kl_coef` to be above 0 where kl_target is given: from 0 it could never move"
    ):
        make(kl_coef=0.0, kl_target=1.0)
    with pytest.raises(ValueError, match="`kl_coef` to be above 0 where kl_target is given"):
        KLController(0, 3.0)


# ---- policy and environment ------------------------------------------------------------------------------------------------


def test_an_unknown_policy() -> None:
    with pytest.raises(
        ValueError,
        match=r"`policy` to be one of \['CausalLMPolicy', 'Seq2SeqLMPolicy'\] or a class, actual value: 'MlpPolicy'",
    ):
        PPO("MlpPolicy", toy_vector(2))


def test_a_class_that_is_no_policy_of_ours() -> None:
    with pytest.raises(
        TypeError, match="`policy` to be 'CausalLMPolicy', 'Seq2SeqLMPolicy' or a subclass of LMPolicy, actual value: "
    ):
        PPO(int, toy_vector(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("env", [None, 3, ["TextGen-Sentiment-v0"]])
def test_no_environment(env: Any) -> None:
    with pytest.raises(
        TypeError, match="`env` to be an environment, a vector environment or an id such as 'TextGen-Sent"
    ):
        PPO("CausalLMPolicy", env)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_id_of_somebody_elses_environment(env_id: str) -> None:
    with pytest.raises(TypeError, match=f"`env` to be the id of an environment of textgym, actual value: '{env_id}'"):
        PPO("CausalLMPolicy", env_id)


def test_somebody_elses_environment() -> None:
    wanted = r"an environment of textgym \(observations with input_ids, attention_mask and completion_mask"
    with pytest.raises(ModelError, match=rf"Expected {wanted}, actions Discrete\), actual: Box.* and Discrete\(2\)"):
        make(gym.make("CartPole-v1"))


def test_an_id_that_does_not_exist() -> None:
    with pytest.raises(
        gym.error.NameNotFound, match=r"`TextGen-Sentimental` doesn't exist. Did you mean: `TextGen-Sent"
    ):
        PPO("CausalLMPolicy", "TextGen-Sentimental-v0")


def test_arguments_of_the_environment() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'"):
        PPO("CausalLMPolicy", ENV_ID, env_kwargs={"nope": 1})
    with pytest.raises(TypeError, match=r"`env_kwargs` to be a dict of arguments of the environment, or None"):
        PPO("CausalLMPolicy", ENV_ID, env_kwargs=["split", "dev"])  # type: ignore[arg-type]


# ---- models ----------------------------------------------------------------------------------------------------------------

OFFLINE = "Offline choices: 'bundled', a folder that save_pretrained wrote, a PreTrainedModel"


def test_a_model_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=rf"Could not load the model '.*nope' as a local folder \(there is none.*{OFFLINE}"
    ):
        make(model=tmp_path / "nope")


def test_a_hub_id_without_a_network_names_the_offline_choices() -> None:
    with pytest.raises(ModelError, match=rf"'someone/something' as .*Hub id \(needs the network\): .*[^.]\. {OFFLINE}"):
        make(model="someone/something")


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "no-such-type"}'])
def test_a_folder_that_holds_no_model(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=rf"Could not load the model '{tmp_path}' as a folder: .*{OFFLINE}"):
        make(model=str(tmp_path))


@pytest.mark.parametrize(
    "model",
    [
        3,
        GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20, bos_token_id=1, eos_token_id=1)),
        T5ForConditionalGeneration(T5Config(num_layers=1, d_model=8, d_ff=8, num_heads=1, vocab_size=20)),
    ],
    ids=["number", "no head", "encoder-decoder"],
)
def test_something_else_in_place_of_a_causal_model(model: Any) -> None:
    with pytest.raises(TypeError, match=r"`model` to be (a causal language model|'bundled', a folder, a Hub id)"):
        make(model=model)


def test_a_vocabulary_that_is_too_small() -> None:
    message = (
        "Expected a model whose vocabulary covers the environment's 11 tokens, actual: 10. Give both the same tokenizer"
    )
    with pytest.raises(ModelError, match=message):
        make(model=tiny_gpt2(vocab_size=10))
    with pytest.raises(ModelError, match=message):
        make(ref_model=tiny_gpt2(vocab_size=10))


def test_a_context_that_is_too_short() -> None:
    message = r"a model with room for 16 tokens \(prompt, completion and replies\), actual: 15; lower max_prompt_tokens"
    with pytest.raises(ModelError, match=message):
        make(model=tiny_gpt2(vocab_size=V, n_positions=15))
    with pytest.raises(ModelError, match=message):
        make(ref_model=tiny_gpt2(vocab_size=V, n_positions=15))


@pytest.mark.parametrize("layers", [3, -1, "all", True])
def test_layers_that_the_model_does_not_have(layers: Any) -> None:
    with pytest.raises(ModelError, match="`trainable_layers` to be None or a whole number from 0 to 2, actual value: "):
        make(policy_kwargs={"model": tiny_gpt2(vocab_size=V), "trainable_layers": layers})


def test_a_model_whose_layers_cannot_be_found() -> None:
    model = tiny_gpt2(vocab_size=V)
    model.config.n_layer = 5
    with pytest.raises(ModelError, match="Could not find the 5 layers of GPT2LMHeadModel; use trainable_layers=None"):
        freeze_all_but_last(model, 1)


@pytest.mark.parametrize(
    ("policy_kwargs", "error", "message"),
    [
        (
            "bundled",
            TypeError,
            "`policy_kwargs` to be a dict, such as {'model': 'bundled'}, or None, actual value: 'bund",
        ),
        ({"modell": "bundled"}, TypeError, "unexpected keyword argument 'modell'"),
        ({"use_sde": True}, ValueError, "`use_sde` to be False: tokens are discrete, actual value: True"),
        ({"bf16": "yes"}, ValueError, "`bf16` to be True, False or 'auto', actual value: 'yes'"),
    ],
)
def test_arguments_of_the_policy(policy_kwargs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(policy_kwargs=policy_kwargs)


def test_a_stored_configuration_of_an_unknown_architecture() -> None:
    with pytest.raises(ModelError, match="Could not make a model of type 'no-such-type'"):
        model_from_config({"model_type": "no-such-type"})


# ---- predict and generate --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ppo() -> PPO:
    return toy_ppo()


def observation() -> dict[str, np.ndarray]:
    return dict(toy_single().reset(seed=0)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda obs: obs["input_ids"],
            r"`observation` to be a dict with \('input_ids', 'attention_mask', 'completion_mask'",
        ),
        (lambda obs: None, "`observation` to be a dict with"),
        (lambda obs: {k: v for k, v in obs.items() if k != "completion_mask"}, "`observation` to be a dict with"),
        (lambda obs: {k: v[1:] for k, v in obs.items()}, r"arrays of shape \(16,\) or \(n, 16\), actual: \[\(15,\)"),
        (
            lambda obs: {k: v[None, None] for k, v in obs.items()},
            r"arrays of shape \(16,\) or \(n, 16\), actual: \[\(1, 1, 16",
        ),
        (lambda obs: {**obs, "input_ids": obs["input_ids"][None]}, r"arrays of shape \(16,\) or \(n, 16\), actual: "),
        (lambda obs: {k: v[None][:0] for k, v in obs.items()}, "to be integers, of at least one observation"),
        (lambda obs: {**obs, "input_ids": obs["input_ids"] + 0.5}, "to be integers, of at least one observation"),
        (lambda obs: {**obs, "input_ids": obs["input_ids"] + 11}, r"to be tokens in \[0, 11\)"),
        (lambda obs: {k: 0 * v for k, v in obs.items()}, "at least one token in every observation"),
    ],
)
def test_an_observation_of_another_kind(ppo: PPO, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ppo.predict(change(observation()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "`num_beams` to be a whole number of at least 1, actual value: 0"),
        ({"num_beams": 2.0}, "`num_beams` to be a whole number of at least 1, actual value: 2.0"),
        ({"temperature": -1.0}, "`temperature` to be a number above 0"),
        ({"top_k": 1.5}, "`top_k` to be a whole number of at least 0"),
        ({"top_p": 0}, r"`top_p` to be in \(0, 1\], actual value: 0"),
        ({"action_masks": np.ones(10)}, r"Expected action_masks of shape \(1, 11\), actual: \(10,\)"),
        ({"action_masks": np.zeros(11)}, "Expected action_masks that allow a token, but row 0 allows none"),
    ],
)
def test_settings_of_predict(ppo: PPO, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ppo.predict(observation(), **settings)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], r"`prompts` to be lists of at least one token in \[0, 11\)"),
        ([3, 11], r"`prompts` to be lists of at least one token in \[0, 11\)"),
        (
            [3] * 119,
            r"prompts of at most 118 tokens \(the model's context of 128 less max_new_tokens=10\), actual: 119",
        ),
    ],
)
def test_prompts_that_cannot_be_continued(ppo: PPO, prompt: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ppo.policy.generate([[3, 4], prompt])


# ---- files -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(ppo: PPO, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("saved") / "ppo.zip"
    ppo.save(file)
    return file


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a saved algorithm, but there is no file '.*none.zip'"):
        PPO.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (None, "Could not read .* as a saved algorithm: BadZipFile"),
        (
            {"notes.txt": "hello"},
            r"is a zip, but not of textgym: expected 'config.json' in it, actual: \['notes.txt'\]",
        ),
        ({"config.json": "{"}, "Could not read .* as a saved algorithm: JSONDecodeError"),
        ({"config.json": "[1, 2]"}, r"Expected a file of format 1, actual: \[1, 2\]"),
        ({"config.json": '{"format": 2}'}, "Expected a file of format 1, actual: 2 in "),
        (
            {"config.json": '{"format": 1, "algorithm": "DQN"}'},
            "Expected a saved algorithm, but .* lacks .*'hyperparam",
        ),
        ({"config.json": '{"format": 1}', "policy.safetensors": "junk"}, "Could not read .* SafetensorError"),
    ],
)
def test_a_file_that_is_no_saved_algorithm(members: dict[str, str] | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "file.zip"
    if members is None:
        file.write_bytes(b"garbage" * 1000)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
    with pytest.raises(CheckpointError, match=message):
        PPO.load(file)


def test_a_file_of_stock_sb3(tmp_path: Path) -> None:
    stock = StockPPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    stock.save(tmp_path / "stock")
    with pytest.raises(CheckpointError, match=r"is a zip, but not of textgym: expected 'config.json' in it"):
        PPO.load(tmp_path / "stock")


def test_a_file_of_another_algorithm(saved: Path) -> None:
    class Other(PPO):
        pass

    with pytest.raises(CheckpointError, match="Expected a saved Other, actual: a saved 'PPO' in"):
        Other.load(saved)


def test_a_file_whose_policy_is_a_class_of_ones_own(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"]) | {"policy": "MyPolicy"}
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name, content in (members | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match=r"custom_objects={'policy_class': ...} for the stored policy 'MyPolicy'"):
        PPO.load(tmp_path / "own")


@pytest.mark.parametrize("env", [lambda: vector(2), lambda: toy_vector(2, max_new_tokens=30)])
def test_loading_with_an_environment_of_another_shape(saved: Path, env: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        PPO.load(saved, env=env())


def test_loading_with_a_hyperparameter_that_does_not_exist(saved: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rat'"):
        PPO.load(saved, learning_rat=1e-3)


def test_learning_without_an_environment(saved: Path) -> None:
    with pytest.raises(TextGymError, match=r"an environment to learn in: load\(path, env=...\) or set_env\(env\)"):
        PPO.load(saved).learn(10)


@pytest.mark.parametrize("total", ["1000", None, math.nan])
def test_learning_for_something_that_is_no_number(ppo: PPO, total: Any) -> None:
    with pytest.raises(ValueError, match="Expected `total_timesteps` to be a number of tokens, actual value: "):
        ppo.learn(total)


def test_parameters_of_something_else(ppo: PPO, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Key nope is an invalid object name"):
        ppo.set_parameters({"nope": {}})
    (tmp_path / "garbage.zip").write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"Could not read .*garbage.zip as a saved algorithm"):
        ppo.set_parameters(tmp_path / "garbage")
    wide = policy_of(tiny_gpt2(vocab_size=V, n_embd=64), vocab_size=V)
    with pytest.raises(RuntimeError, match=r"size mismatch for model.transformer.wte.weight"):
        ppo.set_parameters({"policy": wide.state_dict()}, exact_match=False)
