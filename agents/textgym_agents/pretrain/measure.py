"""Measures a bundled model and writes its card."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from textgym.core import Completion
from textgym.rewards import Sentiment
from textgym.tasks import TASKS, SentimentTask, Task, split_of
from textgym_agents.pretrain import corpus
from textgym_agents.pretrain.corpus import END_ID, PAD_ID

KNOWN = 10
"""How many times as many generated documents the continuations' words are looked up in as are held out."""


def load_model(folder: Path) -> GPT2LMHeadModel:
    """The model as every user gets it: float16 weights, widened to float32."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model


def next_token_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, nats a token; padding [B, L] is not a target."""
    targets = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=PAD_ID)  # the last position has none
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD_ID)


@dataclass(frozen=True)
class Figures:
    """What the card says about the model's text.

    Attributes:
        held_out_perplexity: Per token and document, end token included, on documents that training never drew.
        training_perplexity: The same on the first documents that training read.
        unigram_perplexity: The same under the frequencies of the held-out tokens themselves: what no context gives.
        tokens_per_word: Tokens per word or punctuation mark of the held-out documents.
        documents: Number of documents behind each perplexity.
        prompts: Number of dev prompts, each continued once at temperature 1 by at most 32 tokens.
        sentiment: Mean VADER compound of the continuations.
        praise_share: Share of them that score at least 0.8.
        distinct_2: Different word bigrams over all word bigrams of all continuations.
        end_share: Share that end with the end token within the budget.
        mean_tokens: Mean length in tokens, end token included.
        known_words: Share of their words that occur in the generators' documents (`KNOWN` times ``documents``).
        known_trigrams: Share of their word trigrams that occur there.
        document_trigrams: The same share for the held-out documents, the highest that ``known_trigrams`` should reach.
    """

    held_out_perplexity: float
    training_perplexity: float
    unigram_perplexity: float
    tokens_per_word: float
    documents: int
    prompts: int
    sentiment: float
    praise_share: float
    distinct_2: float
    end_share: float
    mean_tokens: float
    known_words: float
    known_trigrams: float
    document_trigrams: float


def words(text: str) -> list[str]:
    """Words and punctuation marks."""
    return re.findall(r"[\w'-]+|[^\w\s]", text)


def perplexity(model: GPT2LMHeadModel, tokenizer: Tokenizer, documents: Sequence[str]) -> float:
    """Perplexity per token of documents, each alone; the first token of each is given, the end token counts."""
    nats = tokens = 0.0
    for first in range(0, len(documents), 50):
        encoded = tokenizer.encode_batch(list(documents[first : first + 50]))
        rows = [torch.tensor([*e.ids, END_ID][: model.config.n_positions]) for e in encoded]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID)
        with torch.no_grad():
            loss = next_token_loss(model(input_ids=ids, attention_mask=(ids != PAD_ID).long()).logits, ids)
        count = int((ids[:, 1:] != PAD_ID).sum())
        nats, tokens = nats + loss.item() * count, tokens + count
    return math.exp(nats / tokens)


def unigram_perplexity(tokenizer: Tokenizer, documents: Sequence[str]) -> float:
    """Perplexity of the documents' tokens under their own frequencies."""
    ids = [i for e in tokenizer.encode_batch(list(documents)) for i in [*e.ids, END_ID]]
    shares = np.bincount(ids)[np.bincount(ids) > 0] / len(ids)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def dev_prompts(task: Task, count: int, seed: int) -> list[str]:
    """Prompts of a task's dev split."""
    rng = corpus.stream(seed, corpus.PROMPTS)
    drawn = (task.sample(rng, task.default_difficulty).prompt for _ in iter(int, 1))
    return list(islice((p for p in drawn if split_of(p) == "dev"), count))


def sample_continuations(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, prompts: Sequence[str], seed: int, max_new_tokens: int = 32
) -> list[list[int]]:
    """One continuation a prompt, sampled at temperature 1 from left-padded rows; the end token is kept."""
    generator: Any = model  # transformers types the method for classes that it does not give the models
    continuations: list[list[int]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for first in range(0, len(prompts), 250):
            encoded = [e.ids for e in tokenizer.encode_batch(list(prompts[first : first + 250]))]
            width = max(map(len, encoded))
            ids = torch.tensor([[PAD_ID] * (width - len(e)) + e for e in encoded])
            output = generator.generate(
                ids, attention_mask=(ids != PAD_ID).long(), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=max_new_tokens, suppress_tokens=[PAD_ID],
            )  # fmt: skip
            for row in output[:, width:].tolist():
                continuations.append(row[: row.index(END_ID) + 1] if END_ID in row else row)
    return continuations


def measure(folder: Path, seed: int, documents: int, prompts: int) -> tuple[Figures, list[tuple[str, str]]]:
    """The figures of the model in ``folder``, and for every task a prompt with its continuation."""
    model, tokenizer = load_model(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    held_out = list(islice(corpus.task_documents(corpus.stream(seed, corpus.HELD_OUT)), documents))
    read = list(islice(corpus.task_documents(corpus.stream(seed, corpus.TRAINING)), documents))
    encoded = tokenizer.encode_batch(held_out)

    starts = dev_prompts(SentimentTask(), prompts, seed)
    continuations = sample_continuations(model, tokenizer, starts, seed)
    texts = [tokenizer.decode(c) for c in continuations]  # leaves special tokens out
    scores = Sentiment()([Completion(p, t) for p, t in zip(starts, texts, strict=True)])

    known: set[tuple[str, ...]] = set()
    for document in islice(corpus.task_documents(corpus.stream(seed + 1, corpus.HELD_OUT)), KNOWN * documents):
        known.update(ngrams(document, 1), ngrams(document, 3))
    bigrams = [g for t in texts for g in ngrams(t, 2)]
    figures = Figures(
        held_out_perplexity=perplexity(model, tokenizer, held_out),
        training_perplexity=perplexity(model, tokenizer, read),
        unigram_perplexity=unigram_perplexity(tokenizer, held_out),
        tokens_per_word=sum(len(e.ids) for e in encoded) / sum(len(words(d)) for d in held_out),
        documents=documents,
        prompts=prompts,
        sentiment=float(scores.mean()),
        praise_share=float((scores >= 0.8).mean()),
        distinct_2=len(set(bigrams)) / len(bigrams),
        end_share=float(np.mean([c[-1] == END_ID for c in continuations])),
        mean_tokens=float(np.mean([len(c) for c in continuations])),
        known_words=share_in(known, [g for t in texts for g in ngrams(t, 1)]),
        known_trigrams=share_in(known, [g for t in texts for g in ngrams(t, 3)]),
        document_trigrams=share_in(known, [g for d in held_out for g in ngrams(d, 3)]),
    )
    samples = []
    for cls in TASKS.values():
        (start,) = dev_prompts(cls(), 1, seed)
        (ids,) = sample_continuations(model, tokenizer, [start], seed)
        samples.append((start, tokenizer.decode(ids)))
    return figures, samples


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of ``n`` words."""
    parts = words(text)
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def share_in(known: set[tuple[str, ...]], grams: Sequence[tuple[str, ...]]) -> float:
    """Share of ``grams`` that are ``known``."""
    return sum(g in known for g in grams) / max(1, len(grams))


# ---- card -----------------------------------------------------------------------------------------------------------


def card(folder: Path, figures: Figures, samples: Sequence[tuple[str, str]]) -> str:
    """The model card: every number is measured, or read from the header of the weights (``build_bundled.train``)."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        record = file.metadata()
        rounding = f"{record['rounding']} nats" if "rounding" in record else "not recorded"
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 (not a dict)
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".json", ".safetensors")]
    tokens, seconds = int(record["tokens"]), float(record["seconds"])
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return template.format(
        config=GPT2Config.from_pretrained(folder),
        corpus=corpus,
        figures=figures,
        record=record,
        rounding=rounding,
        parameters=parameters,
        files=", ".join(f"`{f.name}` {f.stat().st_size / 1e3:,.1f} kB" for f in files),
        tasks=", ".join(f"`{name}`" for name in TASKS),
        million_tokens=tokens / 1e6,
        minutes=seconds / 60,
        speed=tokens / seconds,
        known_documents=KNOWN * figures.documents,
        samples="\n".join(f"| {prompt} | {text.strip()} |".replace("\n", " ⏎ ") for prompt, text in samples),
    )
