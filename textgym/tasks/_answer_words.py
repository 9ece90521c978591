"""What TextGen-Answer-v0's passages are made of: kinds of facts about people, and where things lie."""

from __future__ import annotations

from dataclasses import dataclass

from textgym.tasks._writing import CITIES, NAMES, SURNAMES, WEEKDAYS, with_article

WOMEN = tuple("Anna Clara Emma Grace Ines Karin Maria Nina Rosa Vera".split())
NUMBERS = tuple("two three four five six seven".split())
HOURS = tuple("six seven eight nine ten".split())
COLOURS = tuple("black blue green red white yellow".split())
LANGUAGES = tuple("Dutch English French German Greek Italian Polish Spanish".split())
GOODS = tuple("bag bike book coat hat lamp phone sofa table watch".split())
JOBS = (
    "nurse", "teacher", "baker", "doctor", "lawyer", "farmer", "pilot", "cook",
    "bus driver", "tour guide", "police officer", "film critic", "shop manager", "music teacher",
)  # fmt: skip
DRINKS = (
    "green tea", "black tea", "black coffee", "hot milk", "cold milk", "apple juice", "orange juice", "red wine",
    "white wine", "tap water",
)  # fmt: skip
SUBJECTS = ("art", "law", "music", "physics", "art history", "modern dance", "German literature", "computer science")
GAMES = ("chess", "tennis", "football", "golf", "table tennis", "ice hockey", "beach volleyball")
WAYS = ("by train", "by bus", "by car", "by boat", "by bike", "by plane", "on foot")
LINKS = ("boss", "best friend", "cousin", "coach", "partner")
THINGS = tuple("book camera key knife lamp letter map phone photo ring ticket watch".split())
HOLDERS = tuple("bag basket box cupboard drawer suitcase".split())
ROOMS = tuple("attic bathroom bedroom cellar garage hall kitchen library office".split())


@dataclass(frozen=True)
class Kind:
    """A kind of fact about a person.

    Attributes:
        says: The predicate; ``{value}`` stands for the answer.
        asks: The question; ``{who}`` stands for the person.
        values: The answers that there are.
    """

    says: str
    asks: str
    values: tuple[str, ...]


def _pairs(first: tuple[str, ...], second: tuple[str, ...], between: str = " ") -> tuple[str, ...]:
    return tuple(f"{a}{between}{b}" for a in first for b in second if a != b)


KINDS = (
    Kind("lives in {value}", "Where does {who} live?", CITIES),
    Kind("works as a {value}", "What does {who} work as?", JOBS),
    Kind("has {value}", "What pets does {who} have?", _pairs(NUMBERS, ("birds", "cats", "dogs", "horses", "rabbits"))),
    Kind("drinks {value}", "What does {who} drink?", DRINKS),
    Kind("bought a {value}", "What did {who} buy?", _pairs(COLOURS, GOODS)),
    Kind("travels {value}", "How does {who} travel?", WAYS),
    Kind("gets up {value}", "When does {who} get up?", _pairs(("at", "before", "after"), HOURS)),
    Kind("visited {value}", "Who did {who} visit?", _pairs(NAMES, SURNAMES)),
    Kind("speaks {value}", "Which languages does {who} speak?", _pairs(LANGUAGES, LANGUAGES, " and ")),
    Kind("studies {value}", "What does {who} study?", SUBJECTS),
    Kind("plays {value}", "What does {who} play?", GAMES),
    Kind("arrived {value}", "When did {who} arrive?", _pairs(("on", "last", "before"), WEEKDAYS)),
)
assert not any(with_article(job).startswith("an ") for job in JOBS), "the predicate says `a`"
