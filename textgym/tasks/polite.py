"""TextGen-Polite-v0: say a rude message politely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MeanMetric, Metric
from textgym.metrics.bleu import BLEU
from textgym.metrics.chrf import CHRF
from textgym.rewards import Reward
from textgym.tasks._polite_words import (
    EASY,
    HARD,
    INSULTING,
    INSULTS,
    NORMAL,
    POLITE,
    REQUESTS,
    SWEARING,
    TIMES,
    TYPICAL,
    asks_politely,
    is_rude,
)
from textgym.tasks._writing import capitalized, pick
from textgym.tasks.base import Task

_VERBS = tuple(REQUESTS)


class Politeness(MeanMetric):
    """1 for a text that asks politely; a half for one that is only not rude; 0 for a rude one, and for the empty text.

    Rude is an exclamation mark or a word of a list of insults and swear words; polite is a phrase such as "could you"
    or "please", though not one over and over.
    """

    name = "politeness"
    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [
            0.0 if not c.text.strip() or is_rude(c.text) else 1.0 if asks_politely(c.text) else 0.5 for c in completions
        ]


_BLEU = BLEU()
_REWARD = Politeness() * _BLEU


class PoliteTask(Task):
    """Say a rude message politely.

    ## Description

    The prompt is a rude request, with insults and swear words; the policy asks for the same thing in a polite way. The
    style has to change and the meaning to stay: what is asked for, and when. It stands for style transfer and
    detoxification.

    Four in ten of the answers that the bundled model has read are polite and complete. Others are curt, forget when or
    what, or are as rude as the message.

    ## Starting State

    A message such as "Rude: Shut up and bring me the damn keys today!", drawn with the environment's own random
    generator.

    ## Rewards

    0 on every step but the last. On the last, `politeness * bleu`:

    * `politeness`: 1 for a text that asks politely ("could you", "please", …), 0.5 for one that is only not rude, 0
      for a rude one;
    * `bleu`: sentence BLEU against three polite versions: is the meaning kept, in proper words?

    ## Information

    On the last step: `prompt`, `completion`, `references` (polite versions), `finish_reason`, `is_success` (polite,
    and the words of one of the references), `reward/politeness`, `reward/bleu`.

    ## Arguments

    `difficulty`: `"easy"` (one insult at the beginning or the end), `"normal"` (insults and swear words all over),
    `"hard"` (two requests at once). A text of your own is put behind "Rude: "; it needs references, polite versions of
    it.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Polite-v0"
    template = "Rude: {prompt}\nPolite:"
    max_prompt_tokens = 48
    max_new_tokens = 32
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.61

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the request without style."""
        form = pick(rng, {"easy": EASY, "normal": NORMAL, "hard": HARD}[difficulty])
        (verb, thing), (other_verb, other_thing), time = _request(rng), _request(rng), pick(rng, TIMES)
        while other_verb == verb:
            other_verb, other_thing = _request(rng)
        swearing = difficulty != "easy" and rng.random() < 0.6
        said = {
            "request": f"{verb} {_sworn(rng, thing) if swearing else thing}",
            "time": time,
            "other": f"{other_verb} {other_thing}",
            "insult": pick(rng, INSULTS),
            "insulting": pick(rng, INSULTING),
        }
        said["Request"] = capitalized(said["request"])
        rest = f"{verb} {thing} {time}"
        if "{other}" in form:
            at_the_end = form.index("{time}") > form.index("{other}")
            rest = f"{verb} {thing} and {said['other']} {time}" if at_the_end else f"{rest} and {said['other']}"
        prompt = self.template.format(prompt=capitalized(form.format(**said)))
        return Example(prompt, tuple(p.format(rest=rest) for p in POLITE), {"request": rest})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in four of ten cases."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        rest, kind = example.meta["request"], rng.random()
        if kind < 0.15:  # something else is asked for, or at another time
            verb, thing = _request(rng)
            words = rest.split()
            rest = (
                f"{verb} {thing} {pick(rng, TIMES)}"
                if rng.random() < 0.3
                else " ".join([*words[:-1], pick(rng, TIMES)])
            )
        elif kind < 0.3:  # something is forgotten
            rest = rest.rsplit(" ", 2 if rng.random() < 0.5 else 1)[0]
        if kind < 0.3 or kind > 0.6:
            return f"{example.prompt} {pick(rng, POLITE).format(rest=rest)}"
        if kind < 0.5:
            return f"{example.prompt} {pick(rng, TYPICAL).format(rest=rest, Rest=capitalized(rest))}"
        return f"{example.prompt} {capitalized(rest)}, you {pick(rng, INSULTS)}!"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference."""
        return f" {example.references[0] if example.references else 'Could you please help me?'}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`."""
        return (Politeness(), _BLEU, CHRF())

    def is_success(self, completion: Completion) -> bool | None:
        """Whether it is polite and says what a reference says."""
        said = " ".join(completion.text.casefold().split())
        return not is_rude(said) and said in {" ".join(r.casefold().split()) for r in completion.references}


def _request(rng: np.random.Generator) -> tuple[str, str]:
    verb = pick(rng, _VERBS)
    return verb, pick(rng, REQUESTS[verb])


def _sworn(rng: np.random.Generator, thing: str) -> str:
    first, rest = thing.split(" ", 1)
    return f"{'a' if first == 'a' else first} {pick(rng, SWEARING)} {rest}"
