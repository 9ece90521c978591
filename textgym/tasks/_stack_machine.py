"""A stack machine that runs programs of strangers: every limit is checked, nothing outside of its stack is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_WORDS = 64
MAX_STEPS = 400
MAX_STACK = 32
LARGEST = 10**9


@dataclass(frozen=True, slots=True)
class Result:
    """What running a program came to.

    Attributes:
        stack: From bottom to top; as it was when an error stopped the program.
        steps: Words that were executed, at most the budget.
        error: Why it stopped before its end; ``None`` if it did not.
    """

    stack: tuple[int, ...]
    steps: int
    error: str | None = None


class _Stopped(Exception):
    """The program cannot go on."""


_UNARY: dict[str, Callable[[int], list[int]]] = {
    "dup": lambda a: [a, a],
    "drop": lambda a: [],
    "neg": lambda a: [-a],
}
_BINARY: dict[str, Callable[[int, int], list[int]]] = {
    "add": lambda a, b: [a + b],
    "sub": lambda a, b: [a - b],
    "mul": lambda a, b: [a * b],
    "max": lambda a, b: [max(a, b)],
    "min": lambda a, b: [min(a, b)],
    "swap": lambda a, b: [b, a],
    "over": lambda a, b: [a, b, a],
}
WORDS = (*_UNARY, *_BINARY, "while", "end")
"""All words but numbers. ``while`` goes on behind its ``end`` if the top of the stack is 0, ``end`` goes back to it."""


def run(program: str, inputs: Sequence[int] = (), max_steps: int = MAX_STEPS) -> Result:
    """Runs a program: words from left to right, a number puts itself on the stack.

    Args:
        program: Any text; at most 64 words.
        inputs: The stack at the beginning, from bottom to top.
        max_steps: Budget of executed words.

    Returns: The stack, or the error that stopped it: an unknown word, too few numbers on the stack, more than 32, a
    number beyond a billion, ``while`` and ``end`` that do not match, the step budget spent.
    """
    stack, steps = list(inputs), 0
    try:
        words = _words_of(program)
        partner = _partners(words)
        position = 0
        while position < len(words):
            if steps >= max_steps:
                raise _Stopped(f"more than {max_steps} steps")
            steps += 1
            word = words[position]
            if word == "while":
                position = position + 1 if _top(stack) else partner[position] + 1
                continue
            if word == "end":
                position = partner[position]
                continue
            _execute(word, stack)
            position += 1
    except _Stopped as stop:
        return Result(tuple(stack), steps, str(stop))
    return Result(tuple(stack), steps)


def _words_of(program: str) -> list[str]:
    words = program.split(maxsplit=MAX_WORDS)
    if len(words) > MAX_WORDS:
        raise _Stopped(f"more than {MAX_WORDS} words")
    for word in words:
        if word not in WORDS and not _is_number(word):
            raise _Stopped(f"unknown word {word[:20]!r}")
    return words


def _is_number(word: str) -> bool:
    digits = word.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 9


def _partners(words: Sequence[str]) -> dict[int, int]:
    partner: dict[int, int] = {}
    opened: list[int] = []
    for i, word in enumerate(words):
        if word == "while":
            opened.append(i)
        elif word == "end":
            if not opened:
                raise _Stopped("end without while")
            start = opened.pop()
            partner[start], partner[i] = i, start
    if opened:
        raise _Stopped("while without end")
    return partner


def _top(stack: Sequence[int]) -> int:
    if not stack:
        raise _Stopped("too few numbers on the stack")
    return stack[-1]


def _execute(word: str, stack: list[int]) -> None:
    if word in _UNARY:
        taken, made = 1, _UNARY[word](_top(stack))
    elif word in _BINARY:
        if len(stack) < 2:
            raise _Stopped("too few numbers on the stack")
        taken, made = 2, _BINARY[word](stack[-2], stack[-1])
    else:
        taken, made = 0, [int(word)]
    if any(abs(number) > LARGEST for number in made):
        raise _Stopped(f"a number beyond {LARGEST}")
    if len(stack) - taken + len(made) > MAX_STACK:
        raise _Stopped(f"more than {MAX_STACK} numbers on the stack")
    stack[len(stack) - taken :] = made
