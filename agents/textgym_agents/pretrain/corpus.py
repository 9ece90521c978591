"""The text that the bundled tokenizer and model are trained on: endless, fresh, a function of a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from textgym.tasks import TASKS, make_task

TASK_WEIGHTS: dict[str, float] = {}
"""Share of a task's documents relative to the others; a task that is not listed counts 1."""

SUPPORT_SHARE = 0.08
"""Share of support lines in the tokenizer's text. The language model reads none of them."""

# The parts of a seed, so that no two streams draw the same numbers.
TOKENIZER, TRAINING, HELD_OUT, PROMPTS = range(4)


PAD, END = "<|pad|>", "<|endoftext|>"
PAD_ID, END_ID = 0, 1


def stream(seed: int, part: int) -> np.random.Generator:
    """The random generator of one part of the work (`TOKENIZER`, `TRAINING`, `HELD_OUT` or `PROMPTS`)."""
    return np.random.default_rng([seed, part])


def task_documents(rng: np.random.Generator) -> Iterator[str]:
    """Documents of all tasks, mixed by `TASK_WEIGHTS`, without end."""
    tasks = [make_task(name) for name in TASKS]
    weights = np.array([TASK_WEIGHTS.get(name, 1.0) for name in TASKS])
    while True:
        for index in rng.choice(len(tasks), size=256, p=weights / weights.sum()):
            yield tasks[index].document(rng)


def tokenizer_documents(rng: np.random.Generator, count: int) -> Iterator[str]:
    """``count`` texts for the tokenizer: the tasks' documents, and every so often a line of support text."""
    for document in islice(task_documents(rng), count):
        yield support_line(rng) if rng.random() < SUPPORT_SHARE else document


# ---- support text: what later tasks will need tokens for, and film reviews lack -------------------------------------


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.strip().replace("\n", "|").split("|")


NAMES = _words("Anna Boris Clara David Elena Felix Greta Hugo Ines Jonas Karin Leo Maria Niko Olga Peter Rosa Tom")
SURNAMES = _words("Novak Keller Silva Brown Rossi Meyer Dubois Tanaka Lopez Smith Jansen Olsen Kaya Moreau")
CITIES = _words("Bern Oslo Paris London Vienna Lisbon Tokyo Cairo Lima Berlin Madrid Boston Köln München Zürich")
FIRMS = _words("Acme Nordbank Lumen Corvex Delta Solar Pioneer Atlas Orion")
MONTHS = _words("January February March April May June July August September October November December")
FOODS = _words("French Italian Indian Chinese Japanese English")
PLACES = _phrases("The Eagle|The Mill|Blue Spice|The Golden Palace|Green Man|The Punter|Zizzi|Cotto")
QUESTIONS = _phrases("Where do you live?|What time is it?|How many do you need?|Can you help me?|Is it far from here?")
ANSWERS = _phrases("I live in {c}.|It is {d} o'clock.|I need {d} of them.|Yes, of course.|No, sorry, I don't know.")
SYMBOLS = _words("[ ] ( ) { } < > | = + - * / . , : ; ! ? \" ' # % & @ _ $ \\ ^ ~ ` -> == != <= >= && || ++ :: ...")
OPERATIONS = _words("add sub mul dup swap drop over neg mod jump print pop")
GERMAN = _phrases("""
Der große Hund läuft schnell über die Straße.|Die Äpfel sind süß und grün.|Öl ist flüssig.
Überall hört man schöne Lieder.|Das Mädchen heißt {n}.|Ich möchte heute früh nach {c} fahren.
Können Sie mir bitte helfen?
Die Tür ist geöffnet, aber das Fenster nicht.|Wir müssen noch {d} Brötchen für die Gäste kaufen.
Der König trägt einen weißen Mantel.|Ärzte und Bäcker arbeiten früh.|Es gibt {d} Bücher für die Schüler.
Übung macht den Meister.|Ein Kuß zum Abschied, Grüße aus {c}!|Die Größe der Häuser ändert sich.
Öfter regnet es im Frühling.
Später gehen wir mit den Söhnen in die Küche.|Die Bäume blühen, und die Vögel singen.|Das Gebäude ist {d} Jahre alt.
""")


def support_line(rng: np.random.Generator) -> str:
    """One short text of a random kind."""
    kinds: tuple[Callable[[np.random.Generator], str], ...] = (
        _arithmetic, _entities, _key_values, _date, _dialogue, _german, _german, _stack_code, _symbols, _letters
    )  # fmt: skip
    return kinds[rng.integers(len(kinds))](rng)


def _pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[rng.integers(len(choices))]


def _fill(rng: np.random.Generator, text: str) -> str:
    return text.format(n=_pick(rng, NAMES), c=_pick(rng, CITIES), d=rng.integers(2, 60))


def _arithmetic(rng: np.random.Generator) -> str:
    a, b, c = (int(x) for x in rng.integers(0, 100, size=3))
    sums = (
        f"{a} + {b} = {a + b}",
        f"{a} - {b} = {a - b}",
        f"{a} * {b} = {a * b}",
        f"({a} + {b}) * {c} = {(a + b) * c}",
        f"max({a}, {b}) = {max(a, b)}",
        f"{a}.{b} < {a + 1}.{c}",
        f"{a * b} / {b or 1} = {a * b // (b or 1)}",
    )
    return sums[rng.integers(len(sums))]


def _entities(rng: np.random.Generator) -> str:
    person = f"[PER {_pick(rng, NAMES)} {_pick(rng, SURNAMES)}]"
    place, firm = f"[LOC {_pick(rng, CITIES)}]", f"[ORG {_pick(rng, FIRMS)}]"
    forms = (
        f"{person} visited {place} .",
        f"{person} works for {firm} in {place} .",
        f"{firm} opened an office in {place} .",
    )
    return forms[rng.integers(len(forms))]


def _key_values(rng: np.random.Generator) -> str:
    place, food, city = _pick(rng, PLACES), _pick(rng, FOODS), _pick(rng, CITIES)
    price = ("cheap", "moderate", "high")[rng.integers(3)]
    pairs = f"name[{place}], food[{food}], area[{city}], priceRange[{price}]"
    return f"{pairs}\n{place} is a {price} restaurant in {city} that serves {food} food."


def _date(rng: np.random.Generator) -> str:
    year, month, day = int(rng.integers(1900, 2030)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    iso, german = f"{year}-{month:02d}-{day:02d}", f"{day}.{month}.{year} {day % 24}:{month:02d}"
    return f"{day} {MONTHS[month - 1]} {year} | {iso} | {german}"


def _dialogue(rng: np.random.Generator) -> str:
    return f"User: {_pick(rng, QUESTIONS)}\nAssistant: {_fill(rng, _pick(rng, ANSWERS))}"


def _german(rng: np.random.Generator) -> str:
    return _fill(rng, _pick(rng, GERMAN))


def _stack_code(rng: np.random.Generator) -> str:
    steps = (f"push {rng.integers(100)}" if rng.random() < 0.4 else _pick(rng, OPERATIONS) for _ in range(6))
    return " ".join(steps)


def _symbols(rng: np.random.Generator) -> str:
    return " ".join(_pick(rng, SYMBOLS) for _ in range(12))


def _letters(rng: np.random.Generator) -> str:
    """The German letters alone, often enough that each becomes one token.

    A line each, so that nothing stands before them: their first bytes are alike, and would merge with a space.
    """
    return "\n".join(rng.permutation(list("äöüßÄÖÜ" * 4)))
