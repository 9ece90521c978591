"""Short news articles with their headlines: an event is a lead sentence, headlines and details that share their slots.

In the sentences ``{when}`` is the place where the day may stand; "a" becomes "an" where the next word asks for it. A slot is
filled from the table of its name; a verb has two forms, ``{did}`` for articles and ``{does}`` for headlines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textgym.tasks._writing import CITIES, MONTHS, NAMES, SURNAMES, WEEKDAYS, capitalized, pick, pick_some

TABLES: dict[str, tuple[str, ...]] = {
    "city": CITIES,
    "other_city": CITIES,
    "name": tuple(f"{first} {last}" for first in NAMES for last in SURNAMES),
    "witness": NAMES,
    "number": tuple("two three four five six seven eight nine ten".split()),
    "more": tuple("five six seven eight nine ten".split()),
    "building": tuple("library museum school hotel theater market hospital station factory church bakery castle".split()),
    "age": ("old", "small", "large", "famous"),
    "fresh": ("new", "second", "modern"),
    "force": ("fire", "storm", "flood", "earthquake"),
    "treasure": ("painting", "crown", "violin", "statue", "clock", "diamond"),
    "workers": ("bus drivers", "teachers", "nurses", "pilots", "bakers", "train drivers"),
    "cause": ("low pay", "long hours", "new rules", "night work", "lost jobs"),
    "sport": ("football", "hockey", "basketball", "chess"),
    "rescuers": ("firefighters", "sailors", "soldiers", "neighbors"),
    "saved": ("children", "people", "tourists", "dogs", "horses"),
    "danger": ("a burning house", "a sinking boat", "a flooded street", "a broken elevator"),
    "job": ("baker", "farmer", "teacher", "doctor", "lawyer", "singer", "cook", "pilot"),
    "finders": ("workers", "students", "children", "scientists"),
    "age_of_find": ("Roman", "golden", "very old", "rare"),
    "find": ("coin", "ring", "map", "ship", "sword", "letter"),
    "animal": ("lion", "monkey", "bear", "snake", "tiger", "elephant"),
    "good": ("bread", "milk", "coffee", "rice", "fish", "oil"),
    "prize": ("cooking contest", "chess contest", "piano contest", "dance contest", "boat race"),
    "vehicle": ("bus", "truck", "car", "train", "taxi"),
    "weather": ("rain", "snow", "fog", "wind"),
    "event": ("music festival", "book fair", "flower market", "boat race", "film festival"),
    "month": MONTHS,
    "day": WEEKDAYS,
    "year": tuple(str(year) for year in range(1900, 2000, 5)),
    "hours": ("two", "three", "four", "five"),
}  # fmt: skip
_LOW_SCORES = ("0", "1", "2")
_HIGH_SCORES = ("3", "4", "5")


@dataclass(frozen=True, slots=True)
class Event:
    """What may happen: a verb in two tenses, one lead sentence, one to three headlines, and details."""

    verbs: tuple[tuple[str, str], ...]
    lead: str
    headlines: tuple[str, ...]
    details: tuple[str, ...]
    month: bool = False  # of a month, not of a day
    dated: bool = True  # may be told of the past


EVENTS = (
    Event(
        (("destroyed", "destroys"), ("damaged", "damages")),
        "a {force} {did} the {age} {building} in {city}{when}",
        ("{force} {does} {city} {building}", "{force} {does} {building} in {city}"),
        ("The {building} was built in {year}.", "Nobody was hurt.", "{number} people were hurt.",
         "The mayor, {name}, promised to build a new one.", "It will stay closed until {month}."),
    ),
    Event(
        (("opened", "opens"), ("closed", "closes"), ("sold", "sells")),
        "the city of {city} {did} its {fresh} {building}{when}",
        ("{city} {does} {fresh} {building}", "{city} {does} its {fresh} {building}"),
        ("The mayor, {name}, gave a short speech.", "It had cost {number} million dollars.", "It has {more} large rooms.",
         "Hundreds of people came to see it.", "Some people asked why."),
    ),
    Event(
        (("stole", "steal"), ("took", "take")),
        "{number} thieves {did} a {treasure} from the {age} {building} in {city}{when}",
        ("thieves {does} {treasure} from {city} {building}", "thieves {does} {treasure} in {city}"),
        ("The guard, {name}, was asleep.", "The police are looking for a red car.", "It was worth {number} million dollars.",
         "They came in through a window.", "The {treasure} was made in {year}."),
    ),
    Event(
        (("went on strike", "strike"), ("stopped work", "stop work")),
        "{workers} in {city} {did}{when} because of {cause}",
        ("{city} {workers} {does} over {cause}", "{workers} in {city} {does} over {cause}"),
        ("Their leader, {name}, said that the talks had failed.", "They want to go on for {number} days.",
         "{number} thousand people marched through the city.", "The last strike was in {month}."),
    ),
    Event(
        (("beat", "beats"),),
        "the {sport} team of {city} {did} {other_city} {high} to {low}{when}",
        ("{city} {does} {other_city} {high}-{low}", "{city} {does} {other_city} at {sport}"),
        ("{name} was the best player.", "{more} thousand people watched the game.", "It was a cold day.",
         "The coach, {name}, was very happy.", "The next game is in {month}."),
    ),
    Event(
        (("rescued", "rescue"), ("saved", "save")),
        "{rescuers} in {city} {did} {number} {saved} from {danger}{when}",
        ("{rescuers} {does} {number} {saved} in {city}", "{city} {rescuers} {does} {number} {saved}"),
        ("It took them {hours} hours.", "{witness} had called for help.", "All of them are safe and well.",
         "The mayor thanked them for their courage."),
    ),
    Event(
        (("bought", "buys"), ("sold", "sells")),
        "a rich {job} {did} the {age} {building} in {city} for {number} million dollars{when}",
        ("{job} {does} {city} {building}", "{job} {does} {city} {building} for {number} million"),
        ("The {building} was built in {year}.", "It had stood empty for {more} years.", "It has a beautiful garden.",
         "{witness}, a neighbor, was not surprised."),
    ),
    Event(
        (("found", "find"), ("discovered", "discover")),
        "{number} {finders} {did} a {age_of_find} {find} under the {building} in {city}{when}",
        ("{finders} {does} {find} under {city} {building}", "{finders} {does} {find} in {city}"),
        ("It was in a small box.", "The {find} will go to a museum.", "{name} will study it now.",
         "It may be worth {number} million dollars."),
    ),
    Event(
        (("escaped", "escapes"), ("ran away", "runs away")),
        "a young {animal} {did} from the zoo in {city}{when}",
        ("{animal} {does} from {city} zoo", "{animal} {does} from zoo in {city}"),
        ("Somebody had left the door open.", "The police found it {hours} hours later.", "It was asleep in a garden.",
         "{witness}, who works there, was not hurt.", "The zoo opened in {year}."),
    ),
    Event(
        (("elected", "elects"), ("chose", "chooses")),
        "the people of {city} {did} {name} as their new mayor{when}",
        ("{city} {does} {name} as mayor", "{city} {does} {name} as new mayor"),
        ("The new mayor wants to build {number} schools.", "More than half of the people voted.", "It was a long night.",
         "The last mayor had been in office since {month}."),
    ),
    Event(
        (("will build", "to build"), ("will close", "to close")),
        "the mayor of {city}, {name}, said{when} that the city {did} a {building}",
        ("{city} {does} {building}", "mayor says {city} {does} {building}"),
        ("It is a plan of many years.", "The work will begin in {month}.", "It will take {number} months.",
         "Many people are against the plan."),
        dated=False,
    ),
    Event(
        (("rose", "rise"), ("fell", "fall")),
        "the price of {good} in {city} {did} by {number} percent{when}",
        ("{good} prices {does} in {city}", "{city} {good} prices {does} {number} percent"),
        ("Many families have noticed it.", "{name}, who has a shop, was surprised.",
         "Nobody knows how long it will last.", "It was the first change since {year}."),
        month=True,
    ),
    Event(
        (("won", "wins"), ("lost", "loses")),
        "{name}, a young {job} from {city}, {did} a {prize}{when}",
        ("{city} {job} {does} {prize}", "{job} from {city} {does} {prize}"),
        ("{number} other people took part.", "The first prize was a car.", "The final took {hours} hours.",
         "It has been held every year since {year}."),
    ),
    Event(
        (("crashed", "crashes"), ("drove", "drives")),
        "a {vehicle} {did} into the {age} {building} in {city}{when}",
        ("{vehicle} {does} into {city} {building}", "{vehicle} {does} into {building} in {city}"),
        ("The driver, {name}, was not hurt.", "The road was wet.", "{number} people were hurt.",
         "The street was closed for {hours} hours.", "The {building} was empty at the time."),
    ),
    Event(
        (("stopped", "stops"), ("delayed", "delays")),
        "heavy {weather} {did} the {event} in {city}{when}",
        ("{weather} {does} {city} {event}", "{weather} {does} {event} in {city}"),
        ("{number} thousand people had bought tickets.", "It will now be held in {month}.", "{name} was to give a speech.",
         "It is the first time since {year}."),
    ),
)  # fmt: skip

OPENINGS = (
    "Many people in {city} were surprised this week.",
    "It was a busy week in {city}.",
    "There is news from {city}.",
    "People in {city} have something to talk about.",
)
LONG_AGO = ("last year", "ten years ago", "last summer", "many years ago", "in {year}")

_AN = re.compile(r"\ba (?=[aeiou])")
_SLOT = re.compile("{([a-z_]+)}")
_SLOTS = {
    event: tuple(dict.fromkeys(_SLOT.findall(event.lead + "".join(event.headlines + event.details))))
    for event in EVENTS
}


@dataclass(frozen=True, slots=True)
class Story:
    """An event with its slots filled."""

    event: Event
    slots: Mapping[str, str]

    def text(self, form: str) -> str:
        """``form`` with its slots filled and a capital letter in front."""
        return capitalized(_AN.sub("an ", form.format_map(self.slots)))

    def lead(self, rng: np.random.Generator, when: str) -> str:
        """The lead sentence, the time in front or where the event puts it."""
        if when.startswith(("on", "in")) and rng.random() < 0.7:
            return self.text(self.event.lead.replace("{when}", " " + when)) + "."
        return capitalized(_AN.sub("an ", f"{when}, {self.event.lead.replace('{when}', '').format_map(self.slots)}."))

    def headlines(self) -> tuple[str, ...]:
        """The headlines, the usual one first."""
        return tuple(dict.fromkeys(self.text(form) for form in self.event.headlines))

    def changed(self, rng: np.random.Generator, name: str) -> Story:
        """The same story with another filler of the slot ``name``."""
        others = [filler for filler in TABLES[name] if filler != self.slots[name]]
        return Story(self.event, {**self.slots, name: pick(rng, others)})


def tell(rng: np.random.Generator, city: str | None = None, event: Event | None = None) -> Story:
    """A random story, in ``city`` if one is given."""
    event = event or pick(rng, EVENTS)
    slots = {name: pick(rng, TABLES[name]) for name in _SLOTS[event] if name in TABLES}
    slots["city"] = city or slots["city"]
    if "other_city" in slots:
        slots["other_city"] = pick(rng, [other for other in CITIES if other != slots["city"]])
    slots["did"], slots["does"] = pick(rng, event.verbs)
    slots["low"], slots["high"] = pick(rng, _LOW_SCORES), pick(rng, _HIGH_SCORES)
    return Story(event, slots)


def write_article(rng: np.random.Generator, story: Story, level: str) -> str:
    """An article about ``story``.

    ``"easy"``: the lead and a detail. ``"normal"``: sometimes an opening, the lead, one or two details. ``"hard"``: the lead is
    the second or third sentence; an event of long ago in the same city goes before it.
    """
    when = f"in {pick(rng, MONTHS)}" if story.event.month else f"on {pick(rng, WEEKDAYS)}"
    lead = story.lead(rng, when)
    count = 1 if level == "easy" or rng.random() < 0.5 else 2
    details = [story.text(form) for form in pick_some(rng, story.event.details, count)]
    before: Sequence[str] = ()
    if level == "normal" and rng.random() < 0.35:
        before, details = [story.text(pick(rng, OPENINGS))], details[:1]
    if level == "hard":
        other = tell(rng, story.slots["city"], pick(rng, [e for e in EVENTS if e.dated and e is not story.event]))
        past = other.lead(rng, pick(rng, LONG_AGO).format(year=pick(rng, TABLES["year"])))
        opening = story.text(pick(rng, OPENINGS))
        before, details = ([opening, past], details[:1]) if rng.random() < 0.4 else ([past], details[:1])
    return " ".join([*before, lead, *details])
