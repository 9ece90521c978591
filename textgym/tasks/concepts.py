"""TextGen-Concepts-v0: write a sentence that uses given words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import Metric, MetricError
from textgym.metrics.bleu import BLEU
from textgym.metrics.cider import CIDEr
from textgym.metrics.coverage import Coverage
from textgym.metrics.fluency import Fluency
from textgym.rewards import Reward
from textgym.rewards.base import Scores
from textgym.rewards.word_order import Slips
from textgym.tasks._concepts_words import ANIMAL_DEEDS, ANIMALS, DEEDS, NATURES, PEOPLE, PLACES, STATES, third_person
from textgym.tasks._writing import pick, with_article
from textgym.tasks.base import Task

Scene = dict[str, str]
"""What a sentence tells: `who`, `deed`, and perhaps `nature`, `what`, `place`."""

# Which words of a scene are given; "state" stands for a deed that nothing is done to.
_GIVEN = {
    "easy": ("who what", "what place", "who state", "who deed", "deed what"),
    "normal": ("who what place",) * 4
    + ("who deed what", "who state place", "deed what place", "nature who what", "nature who state"),
    "hard": ("who deed what place", "nature who what place", "nature who deed what", "nature who deed what place"),
}
_START = re.compile(r"^\s*Words:\s*")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE = re.compile(r"\s*[^\W\d_a-z][^.!?\n]*[.!?]\s*")


class GivenWords(Reward):
    """Share of the given words that the text uses, with -s, -ed or -ing if it likes, in [0, 1]; each counts once.

    The words are ``meta["words"]`` or ``meta["concepts"]``; where there are none, those of the prompt ("Words: dog, ball").
    """

    name = "coverage"
    range = (0.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`.

        Raises:
            MetricError: The prompt has no words.
        """
        return _COVERAGE([replace(c, meta={**c.meta, "words": given_words(c.prompt, c.meta)}) for c in completions])


class OneSentence(Reward):
    """1 for a single sentence of reasonable length, 1/2 for anything else, 0 for an empty text.

    A sentence begins with a capital letter and ends with its only full stop, exclamation or question mark. For ``k`` given
    words (see :class:`GivenWords`) it has ``k + 1`` to ``3 * k + 4`` words.
    """

    name = "one_sentence"
    range = (0.0, 1.0)

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """See :meth:`Reward.__call__`.

        Raises:
            MetricError: The prompt has no words.
        """
        scores = np.zeros(len(completions), dtype=np.float32)
        for i, c in enumerate(completions):
            given, count = len(given_words(c.prompt, c.meta)), len(_WORD.findall(c.text))
            whole = _SENTENCE.fullmatch(c.text) is not None and given < count <= 3 * given + 4
            scores[i] = 1.0 if whole else 0.5 if count else 0.0
        return scores


_COVERAGE, _GIVEN_WORDS, _ONE_SENTENCE, _SLIPS = Coverage(inflected=True), GivenWords(), OneSentence(), Slips()
_BLEU, _CIDER = BLEU(), CIDEr()


class ConceptsTask(Task):
    """Write a sentence that uses given words.

    ## Description

    Generation under constraints, in the style of CommonGen (Lin et al. 2020): the prompt lists two to five words in any order,
    the policy writes one sentence that uses them all and reads well. Words may be inflected ("chase", "chases").

        Words: park, dog, ball
        Sentence: The dog chases the ball in the park.

    What is not given has to be made up (above, the verb). The scenes are drawn by a generator of this repository from about
    150 words: persons and animals, what they are like, what they do to which things, and where.

    ## Starting State

    A prompt of the split (`train`, `dev` and `test` share none), drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `coverage * one_sentence * (0.4 + 0.6 * fluency)`, in [0, 1]:

    * `coverage`: the share of the given words that the text uses;
    * `one_sentence`: 1 for a single sentence of at most `3 * k + 4` words for `k` given ones, else 1/2;
    * `fluency`: how probable the bundled language model finds the text after its prompt, in [0, 1], see
      :class:`textgym.metrics.fluency.Fluency`: from -4 nats a token, which is 0, to -1, which is 1, as is all above.

    A list of the words, or the right words in a wrong order, is covered but not fluent.

    ## Information

    On the last step: `prompt`, `completion`, `references` (two or three sentences about the scene that the words were
    taken from), `finish_reason`, `is_success` (one sentence with all the words, without an evident slip of word order; the
    language model is not asked), and the parts of the reward as above, under `reward/`. An example's `meta` has `words`.

    ## Arguments

    `difficulty`: `"easy"` (two words), `"normal"` (three), `"hard"` (four or five). With `prompts=` it runs on anybody's own
    words: `prompt` is a text like "dog, ball, park" (or `meta` has `words` or CommonGen's `concepts`), `references` are
    optional. The bundled model knows no other words than the tasks', so for those give a `reward` of your own, with
    :class:`textgym.metrics.LMScore` of a larger model in place of fluency.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Concepts-v0"
    max_prompt_tokens = 24
    max_new_tokens = 20
    difficulties = ("easy", "normal", "hard")
    template = "Words: {prompt}\nSentence:"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.73

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the words."""
        given = pick(rng, _GIVEN[difficulty]).split()
        scene = _draw(rng, given)
        words = [scene["deed" if key == "state" else key] for key in given]
        words = [words[i] for i in rng.permutation(len(words))]
        references = dict.fromkeys(form(scene) for form in _FORMS)  # without a place two of them are the same
        return Example(concepts_prompt(words), tuple(references), {"words": words})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: all words in 45 of 100; else of another scene that shares some of them.

        Every sentence is a good one: the language model is to know what fluent means.
        """
        given = pick(rng, _GIVEN[pick(rng, ("easy", "normal", "normal", "hard"))]).split()
        scene = _draw(rng, given)
        words = [scene["deed" if key == "state" else key] for key in given]
        words = [words[i] for i in rng.permutation(len(words))]
        if rng.random() > 0.45:
            scene = _other_scene(rng, scene)
        return f"{concepts_prompt(words)} {pick(rng, _FORMS)(scene)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference; where there is none, "There is a dog, a ball and a park."."""
        if example.references:
            return f" {example.references[0].strip()}"
        *words, last = [with_article(word) for word in given_words(example.prompt, example.meta)]
        return f" There is {', '.join(words)}{' and ' if words else ''}{last}."

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _reward()

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`: CommonGen's BLEU and CIDEr."""
        return _BLEU, _CIDER

    def is_success(self, completion: Completion) -> bool | None:
        """Whether it is one sentence with all the words and without slips; the language model is not asked."""
        parts = [part([completion])[0] for part in (_GIVEN_WORDS, _ONE_SENTENCE)]
        return bool(min(parts) == 1 and _SLIPS([completion])[0] == 0)


def concepts_prompt(words: Sequence[str]) -> str:
    """The prompt that asks for a sentence with ``words``: what this task's own prompts look like."""
    return f"Words: {', '.join(words)}\nSentence:"


def given_words(prompt: str, meta: Mapping[str, Any]) -> list[str]:
    """The words asked for, each once: those of ``meta`` (``words`` or ``concepts``), else those that the prompt lists.

    Raises:
        MetricError: The prompt has no words.
    """
    words = meta.get("words") or meta.get("concepts") or _START.sub("", prompt).split("\n")[0]
    if isinstance(words, str):
        words = _WORD.findall(words)
    if not words:
        raise MetricError(f"Expected a prompt that lists words, or `words` in meta, actual prompt: {prompt!r}")
    return list(dict.fromkeys(words))


@cache
def _reward() -> Reward:
    # The default line gives a third to "The dog the ball the park.", most of whose tokens are as probable as can be.
    return _GIVEN_WORDS * _ONE_SENTENCE * (0.4 + 0.6 * Fluency(low=-4.0, high=-1.0))


def _deeds(who: str) -> dict[str, tuple[str, ...]]:
    return ANIMAL_DEEDS if who in ANIMALS else DEEDS


def _draw(rng: np.random.Generator, given: Sequence[str]) -> Scene:
    scene = {"who": pick(rng, PEOPLE if rng.random() < 0.7 else ANIMALS)}
    if "state" in given:
        scene["deed"] = pick(rng, STATES)
    else:
        deeds = _deeds(scene["who"])
        scene["deed"] = pick(rng, tuple(deeds))
        scene["what"] = pick(rng, deeds[scene["deed"]])
    if "nature" in given:
        scene["nature"] = pick(rng, NATURES)
    if "place" in given:
        scene["place"] = pick(rng, tuple(PLACES))
    return scene


def _other_scene(rng: np.random.Generator, scene: Scene) -> Scene:
    """A scene in which about every third thing is another one."""
    who = pick(rng, ANIMALS if scene["who"] in ANIMALS else PEOPLE)  # animals do not read
    deeds = _deeds(who)
    changes = {"who": who, "nature": pick(rng, NATURES), "place": pick(rng, tuple(PLACES))}
    if "what" in scene:
        changes["what"] = pick(rng, deeds[scene["deed"]])
    other = {key: changes[key] if key in changes and rng.random() < 0.4 else word for key, word in scene.items()}
    if "what" in scene and rng.random() < 0.3:
        other["deed"] = pick(rng, tuple(deeds))
        other["what"] = pick(rng, deeds[other["deed"]])
    return other


def _joined(*parts: str) -> str:
    sentence = " ".join(part for part in parts if part)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _who(scene: Scene) -> str:
    return f"{scene.get('nature', '')} {scene['who']}".strip()


def _does(scene: Scene, article: str) -> str:
    what = f" {article} {scene['what']}" if "what" in scene else ""
    return third_person(scene["deed"]) + what


def _where(scene: Scene) -> str:
    return f"{PLACES[scene['place']]} the {scene['place']}" if "place" in scene else ""


def _the(scene: Scene) -> str:
    return _joined("the", _who(scene), _does(scene, "the"), _where(scene))


def _a(scene: Scene) -> str:
    what = {"what": with_article(scene["what"])} if "what" in scene else {}
    return _joined(with_article(_who(scene)), _does({**scene, **what}, "").replace("  ", " "), _where(scene))


def _where_first(scene: Scene) -> str:
    return _joined(_where(scene), "the", _who(scene), _does(scene, "the"))


_FORMS = (_the, _a, _where_first)
