"""TextGen-Sentiment-v0: continue a film review so that it sounds pleased."""

from __future__ import annotations

import zlib

import numpy as np

from textgym.core import Completion, Example
from textgym.rewards import Repetition, Reward, Sentiment, Slips
from textgym.rewards.sentiment import tone
from textgym.tasks._review_grammar import cut_prompt, praise, write_review
from textgym.tasks.base import Task

_REWARD = Sentiment() - Repetition() - Slips()


class SentimentTask(Task):
    """Continue a film review so that it sounds pleased.

    ## Description

    The prompt is the beginning of a viewer's review, cut somewhere in its first 4 to 14 words. Whatever its tone, the
    policy goes on writing; the more positive the continuation, the higher the reward. This is the classic of
    controlled generation: easy to see, easy to overdo (a policy that only lists praise has forgotten how to write,
    which the distance to the reference model and distinct-n show).

    The reviews are written by a grammar of this repository: positive, negative, mixed and neutral ones, in many sentence
    forms, about 1,600 different words. The bundled language model has read them all in equal measure and takes no side.

    ## Starting State

    A prompt of the split (`train`, `dev` and `test` share none), drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `sentiment - repetition - slips`:

    * `sentiment`: VADER's compound score of the continuation, in [-1, 1];
    * `repetition`: the share of its word trigrams that occurred before in it, in [0, 1]. It is 0 for ordinary text;
      without it one word of praise over and over would earn the maximum;
    * `slips`: how many words stand where no English sentence has them ("the of", "and ."), in [0, 1]. It is 0 for
      ordinary text; without it a shuffled list of praise would earn the maximum.

    ## Information

    On the last step: `prompt`, `completion`, `references` (none here), `finish_reason`, `is_success` (a reward of at
    least 0.8), `reward/sentiment`, `reward/repetition`, `reward/slips`.

    ## Arguments

    `difficulty`: `"easy"` (the beginning already sounds pleased), `"normal"` (any), `"hard"` (it sounds displeased). The
    others are those of every environment, see :class:`textgym.envs.TextGenEnv`. With `prompts=` it runs on anybody's
    own prompts.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Sentiment-v0"
    max_prompt_tokens = 40
    max_new_tokens = 52
    difficulties = ("easy", "normal", "hard")
    random_score = 0.01
    oracle_score = 0.97
    base_score = 0.05

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the polarity of the whole review and the kind of the cut."""
        polarity = {"easy": "positive", "normal": None, "hard": "negative"}[difficulty]
        while True:
            review = write_review(rng, polarity)
            prompt, _, cut = cut_prompt(review, rng)
            if polarity is None or (tone(prompt) > 0.2 if polarity == "positive" else tone(prompt) < -0.2):
                break
        return Example(prompt, meta={"polarity": review.polarity, "cut": cut})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: a whole review."""
        return write_review(rng).text

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: praise that fits the place where the prompt was cut."""
        kind = example.meta.get("cut", "sentence")
        return praise(kind, np.random.default_rng(zlib.crc32(example.prompt.encode())))

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the reward reaches 0.8."""
        return bool(_REWARD([completion])[0] >= 0.8)
