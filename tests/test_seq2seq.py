"""Encoder-decoder models: training, files, decoding, and what they cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import (
    EOS,
    WORDS,
    Chat,
    left_padded,
    text_spaces,
    tiny_bart,
    tiny_gpt2,
    tiny_t5,
    toy_groups,
    toy_ppo,
    toy_seq2seq_ppo,
    toy_vector,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor
from test_ppo import Call, assert_equal, differ, logged, state_of
from test_rollout import DECODINGS, assert_ratio_1, collect
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from textgym_agents import GRPO, PPO, RLOO, CausalLMPolicy, Limits, Seq2SeqLMPolicy
from textgym_agents.models.loading import ModelError, config_of, model_from_config, policy_name_for
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import beam_search, complete, greedy
from textgym_agents.vec_env import GymVecEnv

V = len(WORDS)
MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    "t5": tiny_t5,
    "t5 v1.1": lambda **kw: tiny_t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu", **kw),
    "bart": tiny_bart,
}
architectures = pytest.mark.parametrize("architecture", MODELS)
PROMPTS = [[7, 3, 9, 6, 4], [5], [8, 8, 2], [9, 3, 10, 5, 3, 4], [3, 8]]


def tiny(architecture: str = "t5", seed: int = 0) -> PreTrainedModel:
    return MODELS[architecture](seed=seed, vocab_size=V)


MAKERS: dict[str, Callable[..., Any]] = {
    "ppo": toy_seq2seq_ppo,
    "grpo": lambda env=None, **kw: toy_groups(GRPO, env, **kw),
    "rloo": lambda env=None, **kw: toy_groups(RLOO, env, **kw),
}
algorithms = pytest.mark.parametrize("algorithm", MAKERS)


def make(algorithm: str = "ppo", architecture: str = "t5", env: Any = None, **kwargs: Any) -> Any:
    env = toy_vector(8, group_size=1 if algorithm == "ppo" else 4) if env is None else env
    return MAKERS[algorithm](env, **{"model": tiny(architecture), **kwargs})


def policy_of(architecture: str, seed: int = 0, limits: Limits | None = None, **kwargs: Any) -> Seq2SeqLMPolicy:
    limits = limits or Limits(V, EOS, 8, 0, (0,))
    policy = Seq2SeqLMPolicy(
        *text_spaces(24, V), lambda _: 1e-3, model=tiny(architecture, seed), limits=limits, **kwargs
    )
    torch.manual_seed(1)
    torch.nn.init.normal_(policy.value_head.weight)
    policy.generator = torch.Generator().manual_seed(0)
    return policy


# ---- training --------------------------------------------------------------------------------------------------------------


@algorithms
@architectures
def test_a_training_changes_the_whole_policy_and_its_numbers_are_finite(algorithm: str, architecture: str) -> None:
    made = make(algorithm, architecture, kl_coef=0.1)
    before = state_of(made)
    dumped = logged(made, 250)
    assert made.num_timesteps >= 250
    for numbers in dumped:
        assert all(np.isfinite(v) for k, v in numbers.items() if k != "train/explained_variance")
    assert dumped[0]["rollout/kl"] == pytest.approx(0, abs=1e-4)
    assert dumped[-1]["rollout/kl"] != pytest.approx(0, abs=1e-4)
    changed = {name for name in differ(before, state_of(made)) if name.startswith("policy.model.")}
    parameters = {f"policy.model.{name}" for name, _ in made.policy.model.named_parameters()}
    still = {name for name in parameters - changed if not name.endswith("k_proj.bias")}  # attention does not see those
    assert not still, still  # both sides, and what is between them
    assert not differ({k: v for k, v in before.items() if k.startswith("reference.")}, state_of(made))


@algorithms
@pytest.mark.parametrize("decoding", ["plain", "everything"])
def test_the_ratio_is_1_on_the_first_minibatch(algorithm: str, decoding: str) -> None:
    lengths = set()
    for architecture in MODELS:
        env = toy_vector(24, group_size=1 if algorithm == "ppo" else 4, min_new_tokens=2)
        made = make(algorithm, architecture, env, kl_coef=0.1, **DECODINGS[decoding])
        collect(made)
        sequences = made.rollout_buffer.sequences
        lengths |= set(sequences.action_mask.sum(-1).tolist())
        assert len({len(e.prompt) for e in made.rollout_buffer.episodes}) > 1
        assert_ratio_1(made)
        torch.testing.assert_close(sequences.ref_log_probs, sequences.log_probs, rtol=0, atol=1e-4)
    assert len(lengths) > 1


@algorithms
def test_the_reward_rises(algorithm: str) -> None:
    env = toy_vector(32, group_size=1 if algorithm == "ppo" else 4, min_new_tokens=4)
    made = make(algorithm, "t5", env, batch_size=32, learning_rate=3e-3, kl_coef=0.0)
    torch.nn.init.zeros_(made.policy.value_head.weight)
    dumped = logged(made, 4000)
    before, after = (numbers["rollout/ep_rew_mean"] for numbers in (dumped[0], dumped[-1]))
    assert before < 0.7
    assert after > before + 0.2


TOTAL = 400


@pytest.mark.parametrize(("algorithm", "architecture"), [("ppo", "t5"), ("ppo", "bart"), ("grpo", "t5 v1.1")])
def test_a_training_that_was_killed_equals_bit_for_bit_the_one_that_was_not(
    algorithm: str, architecture: str, tmp_path: Path
) -> None:
    def save(made: Any) -> bool:
        assert made.num_timesteps > made._rollout_start["num_timesteps"] > 0
        made.save(tmp_path / "killed")
        return False

    whole = make(algorithm, architecture, seed=4, kl_coef=0.1)
    wanted = state_of(whole.learn(TOTAL))
    make(algorithm, architecture, seed=4, kl_coef=0.1).learn(TOTAL, callback=Call(25, save))
    env = toy_vector(8, group_size=1 if algorithm == "ppo" else 4)
    resumed = type(whole).load(tmp_path / "killed", env=env, device="cpu")
    assert 0 < resumed.num_timesteps < TOTAL - 80
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    assert_equal(state_of(resumed), wanted)


@architectures
def test_a_loaded_algorithm_predicts_and_writes_the_same(architecture: str, tmp_path: Path) -> None:
    made = make("ppo", architecture).learn(100)
    made.save(tmp_path / "saved")
    loaded = PPO.load(tmp_path / "saved")
    assert type(loaded.policy) is Seq2SeqLMPolicy
    assert type(loaded.policy.model) is type(made.policy.model)
    assert_equal(loaded.policy.state_dict(), made.policy.state_dict())
    obs, _ = toy_vector(6).reset(seed=0)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], made.predict(obs, deterministic=True)[0])
    assert np.array_equal(loaded.predict(obs)[0], made.predict(obs)[0])
    for settings in ({"deterministic": True}, {}):
        assert loaded.policy.generate(PROMPTS, **settings) == made.policy.generate(PROMPTS, **settings)


def test_a_folder_of_transformers_round_trips(tmp_path: Path) -> None:
    for architecture in MODELS:
        folder = tmp_path / architecture
        made = policy_of(architecture)
        made.save_pretrained(folder)
        assert policy_name_for(str(folder)) == "Seq2SeqLMPolicy"
        ppo = PPO("Seq2SeqLMPolicy", toy_vector(2), policy_kwargs={"model": str(folder)}, device="cpu")
        assert_equal(ppo.policy.model.state_dict(), made.model.state_dict())
        again = model_from_config(json.loads(json.dumps(config_of(made.model))))  # as it is stored
        again.load_state_dict(made.model.state_dict())
        ids = torch.tensor([[7, 3, 9]])
        with torch.no_grad():
            one, other = (m(input_ids=ids, decoder_input_ids=ids).logits for m in (again, made.model))
        assert torch.equal(one, other)


def test_a_stored_configuration_need_not_have_been_in_a_file() -> None:
    """Whose keys are all strings then, which those of ``id2label`` are not."""
    for model in (tiny(), tiny_gpt2(vocab_size=V)):
        assert type(model_from_config(config_of(model))) is type(model)


def test_what_hidden_states_are_multiplied_by_does_not_depend_on_the_weights() -> None:
    """It is measured: what is left of rounding in it would make a resumed training another one."""
    scales = {policy_of("t5", seed).backbone._scale for seed in range(8)}
    assert len(scales) == 1
    assert scales.pop() == pytest.approx(32**-0.5, rel=1e-6)
    assert {policy_of(other, seed).backbone._scale for seed in range(4) for other in ("t5 v1.1", "bart")} == {1.0}


# ---- the encoder reads a prompt once ---------------------------------------------------------------------------------------


@contextmanager
def calls_of(policy: Seq2SeqLMPolicy) -> Iterator[dict[str, list[int]]]:
    """Rows of every call of the encoder and of the decoder."""
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}

    def hook_of(side: str) -> Callable[..., None]:
        return lambda _module, _args, kwargs: seen[side].append(len(kwargs["input_ids"]))

    sides = {"encoder": policy.model.get_encoder(), "decoder": policy.model.get_decoder()}
    handles = [m.register_forward_pre_hook(hook_of(side), with_kwargs=True) for side, m in sides.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@architectures
@pytest.mark.parametrize("n_steps", [1, 12])
def test_a_rollout_reads_every_prompt_once(architecture: str, n_steps: int) -> None:
    made = make("grpo", architecture, toy_vector(12, group_size=4), kl_coef=0.0, n_steps=n_steps)
    with calls_of(made.policy) as seen:
        collect(made)
    episodes = made.rollout_buffer.episodes
    waves = [episodes[first : first + 12] for first in range(0, len(episodes), 12)]
    assert len(waves) >= (2 if n_steps == 12 else 1)
    distinct = [len({tuple(e.prompt) for e in wave}) for wave in waves]
    assert seen["encoder"] == distinct
    assert all(1 < n <= 3 for n in distinct)
    # the decoder: the start token of every distinct prompt, then a token a step; slots whose episode has ended leave
    steps = [max(len(e.tokens) for e in wave) for wave in waves]
    assert len(seen["decoder"]) == sum(steps)
    assert seen["decoder"][0] == distinct[0]
    ended = [sum(len(e.tokens) > t for e in waves[0]) for t in range(1, steps[0])]
    assert seen["decoder"][1 : steps[0]] == ended


@architectures
def test_writing_completions_reads_every_prompt_once(architecture: str) -> None:
    policy = policy_of(architecture)
    with calls_of(policy) as seen:
        policy.generate([*PROMPTS, PROMPTS[1]], deterministic=True)
    assert seen["encoder"] == [5]
    assert seen["decoder"][0] == 5


# ---- decoding --------------------------------------------------------------------------------------------------------------


def generated(policy: Seq2SeqLMPolicy, bounds: Limits, **kwargs: Any) -> list[list[int]]:
    """What ``transformers`` generates, a prompt at a time, without the start token."""
    found = []
    for prompt in PROMPTS:
        out = policy.model.generate(  # type: ignore[operator]
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=bounds.max_new_tokens,
            min_new_tokens=bounds.min_new_tokens or None,
            eos_token_id=bounds.eos_token_id,
            pad_token_id=0,
            bos_token_id=None,
            forced_eos_token_id=None,
            decoder_start_token_id=policy.model.config.decoder_start_token_id,
            suppress_tokens=list(bounds.forbidden) or None,
            do_sample=False,
            renormalize_logits=True,
            **kwargs,
        )[0, 1:].tolist()
        eos = bounds.eos_token_id
        found.append(out[: out.index(eos) + 1] if eos in out else out)
    return found


def bounds_of(policy: Seq2SeqLMPolicy, minimum: int = 0) -> Limits:
    """Limits whose end token is one that greedy decoding really comes to."""
    free = complete(policy, *left_padded(PROMPTS), Limits(V, V - 1, 10, 0, (0, V - 1)), greedy)
    return Limits(V, free[0][2], 10, minimum, (0,))


@architectures
@pytest.mark.parametrize("minimum", [0, 4])
def test_greedy_equals_generate(architecture: str, minimum: int) -> None:
    ended = 0
    for seed in range(3):
        policy = policy_of(architecture, seed)
        bounds = bounds_of(policy, minimum)
        found = complete(policy, *left_padded(PROMPTS), bounds, greedy)
        assert found == generated(policy, bounds)
        ended += sum(row[-1] == bounds.eos_token_id for row in found)
        assert all(bounds.eos_token_id not in row[:minimum] for row in found)
    assert ended or minimum


@architectures
@pytest.mark.parametrize("num_beams", [2, 4])
def test_beam_search_equals_generate(architecture: str, num_beams: int) -> None:
    """Of several prompts at once, of which some are done before others."""
    for seed in range(2):
        policy = policy_of(architecture, seed)
        bounds = bounds_of(policy)
        found = beam_search(policy, *left_padded(PROMPTS), torch.zeros(5, dtype=torch.long), bounds, num_beams)
        wanted = generated(policy, bounds, num_beams=num_beams, length_penalty=1.0, early_stopping="never")
        assert found == wanted


@architectures
def test_beam_search_where_no_beam_ends_early(architecture: str) -> None:
    policy = policy_of(architecture)
    bounds = Limits(V, EOS, 6, 0, (0, EOS))
    found = beam_search(policy, *left_padded(PROMPTS), torch.zeros(5, dtype=torch.long), bounds, 3)
    assert [len(row) for row in found] == [6] * 5
    for prompt, row in zip(PROMPTS, found, strict=True):
        assert score(policy, prompt, row) >= score(
            policy, prompt, complete(policy, *left_padded([prompt]), bounds, greedy)[0]
        )


def score(policy: Seq2SeqLMPolicy, prompt: list[int], completion: list[int]) -> float:
    batch = Sequences.of([prompt], [completion], Limits(V, EOS, 6, 0, (0, EOS)))
    return float(policy.evaluate_sequences(batch, 1.0)[0].detach().sum()) + 1e-5


@architectures
def test_predictions_in_the_middle_of_episodes_of_different_age(architecture: str) -> None:
    """As an evaluation asks for them: the decoder of every row is at another place."""
    policy = policy_of(architecture, limits=Limits(V, EOS, 8, 7, (0,)))
    texts = policy.generate(PROMPTS, deterministic=True)
    width = 24
    obs = {name: np.zeros((5, width), dtype=np.int64) for name in ("input_ids", "attention_mask", "completion_mask")}
    ages = [0, 1, 3, 7, 3]
    for row, (prompt, text, age) in enumerate(zip(PROMPTS, texts, ages, strict=True)):
        ids = prompt + text[:age]
        obs["input_ids"][row, width - len(ids) :] = ids
        obs["attention_mask"][row, width - len(ids) :] = 1
        if age:
            obs["completion_mask"][row, -age:] = 1
    tokens, _ = policy.predict(obs, deterministic=True)
    assert tokens.tolist() == [text[age] for text, age in zip(texts, ages, strict=True)]
    for row in range(5):
        assert policy.predict({k: v[row] for k, v in obs.items()}, deterministic=True)[0] == tokens[row]
    beams, _ = policy.predict(obs, num_beams=3)
    assert beams[0] == policy.generate(PROMPTS[:1], num_beams=3)[0][0]
    for row, age in enumerate(ages):
        if age == 7:  # the last token: the best beam is the greedy one
            assert beams[row] == tokens[row]
        assert policy.predict({k: v[row] for k, v in obs.items()}, num_beams=3)[0] == beams[row]
    tensors = {k: torch.as_tensor(v) for k, v in obs.items()}
    values, log_probs, entropies = policy.evaluate_actions(tensors, torch.as_tensor(tokens))
    torch.testing.assert_close(policy.predict_values(tensors), values)
    for row, (prompt, text, age) in enumerate(zip(PROMPTS, texts, ages, strict=True)):
        batch = Sequences.of([prompt], [text[: age + 1]], policy.limits)
        wanted = policy.evaluate_sequences(batch, 1.0, entropies=True)
        for mine, other in zip((log_probs, values[:, 0], entropies), wanted, strict=True):
            torch.testing.assert_close(mine[row], other[0, -1], rtol=0, atol=1e-4)


@algorithms
def test_evaluate_policy_on_a_batch_of_environments(algorithm: str) -> None:
    held_out = VecMonitor(GymVecEnv(toy_vector(5, split="dev", autoreset_mode="SameStep")))
    mean, _ = evaluate_policy(make(algorithm), held_out, 12, deterministic=False)
    assert 0 < float(mean) < 1  # type: ignore[arg-type]


# ---- the parts of a model --------------------------------------------------------------------------------------------------


@architectures
def test_only_the_last_layers_of_the_decoder_train(architecture: str) -> None:
    """What ``trainable_layers`` promises: of an encoder-decoder model the last layers are those before the logits."""
    made = make("ppo", architecture, policy_kwargs={"trainable_layers": 1})
    before = {k: v.clone() for k, v in made.policy.model.named_parameters()}
    made.learn(100)
    changed = {k for k, v in made.policy.model.named_parameters() if not torch.equal(v, before[k])}
    assert changed
    first = {k for k in before if ".block.0." in k or ".layers.0." in k}
    encoder = {k for k in before if "encoder." in k and "encoder_attn" not in k}
    assert first
    assert encoder
    assert not changed & (first | encoder | {k for k in before if "shared" in k})
    last = {k for k in before if "decoder.block.1." in k or "decoder.layers.1." in k}
    assert {k for k in last if not k.endswith("k_proj.bias")} <= changed


def test_a_model_that_names_no_start_token_is_refused_with_a_clear_error() -> None:
    """``T5Config`` alone names none; its files on the Hub do."""
    model = T5ForConditionalGeneration(T5Config(num_layers=1, d_model=8, d_kv=4, d_ff=8, num_heads=2, vocab_size=V))
    with pytest.raises(ModelError, match="Expected decoder_start_token_id in the configuration of an encoder-decoder"):
        PPO("Seq2SeqLMPolicy", toy_vector(2), policy_kwargs={"model": model}, device="cpu").learn(10)


# ---- refused ---------------------------------------------------------------------------------------------------------------


@algorithms
def test_a_task_in_which_somebody_replies_is_refused(algorithm: str, tmp_path: Path) -> None:
    def env(task: Any, **kwargs: Any) -> Any:
        return toy_vector(8, task, group_size=1 if algorithm == "ppo" else 4, **kwargs)

    message = "Expected a CausalLMPolicy for a task in which somebody replies"
    with pytest.raises(ModelError, match=message):
        make(algorithm, env=env(Chat()))
    silent = make(algorithm, env=env(None, max_new_tokens=50))  # observations of the same width
    silent.save(tmp_path / "silent")
    with pytest.raises(ModelError, match=message):
        silent.set_env(env(Chat()))
    with pytest.raises(ModelError, match=message):
        type(silent).load(tmp_path / "silent", env=env(Chat()))


def test_the_other_kind_of_model_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"`model` to be an encoder-decoder language model.*actual value: 'GPT2LMHeadModel'"
    ):
        toy_seq2seq_ppo(model=tiny_gpt2(vocab_size=V))
    for architecture, name in (("t5", "T5ForConditionalGeneration"), ("bart", "BartForConditionalGeneration")):
        with pytest.raises(TypeError, match=rf"`model` to be a causal language model.*actual value: '{name}'"):
            toy_ppo(model=tiny(architecture))
    with pytest.raises(TypeError, match="`model` to be an encoder-decoder language model"):
        make(kl_coef=0.1, ref_model=tiny_gpt2(vocab_size=V))
    with pytest.raises(TypeError, match="`model` to be a causal language model"):
        toy_ppo(kl_coef=0.1, ref_model=tiny())


@pytest.mark.parametrize("policy_kwargs", [{"model": "bundled"}, None])
def test_the_bundled_model_is_refused_with_the_reason(policy_kwargs: dict[str, Any] | None) -> None:
    message = "`model` to be an encoder-decoder language model.*or its folder or Hub id: the bundled one is causal"
    with pytest.raises(ModelError, match=message):
        PPO("Seq2SeqLMPolicy", toy_vector(2), policy_kwargs=policy_kwargs)
    with pytest.raises(ModelError, match=message):
        make(kl_coef=0.1, ref_model="bundled")


def test_a_folder_with_the_other_kind_of_model_is_refused(tmp_path: Path) -> None:
    tiny_gpt2(vocab_size=V).save_pretrained(tmp_path / "causal")
    policy_of("t5").save_pretrained(tmp_path / "seq2seq")
    for cls, folder in ((Seq2SeqLMPolicy, "causal"), (CausalLMPolicy, "seq2seq")):
        with pytest.raises(ModelError, match=f"Could not load the model '.*{folder}' as a folder"):
            cls(*text_spaces(24, V), lambda _: 1e-3, model=tmp_path / folder)


def test_static_shapes_and_a_vocabulary_or_context_that_is_too_small_are_refused() -> None:
    with pytest.raises(ModelError, match="Expected a causal model with static_shapes=True"):
        policy_of("t5", static_shapes=True)
    with pytest.raises(ModelError, match="covers the environment's 11 tokens, actual: 7"):
        toy_seq2seq_ppo(model=tiny_t5(vocab_size=7))
    with pytest.raises(ModelError, match="Expected a model with room for 16 tokens"):
        toy_seq2seq_ppo(model=tiny_bart(vocab_size=V, max_position_embeddings=12))


def test_rows_that_are_not_equally_far_are_refused_by_the_decoder() -> None:
    policy = policy_of("t5")
    ids, mask = left_padded([[7, 3, 9, 6], [5, 6, 7]])
    own = torch.tensor([[False, False, True, True], [False, False, False, True]])
    from textgym_agents.rollouts.decoding import CachedDecoder

    with pytest.raises(ModelError, match="Expected prefixes that are equally far in their completions"):
        CachedDecoder(policy, ids, mask, own)
    decoder = CachedDecoder(policy, ids, mask)
    with pytest.raises(ModelError, match="Expected as many new tokens in every row"):
        decoder.append(torch.tensor([[3, 4], [0, 4]]), torch.tensor([[True, True], [False, True]]))
