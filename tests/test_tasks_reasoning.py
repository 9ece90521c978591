"""Arithmetic, Program, Booking: answers that are verified, and a customer who follows a script."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest

from textgym.core import Completion, Example, TextGymError
from textgym.envs import TextGenEnv
from textgym.metrics.base import MetricError
from textgym.tasks import Task
from textgym.tasks._booking_words import DAYS, PEOPLE, QUESTIONS, TIMES
from textgym.tasks._stack_machine import run
from textgym.tasks.arithmetic import ArithmeticTask, steps_of
from textgym.tasks.booking import BookingTask, goal_of
from textgym.tasks.program import ProgramTask
from textgym.tokenization import load_tokenizer

ARITHMETIC, PROGRAM, BOOKING = TASKS = (ArithmeticTask(), ProgramTask(), BookingTask())
LEVELS = ("easy", "normal", "hard")


def examples(task: Task, level: str, count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [task.sample(rng, level) for _ in range(count)]


def parts(task: Task, example: Example, text: str) -> tuple[float, dict[str, float]]:
    completion = Completion(example.prompt, text, example.references, example.meta)
    scores, named = task.reward().parts([completion])
    return pytest.approx(float(scores[0]), abs=1e-6), {k: float(v[0]) for k, v in named.items()}


def mean_reward(task: Task, drawn: list[Example], texts: list[str]) -> float:
    return float(
        task.reward()([Completion(e.prompt, t, e.references, e.meta) for e, t in zip(drawn, texts, strict=True)]).mean()
    )


def shuffled(text: str, rng: np.random.Generator) -> str:
    return f" {' '.join(rng.permutation(text.split()))}"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_oracle_is_best_and_cheats_are_not(task, level):
    drawn, rng = examples(task, level, 150), np.random.default_rng(1)
    oracle = [task.oracle(e) for e in drawn]
    best = mean_reward(task, drawn, oracle)
    assert best == pytest.approx(
        1.0 if task is not BOOKING else {"easy": 0.9, "normal": 0.81, "hard": 0.74}[level], abs=0.02
    )
    assert all(
        task.is_success(Completion(e.prompt, t, e.references, e.meta)) for e, t in zip(drawn, oracle, strict=True)
    )
    cheats = {
        "empty": [""] * 150,
        "prompt": [f" {e.prompt}" for e in drawn],
        "another's": [*oracle[1:], oracle[0]],
        "last word over and over": [f" {t.split()[-1]}" * 8 for t in oracle],
    }
    if task is not PROGRAM or level != "easy":  # there a program is one word
        cheats["shuffled"] = [shuffled(t, rng) for t in oracle]
    cheats |= {
        ARITHMETIC: {
            "every answer": [" 1+1=2." + "".join(f" Answer: {n}" for n in range(100))] * 150,
            "answer alone": [f" Answer: {t.split()[-1]}" for t in oracle],
            "form alone": [" 1+1=2. Answer: 40"] * 150,
            "answer without the steps": [f" 1+1=2. Answer: {t.split()[-1]}" for t in oracle],
        },
        PROGRAM: {
            **{
                word: [f" {word}"] * 150
                for word in ("add", "mul", "max", "min", "sub", "drop", "mul neg", "add dup add")
            },
            "constant": [f" drop drop {e.meta['tests'][0][1]}" for e in drawn] if task is PROGRAM else [],
        },
        BOOKING: {
            "guess": [" Booked: Friday at seven for four."] * 150,
            "ask for ever": [" On which day?\n" * 9] * 150,
            "ask for ever, then book": [" On which day?\n" * 9 + t.split("\n")[-1] for t in oracle],
            "all days": [f" Booked: {' '.join(DAYS)} at seven for four."] * 150,
            "all bookings": ["".join(f" Booked: {d} at seven for four.\n" for d in DAYS)] * 150,
        },
    }[task]
    scores = {name: mean_reward(task, drawn, texts) for name, texts in cheats.items()}
    limit = best - 0.25 * (best - task.random_score)
    assert {name: score for name, score in scores.items() if score > limit} == {}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_prompts(task):
    drawn = examples(task, "normal", 4000)
    # of n prompts that are equally likely, 4000 draws meet about 8e6 / n twice; here some are more likely than others
    assert len({e.prompt for e in drawn}) > (3850 if task is not BOOKING else 3800)
    for example in drawn:
        json.dumps(dict(example.meta))
        assert not re.search(r"[{}|@*^_]|  | [.,!?]|\.\.|\b[aA] [aeiou]|\s$", example.prompt)


@pytest.mark.parametrize(
    ("task", "low", "high"), [(ARITHMETIC, 0.6, 0.7), (PROGRAM, 0.48, 0.58), (BOOKING, 0.42, 0.55)]
)
def test_share_of_best_documents(task, low, high):
    best = 0
    for seed in range(1500):
        document = task.document(np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        example = task.sample(rng, ("easy", "normal", "normal", "hard")[int(rng.random() * 4)])
        assert document.startswith(f"{example.prompt} ") and document == document.strip()
        own = re.sub(r"\nCustomer:.*\nAgent:", "\n", document.removeprefix(example.prompt))
        oracle, _ = parts(task, example, task.oracle(example))
        best += parts(task, example, own)[0].expected >= oracle.expected - 1e-6
    assert low < best / 1500 < high


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def test_steps_agree_with_python():
    assert steps_of("23+4-6") == ["23+4=27", "27-6=21"]
    assert steps_of("2+3*4-20") == ["3*4=12", "2+12=14", "14-20=-6"]
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b, c, d = rng.integers(1, 60, 4).tolist()
        x, y, z = ("+-*"[i] for i in rng.integers(3, size=3))
        by_hand = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
        terms, value = [(1, a)], 0
        for sign, n in ((x, b), (y, c), (z, d)):
            if sign == "*":
                terms[-1] = (terms[-1][0], by_hand["*"](terms[-1][1], n))
            else:
                terms.append((1 if sign == "+" else -1, n))
        value = sum(sign * n for sign, n in terms)
        steps = steps_of(f"{a}{x}{b}{y}{c}{z}{d}")
        assert len(steps) == 3 and steps[-1].split("=")[1] == str(value)


@pytest.mark.parametrize(
    ("text", "form", "steps", "answer"),
    [
        (" 23+4=27, 27-6=21. Answer: 21", 1, 1, 1),
        ("23+4=27, 27-6=21. Answer: 21 \n", 1, 1, 1),
        (" 23+4=27, 27-6=21. Answer: 22", 1, 1, 0),
        (" 23+4=28, 28-6=22. Answer: 22", 1, 0, 0),
        (" 23+4=27, 27-6=20. Answer: 21", 1, 0.5, 1),
        (" 23+4=27. Answer: 21", 1, 0.5, 1),
        (" 23+4=27, 27-6=21, 21-0=21. Answer: 21", 1, 2 / 3, 1),
        (" 27-6=21, 23+4=27. Answer: 21", 1, 0, 1),
        (" 23+4=27, 27-6=21. Answer: 021", 1, 1, 0),
        (" Answer: 21", 0, 0, 0),
        (" 23+4=27, 27-6=21.", 0, 0, 0),
        (" 23+4=27, 27-6=21. Answer: 21 Answer: 22", 0, 0, 0),
        (" 23+4=27, 27-6=21. Answer: 20, 21", 0, 0, 0),
        (" So 23+4=27, 27-6=21. Answer: 21", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_parts_of_arithmetic(text, form, steps, answer):
    score, named = parts(ARITHMETIC, Example("Question: 23+4-6=?\nWork:"), text)
    assert named == {"form": form, "steps": pytest.approx(steps), "answer": answer}
    assert score == 0.2 * form + 0.3 * steps + 0.5 * answer


@pytest.mark.parametrize(
    ("prompt", "best"),
    [
        ("12 + 30", " 12+30=42. Answer: 42"),
        ("3-5+4", " 3-5=-2, -2+4=2. Answer: 2"),
        ("2+3*4", " 3*4=12, 2+12=14. Answer: 14"),
        ("999999*999999*999999*999999", None),
    ],
)
def test_sums_of_ones_own(prompt, best):
    example = Example(ARITHMETIC.template.format(prompt=prompt))
    best = best or ARITHMETIC.oracle(example)
    assert ARITHMETIC.oracle(example) == best
    assert parts(ARITHMETIC, example, best)[0] == 1


def test_word_problems():
    example = Example("Question: From 2019-2021 Anna saved 3 a year. How much?\nWork:", ("6",))
    assert parts(ARITHMETIC, example, " Two years, 2*3=6. Answer: 6")[0] == 1
    assert parts(ARITHMETIC, example, " Answer: 6 Answer: 7")[0] == pytest.approx(0.2)
    assert parts(ARITHMETIC, example, " Answer: 6 or 7")[0] == 0
    with pytest.raises(TextGymError, match="reference"):
        ARITHMETIC.reward()([Completion("How much?", " 1")])


def test_mistakes_go_on():
    """After a wrong step a document goes on from it, as people do it, so that the text can be predicted."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(1000):
        prompt, text = ARITHMETIC.document(rng).split("\nWork: ")
        steps = re.findall(r"(-?\d+)([+*-]\d+)=(-?\d+)", text)
        if len(steps) == len(re.findall(r"[+*-]", prompt)):  # none is left out
            assert all(one[2] == two[0] for one, two in itertools.pairwise(steps)), text
            wrong += any(steps_of(f"{a}{b}") != [f"{a}{b}={c}"] for a, b, c in steps if a[0] != "-")
    assert wrong > 100


# ---- program --------------------------------------------------------------------------------------------------------


def test_tests_are_right_and_hidden_ones_are_not_shown():
    for level in LEVELS:
        for example in examples(PROGRAM, level, 200):
            tests = example.meta["tests"]
            assert len(tests) == 6 and len({tuple(inputs) for inputs, _ in tests}) == 6
            assert all(run(example.references[0], inputs).stack == (output,) for inputs, output in tests)
            shown = [f"{a} {b} -> {output}" for (a, b), output in tests]
            assert [text in example.prompt for text in shown[:2]] == [True, True]
            assert example.prompt.count("->") == 2


@pytest.mark.parametrize(
    ("program", "share"),
    [
        (" add dup add", 1),
        (" dup add swap dup add add", 1),  # another way
        (" add 2 mul", 1),
        (" add", 0),
        (" drop drop 14", 1 / 3),  # a constant: what the tests of the prompt show is not all
        (" over over add dup add", 0),  # the result is on top, but not alone
        (" add dup add nonsense", 0),
        (" 1 while end", 0),
        ("", 0),
    ],
)
def test_share_of_tests(program, share):
    example = Example(
        "Task: add the numbers, then double it.\nProgram:", (), {"tests": [[[3, 4], 14], [[1, 1], 4], [[0, 9], 18]]}
    )
    score, named = parts(PROGRAM, example, program)
    assert score == share and named == {"tests": pytest.approx(share)}
    assert PROGRAM.is_success(Completion(example.prompt, program, (), example.meta)) is (share == 1)


def test_tests_of_ones_own():
    example = Example("Tests: 3 4 -> 7; -5 1 -> -4\nProgram:")
    assert parts(PROGRAM, example, " add")[0] == 1
    assert parts(PROGRAM, example, " drop 4 add")[0] == 0.5
    for tests in (
        [],
        [3],
        "3 4 -> 7",
        [[[3, 4], "7"]],
        [[[3, 4.5], 7]],
        [[[10**12], 7]],
        [[[True], 1]],
        [[["3"], 3]],
        5,
    ):
        with pytest.raises(MetricError, match="meta"):
            PROGRAM.reward()([Completion("Write it.", " add", (), {"tests": tests})])
    with pytest.raises(MetricError, match="Write it"):
        PROGRAM.reward()([Completion("Write it.", " add")])


# ---- booking --------------------------------------------------------------------------------------------------------

GOAL = {"people": "four", "day": "Friday", "time": "seven"}
ASK = {slot: f" {texts[0]}\n" for slot, texts in QUESTIONS.items()}


def customer(meta: dict, text: str) -> str | None:
    return BOOKING.reply(Completion("Customer: Hello.\nAgent:", text, (), meta))


def play(example: Example, text: str) -> tuple[float, dict, dict]:
    env = TextGenEnv(task=BOOKING, max_new_tokens=80)
    tokens = [*load_tokenizer().encode(text), load_tokenizer().eos_token_id]
    observation, _ = env.reset(seed=0, options={"example": example})
    total = 0.0
    for token in tokens:
        observation, reward, ended, _, info = env.step(token)
        total += reward
    assert ended
    return total, info, observation


def test_a_dialogue_in_the_environment():
    meta = {**GOAL, "told": ["people"], "chatty": False, "change": None}
    example = Example("Customer: Hello, I need a table for four.\nAgent:", (), meta)
    total, info, observation = play(example, BOOKING.oracle(example))
    assert info["transcript"] == (
        " On which day?\nCustomer: On Friday.\nAgent: At what time?\nCustomer: At seven.\nAgent: "
        "Booked: Friday at seven for four."
    )
    assert info["completion"] == " On which day?\n At what time?\n Booked: Friday at seven for four."
    assert (info["reward/booking"], info["reward/turns"], info["is_success"]) == (1.0, 2.0, True)
    assert total == pytest.approx(0.8)
    assert 0 < observation["completion_mask"].sum() < observation["attention_mask"].sum()


@pytest.mark.parametrize("level", LEVELS)
def test_oracle_played(level):
    for example in examples(BOOKING, level, 40):
        text = BOOKING.oracle(example)
        total, info, _ = play(example, text)
        assert info["is_success"] and info["finish_reason"] == "stop"
        assert total == pytest.approx(1 - 0.1 * text.count("\n"), abs=1e-6)
        heard = f"{example.prompt}{info['transcript']}"
        said = heard[: heard.rindex("Booked")]
        assert all(value in said.split("Agent:", 1)[0] + said for value in goal_of(example).values()), (
            "nothing is guessed"
        )


def test_oracle_needs_every_question():
    """With one question less, something in the booking has not been said."""
    for level in LEVELS:
        for example in examples(BOOKING, level, 60):
            *turns, _ = BOOKING.oracle(example).split("\n")
            for missing in range(len(turns)):
                kept = [*turns[:missing], *turns[missing + 1 :]]
                replies = [
                    customer(dict(example.meta), "".join(f"{t}\n" for t in kept[: i + 1])) for i in range(len(kept))
                ]
                heard = f"{example.prompt} {' '.join(replies)}".lower()
                goal = goal_of(example)
                forms = {"people": "for {}", "day": "on {}", "time": "at {}", "name": "{}"}
                assert any(not re.search(rf"\b{forms[s].format(v).lower()}\b", heard) for s, v in goal.items())


@pytest.mark.parametrize(
    ("meta", "text", "reply"),
    [
        ({}, " For how many people?\n", "For four."),
        ({}, " And WHEN?\n", "At seven."),
        ({}, " On which day, and at what time?\n", "On Friday."),
        ({}, " At what time, and on which day?\n", "At seven."),
        ({}, " Hello!\n", "Sorry?"),
        ({}, "\n", "Sorry?"),
        ({}, " Booked: Friday at seven for four.\n", "Thank you."),
        ({}, " booked: Friday at seven for four.\n", "Sorry?"),
        ({}, " Booked: Monday at six for four.\n", "No, on Friday."),
        ({}, " Under which name?\n", "Sorry?"),
        ({"name": "Novak"}, " Under which name?\n", "Novak."),
        ({"name": "Novak"}, " Booked: Friday at seven for four.\n", "No, Novak."),
        ({"chatty": True}, " On which day?\n", "On Friday for four."),
        ({"chatty": True, "told": ["people"]}, " On which day?\n", "On Friday at seven."),
        ({"chatty": True, "told": ["people", "time"]}, " On which day?\n", "On Friday."),
        ({"chatty": True}, " On which day?\n At what time?\n", "At seven."),
        ({"chatty": True, "name": "Novak"}, " Under which name?\n", "Novak."),
        ({"change": {"slot": "day", "from": "Monday"}}, " At what time?\n", "At seven. And on Friday, not Monday."),
        ({"change": {"slot": "day", "from": "Monday"}}, " At what time?\n On which day?\n", "On Friday."),
        ({}, ASK["day"] * 4, "On Friday."),
        ({}, ASK["day"] * 5, None),
        ({}, "", None),
    ],
)
def test_customer(meta, text, reply):
    said = customer({**GOAL, **meta}, text)
    assert said == (None if reply is None else f"Customer: {reply}\nAgent:")


@pytest.mark.parametrize(
    ("text", "booking", "turns"),
    [
        (" Booked: Friday at seven for four.", 1, 0),
        (" Booked: friday at Seven for four. ", 1, 0),
        (" Booked: Friday at seven for five.", 1 / 3, 0),
        (" Booked: Monday at six for five.", 0, 0),
        (" Booked: Friday at seven for four.\n", 1, 1),
        (" Booked: Friday at seven for four.\n Goodbye.", 0, 1),
        (" Booked: Monday at seven for four.\n Booked: Friday at seven for four.", 1, 1),
        (" Booked: Friday at seven for four.\n Booked: Monday at seven for four.", 1 / 3, 1),
        (" Booked: Friday at seven for four. Booked: Monday at seven for four.", 0, 0),
        (" Booked: Friday or Monday at seven for four.", 1 / 3, 0),
        (" Booked: Friday at seven for four, Novak.", 0, 0),  # nobody said a name
        (" Booked: Friday at seven for four", 0, 0),
        (" I have Booked: Friday at seven for four.", 0, 0),
        (ASK["day"] * 4 + " Booked: Friday at seven for four.", 1, 4),
        (ASK["day"] * 5 + " Booked: Friday at seven for four.", 0, 5),
        (ASK["day"] * 9, 0, 5),
        ("", 0, 0),
    ],
)
def test_parts_of_booking(text, booking, turns):
    score, named = parts(BOOKING, Example("Customer: Hi.\nAgent:", (), GOAL), text)
    assert named == {"booking": pytest.approx(booking), "turns": turns}
    assert score == booking - 0.1 * turns


def test_name_is_a_slot():
    example = Example("Customer: Hi.\nAgent:", (), {**GOAL, "name": "Novak"})
    assert parts(BOOKING, example, " Booked: Friday at seven for four, Novak.")[0] == 1
    assert parts(BOOKING, example, " Booked: Friday at seven for four.")[0] == 3 / 8
    assert parts(BOOKING, example, " Booked: Friday at seven for four, Rossi.")[0] == 3 / 8


def test_replies_have_room():
    """Whatever the agent says, the customer does not say more than ``max_reply_tokens``."""
    encode, most = load_tokenizer().encode, 0
    turns = [
        *ASK.values(),
        "\n",
        *(f" Booked: {d} at {t} for {p}, Foster.\n" for d, t, p in [("Monday", "six", "two")]),
    ]
    for people, day, time in zip(PEOPLE, DAYS, TIMES, strict=True):
        lengths: dict[str, int] = {}
        meta = {"people": people, "day": day, "time": time, "name": "Foster", "told": ["day"], "chatty": True}
        meta["change"] = {"slot": "day", "from": "Wednesday"}
        for said in itertools.product(turns, repeat=4):
            total = 0
            for i in range(4):
                reply = customer(meta, "".join(said[: i + 1])) or ""
                if reply not in lengths:
                    lengths[reply] = len(encode(reply))
                total += lengths[reply]
            most = max(most, total)
    assert 0 < most <= BOOKING.max_reply_tokens


def test_customers_of_ones_own():
    record = {"prompt": "A table, please.", "people": 4, "day": "Friday", "time": "7 p.m"}
    env = TextGenEnv(task=BOOKING, prompts=[record])
    example = env.setting.prompts.examples[0]
    assert BOOKING.oracle(example).endswith(" Booked: Friday at 7 p.m for 4.")
    assert play(example, BOOKING.oracle(example))[1]["is_success"]
    for column in ("people", "day", "time"):
        lacking = {key: value for key, value in GOAL.items() if key != column}
        for call in (BOOKING.reward(), lambda cs: BOOKING.reply(cs[0])):
            with pytest.raises(TextGymError, match=rf"missing in meta: \['{column}'\], of prompt 'Hi'"):
                call([Completion("Hi", " On which day?\n", (), lacking)])
    with pytest.raises(MetricError, match="meta\\['day'\\]"):
        goal_of(Example("Hi", (), {**GOAL, "day": "Friday;\nor not"}))
    for change in ("day", {"slot": "name", "from": "Novak"}, {"slot": "day"}):
        with pytest.raises(MetricError, match="change"):
            customer({**GOAL, "change": change}, " What?\n")
    assert BOOKING.oracle(Example("Hi", ("Booked: Friday at seven for four.",))) == " Booked: Friday at seven for four."


def test_long_bookings_are_read_in_no_time():
    """The pattern is bounded, so that a text made to be hard to match is not."""
    for text in (
        " Booked: " + "a at " * 20_000 + "b for c.",
        " " * 100_000 + "Booked: x",
        " Booked: " + "for at " * 20_000,
    ):
        assert parts(BOOKING, Example("Hi", (), GOAL), text)[0] == 0
