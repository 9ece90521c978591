"""The bundled reward model of TextGen-Reply-v0: how much a judge likes a reply of a support agent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from textgym.core import Completion
from textgym.numpy_gpt2 import ModelError, NumpyGPT2
from textgym.rewards.base import Reward, Scores
from textgym.tokenization import ASSETS, TextTokenizer

FOLDER = ASSETS / "reply_reward"
"""The folder of the bundled reward model and its tokenizer; ``transformers`` loads both from it."""

_PROMPT_SHARE = 0.5


class ReplyPreference(Reward):
    """The probability, by a trained reward model, that a judge prefers a reply to one that is half right, in [0, 1].

    The model is a GPT-2 of three layers with one label, trained on noisy comparisons of pairs of replies by
    ``textgym_agents.pretrain.build_reply_reward``; it runs in numpy. Its raw score ``s`` is in units of log-odds, as
    Bradley and Terry's model has it: the probability that one reply is preferred to another is ``1 / (1 + exp(s_2 -
    s_1))``. The zero of ``s`` is the score of a reply that is half right (it names the product, or solves the problem,
    but not both).

    The model reads the prompt, the reply and an end token. Where that is longer than its room, the beginning of the
    prompt (down to the last half of the room) and then the end of the reply are cut off. It is loaded on first use
    and shared by all rewards of the same folder.
    """

    name = "reply_preference"
    range = (0.0, 1.0)

    def __init__(self, folder: str | os.PathLike[str] = FOLDER) -> None:
        """Args: folder: With ``config.json``, ``model.safetensors`` and ``tokenizer.json``; the default is the bundled one."""
        self.folder = Path(folder)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`.

        Raises:
            ModelError: The folder holds no such model.
        """
        return (1 / (1 + np.exp(-self.logits(completions)))).astype(np.float32)

    def logits(self, completions: Sequence[Completion]) -> Scores:
        """Raw scores, in log-odds, shape ``(n,)``."""
        model, tokenizer = _load(self.folder)
        if not completions:
            return np.zeros(0, dtype=np.float32)
        prompts = tokenizer.encode_batch([c.prompt for c in completions])
        replies = tokenizer.encode_batch([c.transcript or c.text for c in completions])
        return np.asarray(
            model.scores(
                [
                    model_input(prompt, reply, tokenizer.eos_token_id, model.max_positions)
                    for prompt, reply in zip(prompts, replies, strict=True)
                ]
            )
        )


def model_input(prompt: Sequence[int], reply: Sequence[int], end: int, room: int) -> list[int]:
    """Token ids of prompt, reply and end token, at most ``room`` of them; see :class:`ReplyPreference` for what is cut."""
    kept = max(int(room * _PROMPT_SHARE), room - 1 - len(reply))
    kept_prompt = list(prompt)[-kept:]
    return [*kept_prompt, *reply[: room - 1 - len(kept_prompt)], end]


@lru_cache(maxsize=4)
def _load(folder: Path) -> tuple[NumpyGPT2, TextTokenizer]:
    from tokenizers import Tokenizer

    model = NumpyGPT2.load(folder)
    try:
        tokenizer = TextTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"Could not read {str(folder / 'tokenizer.json')!r} as a tokenizer: {error}") from error
    if tokenizer.vocab_size > model.vocab_size:
        raise ModelError(
            f"Expected a tokenizer of at most {model.vocab_size} tokens in {str(folder)!r}, but it has more"
        )
    return model, tokenizer
