"""Builds the bundled tokenizer and language model, measures them and writes their card.

``python -m textgym_agents.pretrain.build_bundled --out textgym/assets``

Everything follows from the seed: the text, the order of it and the first weights. The model is written several times on
the way, each file atomically, so that a folder in use never holds half a file.

The matrices of the layers are trained with Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; in torch since
2.9), all else with AdamW: after 400 updates the loss is 1.57, with AdamW alone 1.86.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from textgym_agents.pretrain import corpus
from textgym_agents.pretrain.corpus import END, END_ID, PAD, PAD_ID
from textgym_agents.pretrain.measure import card, measure, next_token_loss

VOCABULARY = 3072
POSITIONS = 512
SINGLE_TOKENS = "äöüÄÖÜß" + "[](){}<>|=+-*/.,:;!?\"'#%&@_$" + "\n" + "0123456789"
"""Characters that must be one token each."""

# Most rows hold a document or two, as prompts do; every tenth batch has few rows of full length, so that all position
# embeddings are trained.
ROW_TOKENS = 96
LONG_EVERY = 10

WARM_UP = 100
LEARNING_RATE = 2.5e-3
MUON_LEARNING_RATE = 0.02
WEIGHT_DECAY = 0.1
MUON_WEIGHT_DECAY = 0.01


# ---- tokenizer ------------------------------------------------------------------------------------------------------


def train_tokenizer(documents: int, seed: int) -> Tokenizer:
    """Byte-level BPE over ``documents`` texts; digits are never merged, so numbers are spelt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(PAD, special=True), AddedToken(END, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = corpus.stream(seed, corpus.TOKENIZER)
    tokenizer.train_from_iterator(corpus.tokenizer_documents(rng, documents), trainer)
    split = [c for c in SINGLE_TOKENS if len(tokenizer.encode(c).ids) != 1]
    if split or tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"{tokenizer.get_vocab_size()} tokens, not one token each: {split}; needs more documents")
    if (tokenizer.token_to_id(PAD), tokenizer.token_to_id(END)) != (PAD_ID, END_ID):
        raise RuntimeError("special tokens got other ids than expected")
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the tokenizer for ``tokenizers`` and for ``transformers.AutoTokenizer``."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "padding_side": "left",
        "truncation_side": "left",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    _replace(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    _replace(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes a text file in one step."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


# ---- model ----------------------------------------------------------------------------------------------------------


def new_model(seed: int) -> GPT2LMHeadModel:
    """GPT-2's architecture, small, with random weights."""
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=192, n_layer=4, n_head=6,
        activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=END_ID, eos_token_id=END_ID, pad_token_id=PAD_ID, tie_word_embeddings=True, dtype="float32",
    )  # fmt: skip
    config._attn_implementation = "eager"  # the fastest for short rows
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def save_model(model: GPT2LMHeadModel, folder: Path, record: dict[str, str]) -> None:
    """Writes weights (float16), configuration and generation settings, each file in one step.

    The configuration says float32, the type to compute in: ``from_pretrained`` widens the weights as it loads them.
    ``record`` goes into the header of the weights.
    """
    # The output layer is the embedding matrix: stored once, under the embedding's name.
    weights = {k: v.detach().half().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as name:
        draft = Path(name)
        save_file(weights, draft / "model.safetensors", metadata={"format": "pt", **record})
        (draft / "model.safetensors").chmod(0o644)
        model.config.architectures = ["GPT2LMHeadModel"]
        model.config.save_pretrained(draft)
        model.generation_config.save_pretrained(draft)
        for file in draft.iterdir():
            os.replace(file, folder / file.name)


# ---- training -------------------------------------------------------------------------------------------------------


def training_rows(
    tokenizer: Tokenizer, rng: np.random.Generator, batch_tokens: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Endless batches: the number of documents in it, and rows of token ids [B, L].

    A row starts with a document, because prompts do (nothing stands before them), and is filled up with further
    ones, each after an end token. What is left of its last document is dropped.
    """
    documents = corpus.task_documents(rng)

    def row(length: int) -> tuple[int, list[int]]:
        ids: list[int] = []
        count = 0
        while len(ids) < length:
            ids += [*tokenizer.encode(next(documents)).ids, END_ID]
            count += 1
        return count, ids[:length]

    step = 0
    while True:
        step += 1
        length = POSITIONS if step % LONG_EVERY == 0 else ROW_TOKENS
        drawn = [row(length) for _ in range(max(1, batch_tokens // length))]
        yield sum(count for count, _ in drawn), torch.tensor([ids for _, ids in drawn])


def schedule(step: int, steps: int) -> float:
    """Factor of the learning rates: linear warm-up, then a cosine down to a fiftieth."""
    warm_up = min(WARM_UP, max(1, steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2


def new_optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers; AdamW for embeddings, biases and norms."""
    layers = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    embeddings = [model.transformer.wte.weight, model.transformer.wpe.weight]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": embeddings, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return [
        torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(layers, lr=MUON_LEARNING_RATE, weight_decay=MUON_WEIGHT_DECAY),
    ]


def train(model: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path, steps: int, batch_tokens: int, seed: int) -> None:
    """Trains ``model`` and writes it to ``folder``, a few times before the end too."""
    optimizers = new_optimizers(model)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: schedule(step, steps)) for o in optimizers]
    batches = training_rows(tokenizer, corpus.stream(seed, corpus.TRAINING), batch_tokens)
    documents = tokens = 0
    recent: list[float] = []
    start = time.perf_counter()
    model.train()
    for step, (new_documents, ids) in enumerate(islice(batches, steps)):
        documents, tokens = documents + new_documents, tokens + ids.numel()
        with torch.autocast("cpu", torch.bfloat16):  # faster; weights and their updates stay float32
            logits = model(input_ids=ids, use_cache=False).logits
        loss = next_token_loss(logits.float(), ids)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, learning_rate in zip(optimizers, schedules, strict=True):
            optimizer.step()
            learning_rate.step()
        recent.append(loss.item())
        done, seconds = step + 1, time.perf_counter() - start
        if done % 50 == 0 or done == steps:
            left = seconds / done * (steps - done)
            speed = f"{tokens / seconds:,.0f} tokens/s  {left:.0f} s left"
            print(f"step {done}/{steps}  loss {np.mean(recent):.4f}  {speed}", flush=True)
            recent = []
        if done % max(1, steps // 8) == 0 or done == steps:
            record = {
                "steps": str(done), "planned_steps": str(steps), "seed": str(seed), "documents": str(documents),
                "tokens": str(tokens), "seconds": f"{seconds:.3f}", "threads": str(torch.get_num_threads()),
                "date": datetime.date.today().isoformat(), "rounding": f"{rounding_error(model, ids):.4f}",
            }  # fmt: skip
            save_model(model, folder, record)
    model.eval()


def rounding_error(model: GPT2LMHeadModel, ids: torch.Tensor) -> float:
    """Largest change of a log-probability when the weights are rounded to float16, as they are stored."""
    rounded = copy.deepcopy(model).half().float()
    with torch.no_grad():
        change = model(input_ids=ids).logits.log_softmax(-1) - rounded(input_ids=ids).logits.log_softmax(-1)
    return float(change.abs().max())


# ---- command --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds, measures and writes the card; with ``--measure`` only the latter two."""
    parser = argparse.ArgumentParser(description="Build the bundled tokenizer and language model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--measure", action="store_true", help="only measure what is there, and rewrite the card")
    parser.add_argument("--steps", type=int, default=10_000, help="updates")
    parser.add_argument("--batch-tokens", type=int, default=32 * ROW_TOKENS, help="tokens of an update")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokenizer-documents", type=int, default=30_000, help="texts for the tokenizer")
    parser.add_argument("--documents", type=int, default=2_000, help="documents for each perplexity")
    parser.add_argument("--prompts", type=int, default=1_000, help="prompts to continue")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    folder: Path = options.out
    if not options.measure:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = train_tokenizer(options.tokenizer_documents, options.seed)
        save_tokenizer(tokenizer, folder)
        train(new_model(options.seed), tokenizer, folder, options.steps, options.batch_tokens, options.seed)
    figures, samples = measure(folder, options.seed, options.documents, options.prompts)
    for name, value in vars(figures).items():
        print(f"{name:20} {value:.4g}")
    for prompt, text in samples:
        print(f"{prompt}|{text}")
    _replace(folder / "README.md", card(folder, figures, samples))


if __name__ == "__main__":
    main()
