"""The prompts file that all workers read; made by the parent, which alone has textgym's tokenizer and texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import textgym
from compare_cases.workload import PROMPT_TOKENS
from textgym.tokenization import ASSETS

ENV_ID = "TextGen-Sentiment-v0"


def different_prompts(n: int) -> list[str]:
    """Beginnings of the task's own texts, all different, that are exactly 16 tokens, before and after a round trip."""
    tokenizer, task, rng = textgym.load_tokenizer(), textgym.make_task(ENV_ID), np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < n:
        text = tokenizer.decode(tokenizer.encode(task.document(rng))[:PROMPT_TOKENS])
        if len(tokenizer.encode(text)) == PROMPT_TOKENS:
            found[text] = None
    return list(found)


def write_prompts(file: Path, n: int = 4096) -> None:
    """Writes what `workload.read_prompts` reads."""
    tokenizer, texts = textgym.load_tokenizer(), different_prompts(n)
    known = {
        "texts": texts,
        "ids": tokenizer.encode_batch(texts),
        "tokenizer": str(ASSETS),
        "vocab_size": tokenizer.vocab_size,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
    }
    file.write_text(json.dumps(known), encoding="utf-8")
