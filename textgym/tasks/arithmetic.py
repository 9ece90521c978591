"""TextGen-Arithmetic-v0: work out a sum step by step."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MeanMetric, MetricError
from textgym.rewards import Reward
from textgym.tasks._writing import pick
from textgym.tasks.base import Task

# At the end of the prompt only: the "2019-2021" of a word problem is no sum. Bounded, so that results are.
_EXPRESSION = re.compile(r"(?<!\S)([0-9]{1,6}(?: ?[+*-] ?[0-9]{1,6}){1,8})\s*=?\s*\??\s*(?:Work:\s*)?$")
_STEP = "-?[0-9]{1,60}[+*-]-?[0-9]{1,60}=-?[0-9]{1,60}"
_WORK = re.compile(rf"\s*({_STEP}(?:, {_STEP})*)\. Answer: (-?[0-9]{{1,60}})\s*")
_ANSWER = re.compile(r".*\bAnswer: (-?[0-9]+)\s*", flags=re.DOTALL)
_MOST = 99


def steps_of(expression: str) -> list[str]:
    """The steps of an expression, such as ``["23+4=27", "27-6=21"]`` of ``"23+4-6"``: products first, else in order."""
    terms, steps = re.findall(r"[0-9]+|[+*-]", expression), []
    while len(terms) > 1:
        at = terms.index("*") if "*" in terms else 1
        left, sign, right = terms[at - 1 : at + 2]
        a, b = int(left), int(right)
        result = a + b if sign == "+" else a - b if sign == "-" else a * b
        steps.append(f"{left}{sign}{right}={result}")
        terms[at - 1 : at + 2] = [str(result)]
    return steps


def read_work(completion: Completion) -> tuple[bool, float, bool]:
    """Whether the text has the form, the share of the steps that are right, and whether the answer is.

    Where the prompt does not end with an expression, the form is anything that ends with "Answer: " and a number; the
    answer is compared with the references, and steps count as right where the answer is.

    Raises:
        MetricError: Neither an expression in the prompt nor a reference.
    """
    found = _EXPRESSION.search(completion.prompt)
    if found is None:
        if not completion.references:
            raise MetricError(
                "Arithmetic needs an expression such as 23+4-6 at the end of the prompt, or a reference; "
                f"{completion.prompt!r} has neither"
            )
        told = _ANSWER.fullmatch(completion.text)
        right = told is not None and told[1] in completion.references
        return told is not None, float(right), right
    told = _WORK.fullmatch(completion.text)
    if told is None:
        return False, 0.0, False
    wanted, given = steps_of(found[1]), told[1].split(", ")
    share = sum(a == b for a, b in zip(wanted, given, strict=False)) / max(len(wanted), len(given))
    return True, share, told[2] == wanted[-1].partition("=")[2]


class _Work(MeanMetric):
    """A part of what :func:`read_work` says, in [0, 1]."""

    range = (0.0, 1.0)

    def each(self, completions: Sequence[Completion]) -> list[float]:
        """See :meth:`MeanMetric.each`."""
        return [float(self.part(*read_work(c))) for c in completions]

    @abstractmethod
    def part(self, form: bool, steps: float, answer: bool) -> float:
        """The score."""


class WorkForm(_Work):
    """1 if the text has the form of worked steps with an answer, else 0."""

    name = "form"

    def part(self, form: bool, steps: float, answer: bool) -> float:
        """See the class."""
        return form


class WorkSteps(_Work):
    """Share of the steps that are right, each in its place; 0 without the form."""

    name = "steps"

    def part(self, form: bool, steps: float, answer: bool) -> float:
        """See the class."""
        return steps


class FinalAnswer(_Work):
    """1 if the answer is right and the text has the form, else 0."""

    name = "answer"

    def part(self, form: bool, steps: float, answer: bool) -> float:
        """See the class."""
        return answer


_REWARD = 0.2 * WorkForm() + 0.3 * WorkSteps() + 0.5 * FinalAnswer()


class ArithmeticTask(Task):
    """Work out a sum step by step.

    ## Description

    The prompt asks for the value of an expression; the policy writes one step after the other, from left to right (a
    product is worked out first), and then the answer: "23+4=27, 27-6=21. Answer: 21". Everything is verified by
    computing it, so it stands for learning from verifiable rewards. Numbers stay between 0 and 99.

    About a third of the sums that the bundled model has read have a wrong step, a step missing or the wrong answer.

    ## Starting State

    A question such as "Question: 23+4-6=?", drawn with the environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `0.2 * form + 0.3 * steps + 0.5 * answer`:

    * `form`: 1 if the whole text is a list of steps and an answer, else 0, and then the others are 0 too;
    * `steps`: the share of the steps that are right, each in its place;
    * `answer`: 1 if the answer is right.

    ## Information

    On the last step: `prompt`, `completion`, `references` (the worked answer), `finish_reason`, `is_success` (the
    answer is right), `reward/form`, `reward/steps`, `reward/answer`.

    ## Arguments

    `difficulty`: `"easy"` (two numbers), `"normal"` (four, all but the first of one digit), `"hard"` (four of up to two
    digits, often with a product in front). A text of your own is put between "Question: " and "=?"; if it has no
    expression, the text must end with "Answer: " and one of its references.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Arithmetic-v0"
    template = "Question: {prompt}=?\nWork:"
    max_prompt_tokens = 28
    max_new_tokens = 48
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.69

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; the one reference is the worked answer."""
        while True:
            expression = _expression(rng, difficulty)
            steps = steps_of(expression)
            if all(0 <= int(step.partition("=")[2]) <= _MOST for step in steps):
                prompt = self.template.format(prompt=expression)
                return Example(prompt, (_worked(steps),), {"expression": expression})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in two of three cases."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        steps, mistake = steps_of(example.meta["expression"]), rng.random()
        answer = steps[-1].partition("=")[2]
        if mistake < 0.15:
            place, off = int(rng.integers(len(steps))), pick(rng, (-10, -2, -1, 1, 2, 10))
            left, _, result = steps[place].partition("=")
            wrong = str(max(0, int(result) + off))  # and on from there, as people do
            rest = "".join(re.sub(r"^[0-9]+|=.*", "", step) for step in steps[place + 1 :])
            steps[place:] = [f"{left}={wrong}", *steps_of(wrong + rest)]
            answer = steps[-1].partition("=")[2]
        elif mistake < 0.25:
            answer = str(int(rng.integers(_MOST)))
        elif mistake < 0.32 and len(steps) > 1:
            del steps[int(rng.integers(len(steps)))]
        elif mistake < 0.36:
            return f"{example.prompt} Answer: {answer}"
        return f"{example.prompt} {_worked(steps, answer)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the worked answer."""
        found = _EXPRESSION.search(example.prompt)
        if found is not None:
            return f" {_worked(steps_of(found[1]))}"
        return f" Answer: {example.references[0] if example.references else 0}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether the answer is right and the text has the form."""
        return read_work(completion)[2]


def _worked(steps: Sequence[str], answer: str | None = None) -> str:
    return f"{', '.join(steps)}. Answer: {steps[-1].partition('=')[2] if answer is None else answer}"


def _expression(rng: np.random.Generator, difficulty: str) -> str:
    if difficulty == "hard" and rng.random() < 0.5:
        terms = [f"{int(rng.integers(2, 10))}*{int(rng.integers(2, 10))}"]
    else:
        terms = [str(int(rng.integers(1, 90)))]
    most = 50 if difficulty == "hard" else 10
    for _ in range(1 if difficulty == "easy" else 3):
        terms.append(f"{pick(rng, '+-')}{int(rng.integers(1, most))}")
    return "".join(terms)
