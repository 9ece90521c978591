"""TextGen-Poem-v0: finish a rhyming couplet."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MeanMetric, Metric
from textgym.metrics.pronunciation import Metre, pronunciations, rhymes, words_of
from textgym.rewards import Reward, Slips
from textgym.tasks._poem_words import DEEDS, FAMILIES, FUNCTION_WORDS, PLURAL_DEED, PLURAL_THING, SEEN, TOPICS
from textgym.tasks._writing import pick
from textgym.tasks.base import Task

_TOPICS = tuple(TOPICS)


class CoupletRhyme(MeanMetric):
    """1 if the completion is one new line whose last word rhymes with that of the prompt's last line, else 0.

    See :func:`textgym.metrics.pronunciation.rhymes`; a word does not rhyme with itself.
    """

    name = "rhyme"
    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        scores = []
        for c in completions:
            given, line = words_of(_last_line(c.prompt)), words_of(c.text)
            one_line = c.text.startswith("\n") and "\n" not in c.text.strip()
            scores.append(float(one_line and bool(given) and bool(line) and rhymes(given[-1], line[-1])))
        return scores


class Line(MeanMetric):
    """Whether a completion could be a line of verse, whatever its rhyme and metre, in [0, 1].

    0 unless it begins with a new line and is one line. Otherwise the share of its words that are known and new, times the
    balance of function words ("the", "of", "and") and others.

    * Known: in the pronouncing dictionary.
    * New: not in the prompt's last line, not before in the completion, and, but for the last, no rhyme on the last. Function
      words may come twice.
    * Balance: the share of function words over 0.25 where it is less, and that of the others over 0.25 where it is less.
      Lines of English have about as many of both; a list of nouns scores 0.
    """

    name = "line"
    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [_line(words_of(_last_line(c.prompt)), c.text) for c in completions]


def _line(before: Sequence[str], text: str) -> float:
    words = words_of(text)
    if not words or not text.startswith("\n") or "\n" in text.strip():
        return 0.0
    seen = Counter(word for word in set(before) if word not in FUNCTION_WORDS)
    good = functions = 0
    for i, word in enumerate(words):
        function = word in FUNCTION_WORDS
        echo = not function and i < len(words) - 1 and rhymes(word, words[-1])
        new = seen[word] < (2 if function else 1) and not echo
        good += new and bool(pronunciations(word))
        functions += function
        seen[word] += 1
    share = functions / len(words)
    return good / len(words) * min(1.0, share / 0.25, (1 - share) / 0.25)


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


_REWARD = (0.5 * CoupletRhyme() + 0.5 * Metre()) * Line() - Slips()


class PoemTask(Task):
    """Finish a rhyming couplet.

    ## Description

    The prompt gives a topic and the first line of a couplet, four iambs (da-DUM da-DUM da-DUM da-DUM); the policy
    writes the second line. It should rhyme with the first and have its metre, as the Carnegie Mellon pronouncing
    dictionary says the words. It stands for creative writing: many answers are right, but not many texts are answers.

    Half of the couplets that the bundled model has read rhyme; others do not, or limp.

    ## Starting State

    A topic and a line, such as "Topic: the sea" and "The boat drifts out across the bay", drawn with the environment's
    own random generator.

    ## Rewards

    0 on every step but the last. On the last, `(0.5 * rhyme + 0.5 * metre) * line - slips`:

    * `rhyme`: 1 if the text is one new line whose last word rhymes with that of the line before (the same word does not);
    * `metre`: how well its stresses fit four iambs, in [0, 1];
    * `line`: whether it is one new line of known words that are neither repeated nor taken from the first line, with function
      words among them, in [0, 1] (see :class:`Line`); without it, a list of rhyming words would do;
    * `slips`: how many words stand where no English sentence has them, in [0, 1].

    ## Information

    On the last step: `prompt`, `completion`, `references` (none here), `finish_reason`, `is_success` (a reward of at
    least 0.95), `reward/rhyme`, `reward/metre`, `reward/line`, `reward/slips`.

    ## Arguments

    `difficulty`: `"easy"` (rhymes on common endings), `"normal"` (on all), `"hard"` (the topic is not given). A text
    of your own is taken as it is; its last line is the one to rhyme with.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Poem-v0"
    max_prompt_tokens = 32
    max_new_tokens = 24
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    random_score = -0.01
    oracle_score = 1.0
    base_score = 0.5

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has the topic and the number of the rhyme's family."""
        topic, family = pick(rng, _TOPICS), int(rng.integers(6 if difficulty == "easy" else len(FAMILIES)))
        start, _ = _start(rng, topic)
        line = f"{start[0].upper()}{start[1:]} {pick(rng, FAMILIES[family])}"
        prompt = line if difficulty == "hard" else f"Topic: {topic}\n{line}"
        return Example(prompt, meta={"topic": topic, "family": family})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: the second line rhymes in half of the cases."""
        example, kind = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard"))), rng.random()
        start, rest = _start(rng, example.meta["topic"])
        family = example.meta["family"] if kind < 0.65 else int(rng.integers(len(FAMILIES)))
        ending = pick(rng, FAMILIES[family])
        if kind < 0.07:
            start += f" {rest}"  # too long
        elif kind < 0.15:
            ending = ending.split()[-1]  # too short
        return f"{example.prompt}\n{start} {ending}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: a line that fits best among some of its own."""
        rng = np.random.default_rng(zlib.crc32(example.prompt.encode()))
        last = words_of(_last_line(example.prompt))[-1:]
        endings = [e for family in FAMILIES for e in family if last and rhymes(last[0], words_of(e)[-1])]
        topic = example.meta.get("topic", _TOPICS[0])
        lines = [f"\n{_start(rng, topic)[0]} {pick(rng, endings or FAMILIES[0])}" for _ in range(40)]
        scores = _REWARD([Completion(example.prompt, line) for line in lines])
        return lines[int(scores.argmax())]

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def metrics(self) -> tuple[Metric, ...]:
        """See :meth:`Task.metrics`."""
        return (CoupletRhyme(), Metre(), Line())

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the reward reaches 0.95."""
        return bool(_REWARD([completion])[0] >= 0.95)


def _start(rng: np.random.Generator, topic: str) -> tuple[str, str]:
    """Two iambs about a topic, such as "the boat drifts out", and two syllables that would be too many."""
    things = TOPICS[topic]
    thing = pick(rng, tuple(things))
    deed, plural = pick(rng, DEEDS[things[thing]]), rng.random() < 0.4
    if plural:
        thing = PLURAL_THING.get(thing, thing + "s")
    if rng.random() < 0.3:
        seen = pick(rng, SEEN)
        return f"{seen if seen.startswith('I ') else seen.lower()} the {thing}", "again and again"
    verb, _, how = deed.partition(" ")
    if plural:
        verb = PLURAL_DEED.get(verb, verb.removesuffix("s"))
    return f"the {thing} {verb} {how}", "once more and"
