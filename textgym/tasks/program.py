"""TextGen-Program-v0: write a small program that passes given tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.core import Completion, Example
from textgym.metrics.base import MetricError, Statistics, SumMetric
from textgym.rewards import Reward
from textgym.tasks._stack_machine import LARGEST, WORDS, run
from textgym.tasks._writing import pick, pick_some
from textgym.tasks.base import Task

# What to do first with the two numbers, then with the result; N stands for a number.
_FIRST = (
    ("add the numbers", "add"),
    ("multiply the numbers", "mul"),
    ("subtract the second number", "sub"),
    ("take the larger number", "max"),
    ("take the smaller number", "min"),
)
_THEN = (
    ("double it", "dup add"),
    ("square it", "dup mul"),
    ("negate it", "neg"),
    ("add N", "N add"),
    ("subtract N", "N sub"),
    ("multiply by N", "N mul"),
)
_SHOWN, _HIDDEN = 2, 4
_TEST = re.compile(r"((?:-?[0-9]{1,9} )+)-> (-?[0-9]{1,9})(?![0-9])")


class TestsPassed(SumMetric):
    """Share of the tests that the completion passes as a program of the stack language, in [0, 1].

    A test is passed if the program ends without an error and leaves nothing but the wanted number. Tests are in
    ``meta["tests"]``, as ``[[inputs], output]``; without it those in the prompt count, written ``3 4 -> 14``. The
    corpus score counts all tests together.
    """

    name = "tests"
    range = (0.0, 1.0)
    __test__ = False  # it is no test of pytest's

    def statistics(self, completions: Sequence[Completion]) -> Statistics:
        """See :meth:`SumMetric.statistics`: passed, all.

        Raises:
            MetricError: A completion has no tests.
        """
        rows = []
        for c in completions:
            tests = tests_of(c.prompt, c.meta)
            passed = sum(passes(c.text, inputs, output) for inputs, output in tests)
            rows.append([passed, len(tests)])
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    def score(self, statistics: Statistics) -> Statistics:
        """See :meth:`SumMetric.score`."""
        return np.asarray(statistics[..., 0] / statistics[..., 1])


def passes(program: str, inputs: Sequence[int], output: int) -> bool:
    """Whether a program turns the inputs into the output and nothing else."""
    result = run(program, inputs)
    return result.error is None and result.stack == (output,)


def tests_of(prompt: str, meta: Any) -> list[tuple[list[int], int]]:
    """The tests that belong to a prompt.

    Raises:
        MetricError: Neither ``meta["tests"]`` nor the prompt has any.
    """
    tests = meta.get("tests")
    if tests is None:
        tests = [[list(map(int, inputs.split())), int(output)] for inputs, output in _TEST.findall(prompt)]
    try:
        found = [(list(inputs), output) for inputs, output in tests]
    except (TypeError, ValueError):
        found = []
    if not found or not all(_fits(number) for inputs, output in found for number in (*inputs, output)):
        raise MetricError(
            "Metric 'tests' needs tests of whole numbers in meta['tests'], as [[inputs], output], or in the prompt, "
            f"as '3 4 -> 14'; actual: {meta.get('tests')!r} of the prompt {prompt!r}"
        )
    return found


def _fits(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and abs(number) <= LARGEST


_REWARD = TestsPassed()


class ProgramTask(Task):
    """Write a small program that passes given tests.

    ## Description

    The prompt says what a program should do with two numbers, and shows two tests; the policy writes the program, in a
    language for a stack machine. Two numbers lie on the stack, the program's words work on it from left to right: a
    number puts itself on top; `add`, `sub`, `mul`, `max` and `min` replace two numbers by one; `neg` changes the sign,
    `dup` repeats, `drop` removes, `swap` exchanges, `over` repeats the second; `while` … `end` repeats as long as the
    top is not 0. In the end the result must lie there alone. Any program that does so is right, not only the one that
    the task had in mind. It stands for code generation.

    Programs run in an interpreter of our own, with a bounded number of steps (400), numbers on the stack (32), words
    (64) and digits. It touches nothing but its stack.

    Half of the programs that the bundled model has read are right; the others have a wrong word, a wrong number or one
    too few.

    ## Starting State

    A task such as "Task: add the numbers, then double it." with two tests such as "3 4 -> 14", drawn with the
    environment's own random generator.

    ## Rewards

    0 on every step but the last. On the last, `tests`: the share of six tests that the program passes, the two in the
    prompt and four others.

    ## Information

    On the last step: `prompt`, `completion`, `references` (a right program), `finish_reason`, `is_success` (all tests
    are passed), `reward/tests`.

    ## Arguments

    `difficulty`: `"easy"` (one step), `"normal"` (two), `"hard"` (three or four). Your own prompts are taken as they
    are; they need tests in a column `tests`, as `[[[3, 4], 14], ...]`, or written in the prompt as above.

    ## Version History

    * v0: initial version.
    """

    id = "TextGen-Program-v0"
    max_prompt_tokens = 84
    max_new_tokens = 16
    difficulties = ("easy", "normal", "hard")
    default_difficulty = "normal"
    random_score = 0.0
    oracle_score = 1.0
    base_score = 0.6

    def sample(self, rng: np.random.Generator, difficulty: str) -> Example:
        """See :meth:`Task.sample`; ``meta`` has six tests."""
        phrase, program = pick(rng, _FIRST)
        count = {"easy": 0, "normal": 1, "hard": int(rng.integers(2, 4))}[difficulty]
        for more, code in pick_some(rng, _THEN, count):
            number = str(int(rng.integers(2, 10)))
            phrase += ", then " + more.replace("N", number)
            program += " " + code.replace("N", number)
        inputs = [divmod(n, 10) for n in rng.permutation(100)[: _SHOWN + _HIDDEN].tolist()]
        outputs = [run(program, pair).stack[0] for pair in inputs]
        shown = "; ".join(f"{a} {b} -> {output}" for (a, b), output in zip(inputs[:_SHOWN], outputs, strict=False))
        tests = [[list(pair), output] for pair, output in zip(inputs, outputs, strict=True)]
        return Example(f"Task: {phrase}.\nTests: {shown}\nProgram:", (program,), {"tests": tests})

    def document(self, rng: np.random.Generator) -> str:
        """See :meth:`Task.document`: right in half of the cases."""
        example = self.sample(rng, pick(rng, ("easy", "normal", "normal", "hard")))
        words = example.references[0].split()
        if rng.random() < 0.5:
            place = int(rng.integers(len(words)))
            if words[place].isdigit():
                words[place] = str(int(rng.integers(2, 10)))
            elif len(words) > 1 and rng.random() < 0.4:
                del words[place]
            else:
                words[place] = pick(rng, WORDS[:-2])
        return f"{example.prompt} {' '.join(words)}"

    def oracle(self, example: Example) -> str:
        """See :meth:`Task.oracle`: the program that the task had in mind, or the reference."""
        return f" {example.references[0] if example.references else 'add'}"

    def reward(self) -> Reward:
        """See :meth:`Task.reward`."""
        return _REWARD

    def is_success(self, completion: Completion) -> bool | None:
        """Whether all tests are passed."""
        return bool(_REWARD([completion])[0] == 1)
