"""The reference workload, the same on every side: the model, the prompts, the reward.

A randomly initialised GPT-2 of 4 layers, 4 heads and width 128 over the bundled tokenizer's 2,048 tokens; prompts of exactly
16 tokens; exactly 48 new tokens; 2 threads, float32. Needs torch and transformers, not textgym: the peers' Pythons import it.
The parent writes the prompts to a file (`write_prompts`), because only it has textgym's tokenizer and texts.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PROMPT_TOKENS, NEW_TOKENS = 16, 48
THREADS = 2
SAME_MODEL = "random GPT-2 (4 layers, 4 heads, width 128, vocabulary 2,048; no dropout), float32, 2 threads"
SAME_LENGTHS = "prompts of 16 tokens, 48 new tokens"


def read_prompts(file: str) -> dict[str, Any]:
    """``texts``, their token ids ``ids``, the tokenizer's folder ``tokenizer``, ``vocab_size``, ``eos``, ``pad``."""
    found: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    return found


def gpt2_config(known: dict[str, Any], n_positions: int = 128) -> Any:
    """The configuration of the reference workload; dropout 0, because a peer that trains with it would do more."""
    import torch
    from transformers import GPT2Config

    torch.set_num_threads(THREADS)
    return GPT2Config(
        n_layer=4,
        n_head=4,
        n_embd=128,
        n_positions=n_positions,
        vocab_size=known["vocab_size"],
        bos_token_id=known["eos"],
        eos_token_id=known["eos"],
        pad_token_id=known["pad"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def language_model(known: dict[str, Any], n_positions: int = 128) -> Any:
    """The model; the same weights in every process."""
    import torch
    from transformers import GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(gpt2_config(known, n_positions)).eval()


def letter_share(texts: Sequence[str]) -> list[float]:
    """A reward that costs next to nothing and is not the same for all: the share of the letter a."""
    return [text.count("a") / (len(text) + 1) for text in texts]


def facts(*packages: str) -> dict[str, Any]:
    """What a worker runs on."""
    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "torch_threads": torch.get_num_threads()}
    for name in ("torch", "transformers", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    for name in packages:  # a folder on PYTHONPATH shadows the installed package, of whichever version
        if name in sys.modules:
            found[name] = getattr(sys.modules[name], "__version__", found[name])
    return found
