"""What TextGen-Concepts-v0's scenes are made of: who, does what, to what, where."""

from __future__ import annotations

PEOPLE = tuple(
    """baker boy child cook doctor driver farmer girl king man nurse painter pilot queen sailor singer soldier student
    teacher woman""".split()
)
ANIMALS = tuple("bear bird cat cow dog fox horse monkey rabbit".split())
NATURES = tuple("angry busy happy hungry little old quiet sad small strong tall tired young".split())

# Verb and what it may be done to; "an animal" and "a person" stand for those above.
DEEDS: dict[str, tuple[str, ...]] = {
    "bring": ("bag", "book", "cake", "flower", "lamp", "letter"),
    "build": ("boat", "bridge", "house", "table", "wall"),
    "buy": ("apple", "bag", "bike", "book", "cake", "flower", "hat", "newspaper"),
    "lift": ("bag", "basket", "box", "chair", "ladder", "stone"),
    "catch": ("ball", "fish", "train", "bus"),
    "clean": ("car", "chair", "floor", "table", "window"),
    "close": ("bag", "box", "door", "gate", "window"),
    "draw": ("flower", "house", "map", "picture", "tree"),
    "drive": ("bus", "car", "truck"),
    "eat": ("apple", "cake", "egg", "fish", "sandwich"),
    "find": ("ball", "coin", "key", "map", "ring", "shoe"),
    "fix": ("bike", "boat", "car", "clock", "lamp", "roof"),
    "hold": ("candle", "cup", "flag", "flower", "rope", "umbrella"),
    "kick": ("ball", "box", "door"),
    "lose": ("coin", "hat", "key", "ring", "shoe", "watch"),
    "open": ("bag", "box", "door", "gate", "letter", "window"),
    "paint": ("boat", "bridge", "door", "picture", "wall"),
    "play": ("drum", "guitar", "piano", "violin"),
    "pull": ("boat", "box", "rope", "sledge"),
    "push": ("bike", "box", "car", "chair", "table"),
    "read": ("book", "letter", "map", "newspaper", "story"),
    "ride": ("bike", "horse", "sledge"),
    "sell": ("apple", "bike", "cake", "flower", "hat", "newspaper"),
    "throw": ("ball", "coin", "rope", "stone"),
    "wash": ("car", "cup", "floor", "shirt", "window"),
    "wear": ("coat", "hat", "ring", "shirt", "watch"),
    "write": ("book", "letter", "song", "story"),
}
ANIMAL_DEEDS: dict[str, tuple[str, ...]] = {
    "bite": ("ball", "bag", "hat", "shoe"),
    "fetch": ("basket", "fish", "shoe", "stone"),
    "chase": ("ball", "bike", "car", "truck"),
    "eat": ("apple", "cake", "egg", "fish", "sandwich"),
    "find": ("ball", "coin", "key", "shoe"),
    "pull": ("rope", "sledge", "coat"),
    "push": ("ball", "box", "chair", "door"),
    "watch": ("bus", "candle", "fish", "train"),
}
STATES = tuple("dance rest run sing sit sleep stand wait walk".split())
PLACES: dict[str, str] = {
    **dict.fromkeys("forest garden hall kitchen library office park street yard".split(), "in"),
    **dict.fromkeys("beach hill island road".split(), "on"),
    **dict.fromkeys("bank hotel market school station".split(), "at"),
    **dict.fromkeys("church fire lake river tower".split(), "near"),
}
"""Where it happens, and the preposition that the place takes."""

OBJECTS = tuple(dict.fromkeys(thing for things in DEEDS.values() for thing in things))


def third_person(verb: str) -> str:
    """The form of a verb above that goes with "he": "read" to "reads", "catch" to "catches"."""
    return verb + ("es" if verb.endswith(("x", "ch", "sh")) else "s")
