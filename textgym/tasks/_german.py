"""A synchronous grammar: one structure is spelled out as a German sentence and as the English ones that translate it.

German: gender, case, strong, weak and mixed endings of adjectives, agreement, separable verbs, the perfect, verb-second main
clauses and verb-final subordinate ones. English: where both would do, the simple and the progressive present, the past and
the present perfect, a time in front or at the end, "gives the child a book" and "gives a book to the child".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from textgym.tasks import _german_words as words
from textgym.tasks._writing import NAMES, capitalized, pick

Case = Literal["nom", "acc", "dat"]
Person = Literal["I", "we", "she", "they"]
Order = Literal["second", "first", "last"]

MAX_REFERENCES = 4

_ENDINGS = {  # of "dies-"; masculine, feminine, neuter, plural
    "nom": {"der": "er", "die": "e", "das": "es", "pl": "e"},
    "acc": {"der": "en", "die": "e", "das": "es", "pl": "e"},
    "dat": {"der": "em", "die": "er", "das": "em", "pl": "en"},
}
_THE = {
    "nom": {"der": "der", "die": "die", "das": "das", "pl": "die"},
    "acc": {"der": "den", "die": "die", "das": "das", "pl": "die"},
    "dat": {"der": "dem", "die": "der", "das": "dem", "pl": "den"},
}
_CONTRACTED = {"in dem": "im", "an dem": "am"}
_AN = re.compile(r"\ba (?=[aeiou])")


def _rows(table: str) -> list[list[str]]:
    return [[field.strip() for field in line.split("|")] for line in table.strip().splitlines()]


# ---- words ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun in both languages; ``gender`` is the definite article, ``oblique`` the singular outside the nominative."""

    german: str
    oblique: str
    plural: str
    gender: str
    english: str
    english_plural: str
    kind: str
    owned: bool  # goes with "mein"
    single: bool  # only in the singular


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb in both languages. ``frame``: "", a case, "to" (dative and accusative), or a preposition with its case."""

    infinitive: str
    prefix: str
    finite: str  # third person singular
    participle: str
    auxiliary: str
    english: tuple[str, str, str, str, str]  # base, third person, -ing, past, participle
    after: str  # what follows the English verb: "up"
    progressive: bool
    subjects: tuple[str, ...]
    frame: str
    preposition: str  # English
    objects: tuple[str, ...]


def _noun(row: Sequence[str]) -> Noun:
    german, gender, plural, english, kind = row[:5]
    flags = row[5] if len(row) > 5 else ""
    singular, _, irregular = english.partition("/")
    oblique = plural if "w" in flags else german
    return Noun(
        german, oblique, plural, gender, singular, irregular or singular + "s", kind, "-" not in flags, "1" in flags
    )


def _verb(row: Sequence[str]) -> Verb:
    prefix, _, stem = row[0].rpartition(".")
    phrase, *parts = row[4].rstrip("!").split()
    base, _, after = phrase.partition("_")
    regular = base + ("d" if base.endswith("e") else "ed")
    if re.search("[^aeiou]y$", base):
        third, regular = base[:-1] + "ies", base[:-1] + "ied"
    else:
        third = base + ("es" if re.search("(s|sh|ch|x|o)$", base) else "s")
    ing = (base[:-1] if re.search("[^e]e$", base) else base + base[-1] if base in words.DOUBLED else base) + "ing"
    past, participle = parts or (regular, regular)
    frame, *objects = row[6].split() if row[6] else [""]
    frame, _, preposition = frame.partition(">")
    return Verb(
        prefix + stem, prefix, row[1], row[2], {"h": "haben", "s": "sein"}[row[3]], (base, third, ing, past, participle), after,
        not row[4].endswith("!"), tuple(row[5].split()), frame, preposition, tuple(objects),
    )  # fmt: skip


NOUNS = [_noun(row) for row in _rows(words.NOUNS)]
VERBS = [_verb(row) for row in _rows(words.VERBS)]
_BY_KIND = {kind: [noun for noun in NOUNS if noun.kind == kind] for kind in {noun.kind for noun in NOUNS}}
_ADJECTIVES = {
    kind: [(german, english) for german, english, kinds in _rows(words.ADJECTIVES) if kind in kinds.split()]
    for kind in _BY_KIND
}
_PLACES = [(kind, preposition, english) for kind, preposition, english in _rows(words.PLACES)]
_PLACES_OF = {name: [place for place in _PLACES if place[0] in kinds.split()] for name, kinds in words.WHERE.items()}
_ANYWHERE = [place for place in _PLACES if ":" not in place[0]]
_TIMES = _rows(words.TIMES)
_TIME_KINDS = {"present": ("any", "now", "habit"), "perfect": ("any", "past")}
_FREQUENCIES = _rows(words.FREQUENCIES)


def _inflected(adjective: str, ending: str) -> str:
    stem = "teur" if adjective == "teuer" else adjective
    return stem + ending[1:] if stem.endswith("e") else stem + ending


# ---- noun phrases ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase, a name or a pronoun.

    ``determiner``: "der", "dies", "ein", "mein", "unser", or a number (then plural).
    """

    noun: Noun | None
    determiner: str = ""
    plural: bool = False
    adjective: tuple[str, str] | None = None
    text: tuple[str, str] = ("", "")  # of a name or a pronoun
    person: Person = "she"

    def german(self, case: Case) -> str:
        """The phrase in a case."""
        if self.noun is None:
            return self.text[0]
        noun, gender = self.noun, "pl" if self.plural else self.noun.gender
        ending = _ENDINGS[case][gender]
        short = (case == "nom" and gender in ("der", "das")) or (
            case == "acc" and gender == "das"
        )  # "ein", not "einer"
        if self.determiner == "der":
            determiner = _THE[case][gender]
        elif self.determiner in words.NUMBERS:
            determiner = self.determiner
        else:
            determiner = self.determiner + ("" if short and self.determiner != "dies" else ending)
        if self.plural:
            form = noun.plural + ("n" if case == "dat" and noun.plural[-1] not in "ns" else "")
        else:
            form = noun.german if case == "nom" else noun.oblique
        if self.adjective is None:
            return f"{determiner} {form}"
        if self.determiner in words.NUMBERS or (short and self.determiner not in ("der", "dies")):
            adjective_ending = ending  # nothing before it shows the case
        elif self.plural or case == "dat" or ending == "en":
            adjective_ending = "en"
        else:
            adjective_ending = "e"
        return f"{determiner} {_inflected(self.adjective[0], adjective_ending)} {form}"

    def english(self) -> str:
        """The phrase in English, as subject or object."""
        if self.noun is None:
            return self.text[1]
        names = {"der": "the", "dies": "these" if self.plural else "this", "ein": "a", "mein": "my", "unser": "our"}
        determiner = names.get(self.determiner) or words.NUMBERS[self.determiner]
        adjective = f" {self.adjective[1]}" if self.adjective else ""
        return f"{determiner}{adjective} {self.noun.english_plural if self.plural else self.noun.english}"


def _fitting(noun: Noun) -> list[tuple[str, str]]:
    adjectives = _ADJECTIVES[noun.kind]
    return [entry for entry in adjectives if entry[0] != "alt"] if noun.german in words.NOT_OLD else adjectives


def _phrase(rng: np.random.Generator, kinds: Sequence[str], adjective: float = 0.35, plural: float = 0.25) -> Phrase:
    noun = pick(rng, _BY_KIND[pick(rng, kinds)])
    many = rng.random() < plural and not noun.single
    chosen = _fitting(noun) if rng.random() < adjective else []
    determiners = [
        "der",
        "der",
        "der",
        "dies",
        pick(rng, tuple(words.NUMBERS)) if many else "ein",
        "der" if many else "ein",
    ]
    if noun.owned:
        determiners += ["mein", "unser"]
    return Phrase(
        noun, pick(rng, determiners), many, pick(rng, chosen) if chosen else None, person="they" if many else "she"
    )


def _subject(rng: np.random.Generator, kinds: Sequence[str], adjective: float = 0.3) -> Phrase:
    if "person" in kinds and rng.random() < 0.22:
        if rng.random() < 0.5:
            name = pick(rng, NAMES)
            return Phrase(None, text=(name, name))
        return pick(rng, (Phrase(None, text=("ich", "I"), person="I"), Phrase(None, text=("wir", "we"), person="we")))
    return _phrase(rng, kinds, adjective)


# ---- clauses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause without its place in the sentence.

    Attributes:
        subject: Who.
        verb: Does; ``None`` for "is" and ``predicate``.
        objects: Dative before accusative.
        tense: "present", "perfect" or a modal verb.
        time, frequency, manner, place: Adverbials in both languages.
        time_kind: See ``TIMES``.
        front: Which part stands before the verb.
    """

    subject: Phrase
    verb: Verb | None
    predicate: tuple[str, str] = ("", "")
    objects: tuple[Phrase, ...] = ()
    tense: str = "present"
    time: tuple[str, str] | None = None
    time_kind: str = "any"
    frequency: tuple[str, str] | None = None
    manner: tuple[str, str] | None = None
    place: tuple[str, str] | None = None
    front: Literal["subject", "time", "place"] = "subject"

    # -- German

    def _finite(self) -> tuple[str, str]:
        """The conjugated verb and what closes the clause."""
        person = self.subject.person
        if self.verb is None:
            return {"I": "bin", "she": "ist"}.get(person, "sind"), ""
        if self.tense == "perfect":
            forms = {"haben": ("habe", "hat", "haben"), "sein": ("bin", "ist", "sind")}[self.verb.auxiliary]
            return forms[{"I": 0, "she": 1}.get(person, 2)], self.verb.participle
        if self.tense in words.MODALS:
            singular = words.MODALS[self.tense][0]
            return singular if person in ("I", "she") else self.tense, self.verb.infinitive
        plural = self.verb.infinitive.removeprefix(self.verb.prefix)
        return {"I": plural[:-1], "she": self.verb.finite}.get(person, plural), self.verb.prefix

    def _german_objects(self) -> list[str]:
        if self.verb is None or not self.objects:
            return []
        if self.verb.frame == "to":
            return [self.objects[0].german("dat"), self.objects[1].german("acc")]
        preposition, _, case = self.verb.frame.rpartition("+")
        text = self.objects[0].german("dat" if case == "dat" else "acc")
        return [f"{preposition} {text}" if preposition else text]

    def german(self, order: Order = "second") -> str:
        """The clause with its verb in the second place, in the first (after a subordinate clause) or at the end."""
        finite, closing = self._finite()
        objects = self._german_objects()
        subject = self.subject.german("nom")
        adverbs = [part[0] for part in (self.time, self.frequency) if part]
        middle = [*objects[:-1], *adverbs, *objects[-1:], *(part[0] for part in (self.manner, self.place) if part)]
        middle += [self.predicate[0]] if self.verb is None else []
        if order == "last":
            if self.verb and self.tense == "present":
                return " ".join([subject, *middle, closing + finite])
            return " ".join([subject, *middle, *filter(None, [closing]), finite])
        if order == "second" and self.front != "subject":
            first = (self.time if self.front == "time" else self.place) or ("", "")
            middle.remove(first[0])
            parts = [first[0], finite, subject, *middle, closing]
        else:
            parts = [finite, subject, *middle, closing] if order == "first" else [subject, finite, *middle, closing]
        return " ".join(filter(None, parts))

    # -- English

    def verb_forms(self) -> list[str]:
        """The verb as English may put it, the usual form first; ``{often}`` is the place of a frequency."""
        person = self.subject.person
        be = {"I": "am", "she": "is"}.get(person, "are")
        if self.verb is None:
            return [be + "{often}"]
        base, third, ing, past, participle = self.verb.english
        after = f" {self.verb.after}" if self.verb.after else ""
        if self.tense == "perfect":
            have = "has" if person == "she" else "have"
            forms = [f"{{often}}{past}{after}", f"{have}{{often}} {participle}{after}"]
            return forms[:1] if self.time and self.time[0] != "heute" else forms
        if self.tense == "müssen":
            return [f"must {base}{after}", f"{'has' if person == 'she' else 'have'} to {base}{after}"]
        if self.tense == "wollen":
            return [f"{'wants' if person == 'she' else 'want'} to {base}{after}"]
        if self.tense == "können":
            return [f"can {base}{after}"]
        simple = f"{{often}}{third if person == 'she' else base}{after}"
        progressive = f"{be}{{often}} {ing}{after}"
        if self.time_kind == "habit" or self.frequency or not self.verb.progressive:
            return [simple]
        if self.time_kind == "now":
            return [progressive, simple]
        return [simple, progressive]

    def english(self) -> list[str]:
        """Translations, the usual one first."""
        subject = self.subject.english()
        orders: list[str] = [" ".join(phrase.english() for phrase in self.objects)]
        if self.verb and self.verb.frame == "to":
            orders.append(f"{self.objects[1].english()} to {self.objects[0].english()}")
        elif self.verb and self.verb.preposition:
            orders = [f"{self.verb.preposition} {orders[0]}"]
        often = self.frequency[1] if self.frequency else ""
        texts = []
        for form, objects, fronted in itertools.product(self.verb_forms(), orders, (True, False)):
            verb = form.format(often=f"{often} " if form.startswith("{") and often else f" {often}" if often else "")
            place, time = (part[1] if part else "" for part in (self.place, self.time))
            first = ""
            if fronted and self.front != "subject":
                first, place, time = (time, place, "") if self.front == "time" else (place, "", time)
            parts = [
                first,
                subject,
                verb,
                self.predicate[1],
                objects,
                self.manner[1] if self.manner else "",
                place,
                time,
            ]
            texts.append(" ".join(filter(None, parts)))
        return list(dict.fromkeys(texts))


def _place(rng: np.random.Generator, verb: Verb, adjective: float) -> tuple[str, str]:
    kind, preposition, english = pick(rng, _PLACES_OF.get(verb.infinitive, _ANYWHERE))
    phrase = _phrase(rng, (kind.partition(":")[0],), adjective, plural=0.0)
    first, _, rest = f"{preposition} {phrase.german('dat')}".partition(" dem ")
    german = f"{_CONTRACTED.get(first + ' dem', first + ' dem')} {rest}" if rest else first
    return german, f"{english} {phrase.english()}"


def _time(rng: np.random.Generator, kinds: Sequence[str]) -> tuple[tuple[str, str], str]:
    german, english, kind = pick(rng, [row for row in _TIMES if row[2] in kinds])
    return (german, english), kind


def _predicate(rng: np.random.Generator, adjective: float = 0.0) -> Clause:
    """A clause with "is"; what it says does not go against an adjective of the subject."""
    kinds = ("person", "person", "animal", "machine", "clothes", "load", "text", "house")
    subject = _subject(rng, (pick(rng, kinds),), adjective)
    if subject.determiner == "ein":  # "a lamp is new" is not what people say
        subject = replace(subject, determiner="dies")
    if subject.noun is None:
        choices = list(words.FEELINGS["person"])
    else:
        choices = _fitting(subject.noun)
    if subject.adjective:
        said = subject.adjective[0]
        against = {said}.union(*(group for group in words.OPPOSITES if said in group))
        choices = [entry for entry in choices if entry[0] not in against]
    german, english = pick(rng, choices)
    if german not in words.COLOURS and rng.random() < 0.25:
        german, english = f"sehr {german}", f"very {english}"
    return Clause(subject, None, (german, english))


def _feeling(rng: np.random.Generator) -> Clause:
    """A clause with "is" that can have a reason."""
    kind = pick(rng, ("person", "person", "animal"))
    return Clause(_subject(rng, (kind,), 0.0), None, pick(rng, words.FEELINGS[kind]))


def _objects(rng: np.random.Generator, verb: Verb, subject: Phrase, adjective: float) -> tuple[Phrase, ...]:
    if not verb.frame:
        return ()
    thing = _phrase(rng, verb.objects, adjective)
    while thing.noun is subject.noun:
        thing = _phrase(rng, verb.objects, adjective)
    if verb.frame != "to":
        return (thing,)
    receiver = _phrase(rng, ("person",), 0.0)
    while receiver.noun is subject.noun:
        receiver = _phrase(rng, ("person",), 0.0)
    return receiver, thing


def _clause(
    rng: np.random.Generator,
    verbs: Sequence[Verb],
    tense: str = "present",
    adjective: float = 0.35,
    adverbial: float = 0.5,
) -> Clause:
    """A random clause with one of ``verbs`` and, with probability ``adverbial``, adverbials."""
    verb = pick(rng, verbs)
    subject = _subject(rng, verb.subjects, adjective)
    objects = _objects(rng, verb, subject, adjective)
    time = frequency = manner = place = None
    kind: str = "any"
    if rng.random() < adverbial and verb.infinitive not in words.LASTING:
        luck = rng.random()
        if luck < 0.45:
            time, kind = _time(rng, _TIME_KINDS.get(tense, ("any", "future")))
        elif luck < 0.6 and tense == "present":
            german, english = pick(rng, _FREQUENCIES)
            frequency = german, english
        alone = time is None and frequency is None
        if (alone or rng.random() < 0.2) and not verb.frame.startswith("auf"):  # one "auf" is enough
            place = _place(rng, verb, adjective * 0.6)
        if not objects and verb.infinitive in words.MANNERS and rng.random() < 0.3:
            manner = words.MANNERS[verb.infinitive]
    luck = rng.random()
    front: Literal["subject", "time", "place"] = "subject"
    if time and luck < 0.45:
        front = "time"
    elif place and not time and luck < 0.2:
        front = "place"
    return Clause(subject, verb, objects=objects, tense=tense, time=time, time_kind=kind, frequency=frequency, manner=manner,
                  place=place, front=front)  # fmt: skip


# ---- sentences ------------------------------------------------------------------------------------------------------

_INTRANSITIVE = [verb for verb in VERBS if not verb.frame and not verb.prefix]
_OBJECT = [verb for verb in VERBS if not verb.prefix and (verb.frame == "acc" or "+" in verb.frame)]
_SEPARABLE = [verb for verb in VERBS if verb.prefix]
_DATIVE = [verb for verb in VERBS if verb.frame in ("dat", "to")]
_NORMAL = _INTRANSITIVE + 2 * _OBJECT
_PASSING = [verb for verb in _NORMAL + _SEPARABLE + _DATIVE if verb.infinitive not in words.LASTING]
_REACTIONS = [verb for verb in _INTRANSITIVE if verb.infinitive not in ("schlafen", "schwimmen", "spielen")]


@dataclass(frozen=True, slots=True)
class Pair:
    """A German sentence and its translations, the usual one first."""

    german: str
    english: tuple[str, ...]


def _pair(german: str, english: Sequence[str]) -> Pair:
    finished = [capitalized(_AN.sub("an ", text)) + "." for text in english[:MAX_REFERENCES]]
    return Pair(capitalized(german) + ".", tuple(finished))


def _joined(rng: np.random.Generator) -> tuple[str, list[str]]:
    """A main clause and a subordinate one."""
    conjunction = pick(rng, (*words.CONJUNCTIONS, "dass", "dass"))
    tense = "perfect" if conjunction != "wenn" and rng.random() < 0.3 else "present"
    verbs = _PASSING if tense == "perfect" else _NORMAL + _SEPARABLE
    inner = _clause(rng, verbs, tense, adjective=0.15, adverbial=0.15)
    seconds = replace(inner, front="subject").english()[:2]
    if conjunction == "dass":
        speaker = _phrase(rng, ("person",), 0.0, plural=0.0)
        while speaker.noun is inner.subject.noun:
            speaker = _phrase(rng, ("person",), 0.0, plural=0.0)
        german, english = pick(rng, tuple(words.SAYINGS.items()))
        start = f"{speaker.english()} {english}"
        texts = [f"{start}{that} {second}" for that in (" that", "") for second in seconds]
        return f"{speaker.german('nom')} {german}, dass {inner.german('last')}", texts
    outer = _feeling(rng)
    while outer.subject.noun is inner.subject.noun or outer.subject.text == inner.subject.text != ("", ""):
        outer = _feeling(rng) if tense == "perfect" or rng.random() < 0.5 else _clause(rng, _REACTIONS, adverbial=0.0)
    both = list(zip(itertools.cycle(outer.english()), seconds, strict=False))
    if conjunction == "wenn" or rng.random() < 0.2:
        starts = ("when", "if") if conjunction == "wenn" else (words.CONJUNCTIONS[conjunction],)
        texts = [f"{word} {second}, {first}" for word in starts for first, second in both]
        return f"{conjunction} {inner.german('last')}, {outer.german('first')}", texts
    word = words.CONJUNCTIONS[conjunction]
    return f"{outer.german()}, {conjunction} {inner.german('last')}", [
        f"{first} {word} {second}" for first, second in both
    ]


def write_pair(rng: np.random.Generator, level: str) -> Pair:
    """A random sentence of the level ``"easy"``, ``"normal"`` or ``"hard"`` (see ``TranslateTask``), of at most 11 words."""
    while True:
        luck = rng.random()
        if level == "easy":
            clause = _predicate(rng) if luck < 0.3 else _clause(rng, _INTRANSITIVE, adjective=0.0, adverbial=0.4)
            german, english = clause.german(), clause.english()
        elif level == "normal":
            clause = _predicate(rng, adjective=0.5) if luck < 0.1 else _clause(rng, _NORMAL)
            german, english = clause.german(), clause.english()
        elif luck < 0.4:
            german, english = _joined(rng)
        else:
            tense = "perfect" if luck < 0.6 else pick(rng, tuple(words.MODALS)) if luck < 0.75 else "present"
            verbs = _SEPARABLE + _DATIVE if tense == "present" else _PASSING
            clause = _clause(rng, verbs, tense, adjective=0.2, adverbial=0.4)
            german, english = clause.german(), clause.english()
        if german.count(" ") < 11:
            return _pair(german, english)
