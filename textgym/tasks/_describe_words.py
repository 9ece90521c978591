"""What TextGen-Describe-v0 knows of restaurants: attributes, values, and the phrases that tell a value.

Attributes are those of the E2E data (Novikova et al. 2017, https://arxiv.org/abs/1706.09254); phrases are in the form that
:func:`plain` gives.
"""

from __future__ import annotations

import re

_FIRST = "Black Blue Golden Green Happy Lucky Old Red Royal Silver Sunny White Wild Yellow".split()
_SECOND = "Apple Bell Dragon Elephant Fox Garden Horse Kitchen Lion Moon Olive Rose Spice Swan".split()
NAMES = tuple(f"{a} {b}" for a in _FIRST for b in _SECOND)
FOODS = tuple("Chinese English French Greek Indian Italian Japanese Mexican Spanish Turkish".split())
PLACES = (
    "Castle Hill", "Central Station", "City Hall", "Clare Bridge", "Green Park", "Kings Theatre", "Market Square",
    "Rose Museum", "Station Road", "West Gate",
)  # fmt: skip
VALUES: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "eatType": ("bar", "coffee shop", "pub", "restaurant"),
    "food": FOODS,
    "priceRange": ("cheap", "moderate", "high"),
    "customer rating": ("low", "average", "high"),
    "area": ("riverside", "city centre", "old town", "harbour", "suburbs"),
    "familyFriendly": ("yes", "no"),
    "near": PLACES,
}
"""What the generator draws, by attribute, in the order that a table has."""

PRICES = {"cheap": "cheap", "moderate": "moderately priced", "high": "expensive"}
AREAS = {
    "riverside": "by the riverside",
    "city centre": "in the city centre",
    "old town": "in the old town",
    "harbour": "by the harbour",
    "suburbs": "in the suburbs",
}
GUESTS = {"yes": "for families", "no": "for adults only"}

_CHEAP = (
    "cheap", "cheaply", "inexpensive", "affordable", "low price", "low prices", "low priced", "low cost", "priced low",
    "lower priced", "prices are low", "price range is low", "low price range",
)  # fmt: skip
_MODERATE = (
    "moderate", "moderately", "reasonable", "reasonably", "mid priced", "medium priced", "mid price", "medium price",
    "average price", "average prices", "average priced", "mid range", "mid ranged",
)  # fmt: skip
_DEAR = (
    "expensive", "pricey", "costly", "high price", "high prices", "high priced", "highly priced", "priced high",
    "higher priced", "prices are high", "price range is high", "high price range", "high cost", "upper price range",
    "high end",
)  # fmt: skip


def _rated(word: str, *more: str) -> tuple[str, ...]:
    ways = (
        "{} rating", "{} ratings", "{} customer rating", "{} customer ratings", "{} rated", "rated {}", "rated as {}",
        "rating is {}", "ratings are {}", "customer rating {}", "rated {} by", "rating of {}", "{} customer satisfaction",
        "{} reviews", "{} customer reviews", "{} scores",
    )  # fmt: skip
    return (*(way.format(word) for way in ways), *more)


def _stars(digit: str, word: str) -> tuple[str, ...]:
    return tuple(
        f"{number} {rest}"
        for number in (digit, word)
        for rest in ("out of 5", "out of five", "star", "stars", "of 5", "5")
    )


_LOW = _rated("low", *_rated("poor"), "poorly rated", "lowly rated")
_AVERAGE = _rated("average", "averagely rated", "decent rating")
_HIGH = _rated("high", "highly rated", "well rated", "high quality", *_rated("good"), *_rated("excellent"))
PHRASES: dict[tuple[str, str], tuple[str, ...]] = {
    ("priceRange", "cheap"): _CHEAP,
    ("priceRange", "less than £20"): (*_CHEAP, "less than £20", "under £20", "below £20", "less than 20"),
    ("priceRange", "moderate"): _MODERATE,
    ("priceRange", "£20-25"): (*_MODERATE, "£20 25", "£20 £25", "£20 to £25", "£20 to 25", "£20 and £25", "20 25"),
    ("priceRange", "high"): _DEAR,
    ("priceRange", "more than £30"): (*_DEAR, "more than £30", "over £30", "above £30", "more than 30"),
    ("customer rating", "low"): (*_LOW, *_stars("1", "one")),
    ("customer rating", "1 out of 5"): (*_LOW, *_stars("1", "one")),
    ("customer rating", "average"): (*_AVERAGE, *_stars("3", "three")),
    ("customer rating", "3 out of 5"): (*_AVERAGE, *_stars("3", "three")),
    ("customer rating", "high"): (*_HIGH, *_stars("5", "five")),
    ("customer rating", "5 out of 5"): (*_HIGH, *_stars("5", "five")),
    ("area", "riverside"): ("riverside", "river", "river side"),
    ("area", "city centre"): ("city centre", "city center", "center city", "centre of the city", "center of the city",
                              "town centre", "centre of town"),
    ("eatType", "coffee shop"): ("coffee shop", "coffee shops", "coffeeshop", "cafe", "café"),
    **{("food", food): (food.lower(),) for food in FOODS},
    **{("area", area): (area,) for area in ("old town", "harbour", "suburbs")},
    **{("eatType", kind): (kind, f"{kind}s") for kind in ("bar", "pub", "restaurant")},
    **{("near", place): (place.lower(),) for place in PLACES},
    **{("name", name): (name.lower(),) for name in NAMES},
}  # fmt: skip
"""What tells a value; a value that is not here is told by itself, and `familyFriendly` by :func:`families`."""

_GUESTS = re.compile(r" (?:famil\w+|child\w*|kids?|adults?) ")
_NOT = re.compile(r" (?:no|not|non|never|nor|without|unfriendly)(?! only)(?: \w+){0,5} $")
_PIECE = re.compile(r"£?[^\W_]+")
_AFTER = re.compile(r"^ ?(?:unfriendly|free|are not|is not|not)\b")


def plain(text: str) -> str:
    """``text`` in lower case, words and amounts only, a space around each: "Cheap, isn't it?" to " cheap is not it "."""
    text = re.sub(r"n['’]t\b", " not", text.lower())
    return f" {' '.join(_PIECE.findall(text))} "


def families(text: str) -> str | None:
    """Whether a plain text says that families are welcome: "yes", "no", or ``None`` if it does not say."""
    found = _GUESTS.search(text)
    if not found:
        return None
    before, after = text[: found.start() + 1], text[found.end() - 1 :]
    return "no" if "adult" in found[0] or _NOT.search(before) or _AFTER.search(after) else "yes"
