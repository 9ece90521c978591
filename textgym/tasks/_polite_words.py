"""What rude messages ask for, and the words that make them rude or polite."""

from __future__ import annotations

import re

# Each request: a verb, and what it can be done to. "X|Y" ends with Y: "send|to me the report" is said "send me the report".
REQUESTS: dict[str, tuple[str, ...]] = {
    "send me": ("the report", "the letter", "the list", "the photos", "the bill", "the new plan", "the address", "the tickets"),
    "bring me": ("the keys", "the newspaper", "the bill", "some water", "a cup of tea", "my coat", "the box", "a clean plate"),
    "give me": ("the phone", "my money", "the keys", "a clear answer", "the book", "the number", "more time", "a pen"),
    "show me": ("the room", "the photos", "the way", "the garden", "the new plan", "your ticket", "the map", "the bill"),
    "clean": ("the kitchen", "the floor", "the windows", "the car", "your desk", "the table", "the bathroom", "your shoes"),
    "open": ("the door", "the window", "the box", "the gate", "the letter", "the shop", "the bottle", "the garden"),
    "close": ("the door", "the window", "the gate", "the shop", "the box", "the book", "the kitchen", "the office"),
    "fix": ("the printer", "the car", "the heating", "the lamp", "the roof", "my phone", "the lock", "the radio"),
    "move": ("the car", "your desk", "the table", "the box", "your bike", "the chairs", "the meeting", "the sofa"),
    "read": ("the report", "the letter", "the list", "the book", "the new plan", "the map", "the bill", "my message"),
    "check": ("the report", "the bill", "the numbers", "the list", "the address", "the lock", "the heating", "the tickets"),
    "call": ("the doctor", "the office", "my brother", "the police", "the hotel", "a taxi", "the school", "my boss"),
    "turn off": ("the radio", "the music", "the lamp", "the heating", "your phone", "the printer", "the light", "the oven"),
    "wait for": ("the doctor", "the bus", "my brother", "the police", "a taxi", "the train", "my boss", "the manager"),
}  # fmt: skip
TIMES = (
    "today",
    "tonight",
    "now",
    "by Friday",
    "by Monday",
    "before noon",
    "tomorrow",
    "this week",
    "on Sunday",
    "after lunch",
)
INSULTS = ("idiot", "fool", "moron", "loser", "clown", "dummy", "blockhead", "pig", "rat", "creep", "jerk", "nobody")
INSULTING = ("stupid", "lazy", "useless", "dumb", "pathetic", "silly", "hopeless")
SWEARING = ("damn", "stupid", "bloody", "lousy", "rotten", "filthy")
RUDE = frozenset(
    (*INSULTS, *INSULTING, *SWEARING, "shut", "hell", "crap", "hurry", "hate", "shit", "fuck", "ass", "bastard")
)

EASY = ("{request} {time}, you {insult}!", "You {insult}, {request} {time}!", "Hey {insult}, {request} {time}!")
NORMAL = (
    "{Request} {time}, you {insulting} {insult}!",
    "Shut up and {request} {time}!",
    "{Request} {time}, or go to hell, {insult}!",
    "Hurry up and {request} {time}, you {insulting} {insult}!",
    "Hey {insult}, {request} {time}, damn it!",
    "What a {insulting} {insult} you are! {Request} {time}!",
)
HARD = (
    "{Request} {time}, you {insult}, and {other}!",
    "Shut up, {insult}! {Request} {time} and {other}!",
    "You {insulting} {insult}, {request} and {other} {time}!",
)
POLITE = (
    "Could you please {rest}?",
    "Would you please {rest}?",
    "Please {rest}, thank you.",
)
TYPICAL = ("{Rest}.", "{Rest}, please.", "Can you {rest}?", "I want you to {rest}.", "Just {rest}!")
"""Answers that are less than polite."""

_ASKING = re.compile(r"\b(could you|would you|please|thank you|thanks|kindly|would you mind|i would be grateful)\b")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def is_rude(text: str) -> bool:
    """Whether a text has a rude word, or shouts."""
    return "!" in text or not RUDE.isdisjoint(words_of(text))


def asks_politely(text: str) -> bool:
    """Whether a text has a phrase of politeness; one phrase over and over is none."""
    found = _ASKING.findall(text.lower())
    return 0 < len(found) <= 3 and len(found) * 3 <= len(words_of(text))
