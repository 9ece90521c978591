"""What the tests of the agents share: tiny language models with random weights, and small environments."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from textgym import Completion, Example, Task, load_tokenizer
from textgym.envs import TextGenEnv, TextGenVectorEnv
from textgym.rewards import Reward
from textgym_agents import PPO, CausalLMPolicy
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.options import arguments_of
from textgym_agents.rollouts.decoding import Limits

_logs = tempfile.TemporaryDirectory()  # SB3 makes a folder for every logger, even for one that writes nothing
os.environ.setdefault("SB3_LOGDIR", _logs.name)
torch.set_num_threads(1)  # models this small gain nothing from a second one, and lose much on a busy machine

ENV_ID = "TextGen-Sentiment-v0"
VOCAB = load_tokenizer().vocab_size
EOS = load_tokenizer().eos_token_id


def tiny_gpt2(seed: int = 0, vocab_size: int = VOCAB, scale: float = 0.3, **config: Any) -> GPT2LMHeadModel:
    """Two layers of width 32; ``scale`` is large enough that its distributions are far from uniform."""
    torch.manual_seed(seed)
    settings = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 128, "vocab_size": vocab_size}
    special = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(initializer_range=scale, **{**settings, **special, **config})).eval()


def tiny_llama(seed: int = 0, vocab_size: int = VOCAB) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_rotary(vocab_size))).eval()


def tiny_qwen2(seed: int = 0, vocab_size: int = VOCAB) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**_rotary(vocab_size))).eval()


def _rotary(vocab_size: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "vocab_size": vocab_size,
        "initializer_range": 0.3,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": 0,
    }


def text_spaces(width: int, vocab_size: int = VOCAB) -> tuple[spaces.Dict, spaces.Discrete]:
    """The spaces of an environment whose observations have ``width`` columns."""
    observation = {
        "input_ids": spaces.Box(0, vocab_size - 1, (width,), np.int64),
        "attention_mask": spaces.MultiBinary(width),
        "completion_mask": spaces.MultiBinary(width),
    }
    return spaces.Dict(observation), spaces.Discrete(vocab_size)


def policy_of(
    model: PreTrainedModel, width: int = 64, limits: Limits | None = None, vocab_size: int = VOCAB, **kwargs: Any
) -> CausalLMPolicy:
    """A policy without an algorithm, whose value head is not zero."""
    policy = CausalLMPolicy(*text_spaces(width, vocab_size), lambda _: 1e-3, model=model, limits=limits, **kwargs)
    torch.manual_seed(1)
    torch.nn.init.normal_(policy.value_head.weight)
    torch.nn.init.normal_(policy.value_head.bias)
    policy.generator = torch.Generator().manual_seed(0)
    return policy


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, ``[B, S]`` each."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return ids, mask


class EvenTokens(Reward):
    """Share of the policy's tokens with an even id: about a half at random, so easy to raise."""

    name, range = "even", (0.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Any:
        return np.array([np.mean([t % 2 == 0 for t in c.token_ids]) for c in completions], dtype=np.float32)


WORDS = ["<|pad|>", "<|endoftext|>", "!", "a", "b", "c", "d", "e", "f", "well", "no"]


def word_tokenizer() -> Tokenizer:
    """A vocabulary of 11 words, so that a random policy often ends an episode or gives the word to the other speaker."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="f"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:2])
    return tokenizer


class Echo(Task):
    """Prompts and tokens of the little vocabulary; one turn."""

    id = "TextGen-Echo-v0"
    max_prompt_tokens, max_new_tokens = 6, 10
    random_score, oracle_score = 0.0, 1.0

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        return Example(" ".join(rng.choice(list("abcdef"), size=rng.integers(1, 7))))

    def document(self, rng: np.random.Generator) -> str:
        return "a b"

    def oracle(self, example: Example) -> str:
        return "b"

    def reward(self) -> Reward:
        return EvenTokens()


class Chat(Echo):
    """Two speakers: whenever the policy says ``!``, the other one may answer, with one word or three."""

    id = "TextGen-Chat-v0"
    turn_end, max_reply_tokens = "!", 40

    def reply(self, completion: Completion) -> str | None:
        return ["well", "no no well", None, "no"][len(completion.token_ids) % 4]


def toy_vector(n: int = 8, task: Task | None = None, **kwargs: Any) -> TextGenVectorEnv:
    """``n`` environments with the vocabulary of 11 words."""
    return TextGenVectorEnv(task or Echo(), num_envs=n, tokenizer=word_tokenizer(), **kwargs)


def toy_single(task: Task | None = None, **kwargs: Any) -> TextGenEnv:
    """One environment with the vocabulary of 11 words."""
    return TextGenEnv(task or Echo(), tokenizer=word_tokenizer(), **kwargs)


def toy_ppo(env: Any = None, seed: int = 0, **kwargs: Any) -> PPO:
    """PPO with a tiny model of 11 words, whose value head is not zero, on 8 environments unless ``env`` is given."""
    model = kwargs.pop("model", None) or tiny_gpt2(vocab_size=len(WORDS), scale=0.15)
    ppo = tiny_ppo(toy_vector() if env is None else env, seed=seed, model=model, **{"batch_size": 4, **kwargs})
    torch.manual_seed(1)
    torch.nn.init.normal_(ppo.policy.value_head.weight)
    return ppo


def single(**kwargs: Any) -> gym.Env[Any, Any]:
    """One environment, as ``gym.make`` gives it."""
    return gym.make(ENV_ID, **{"max_new_tokens": 8, **kwargs})


def vector(n: int = 4, **kwargs: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    """``n`` environments, as ``gym.make_vec`` gives them."""
    return gym.make_vec(ENV_ID, num_envs=n, **{"max_new_tokens": 8, **kwargs})


def tiny_ppo(env: Any = None, seed: int = 0, model: PreTrainedModel | None = None, **kwargs: Any) -> PPO:
    """PPO with a tiny model on the CPU, on 4 short environments unless ``env`` is given."""
    policy_kwargs = {"model": model or tiny_gpt2(), **kwargs.pop("policy_kwargs", {})}
    settings: dict[str, Any] = {"batch_size": 2, "n_epochs": 2, "learning_rate": 1e-3, "device": "cpu", **kwargs}
    return PPO("CausalLMPolicy", vector() if env is None else env, seed=seed, policy_kwargs=policy_kwargs, **settings)


Algorithm = TypeVar("Algorithm", bound=TextAlgorithm)


def toy_groups(
    algorithm: type[Algorithm], env: Any = None, seed: int = 0, num_generations: int = 4, **kwargs: Any
) -> Algorithm:
    """An algorithm without a critic and with a tiny model of 11 words, on 8 environments unless ``env`` is given."""
    model = kwargs.pop("model", None) or tiny_gpt2(vocab_size=len(WORDS), scale=0.15)
    policy_kwargs = {"model": model, **kwargs.pop("policy_kwargs", {})}
    policy = "Seq2SeqLMPolicy" if model.config.is_encoder_decoder else "CausalLMPolicy"
    env = toy_vector(8, group_size=num_generations) if env is None else env
    settings: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-3, "device": "cpu", **kwargs}
    return algorithm(
        policy,
        env,
        seed=seed,
        policy_kwargs=policy_kwargs,
        num_generations=num_generations,  # type: ignore[call-arg]
        **settings,
    )


def toy_algorithm(cls: type[Algorithm], env: Any = None, seed: int = 0, **kwargs: Any) -> Algorithm:
    """Any on-policy algorithm with a tiny model of 11 words, on 8 environments unless ``env`` is given."""
    model = kwargs.pop("model", None) or tiny_gpt2(vocab_size=len(WORDS), scale=0.15)
    policy_kwargs = {"model": model, **kwargs.pop("policy_kwargs", {})}
    if env is None:
        env = toy_vector(8, **cls.needed_env_kwargs({**arguments_of(cls), **kwargs}))
    settings: dict[str, Any] = {"learning_rate": 1e-3, "device": "cpu", **kwargs}
    return cls("CausalLMPolicy", env, seed=seed, policy_kwargs=policy_kwargs, **settings)


def tiny_t5(seed: int = 0, vocab_size: int = VOCAB, **config: Any) -> T5ForConditionalGeneration:
    """Two layers of width 32 on both sides; attention is far from uniform, and a random policy ends some episodes early."""
    torch.manual_seed(seed)
    settings = {"num_layers": 2, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_heads": 2, "vocab_size": vocab_size}
    special = {"eos_token_id": EOS, "pad_token_id": 0, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(**{**settings, **special, **config})).eval()
    factors = {"q.weight": 5, "relative_attention_bias.weight": 5, "shared.weight": 0.5, "lm_head.weight": 0.2}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for end, factor in factors.items():
                if name.endswith(end):
                    parameter *= factor
    return model


def tiny_bart(seed: int = 0, vocab_size: int = VOCAB, **config: Any) -> BartForConditionalGeneration:
    """Two layers of width 32 on both sides."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"d_model": 32, "max_position_embeddings": 128, "vocab_size": vocab_size}
    for side in ("encoder", "decoder"):
        settings |= {f"{side}_layers": 2, f"{side}_ffn_dim": 48, f"{side}_attention_heads": 2}
    special = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": 0, "decoder_start_token_id": EOS}
    more = {"forced_eos_token_id": None, "init_std": 0.3}
    return BartForConditionalGeneration(BartConfig(**{**settings, **special, **more, **config})).eval()


def toy_seq2seq_ppo(env: Any = None, seed: int = 0, **kwargs: Any) -> PPO:
    """As :func:`toy_ppo`, with an encoder-decoder model."""
    model = kwargs.pop("model", None) or tiny_t5(vocab_size=len(WORDS))
    policy_kwargs = {"model": model, **kwargs.pop("policy_kwargs", {})}
    settings: dict[str, Any] = {"batch_size": 4, "n_epochs": 2, "learning_rate": 1e-3, "device": "cpu", **kwargs}
    env = toy_vector() if env is None else env
    ppo = PPO("Seq2SeqLMPolicy", env, seed=seed, policy_kwargs=policy_kwargs, **settings)
    torch.manual_seed(1)
    torch.nn.init.normal_(ppo.policy.value_head.weight)
    return ppo
