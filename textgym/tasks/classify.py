"""TextGen-Classify-v0: write the sentiment label of a short review."""

from __future__ import annotations

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.answers import Accuracy
from textgym.metrics.base import Metric
from textgym.rewards import Reward
from textgym.tasks._review_grammar import write_opinions
from textgym.tasks._writing import pick
from textgym.tasks.base import Task

_ACCURACY = Accuracy()

LABELS = ("positive", "negative", "mixed")

# Kinds of sentences (see `write_opinions`) of a positive review; those of a negative one have the signs turned round.
_ONE_SIGN: dict[str, tuple[tuple[str, ...], ...]] = {
    "easy": (("+",),),
    "normal": (("+", "+"), ("+", "0"), ("0", "+")),
    "hard": (
        ("turned+",),
        ("turned+", "+"),
        ("+", "turned+"),
        ("turned+", "0"),
        ("0", "turned+"),
        ("turned+", "turned+"),
    ),
}
_MIXED = (("mixed",), ("mixed", "0"), ("0", "mixed"), ("+", "-"), ("-", "+"), ("turned+", "-"), ("turned-", "+"))
_OTHER_SIGN = str.maketrans("+-", "-+")
_OFF_FORMAT = (
    " good", " bad", " {label} review", " {label} or {other}", " It is {label}.", " {other}, {label}", " a film", " review",
    " none",
)  # fmt: skip


class ClassifyTask(Task):
    """Write the sentiment label of a short review.

    ## Description

    Text classification as text generation: the prompt is a film review of one or two sentences and the word `Label:`, the
    policy writes the label, `positive` or `negative`, and ends the episode. Anything more than the label is wrong, as it is
    with a benchmark that parses the answer.

    The reviews come from the grammar of `TextGen-Sentiment-v0`, but of every opinion in them a reader can be certain: all
    sentences with an opinion are of one sign, and words that may describe what a film is about (a *grim* thriller) do not
    occur.

    ## Starting State

    A prompt such as

        Review: The songs were charming. I saw it with my aunt last Friday.
        Label:

    ## Rewards

    0 on every step but the last. On the last, `accuracy`: 1 if the completion is the label, apart from the case of letters
    and blanks around it, else 0. Always writing the same label earns about 0.5.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the label), `finish_reason`, `is_success` (the label is right),
    `reward/accuracy`.

    ## Arguments

    `difficulty`: `"easy"` (one sentence), `"normal"` (two sentences: two opinions, or an opinion and a fact), `"hard"` (three
    labels, `mixed` being the third; negated words such as "never dull", and an "although" or "but" that may or may not turn
    the opinion). With `prompts=` it classifies a user's own texts: `references` are the labels that count as right, of
    whatever names.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Classify-v0"
    max_prompt_tokens = 64
    max_new_tokens = 8
    min_new_tokens = 1
    difficulties = ("easy", "normal", "hard")
    template = "Review: {prompt}\nLabel:"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.35

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the kinds of the sentences."""
        label = LABELS[int(rng.random() * (3 if difficulty == "hard" else 2))]
        kinds = pick(rng, _MIXED if label == "mixed" else _ONE_SIGN[difficulty])
        if label == "negative":
            kinds = tuple(kind.translate(_OTHER_SIGN) for kind in kinds)
        prompt = self.template.format(prompt=write_opinions(rng, kinds))
        return Example(prompt, (label,), {"sentences": list(kinds)})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: the right label in 60%, another one in 22%, no label in the rest."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        label, luck = example.references[0], rng.random()
        other = pick(rng, [name for name in LABELS if name != label])
        if luck < 0.6:
            return f"{example.prompt} {label}"
        if luck < 0.82:
            return f"{example.prompt} {other}"
        return example.prompt + pick(rng, _OFF_FORMAT).format(label=label, other=other)

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the label, which only the references know."""
        return f" {example.references[0]}" if example.references else f" {LABELS[0]}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _ACCURACY

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`."""
        return (_ACCURACY,)

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the label is right; ``None`` where none is known."""
        return bool(_ACCURACY([completion])[0] == 1) if completion.references else None
