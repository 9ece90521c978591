"""What TextGen-Entities-v0's sentences are made of: names of each type, and sentences with places for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textgym.tasks._writing import CITIES, MONTHS, NAMES, SURNAMES, WEEKDAYS

COUNTRIES = tuple("Brazil Chile China Egypt France Greece India Japan Kenya Norway Peru Spain".split())
COMPANIES = tuple("Acme Ikarus Medica Nordex Novatel Orbita Solaris Unitel".split())
NATIONS = tuple("Dutch English French German Greek Indian Italian Polish Spanish".split())
# Names of persons, of places and of companies, all of them; the words around say which.
PERSON_OR_PLACE = (
    "Austin", "Charlotte", "Chelsea", "Florence", "Georgia", "Houston", "Jordan", "Lincoln", "Paris", "Sydney", "Victoria",
    "Washington",
)  # fmt: skip
PERSON_OR_COMPANY = ("Ford", "Morgan", "Dell", "Kellogg")
PERSON_OR_MONTH = ("April", "May", "June")

# Tables by slot, as `textgym.tasks._writing.fill` reads them. The slots of a sentence are named for types of entities.
EASY: Mapping[str, Sequence[str]] = {"PER": NAMES, "LOC": (*CITIES, *COUNTRIES), "ORG": COMPANIES}
NORMAL: Mapping[str, Sequence[str]] = {
    "PER": ("{first}", "{first} {last}", "{first} {last}", "{first} {last}"),
    "LOC": ("{city}", "{city}", "{country}", "New York", "Hong Kong", "Cape Town"),
    "ORG": ("{company}", "{company}", "{city} University", "{last} Motors", "{last} Bank", "{country} Airlines"),
    "first": NAMES,
    "last": SURNAMES,
    "city": CITIES,
    "country": COUNTRIES,
    "company": COMPANIES,
}
HARD: Mapping[str, Sequence[str]] = {
    **NORMAL,
    "PER": ("{both}", "{both}", "{both} {last}", "{first} {namesake}", "{maker}", "{spring}", "{first} {last}"),
    "LOC": ("{both}", "{both}", "{both}", "{city}", "{country}"),
    "ORG": ("{maker}", "{both} University", "{both} Bank", "{both} Airlines", "{company}", "{last} Motors"),
    "DATE": ("{day}", "{spring} {number}", "{month} {number}"),
    "MONTH": ("{month}", "{spring}", "{spring}"),
    "MISC": NATIONS,
    "both": PERSON_OR_PLACE,
    "namesake": ("Houston", "Jordan", "Lincoln", "Washington"),
    "maker": PERSON_OR_COMPANY,
    "spring": PERSON_OR_MONTH,
    "day": WEEKDAYS,
    "month": MONTHS,
    "number": tuple(map(str, range(2, 10))),
}

EASY_SENTENCES = (
    "{PER} lives in {LOC} {now}",
    "{PER} flew to {LOC} {end}",
    "{PER} works for {ORG} {now}",
    "{PER} left {ORG} {end}",
    "{PER} met {PER} {end}",
    "{ORG} hired {PER} {end}",
    "{ORG} moved to {LOC} {end}",
    "{ORG} sued {ORG} {end}",
    "The teacher thanked {PER} {end}",
    "Trains to {LOC} were late {end}",
)
NORMAL_SENTENCES = (
    "{PER} lives in {LOC} {now}",
    "{PER} flew to {LOC} {end}",
    "{PER} works for {ORG} in {LOC} {now}",
    "{PER} left {ORG} {end}",
    "{PER} met {PER} in {LOC} {end}",
    "{PER} , who lives in {LOC} , called {PER} {end}",
    "{ORG} hired {PER} {end}",
    "{ORG} opened an office in {LOC} {end}",
    "{ORG} sold a factory to {ORG} {end}",
    "{ORG} and {ORG} sued {PER} {end}",
    "The head of {ORG} flew to {LOC} {end}",
    "A judge in {LOC} fined {ORG} {end}",
    "Trains from {LOC} to {LOC} were late {end}",
    "Workers at {ORG} thanked {PER} {end}",
)
# Every place decides the type by itself: verbs that only persons do, prepositions that only places follow. `MONTH` is a DATE.
HARD_SENTENCES = (
    "{PER} lives in {LOC} {now}",
    "{PER} flew from {LOC} to {LOC} on {DATE}",
    "{PER} married {PER} in {LOC} {end}",
    "{PER} thanked {PER} , a {MISC} teacher {end}",
    "{PER} works for {ORG} in {LOC} {now}",
    "{PER} , the head of {ORG} , lives in {LOC} {now}",
    "Shares of {ORG} fell on {DATE}",
    "Shares of {ORG} rose in {MONTH}",
    "{PER} left {ORG} in {MONTH}",
    "A {MISC} court fined {ORG} on {DATE}",
    "A {MISC} singer met {PER} in {LOC} {end}",
    "Trains from {LOC} to {LOC} were late on {DATE}",
    "In {MONTH} , {PER} moved to {LOC}",
    "On {DATE} , workers at {ORG} thanked {PER}",
    "The {MISC} film was made in {LOC} by {PER} {end}",
)
NOW = ("", "", "", "again", "now", "these days")
ENDS = ("", "", "again", "last night", "last summer", "last week", "last year", "this morning", "yesterday")
