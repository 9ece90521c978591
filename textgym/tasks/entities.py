"""TextGen-Entities-v0: rewrite a sentence with its entities bracketed and typed."""

from __future__ import annotations

import re

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import Metric
from textgym.metrics.entities import EntityF1, parse_entities
from textgym.rewards import Reward
from textgym.tasks import _entities_words as words
from textgym.tasks._writing import pick
from textgym.tasks.base import Task

_LEVELS = {
    "easy": (words.EASY, words.EASY_SENTENCES),
    "normal": (words.NORMAL, words.NORMAL_SENTENCES),
    "hard": (words.HARD, words.HARD_SENTENCES),
}
_TYPES = {"easy": ("PER", "LOC", "ORG"), "normal": ("PER", "LOC", "ORG"), "hard": ("PER", "LOC", "ORG", "DATE", "MISC")}
_SLOT = re.compile(r"\{(\w+)\}")
_ENTITY = re.compile(r"\[([A-Z]+) ([^\]]+)\]")


_BOUNDARY, _TYPE = EntityF1("boundary"), EntityF1("type")
_REWARD = 0.4 * _BOUNDARY + 0.6 * _TYPE


class EntitiesTask(Task):
    """Rewrite a sentence with its entities bracketed and typed.

    ## Description

    Named-entity recognition as text generation: the prompt is a sentence of 4 to 12 words, its marks set off by spaces; the
    policy copies it and puts every entity into brackets, with its type in front:

        Text: Anna Novak works for Solaris in Rome .
        Tagged: [PER Anna Novak] works for [ORG Solaris] in [LOC Rome] .

    The types are those of CoNLL 2003, `PER`, `LOC`, `ORG`, and at the hard level `MISC` (nationalities) and `DATE`. Names
    mislead: Oslo is a place, but Oslo University is not, and at the hard level Washington, Florence, Ford and June are all
    the names of persons too, so that only the words around tell what is meant.

    The sentences are written by a generator of this repository, about 200 different words.

    ## Starting State

    A prompt of the split (`train`, `dev` and `test` share none), drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `0.4 * boundary_f1 + 0.6 * entity_f1`, in [0, 1]:

    * `boundary_f1`: F1 of the entities found, whatever type they were given;
    * `entity_f1`: F1 of the entities found with the right type.

    Both are 0 if a word of the sentence is changed, left out, added or moved. So is copying it without tags.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the tagged sentence), `finish_reason`, `is_success` (exactly the
    right tags), `reward/boundary_f1`, `reward/entity_f1`. An example's `meta` has `entities`, pairs of type and
    text.

    ## Arguments

    `difficulty`: `"easy"` (names of one word, one or two a sentence), `"normal"` (names of one to three words, up to three a
    sentence), `"hard"` (five types, and most names could be of several). With `prompts=` it runs on anybody's own sentences:
    `prompt` is the sentence, `references` the tagged one, in the same notation, with types of any names.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Entities-v0"
    max_prompt_tokens = 32
    max_new_tokens = 36
    difficulties = ("easy", "normal", "hard")
    template = "Text: {prompt}\nTagged:"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.69

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the entities."""
        tagged = _write(rng, difficulty)
        entities = [[kind, name] for kind, name in _ENTITY.findall(tagged)]
        sentence = " ".join(parse_entities(tagged).words)
        return Example(self.template.format(prompt=sentence), (tagged,), {"entities": entities})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in half of them; else a wrong type, a tag that is missing or misplaced, none."""
        difficulty = pick(rng, ("easy", "normal", "normal", "hard"))
        example = self.sample(rng, difficulty)
        tagged, luck = example.references[0], rng.random()
        if luck >= 0.92:
            tagged = " ".join(parse_entities(tagged).words)
        elif luck >= 0.5:
            for kind, name in example.meta["entities"]:
                if rng.random() < 0.6:
                    tagged = tagged.replace(f"[{kind} {name}]", _mistake(rng, kind, name, difficulty), 1)
        return f"{example.prompt} {tagged}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference; nothing where there is none."""
        return f" {example.references[0].strip()}" if example.references else ""

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`: F1 with and without the types."""
        return _TYPE, _BOUNDARY

    def is_success(self, completion: Completion) -> bool | None:
        """Whether everything is tagged as in the first reference; ``None`` without references."""
        if not completion.references:
            return None
        return parse_entities(completion.text) == parse_entities(completion.references[0])


def _write(rng: np.random.Generator, difficulty: str) -> str:
    tables, sentences = _LEVELS[difficulty]
    used: set[str] = set()

    def entity(slot: re.Match[str]) -> str:
        if slot[1] in ("end", "now"):
            return pick(rng, words.ENDS if slot[1] == "end" else words.NOW)
        name = ""
        while not name or name in used:
            name = pick(rng, tables[slot[1]])
            while "{" in name:
                name = _SLOT.sub(lambda inner: pick(rng, tables[inner[1]]), name)
        used.add(name)
        return f"[{'DATE' if slot[1] == 'MONTH' else slot[1]} {name}]"

    return " ".join(_SLOT.sub(entity, pick(rng, sentences)).split()) + " ."


def _mistake(rng: np.random.Generator, kind: str, name: str, difficulty: str) -> str:
    """An entity as one gets it wrong: another type, no tag, half of the name."""
    luck, parts = rng.random(), name.split()
    if luck < 0.5:
        return f"[{pick(rng, [other for other in _TYPES[difficulty] if other != kind])} {name}]"
    if luck < 0.75 and len(parts) > 1:
        return f"[{kind} {parts[0]}] {' '.join(parts[1:])}"
    return name
