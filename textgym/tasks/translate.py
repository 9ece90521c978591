"""TextGen-Translate-v0: translate a German sentence into English."""

from __future__ import annotations

import functools

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import Metric
from textgym.metrics.bleu import BLEU
from textgym.metrics.chrf import CHRF
from textgym.metrics.ter import TER
from textgym.rewards import Reward
from textgym.tasks._german import NOUNS, write_pair
from textgym.tasks._writing import NAMES, capitalized, pick
from textgym.tasks.base import Task

_SINGULARS = {noun.english: noun for noun in NOUNS}
_NOUNS = tuple(_SINGULARS)
_DETERMINERS = {"the": "a", "a": "the", "an": "the", "my": "the", "our": "my", "this": "the", "these": "the"}


@functools.cache  # made on use, as this imports sacrebleu
def _bleu_and_chrf() -> tuple[BLEU, CHRF]:
    return BLEU(), CHRF()


@functools.cache
def _reward() -> Reward:
    bleu, chrf = _bleu_and_chrf()
    return (bleu + chrf) / 2


class TranslateTask(Task):
    """Translate a German sentence into English.

    ## Description

    Machine translation with sentences that a synchronous grammar writes in both languages at once, so that each has all the
    references that it should have. German brings what makes it hard: gender, case and adjective endings, the verb in the
    second place or at the end, separable verbs, the perfect. English answers with a fixed word order of its own.

        German: Am Abend sucht mein Nachbar den Schlüssel.
        English: In the evening my neighbor looks for the key.

    ## Starting State

    A prompt such as the one above, up to and including `English:`. About 70 nouns, 45 verbs and 25 adjectives; sentences have
    2 to 11 words.

    ## Rewards

    0 on every step but the last. On the last, the mean of two parts, both in [0, 1] and both against the nearest of the
    references:

    * `bleu`: sentence BLEU (:class:`textgym.metrics.bleu.BLEU`), which wants the words in their order;
    * `chrf`: chrF (:class:`textgym.metrics.chrf.CHRF`), which pays for single right words and parts of them, so that there is
      something to learn from before the first sentence is right.

    ## Information

    On the last step: `prompt`, `completion`, `references` (one to four translations: simple or progressive present, past or
    present perfect, a time in front or at the end, and so on), `finish_reason`, `is_success` (letter for letter a reference,
    apart from blanks around it), `reward/bleu`, `reward/chrf`.

    ## Arguments

    `difficulty`: `"easy"` ("Der Hund schläft."), `"normal"` (objects, adjectives, prepositional phrases, a time or place in
    front), `"hard"` (subordinate clauses, the perfect, modal and separable verbs, the dative). With `prompts=` it runs on a
    user's own pairs of sentences, of any languages with another template.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Translate-v0"
    max_prompt_tokens = 64
    max_new_tokens = 36
    min_new_tokens = 1
    difficulties = ("easy", "normal", "hard")
    template = "German: {prompt}\nEnglish:"
    random_score = 0.07
    oracle_score = 1.0
    base_score = 0.85

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; no ``meta``."""
        pair = write_pair(rng, difficulty)
        return Example(self.template.format(prompt=pair.german), pair.english)

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in 70%, else with one of the slips that learners make."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        usual = rng.random() < 0.75
        text = example.references[0] if usual else pick(rng, example.references)
        if rng.random() >= 0.7:
            text = _slip(rng, text)
        return f"{example.prompt} {text}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference."""
        return f" {example.references[0]}" if example.references else " I do not know."

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _reward()

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`."""
        return (*_bleu_and_chrf(), TER())

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the translation is one of the references; ``None`` where there is none."""
        return completion.text.strip() in completion.references if completion.references else None


def _slip(rng: np.random.Generator, text: str) -> str:
    """``text`` with one or two mistakes: a wrong noun or determiner, a word missing, moved, or left in German."""
    words = text.rstrip(".").split()
    if words[0] not in ("I", *NAMES):
        words[0] = words[0].lower()
    for _ in range(1 if rng.random() < 0.6 else 2):
        nouns = [i for i, word in enumerate(words) if word in _SINGULARS]
        determiners = [i for i, word in enumerate(words) if word in _DETERMINERS]
        luck = rng.random()
        if luck < 0.35 and nouns:
            words[pick(rng, nouns)] = pick(rng, _NOUNS)
        elif luck < 0.5 and determiners:
            place = pick(rng, determiners)
            words[place] = _DETERMINERS[words[place]]
        elif luck < 0.6 and nouns:
            place = pick(rng, nouns)
            words[place] = _SINGULARS[words[place]].german
        elif luck < 0.85 and len(words) > 2:
            del words[int(rng.random() * len(words))]
        elif len(words) > 2:
            place = int(rng.random() * (len(words) - 1))
            words[place], words[place + 1] = words[place + 1], words[place]
    return capitalized(" ".join(words)) + "."
