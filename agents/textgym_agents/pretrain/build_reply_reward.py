"""Trains the bundled reward model of TextGen-Reply-v0 on comparisons of replies, measures it and writes its card.

``python -m textgym_agents.pretrain.build_reply_reward --out textgym/assets/reply_reward``

As in Ouyang et al. 2022 (https://arxiv.org/abs/2203.02155), every prompt gets several replies, and the loss is Bradley and
Terry's over all pairs of them. The judge is simulated: he prefers the first of two replies with the probability that
:func:`textgym.tasks.reply.preference` gives, so about one comparison in twelve contradicts it.

Whether a reply fits the prompt is a question of comparing words, and choices between whole replies alone hardly teach a small
network to do that. So it also learns, from the same texts, which words do not fit (a wrong product, the solution of another
problem), much as ELECTRA's discriminator finds replaced words (Clark et al. 2020, https://arxiv.org/abs/2003.10555). The
classifier for that sits on the layer before the last and is thrown away at the end. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2ForSequenceClassification

from textgym.core import Completion, Example, Split
from textgym.rewards.reply_preference import ReplyPreference, model_input
from textgym.tasks._reply_words import GENERIC, GOODS, INTENTS, OFF_TOPIC, OPENINGS, RUDE, STEPS
from textgym.tasks._writing import WEEKDAYS, fill, pick
from textgym.tasks.base import split_of
from textgym.tasks.reply import KINDS, ReplyTask, preference, write_reply
from textgym.tokenization import ASSETS, TextTokenizer, load_tokenizer

POSITIONS = 192
WIDTH = 96
REPLIES = 8
"""Replies to a prompt; a batch compares all pairs of them."""
LAYERS = 3
LEARNING_RATE = 3e-3
WARM_UP = 50
WEIGHT_DECAY = 0.01
_CHUNK = 32  # rows that are padded to one length

_HALF_RIGHT = ("half", "wrong product", "wrong intent")
_SENTENCES = (*OPENINGS, *STEPS, *GENERIC)
_WORDS = tuple(
    sorted(
        {
            word.strip(".")
            for sentence in (*_SENTENCES, *RUDE, *OFF_TOPIC, *(x for i in INTENTS.values() for x in i.bare_actions +
            i.problems)) for word in sentence.split()
            if "{" not in word
        }
        | set(GOODS)
    )
)  # fmt: skip


# ---- replies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to compare: its kind, its text (with the space before it) and what the judge thinks of it."""

    kind: str
    text: str
    preference: float


Group = tuple[Example, list[Reply]]
"""A prompt and replies to it."""


def _shuffled(rng: np.random.Generator, words: list[str]) -> list[str]:
    return [words[int(i)] for i in rng.permutation(len(words))]


def _few_swapped(rng: np.random.Generator, words: list[str]) -> list[str]:
    words = list(words)
    for _ in range(1 + int(rng.random() * 4)):
        i = int(rng.random() * (len(words) - 1))
        words[i], words[i + 1] = words[i + 1], words[i]
    return words


def _some_dropped(rng: np.random.Generator, words: list[str]) -> list[str]:
    share = 0.1 + 0.5 * rng.random()
    return [word for word in words if rng.random() > share]


def _some_replaced(rng: np.random.Generator, words: list[str]) -> list[str]:
    share = 0.1 + 0.5 * rng.random()
    return [pick(rng, _WORDS) if rng.random() < share else word for word in words]


def _cut(rng: np.random.Generator, words: list[str]) -> list[str]:
    return words[: 1 + int(rng.random() * (len(words) - 1))]


_DAMAGE: dict[str, Callable[[np.random.Generator, list[str]], list[str]]] = {
    "shuffled": _shuffled,
    "few swapped": _few_swapped,
    "some dropped": _some_dropped,
    "some replaced": _some_replaced,
    "cut short": _cut,
}
CHEATS = (
    "empty", "one word", "prompt", "last turn", "doubled", "over-long", "stuffed", "all solutions", "other prompt",
    "random words", "random tokens", "both speakers",
)  # fmt: skip
"""Replies that a policy in search of a reward may come across, and that must not earn much."""


def cheat(rng: np.random.Generator, example: Example, kind: str, tokenizer: TextTokenizer) -> str:
    """A reply of one of the :data:`CHEATS`, without the space before it."""
    meta: Mapping[str, Any] = example.meta
    keys, product = INTENTS[meta["intent"]].keys, meta["product"]
    helpful = write_reply(rng, meta, "helpful")
    likely = (
        product,
        *keys,
        "sorry",
        "please",
        "thank",
        "I",
        "the",
        pick(rng, WEEKDAYS),
        pick(rng, _WORDS),
        pick(rng, _WORDS),
    )
    count = 1 + int(rng.random() * 24)
    if kind == "empty":
        return ""
    if kind == "one word":
        return " ".join([pick(rng, likely)] * count)
    if kind == "prompt":
        return example.prompt
    if kind == "last turn":
        return example.prompt.rsplit("Customer: ", 1)[1].removesuffix("\nAgent:")
    if kind == "doubled":
        sentences = helpful.split(". ")
        twice = [helpful, helpful] if rng.random() < 0.5 else [*sentences, *[pick(rng, sentences)] * (1 + count // 8)]
        return " ".join(twice)
    if kind == "over-long":
        return fill(
            rng, " ".join([helpful, *(pick(rng, _SENTENCES) for _ in range(2 + count // 3))]), {"day": WEEKDAYS}
        )
    if kind == "stuffed":
        return pick(rng, (" ", ", ", ". ")).join(_shuffled(rng, [*likely, *likely[: count // 4]])[: 2 + count // 2])
    if kind == "all solutions":
        several = [pick(rng, pick(rng, list(INTENTS.values())).actions) for _ in range(1 + count // 6)]
        own = pick(rng, INTENTS[meta["intent"]].actions)
        return fill(rng, " ".join(_shuffled(rng, [own, *several])), {"day": WEEKDAYS, "p": (product,)})
    if kind == "other prompt":
        return write_reply(rng, ReplyTask().sample(rng, "normal").meta, "helpful")
    if kind == "random words":
        return " ".join(pick(rng, _WORDS) for _ in range(count))
    if kind == "random tokens":
        return tokenizer.decode(rng.integers(2, tokenizer.vocab_size, count))
    return f"{write_reply(rng, meta, pick(rng, KINDS))}\nCustomer: {pick(rng, ('Thank you.', meta['said']))}\nAgent: {helpful}"


def any_reply(rng: np.random.Generator, example: Example, tokenizer: TextTokenizer) -> Reply:
    """A reply of any kind: as the generator writes them, damaged, or a cheat."""
    luck = rng.random()
    if luck < 0.6:
        kind = pick(rng, ("helpful", "wrong product", "wrong intent")) if luck < 0.3 else pick(rng, KINDS)
        text = write_reply(rng, example.meta, kind)
    elif luck < 0.8:
        kind = pick(rng, tuple(_DAMAGE))
        text = " ".join(
            _DAMAGE[kind](rng, write_reply(rng, example.meta, "helpful" if luck < 0.72 else "good").split())
        )
    else:
        kind = pick(rng, CHEATS)
        text = cheat(rng, example, kind, tokenizer)
    return Reply(kind, f" {text}" if text else "", preference(example.meta, text))


def draw(
    rng: np.random.Generator, split: Split, prompts: int, tokenizer: TextTokenizer, replies: int = REPLIES
) -> list[Group]:
    """Prompts of a split, each with replies."""
    task = ReplyTask()
    found: list[Group] = []
    while len(found) < prompts:
        example = task.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        if split_of(example.prompt) == split:
            found.append((example, [any_reply(rng, example, tokenizer) for _ in range(replies)]))
    return found


def judged(rng: np.random.Generator, preferences: np.ndarray) -> np.ndarray:
    """Whether the judge prefers the first reply of every pair of a group, shape ``(n, k)`` to ``(n, k * (k - 1) / 2)``."""
    first, second = np.triu_indices(preferences.shape[1], 1)
    chance = 1 / (1 + np.exp(preferences[:, second] - preferences[:, first]))
    return np.asarray(rng.random(chance.shape) < chance)


# ---- model ----------------------------------------------------------------------------------------------------------


def new_model(vocabulary: int, end: int, pad: int, seed: int) -> GPT2ForSequenceClassification:
    """A small GPT-2 with one label and random weights."""
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=4,
        activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=end, eos_token_id=end, pad_token_id=pad, initializer_range=0.05, dtype="float32",
    )  # fmt: skip
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = GPT2ForSequenceClassification(config)
        # The first layers' heads start as ones that look for the same token elsewhere: query and key are equal projections of
        # embeddings that outweigh those of positions. Whether prompt and reply name the same product is then learnt within a
        # hundred updates; from small random weights it was not within five hundred. Such first weights are those of
        # Trockman and Kolter 2023 (https://arxiv.org/abs/2305.09828).
        model.transformer.wte.weight *= 4
        layers: Any = model.transformer.h
        for layer in layers[: LAYERS - 1]:
            attention = layer.attn.c_attn.weight  # [C, 3 C]: query, key, value
            attention[:, :WIDTH] = attention[:, WIDTH : 2 * WIDTH] = 1.3 * torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    return model


def scores_of(
    model: GPT2ForSequenceClassification, tokenizer: TextTokenizer, groups: Sequence[Group]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the model makes of the replies to prompts.

    Returns:
        Raw scores, shape ``(n, k)``; the states before the last layer of all words that tell product or problem, shape
        ``(m, C)``; whether each of them is a misfit, shape ``(m,)``, 0 or 1.
    """
    prompts = tokenizer.encode_batch([example.prompt for example, _ in groups])
    texts = tokenizer.encode_batch([reply.text for _, replies in groups for reply in replies])
    size, telling = len(groups[0][1]), _telling_tokens(tokenizer)
    rows, places = [], []
    for i, text in enumerate(texts):
        example = groups[i // size][0]
        row = model_input(prompts[i // size], text, tokenizer.eos_token_id, POSITIONS)
        rows.append(row)
        places.append(_misfits(row, max(0, len(row) - 1 - len(text)), telling, example.meta))
    order = np.argsort([len(row) for row in rows], kind="stable")  # little padding where lengths are alike
    parts, states, wrong = [], [], []
    for chunk in np.array_split(order, max(1, len(rows) // _CHUNK)):
        lengths = [len(rows[i]) for i in chunk]
        ids = np.full((len(chunk), max(lengths)), tokenizer.eos_token_id)
        for padded, i in zip(ids, chunk, strict=True):
            padded[: len(rows[i])] = rows[i]  # padded on the right, where it has no effect
        output = model.transformer(input_ids=torch.from_numpy(ids), output_hidden_states=True)
        last = output.last_hidden_state[torch.arange(len(chunk)), torch.tensor(lengths) - 1]  # [B, C]
        parts.append(model.score(last)[:, 0])  # [B]
        found = [(k, place, flag) for k, i in enumerate(chunk) for place, flag in places[i]]
        states.append(output.hidden_states[LAYERS - 1][[k for k, _, _ in found], [place for _, place, _ in found]])
        wrong += [flag for _, _, flag in found]
    scores = torch.cat(parts)[torch.from_numpy(np.argsort(order))].view(len(groups), size)
    return scores, torch.cat(states), torch.tensor(wrong)


@cache
def _telling_tokens(tokenizer: TextTokenizer) -> dict[int, list[tuple[list[int], str]]]:
    """The tokens of every word that names a product or tells a solution, and the word, by the last of them."""
    found: dict[int, list[tuple[list[int], str]]] = {}
    for word in sorted({*GOODS, *(key for intent in INTENTS.values() for key in intent.keys)}):
        ids = tokenizer.encode(f" {word}")
        found.setdefault(ids[-1], []).append((ids, word))
    return found


def _misfits(
    row: list[int], start: int, telling: dict[int, list[tuple[list[int], str]]], meta: Mapping[str, Any]
) -> list[tuple[int, float]]:
    """Places of the telling words of a row from ``start`` on, and whether each is a misfit (1) or not (0)."""
    own = {meta["product"], *INTENTS[meta["intent"]].keys}
    return [
        (place, float(word not in own))
        for place in range(start, len(row))
        for ids, word in telling.get(row[place], ())
        if row[max(0, place + 1 - len(ids)) : place + 1] == ids
    ]


def train(model: GPT2ForSequenceClassification, tokenizer: TextTokenizer, steps: int, batch: int, seed: int) -> None:
    """Bradley and Terry's loss, ``-log sigmoid(score of the preferred - score of the other)``, over all pairs of a group."""
    rng = np.random.default_rng([seed, 1])
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = torch.nn.Sequential(torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 1))
    others += head.parameters()
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=LEARNING_RATE, betas=(0.9, 0.98),
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / WARM_UP, max(0.02, (steps - i) / max(1, steps - WARM_UP)))
    )
    first, second = np.triu_indices(REPLIES, 1)
    start, recent = time.perf_counter(), []
    for step in range(steps):
        groups = draw(rng, "train", batch, tokenizer)
        won = judged(rng, np.array([[reply.preference for reply in replies] for _, replies in groups]))
        scores, states, wrong = scores_of(model, tokenizer, groups)
        margins = scores[:, first] - scores[:, second]  # [B, pairs]
        loss = torch.nn.functional.softplus(torch.where(torch.from_numpy(won), -margins, margins)).mean()
        misfit_loss = torch.nn.functional.binary_cross_entropy_with_logits(head(states)[:, 0], wrong)
        optimizer.zero_grad()
        (loss + misfit_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append((loss.item(), misfit_loss.item()))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            seconds = time.perf_counter() - start
            left = seconds / (step + 1) * (steps - step - 1)
            print(f"step {step + 1}/{steps}  loss {np.mean(recent, axis=0).round(4)}  {left:.0f} s left", flush=True)
            recent = []


@torch.no_grad()
def set_zero(model: GPT2ForSequenceClassification, tokenizer: TextTokenizer, seed: int) -> None:
    """Shifts all scores so that replies that are half right have a mean of 0; differences, all that was learned, stay."""
    rng, task = np.random.default_rng([seed, 2]), ReplyTask()
    groups: list[tuple[Example, list[Reply]]] = []
    while len(groups) < 256:
        example = task.sample(rng, "normal")
        if split_of(example.prompt) == "train":
            texts = [write_reply(rng, example.meta, kind) for kind in _HALF_RIGHT]
            groups.append((example, [Reply("half", f" {text}", 0.0) for text in texts]))
    weight = model.score.weight[0]
    # The classifier has no bias; along its own direction, that of the last norm is one.
    bias: torch.Tensor = model.transformer.ln_f.bias
    bias.sub_(weight * scores_of(model, tokenizer, groups)[0].mean() / weight.square().sum())


def save(model: GPT2ForSequenceClassification, tokenizer: Path, folder: Path, record: dict[str, str]) -> None:
    """Writes configuration, weights (float16) and a copy of the tokenizer, so that the folder stands by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt", **record})
    model.config.architectures = [type(model).__name__]
    text = model.config.to_json_string(use_diff=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    settings = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    compact = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    shutil.copyfile(ASSETS / "tokenizer_config.json", folder / "tokenizer_config.json")


# ---- measurement ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on held-out prompts; every field is a share or a probability unless it says otherwise.

    Attributes:
        pairs: Number of pairs of replies.
        accuracy: Pairs in which the model prefers the reply that the judge likes better, noise aside.
        accuracy_noisy: The same against single comparisons.
        accuracy_judge: How often single comparisons agree with the judge himself: as good as ``accuracy_noisy`` can get.
        calibration_error: Mean distance of predicted probability and observed frequency, over ten bins of probability.
        correlation: Pearson's, of raw scores and the judge's ``u``.
        rewards: Mean reward of every kind of reply.
    """

    pairs: int
    accuracy: float
    accuracy_noisy: float
    accuracy_judge: float
    calibration_error: float
    correlation: float
    rewards: dict[str, float]


def measure(folder: Path, seed: int, prompts: int) -> Figures:
    """Figures of the model as it was saved, on prompts of the test split."""
    reward, tokenizer = ReplyPreference(folder), load_tokenizer(folder)
    rng = np.random.default_rng([seed, 3])
    groups = draw(rng, "test", prompts, tokenizer)
    flat = [(example, reply) for example, replies in groups for reply in replies]
    logits = reward.logits([Completion(e.prompt, r.text) for e, r in flat]).astype(np.float64)
    scores = logits.reshape(prompts, REPLIES)
    liked = np.array([reply.preference for _, reply in flat]).reshape(prompts, REPLIES)
    first, second = np.triu_indices(REPLIES, 1)
    margins, truth = scores[:, first] - scores[:, second], liked[:, first] - liked[:, second]
    won, different = judged(rng, liked), np.abs(truth) > 1e-9
    predicted = 1 / (1 + np.exp(-margins))
    bins = np.minimum(9, (predicted * 10).astype(int))
    gaps = [(np.sum(bins == b), abs(predicted[bins == b].mean() - won[bins == b].mean())) for b in np.unique(bins)]
    kinds: dict[str, list[float]] = {}
    for (_, reply), score in zip(flat, logits, strict=True):
        kinds.setdefault(reply.kind, []).append(1 / (1 + np.exp(-score)))
    return Figures(
        pairs=margins.size,
        accuracy=float(np.mean((margins > 0) == (truth > 0), where=different)),
        accuracy_noisy=float(np.mean((margins > 0) == won)),
        accuracy_judge=float(np.mean((truth > 0) == won, where=different)),
        calibration_error=float(sum(count * gap for count, gap in gaps) / margins.size),
        correlation=float(np.corrcoef(logits, liked.ravel())[0, 1]),
        rewards={kind: float(np.mean(kinds[kind])) for kind in (*KINDS, *_DAMAGE, *CHEATS) if kind in kinds},
    )


def card(figures: Figures, record: Mapping[str, str]) -> str:
    """The text of the folder's README."""
    rows = "\n".join(f"| {kind} | {reward:.2f} |" for kind, reward in figures.rewards.items())
    options = f"--steps {record['steps']} --seed {record['seed']}"
    return f"""# The reward model of TextGen-Reply-v0

A `GPT2ForSequenceClassification` with {LAYERS} layers of width {WIDTH} and one label, trained on simulated comparisons of
replies of a support agent. It reads prompt, reply and end token, and gives a score in log-odds; the reward is its
sigmoid, the probability that the reply is preferred to one that is half right.
`textgym.rewards.reply_preference.ReplyPreference` runs it without torch. The tokenizer is a copy of the bundled one.
Written by

    python -m textgym_agents.pretrain.build_reply_reward --out textgym/assets/reply_reward {options}

on {record["date"]}: {record["steps"]} updates of {record["batch"]} prompts with {REPLIES} replies each,
{record["seconds"]} s on {record["threads"]} threads.

## Measured

On {figures.pairs:,} pairs of replies to prompts of the test split:

| | |
|---|---|
| pairwise accuracy, against the judge | {figures.accuracy:.3f} |
| pairwise accuracy, against single (noisy) comparisons | {figures.accuracy_noisy:.3f} |
| the judge himself against single comparisons | {figures.accuracy_judge:.3f} |
| calibration error | {figures.calibration_error:.3f} |
| correlation of score and the judge's liking | {figures.correlation:.3f} |

## Mean reward by kind of reply

| kind | reward |
|---|---|
{rows}

## Limits

It knows one shop, thirty products and thirteen problems, and the judge is a rule
(`textgym.tasks.reply.preference`). Away from the texts it was trained on, its scores mean nothing.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures and writes the card."""
    parser = argparse.ArgumentParser(description="Train the bundled reward model of TextGen-Reply-v0.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--steps", type=int, default=2000, help="updates")
    parser.add_argument("--batch", type=int, default=16, help="prompts in an update")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", default="bundled", help="'bundled' or a folder; a copy is kept with the model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=1000, help="held-out prompts to measure on")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    source = ASSETS if options.tokenizer == "bundled" else Path(options.tokenizer)
    tokenizer = load_tokenizer(options.tokenizer)
    model = new_model(tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.pad_token_id, options.seed)
    start = time.perf_counter()
    train(model, tokenizer, options.steps, options.batch, options.seed)
    set_zero(model, tokenizer, options.seed)
    record = {
        "steps": str(options.steps), "batch": str(options.batch), "seed": str(options.seed),
        "threads": str(options.threads), "seconds": f"{time.perf_counter() - start:.0f}",
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    save(model, source, options.out, record)
    figures = measure(options.out, options.seed, options.prompts)
    for name in ("pairs", "accuracy", "accuracy_noisy", "accuracy_judge", "calibration_error", "correlation"):
        print(f"{name:20} {getattr(figures, name):.4g}")
    for kind, reward in figures.rewards.items():
        print(f"reward of {kind:20} {reward:.3f}")
    (options.out / "README.md").write_text(card(figures, record), encoding="utf-8")


if __name__ == "__main__":
    main()
