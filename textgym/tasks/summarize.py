"""TextGen-Summarize-v0: write a headline for a short article."""

from __future__ import annotations

import functools
import re

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import Metric
from textgym.metrics.bleu import BLEU
from textgym.metrics.meteor import METEOR
from textgym.metrics.rouge import ROUGE
from textgym.rewards import Reward
from textgym.tasks._articles import TABLES, Story, tell, write_article
from textgym.tasks._writing import pick
from textgym.tasks.base import Task

_WORD = re.compile(r"\w+")


@functools.cache  # made on use, so that nothing is imported for it before
def _rouges() -> tuple[ROUGE, ROUGE, ROUGE]:
    return ROUGE("rouge1"), ROUGE("rouge2"), ROUGE("rougeL")


@functools.cache
def _reward() -> Reward:
    rouge1, rouge2, rouge_l = _rouges()
    return (rouge1 + rouge2 + rouge_l) / 3


class SummarizeTask(Task):
    """Write a headline for a short article.

    ## Description

    Summarisation at its shortest: the prompt is a news article of two to four sentences, the policy writes the headline. A
    headline keeps who did what where, puts the verb into the present tense, drops articles, adjectives and the day, and
    leaves the details out:

        Article: On Wednesday, a flood destroyed the large theater in Paris. Eight people were hurt.
        Headline: Flood destroys Paris theater

    The articles are written by a grammar of this repository: fifteen kinds of events, from fires to elections, each with
    details of its own.

    ## Starting State

    A prompt such as the one above, up to and including `Headline:`.

    ## Rewards

    0 on every step but the last. On the last, the mean of `rouge1`, `rouge2` and `rougeL`, each an F1 in [0, 1] (see
    :class:`textgym.metrics.rouge.ROUGE`) against the nearest of the references. A copied article has too many words for it, a
    copied first sentence the wrong tense and its articles, a shuffled headline no bigrams.

    ## Information

    On the last step: `prompt`, `completion`, `references` (two headlines), `finish_reason`, `is_success` (word for word a
    reference, apart from case and punctuation), `reward/rouge1`, `reward/rouge2`, `reward/rougeL`.

    ## Arguments

    `difficulty`: `"easy"` (the event and a detail), `"normal"` (the event and one or two details, in a third of the articles
    after an opening sentence), `"hard"` (the event comes second or third, after one of long ago in the same city). With
    `prompts=` it runs on a user's own articles, and `references` are their summaries.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Summarize-v0"
    max_prompt_tokens = 120
    max_new_tokens = 24
    min_new_tokens = 1
    difficulties = ("easy", "normal", "hard")
    template = "Article: {prompt}\nHeadline:"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.73

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; no ``meta``."""
        return self._example(rng, difficulty)[0]

    def _example(self, rng: np.random.Generator, difficulty: str) -> tuple[Example, Story]:
        story = tell(rng)
        article = write_article(rng, story, difficulty)
        return Example(self.template.format(prompt=article), story.headlines()), story

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: a good headline in half, else a copied beginning, a wrong word, too much."""
        example, story = self._example(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        headline, luck = pick(rng, example.references), rng.random()
        if luck < 0.5:
            text = headline
        elif luck < 0.62:  # the beginning of the article, as it is or up to the city
            text = example.prompt.split(": ", 1)[1].split(".")[0] + pick(rng, (".", ""))
        elif luck < 0.76:  # the event in the words of the article
            text = story.lead(rng, "").removeprefix(", ")
            text = text[:1].upper() + text[1:]
        elif luck < 0.9:  # a wrong word
            words = [
                name for name in ("city", "building", "force", "job", "number", "animal", "good") if name in story.slots
            ]
            wrong = pick(rng, [name for name in words if story.slots[name] in headline] or ["city"])
            text = pick(rng, story.changed(rng, wrong).headlines())
        elif luck < 0.95:  # another event of the same city
            text = tell(rng, story.slots["city"]).headlines()[0]
        else:
            text = f"{headline} {pick(rng, ('on', 'last'))} {pick(rng, TABLES['day'])}"
        return f"{example.prompt} {text}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the first reference."""
        return f" {example.references[0]}" if example.references else " News"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _reward()

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`."""
        return (*_rouges(), BLEU(), METEOR())

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the words are those of a reference; ``None`` where there is none."""
        if not completion.references:
            return None
        return _words(completion.text) in [_words(reference) for reference in completion.references]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
