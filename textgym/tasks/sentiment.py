"""TextGen-Sentiment-v0: continue a film review so that it sounds pleased."""

from __future__ import annotations

import zlib

import numpy as np

from textgym.core import Completion, Example
from textgym.rewards import Repetition, Reward, Sentiment
from textgym.tasks._review_grammar import cut_prompt, praise, write_review
from textgym.tasks.base import Task

_REWARD = Sentiment() - Repetition()


class SentimentTask(Task):
    """Continue a film review so that it sounds pleased.

    ## Description

    The prompt is the beginning of a viewer's review, cut somewhere in its first 4 to 14 words. Whatever its tone, the policy
    goes on writing; the more positive the continuation, the higher the reward. This is the classic of controlled generation:
    easy to see, easy to overdo (a policy that only lists praise has forgotten how to write, which the distance to the
    reference model and distinct-n show).

    The reviews are written by a grammar of this repository: positive, negative, mixed and neutral ones, in many sentence
    forms, about 1,600 different words. The bundled language model has read them all in equal measure and takes no side.

    ## Action Space

    `Discrete(V)`: the next token of the tokenizer's vocabulary. `action_masks()` forbids the padding token.

    ## Observation Space

    `Dict`, each entry of shape `(max_prompt_tokens + max_new_tokens,)`, left-padded:

    * `input_ids`: tokens of prompt and continuation so far;
    * `attention_mask`: 1 where there is a token, 0 where there is padding;
    * `completion_mask`: 1 where the token was written by the policy.

    ## Starting State

    A prompt of the split (`train`, `dev` and `test` share none), drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `sentiment - repetition`:

    * `sentiment`: VADER's compound score of the continuation, in [-1, 1];
    * `repetition`: the share of its word trigrams that occurred before in it, in [0, 1]. It is 0 for ordinary text; without it
      one word of praise over and over would earn the maximum.

    ## Episode End

    Terminates with the end token (`finish_reason` `"stop"`) or when the token budget is spent (`"length"`). Never truncates.

    ## Information

    On the last step: `prompt`, `completion`, `references` (none here), `finish_reason`, `is_success` (a reward of at least
    0.8), `reward/sentiment`, `reward/repetition`.

    ## Arguments

    `difficulty`: `"easy"` (beginnings of positive reviews), `"normal"` (of all), `"hard"` (of negative ones). The others are
    those of every environment, see :class:`textgym.envs.TextGenEnv`. With `prompts=` it runs on anybody's own prompts.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Sentiment-v0"
    max_prompt_tokens = 40
    max_new_tokens = 48
    difficulties = ("easy", "normal", "hard")
    random_score = 0.12
    oracle_score = 0.97

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the polarity of the whole review and the kind of the cut."""
        polarity = {"easy": "positive", "normal": None, "hard": "negative"}[difficulty]
        review = write_review(rng, polarity)
        prompt, _, cut = cut_prompt(review, rng)
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
        """Whether sentiment minus repetition reaches 0.8."""
        return bool(_REWARD([completion])[0] >= 0.8)
