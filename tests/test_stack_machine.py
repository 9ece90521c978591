"""The interpreter of TextGen-Program-v0: what its words do, and that no program gets past its limits."""

from __future__ import annotations

import builtins
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from textgym.tasks import _stack_machine
from textgym.tasks._stack_machine import LARGEST, MAX_STACK, MAX_STEPS, MAX_WORDS, WORDS, run


@pytest.mark.parametrize(
    ("program", "inputs", "stack"),
    [
        ("", (3, 4), (3, 4)),
        ("add", (3, 4), (7,)),
        ("sub", (3, 4), (-1,)),
        ("mul", (3, 4), (12,)),
        ("max", (3, 4), (4,)),
        ("min", (3, 4), (3,)),
        ("neg", (3, 4), (3, -4)),
        ("dup", (3, 4), (3, 4, 4)),
        ("drop", (3, 4), (3,)),
        ("swap", (3, 4), (4, 3)),
        ("over", (3, 4), (3, 4, 3)),
        ("12 -5", (), (12, -5)),
        (" \n add\tdup  add ", (3, 4), (14,)),
        ("while -1 add end", (5,), (0,)),  # counts down
        ("while -1 add end", (0,), (0,)),  # not once
        # a product by adding up; below it lies the sum, above it the factor and how often it is still to be added
        ("while 1 sub swap 3 add swap end drop", (0, 4), (12,)),
        ("while 2 while -1 add end drop -1 add end", (3,), (0,)),  # one inside the other
    ],
)
def test_words(program, inputs, stack):
    result = run(program, inputs)
    assert (result.stack, result.error) == (stack, None)


@pytest.mark.parametrize(
    ("program", "inputs", "error"),
    [
        ("add", (1,), "too few"),
        ("drop", (), "too few"),
        ("while end", (), "too few"),
        ("1 while", (), "while without end"),
        ("1 end", (), "end without while"),
        ("end while", (1,), "end without while"),
        ("push", (1,), "unknown word 'push'"),
        ("Add", (1, 2), "unknown word 'Add'"),
        ("1_000", (), "unknown word"),
        ("0x10", (), "unknown word"),
        ("1e5", (), "unknown word"),
        ("٣", (), "unknown word"),
        ("²", (), "unknown word"),
        ("--1", (), "unknown word"),
        ("-", (), "unknown word"),
        ("+1", (), "unknown word"),
        ("1234567890", (), "unknown word"),
        ("mul", (LARGEST, 2), "beyond"),
        ("add", (-LARGEST, -1), "beyond"),
        ("while end", (1,), "steps"),
        ("dup " * (MAX_WORDS + 1), (1,), "words"),
        ("dup " * MAX_WORDS, (1,), "numbers on the stack"),
    ],
)
def test_errors(program, inputs, error):
    result = run(program, inputs)
    assert result.error is not None and error in result.error


def test_limits_are_met_exactly():
    assert run("dup " * (MAX_STACK - 1), (1,)).error is None
    assert run("dup " * MAX_STACK, (1,)).error is not None
    assert run("neg " * MAX_WORDS, (1,)).error is None
    assert run("999999999 1 add").stack == (LARGEST,)
    assert run("999999999 2 add").error is not None
    # n times around: 4 n + 1 words, the while that ends it included
    assert run("while -1 add end", (5,), max_steps=21) == run("while -1 add end", (5,))
    assert run("while -1 add end", (5,), max_steps=20).error == "more than 20 steps"
    assert run("while end", (1,)).steps == MAX_STEPS


def test_an_error_leaves_the_stack_as_it_was():
    assert run("dup add mul", (2, 3)).stack == (12,)
    assert run("5 nonsense", (2,)).stack == (2,), "a program with an unknown word does not even start"
    assert run("mul", (LARGEST, LARGEST)).stack == (LARGEST, LARGEST)


# ---- hostile programs -----------------------------------------------------------------------------------------------

HOSTILE = (
    "__import__('os').system('true')", "open('/etc/passwd')", "exec", "eval", "lambda: 0", "().__class__.__bases__",
    "{0.__class__}", "%s%n", "🐍", "add\u200b", "ａｄｄ", "\u202eadd", "\x00", "1\u00a0add", "9" * 5000, "-" * 5000,
    "a" * 100_000,
    "while", "end", "while " * 40 + "end " * 20, "while end", "1 while dup end", "1 while dup mul 2 mul end",
    "2 while dup mul end",
    "1 while 1 while 1 while end end end", "1 while while while end end end", "while " * 32 + "end " * 32, "1 " * 200,
    "dup " * 10_000, "1 while over over end", "1 while 1 end", "1 while 1 drop end", "\n" * 10_000, "add " * 1_000_000,
)  # fmt: skip


def programs(count: int) -> list[str]:
    """Half of them valid words only, the others with hostile pieces; many with loops, some of them long."""
    rng = np.random.default_rng(0)
    pieces = [*WORDS, "while", "end", "dup", "1", "0", "-1", "2", "999999999"]
    texts = list(HOSTILE)
    while len(texts) < count:
        length = int(rng.integers(1, MAX_WORDS + 3))
        words = [pieces[i] for i in rng.integers(len(pieces), size=length)]
        kind = len(texts) % 4
        if kind == 0:  # loops that match, around anything
            for _ in range(int(rng.integers(1, 4))):
                start, stop = sorted(rng.integers(len(words) + 1, size=2).tolist())
                inside = [w for w in words[start:stop] if w not in ("while", "end")]
                words = [w for w in words[:start] if w not in ("while", "end")] + ["1", "while", *inside, "end"]
        elif kind == 1:
            words.insert(int(rng.integers(len(words) + 1)), HOSTILE[int(rng.integers(len(HOSTILE)))][:2000])
        elif kind == 2:
            words = [w for w in words if w not in ("while", "end")]
        texts.append(" ".join(words))
    return texts


def forbidden(*args, **kwargs):
    raise AssertionError("a program reached outside")


class Counted(list):
    """Counts how often a word is fetched: one fetch is one step."""

    fetched = 0

    def __getitem__(self, place):
        Counted.fetched += 1
        return super().__getitem__(place)


def test_ten_thousand_programs_keep_their_budget_and_touch_nothing(monkeypatch):
    """Steps are counted from outside, and compared with what the interpreter says."""
    texts, results, stacks = programs(10_000), [], []
    words_of, execute = _stack_machine._words_of, _stack_machine._execute

    def watched_execute(word, stack):
        execute(word, stack)
        stacks.append(tuple(stack))

    monkeypatch.setattr(_stack_machine, "_words_of", lambda program: Counted(words_of(program)))
    monkeypatch.setattr(_stack_machine, "_execute", watched_execute)
    with monkeypatch.context() as walled:
        for module, names in (
            (os, ("system", "open", "fork", "remove", "listdir")),
            (subprocess, ("Popen", "run")),
            (socket, ("socket",)),
            (builtins, ("open", "eval", "exec", "compile", "input", "print", "__import__")),  # last: setattr imports
        ):
            for name in names:
                walled.setattr(module, name, forbidden)
        for text in texts:
            Counted.fetched = 0
            result = run(text, (3, 4))
            results.append((result, Counted.fetched))
    assert all(result.steps == fetched for result, fetched in results)
    assert max(fetched for _, fetched in results) == MAX_STEPS
    assert max(map(len, stacks)) == MAX_STACK
    assert max(abs(number) for stack in stacks for number in stack) <= LARGEST
    reasons = {result.error or "ok" for result, _ in results}
    for reason in (
        "ok",
        "too few",
        "unknown",
        "steps",
        "words",
        "on the stack",
        "beyond",
        "while without",
        "end without",
    ):
        assert any(reason in told for told in reasons), f"no program came to {reason!r}"
    assert sum(result.error is None for result, _ in results) > 100, "not only rubbish was tried"


def test_lines_executed_are_bounded():
    """The interpreter has no loop of its own that a program can prolong: lines of Python grow with the step budget only."""
    lines = 0

    def trace(frame, event, arg):
        nonlocal lines
        if frame.f_code.co_filename != _stack_machine.__file__:
            return None
        lines += event == "line"
        return trace

    worst = {}
    for text in (*HOSTILE, *programs(400)[-300:]):
        lines = 0
        sys.settrace(trace)
        try:
            run(text, (3, 4))
        finally:
            sys.settrace(None)
        worst[text[:60]] = lines
    assert max(worst.values()) < 25 * MAX_STEPS + 25 * MAX_WORDS


def test_interpreter_names_nothing_dangerous():
    """Every global and attribute that the code names, without those of its own module, is harmless."""

    def names(code):
        found = set(code.co_names)
        for constant in code.co_consts:
            if hasattr(constant, "co_names"):
                found |= names(constant)
        return found

    own_functions = [
        f for f in vars(_stack_machine).values() if getattr(f, "__module__", "") == _stack_machine.__name__
    ]
    own_functions += [*_stack_machine._UNARY.values(), *_stack_machine._BINARY.values()]
    used = set().union(*(names(f.__code__) for f in own_functions if hasattr(f, "__code__")))
    own = {n for n in used if n in vars(_stack_machine)}
    assert used - own <= {
        "abs", "any", "append", "dict", "enumerate", "int", "isascii", "isdigit", "len", "list", "max", "min", "pop",
        "removeprefix", "split", "str", "tuple",
    }  # fmt: skip
