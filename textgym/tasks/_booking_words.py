"""The words of TextGen-Booking-v0: what customers want, and how they and the agent say it."""

from __future__ import annotations

from textgym.tasks._writing import SURNAMES, WEEKDAYS

PEOPLE = ("two", "three", "four", "five", "six", "eight", "ten")
DAYS = WEEKDAYS
TIMES = ("noon", "one", "two", "six", "seven", "eight", "nine")
NAMES_ASKED = SURNAMES
GREETINGS = ("Hello", "Hi", "Good morning", "Good evening")
FIRST_TURNS = ("I need a {} table", "I would like a {} table", "We want a {} table", "We are looking for a {} table")
KINDS = ("quiet", "nice", "small", "large", "good", "free", "round", "sunny")
OCCASIONS = (
    "",
    "",
    " It is my birthday.",
    " We have a dog.",
    " We love fish.",
    " I will pay by card.",
    " It is our first visit.",
)
TOLD = {"people": "for {}", "day": "on {}", "time": "at {}"}
"""How the first line tells a slot."""
SAID = {"people": "for {}", "day": "on {}", "time": "at {}", "name": "{}"}
"""How an answer tells it."""
CHANGES = {"people": "And for {new}, not {old}.", "day": "And on {new}, not {old}.", "time": "And at {new}, not {old}."}
QUESTIONS = {
    "people": ("For how many people?", "How many are you?"),
    "day": ("On which day?", "Which day?"),
    "time": ("At what time?", "What time?"),
    "name": ("Under which name?", "What is your name?"),
}
"""The first of each is the oracle's."""
