"""TextGen-Reply-v0: write the next turn of a support dialogue, as a trained reward model likes it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import Metric
from textgym.metrics.diversity import DistinctN
from textgym.rewards import Repetition, Reward
from textgym.rewards.reply_preference import ReplyPreference
from textgym.tasks._reply_words import (
    ASKS,
    GENERIC,
    GOODS,
    GREETINGS,
    INTENTS,
    NEXT,
    NUMBER,
    OFF_TOPIC,
    OPENINGS,
    POLITE_WORDS,
    RUDE,
    RUDE_WORDS,
    SIDE,
    STEP_WORDS,
    STEPS,
    STEPS_IN_HAND,
    VAGUE,
    WHAT,
    WHEN,
)
from textgym.tasks._writing import NAMES, WEEKDAYS, fill, pick
from textgym.tasks.base import Task

_REWARD = ReplyPreference() - Repetition()

KINDS = ("helpful", "good", "half", "generic", "wrong product", "wrong intent", "rude", "off topic", "echo")
"""Kinds of replies that the generator writes, see :func:`write_reply`."""

_TABLES: dict[str, Sequence[str]] = {"day": WEEKDAYS, "when": WHEN, "name": NAMES}
_PIECES = re.compile(r"\w+|[.?!]")
_KEYS = {key: name for name, intent in INTENTS.items() for key in intent.keys}
_SAME = {
    **{product: "{p}" for product in GOODS},
    **{day.lower(): "{day}" for day in WEEKDAYS},
}


class ReplyTask(Task):
    """Write the next turn of the agent in a support dialogue.

    ## Description

    Dialogue and learning from human feedback in small. A customer of a shop has a problem, one of thirteen (a late
    delivery, a refund, a forgotten password, ...), with one of thirty products; after one to three turns it is the
    agent's turn:

        Customer: It is about my kettle.
        Agent: What is wrong with it?
        Customer: It came broken.
        Agent: I am sorry about that. We will replace the kettle for free. I will call you on Monday.

    What a good answer is, no rule says: a reward model does, which was trained on comparisons of pairs of answers, as in
    Christiano et al. 2017 (https://arxiv.org/abs/1706.03741) and Ouyang et al. 2022
    (https://arxiv.org/abs/2203.02155). The judge who compared them is simulated (:func:`preference`), and errs at
    random as a Bradley-Terry judge does. He likes an
    answer that solves the problem, names the product, is polite and says what happens next.

    ## Starting State

    A dialogue such as the one above, up to and including the last `Agent:`.

    ## Rewards

    0 on every step but the last. On the last, `reply_preference - repetition`. The first, in [0, 1], is the reward
    model's probability that its judge prefers the answer to one that is half right (see
    :class:`textgym.rewards.reply_preference.ReplyPreference`). The model is small (three layers), is bundled, and is
    only a model: what pleases it without helping the customer is this task's lesson on reward hacking; compare
    `is_success` with the reward.

    ## Information

    On the last step: `prompt`, `completion`, `references` (a good answer), `finish_reason`, `is_success` (a rule, not the
    model: the answer names the product and no other, has a word that only a solution of the problem has, such as
    *refund*, and none of another solution, is not rude, not
    what the customer said, and at least two thirds of its neighbouring words stand next to each other in the language
    of the shop's agents), `reward/reply_preference`, `reward/repetition`.

    ## Arguments

    `difficulty`: `"easy"` (one turn that names problem and product), `"normal"` (also a greeting before, or the
    product in the first turn and the problem in the last one), `"hard"` (another product or another, settled problem
    comes first). With `prompts=` it runs on a user's own dialogues; the reward model knows this shop only.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Reply-v0"
    max_prompt_tokens = 96
    max_new_tokens = 48
    min_new_tokens = 1
    difficulties = ("easy", "normal", "hard")
    template = "Customer: {prompt}\nAgent:"
    random_score = 0.0
    oracle_score = 0.93
    base_score = 0.59

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`.

        ``meta`` has the ``intent`` (the problem), the ``product``, what the customer ``said`` of it, and
        ``other_product``, one that was named before (or "").
        """
        intent, product = _problem(rng)
        turns, said, other = _dialogue(rng, intent, product, difficulty)
        speakers = ("Customer", "Agent")
        prompt = "\n".join(f"{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns)) + "\nAgent:"
        meta = {"intent": intent, "product": product, "said": said, "other_product": other}
        return Example(prompt, (_best(prompt, meta),), meta)

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: about 45% are helpful, the others anything from good to rude."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        luck = rng.random()
        kind = "helpful" if luck < 0.38 else KINDS[1 + int(rng.random() * (len(KINDS) - 1))]
        return f"{example.prompt} {write_reply(rng, example.meta, kind)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: an apology, what is done about the problem, and the next step."""
        if example.references:
            return f" {example.references[0]}"
        return (
            f" {_best(example.prompt, example.meta) if _known(example.meta) else ' '.join((OPENINGS[0], GENERIC[0]))}"
        )

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`."""
        return (DistinctN(),)

    def is_success(self, completion: Completion) -> bool | None:
        """Whether problem and product are addressed, by the rule above; ``None`` where they are not known."""
        if not _known(completion.meta):
            return None
        words = _words(completion.text)
        goods = {word for word in words if word in GOODS}
        answered = {_KEYS[word] for word in words if word in _KEYS}
        addressed = goods == {completion.meta["product"]} and answered == {completion.meta["intent"]}
        sound = _disorder(completion.text) <= 1 / 3 and _echo(completion.meta, words) <= 1 / 3
        return addressed and sound and not _is_rude(words)


# ---- dialogues ------------------------------------------------------------------------------------------------------


def _problem(rng: np.random.Generator, other_than: tuple[str, str] = ("", "")) -> tuple[str, str]:
    """An intent and a product, both others than those given."""
    while True:
        intent = pick(rng, _INTENT_NAMES)
        product = pick(rng, INTENTS[intent].goods)
        if intent != other_than[0] and product != other_than[1]:
            return intent, product


_INTENT_NAMES = tuple(INTENTS)


def _dialogue(rng: np.random.Generator, intent: str, product: str, difficulty: str) -> tuple[list[str], str, str]:
    """The turns so far, the customer's first; what of them tells the problem; another product that was named, if any."""
    tables = {**_TABLES, "p": (product,), "name": (pick(rng, NAMES),), "number": (str(100 + int(900 * rng.random())),)}
    problem = fill(rng, pick(rng, INTENTS[intent].problems), tables)
    about_it = fill(rng, pick(rng, INTENTS[intent].about_it), tables)
    luck = rng.random()
    if difficulty == "easy" or (difficulty == "normal" and luck < 0.2):
        return [f"{problem} {fill(rng, pick(rng, NUMBER), tables)}"], problem, ""
    if difficulty == "normal":
        if luck < 0.55:
            return [fill(rng, pick(rng, GREETINGS), tables), fill(rng, pick(rng, ASKS), tables), problem], problem, ""
        first = f"{fill(rng, pick(rng, GREETINGS), tables)} {fill(rng, pick(rng, VAGUE), tables)}"
        return [first, pick(rng, WHAT), about_it], about_it, ""
    before, product_before = _problem(rng, (intent, product))
    tables["q"] = (product_before,)
    if luck < 0.5:
        first = f"{fill(rng, pick(rng, SIDE), tables)} {fill(rng, pick(rng, VAGUE), tables)}"
        return [first, pick(rng, WHAT), about_it], about_it, product_before
    earlier = {**tables, "p": (product_before,)}
    first = fill(rng, pick(rng, INTENTS[before].problems), earlier)
    answer = fill(rng, pick(rng, INTENTS[before].actions), earlier)
    return [first, answer, f"{pick(rng, NEXT)} {problem}"], problem, product_before


def write_reply(rng: np.random.Generator, meta: Mapping[str, Any], kind: str) -> str:
    """A reply of the agent, without the space before it.

    Args:
        rng: Draws the sentences.
        meta: Of an example of :class:`ReplyTask`.
        kind: One of :data:`KINDS`: ``"helpful"`` (opening, action, next step), ``"good"`` (opening or next step is left
            out), ``"half"`` (the product is not named), ``"generic"`` (neither problem nor product is addressed),
            ``"wrong product"``, ``"wrong intent"``, ``"rude"``, ``"off topic"``, ``"echo"`` (what the customer said).
    """
    intent, product = meta["intent"], meta["product"]
    opening, steps = pick(rng, OPENINGS), STEPS + STEPS_IN_HAND * INTENTS[intent].in_hand
    step = pick(rng, steps)
    action = pick(rng, INTENTS[intent].actions)
    if kind in ("wrong product", "wrong intent"):
        other, other_product = _problem(rng, (intent, product))
        if kind == "wrong product":
            product = meta.get("other_product") or other_product
        else:
            action = pick(rng, INTENTS[other].actions)
    if kind == "good":
        sentences = [opening, action] if rng.random() < 0.5 else [action, step]
    elif kind == "half":
        sentences = [opening, pick(rng, INTENTS[intent].bare_actions), step][int(rng.random() * 2) :]
    elif kind == "generic":
        sentences = [opening, pick(rng, GENERIC), step][int(rng.random() * 2) :][: 1 + int(rng.random() * 3)]
    elif kind == "rude":
        sentences = [pick(rng, RUDE), *([action] if rng.random() < 0.3 else [])]
    elif kind == "off topic":
        sentences = [opening, pick(rng, OFF_TOPIC), step][int(rng.random() * 2) :][: 1 + int(rng.random() * 3)]
    elif kind == "echo":
        sentences = [*([opening] if rng.random() < 0.3 else []), str(meta["said"])]
    else:
        sentences = [opening, action, step]
    return fill(rng, " ".join(sentences), {**_TABLES, "p": (product,)})


def _best(prompt: str, meta: Mapping[str, Any]) -> str:
    """A helpful reply, the same for the same prompt."""
    return write_reply(np.random.default_rng(zlib.crc32(prompt.encode())), meta, "helpful")


# ---- the judge ------------------------------------------------------------------------------------------------------


def preference(meta: Mapping[str, Any], text: str) -> float:
    """How much the simulated judge likes a reply: about 6 at best, below 0 for what is no reply.

    Of two replies with ``u`` and ``v`` he prefers the first with probability ``1 / (1 + exp(v - u))`` (Bradley and Terry
    1952). The reward model was trained on such choices alone; neither the reward nor the environment looks in here.
    The sum of

    * 2.5 if a word occurs that only a solution of this problem has, less 1 for every other problem with such a word
      (at most 3);
    * 2.5 if the product is named, less 1.5 for every other product (at most 3);
    * 0.5 for a polite word, 0.5 for a next step (a day, "a photo", "call", ...);
    * minus 3 if it is rude;
    * minus 8 times the share of neighbouring words that no agent of this shop has said next to each other (up to
      product and day);
    * minus 3 times the share of word trigrams that came before in it, and of those that the customer has just said;
    * minus 0.4 for every word below 6, and 0.3 for every word above 22 (at most 3 each).

    Args:
        meta: Of an example of :class:`ReplyTask`: ``intent``, ``product``, ``said``.
        text: The reply.
    """
    words = _words(text)
    goods = {word for word in words if word in GOODS}
    answered = {_KEYS[word] for word in words if word in _KEYS}
    score = 0.0
    score += 2.5 * (meta["intent"] in answered) - min(3.0, 1.0 * len(answered - {meta["intent"]}))
    score += 2.5 * (meta["product"] in goods) - min(3.0, 1.5 * len(goods - {meta["product"]}))
    score += 0.5 * (not POLITE_WORDS.isdisjoint(words)) + 0.5 * (not STEP_WORDS.isdisjoint(words))
    score -= 3.0 * _is_rude(words)
    score -= 8.0 * _disorder(text)
    trigrams = _trigrams(words)
    if trigrams:
        score -= 3.0 * (1 - len(set(trigrams)) / len(trigrams)) + 3.0 * _echo(meta, words)
    count = len(words)
    return score - min(3.0, 0.4 * max(0, 6 - count)) - min(3.0, 0.3 * max(0, count - 22))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _is_rude(words: Sequence[str]) -> bool:
    return not RUDE_WORDS.isdisjoint(words) or "not my problem" in " ".join(words)


def _trigrams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + 3]) for i in range(len(words) - 2)]


def _disorder(text: str) -> float:
    """Share of neighbouring words that no agent has said next to each other, in [0, 1]."""
    pairs = _pairs(text)
    return sum(pair not in _known_pairs() for pair in pairs) / len(pairs)


def _echo(meta: Mapping[str, Any], words: Sequence[str]) -> float:
    """Share of word trigrams that the customer has just said, in [0, 1]."""
    said, trigrams = set(_trigrams(_words(str(meta.get("said", ""))))), _trigrams(words)
    return sum(trigram in said for trigram in trigrams) / len(trigrams) if trigrams else 0.0


def _pairs(text: str) -> list[tuple[str, str]]:
    """Neighbouring words and full stops, the beginning and the end among them; products and days are all the same."""
    pieces = [_SAME.get(piece.lower(), piece.lower()) for piece in _PIECES.findall(text)]
    return list(zip([".", *pieces], [*pieces, "end"], strict=True))


@cache
def _known_pairs() -> frozenset[tuple[str, str]]:
    actions = [x for i in INTENTS.values() for x in i.actions + i.bare_actions]
    sentences: Iterable[str] = (*OPENINGS, *STEPS, *STEPS_IN_HAND, *GENERIC, *RUDE, *OFF_TOPIC, *actions)
    found = set()
    for sentence in sentences:
        found.update(_pairs(sentence.replace("{p}", GOODS[0]).replace("{day}", WEEKDAYS[0])))
    return frozenset(found)


def _known(meta: Mapping[str, Any]) -> bool:
    return meta.get("intent") in INTENTS and meta.get("product") in GOODS
