"""Film reviews written by a small grammar, with places to cut them into a prompt and a continuation.

The notation of the sentence forms below and of the tables in ``_review_words``:

========== =========================================================================================================
``{adj}``   a filler of the table ``adj``, or of ``adj+`` or ``adj-`` according to the opinion of the sentence
``{!adj}``  the same with the opposite opinion; ``{+adj}`` and ``{-adj}`` fix it
``*be``     the verb, in the tense of the review, for a singular subject; ``**be`` for a plural one
``@``       "a" or "an", as the next word asks
``^``       "its", or "their" where the subject is plural
``|s``      a prompt may end here; the letter names the kind of cut (see `KINDS`)
========== =========================================================================================================
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textgym.tasks._review_words import PRAISE, WORDS

POLARITIES = ("positive", "negative", "mixed", "neutral")

# What a prompt that ends at a cut of this kind still lacks.
KINDS = {
    "s": "subject",  # The script|            a verb phrase, singular
    "p": "plural_subject",  # The songs|      a verb phrase, plural
    "o": "opinion",  # I found the ending|    adjectives
    "c": "clause",  # It is short, but|       a clause
    "i": "speaker",  # ... and I|             a verb phrase in the past tense
    "a": "article",  # It was a|              a noun phrase that begins with a consonant
    "w": "with",  # a comedy with|            noun phrases
    ".": "sentence",  # It is short.|         a sentence
}

# ---- sentence forms -------------------------------------------------------------------------------------------------

ONE_OPINION = """
The {part}|s *be|o {qual}.
The {part}|s *be|o {adj}, {adj} and {adj}.
The {part}|s {vp}.
The {part}|s {vp}, and|c the {parts}|p {vps}.
The {parts}|p **be|o {qual}.
The {parts}|p **be|o {adj}, {adj} and {adj}.
The {parts}|p {vps}.
The {parts}|p {vps} and the {part}|s {vp}.
The {part} and the {part}|p **be equally|o {adj}.
The {part}, much as the {part},|s *be|o {qual}.
The {part}, which lasts about {small} minutes,|s *be|o {qual}.
The {person}|s {actor_vp}.
The {person}|s *be|o {people_adj} and {people_adj}.
The {person}|s *be|o {people_adj}, and|c I|i {i_did}.
The {maker}|s {maker_vp}.
The {maker}, {name},|s {maker_vp}.
{actor}|s {actor_vp} as the {role}.
{actor}, who plays the {role},|s *be|o {people_adj}.
{actor} and {actor}|p **be|o {people_adj} together.
I thought the {part}|s was|o {qual}.
I thought the {parts}|p were|o {qual}.
I found the {part}|o {qual}.
I found the {parts}|o {qual}.
I found the {part}|o {adj} and the {parts}|o {adj}.
I|i {i_did}.
I|i {i_did}, and|c my {relative}|i {liked} it too.
I|i {liked} the {part}, and|c the {parts}|p **be|o {qual}.
I|i {liked} everything about it, from the {adj} {part} to the {adj} {parts}.
I have rarely seen such|w {adj} {stuff}.
Never before had I seen such|w {adj} {stuff}.
To me the {part}|s felt|o {qual}.
In my opinion, the {part}|s *be|o {qual}.
My {relative}|i {raved} it, and|c so did I.
My {relative}|i {liked} the {part}, and|c I|i {i_did}.
What I remember most *be the {adj} {part}.
It *be the {part} that {vp}.
It *be the {parts} that {vps}.
It *be @|a {adj} {genre} with|w {adj} {stuff} and {adj} {stuff}.
It *be @|a {adj} {film}, full of|w {thing} and {thing}.
It *be full of|w {adj} {stuff}.
This *be @|a {adj}, {adj} {genre}, and|c I|i {i_did}.
This *be one of the {most} {genres} of recent years.
This {genre}|s {film_vp}.
The {film}|s {film_vp}.
The {film}|s *be {how} {done} and {how} {done}.
{How} {done} and {how} {done}, the {film}|s {film_vp}.
{adverb}, the {part}|s {vp}.
{adverb}, the {parts}|p {vps}.
From the {adj} opening to the {adj} ending, the {film}|s {film_vp}.
There *be something|o {adj} about the {part}.
We get|w {adj} {stuff}, {adj} {stuff} and, above all,|w {adj} {stuff}.
Even the {parts}|p **be|o {qual}.
Hardly a minute passes without @ {adj} {moment}.
Among the {genres} I have seen, this one|s *be|o {qual}.
The more I think about the {part}, the more {long_adj} it seems.
By the end, the audience|i {crowd}.
When the lights **come up, everyone|i {crowd}, and|c I|i {i_did}.
If you grew up with {genres},|c you will {advice}.
Because the {part}|s {vp}, I|i {i_did}.
Thanks to the {adj} {part}, the {film}|s {film_vp}.
I would give it {score}, mostly for the {adj} {part}.
So much {thing}, so much {thing}!
What @|a {adj} {film}!
What {adj} {stuff}!
What @|a {adj} way to spend {runtime}!
How {adj} the {part} *be!
How can the {part} be so {adj}?
Was there ever @ {film} so {adj}?
Where did they find such|w {adj} {stuff}?
As @ {any_genre} it|s *be|o {qual}; as @ {any_genre} it|s *be even {better}.
Two things stand out: the {adj} {part} and the {adj} {parts}.
Compared with {title}, the {part}|s *be|o {qual}.
The second time around, the {part}|s *seem|o {qual}.
Everyone I know|i {liked} it, and|c the {part}|s *be the reason.
In every scene there *be {thing} and {thing}.
The audience felt the {thing} in every {moment}.
"""

TWO_OPINIONS = """
The {part}|s *be|o {!adj}, but|c the {part}|s *be|o {qual}.
The {parts}|p **be|o {!adj}, but|c the {part}|s {vp}.
The {part}|s *be|o {!adj}, but|c the {parts}|p {vps}.
The {part}|s {!vp}, yet|c I|i {i_did}.
The {part}|s *be|o {!adj}, although|c the {parts}|p **be|o {qual}.
Although the {part}|s *be|o {!qual},|c the {parts}|p {vps}.
Although I|i {!liked} the {part},|c the {film}|s {film_vp}.
Although {actor}|s *be|o {!people_adj},|c the {person}|s {actor_vp}.
Though the {parts}|p {!vps},|c the {part}|s *be|o {adj}.
While the {parts}|p **be|o {!adj},|c the {part}|s {vp}.
Despite the {!adj} {part},|c the {film}|s {film_vp}.
Despite all the {!thing},|c the {part}|s *be|o {qual}.
For all its {!thing}, the {film}|s {film_vp}.
My {relative}|i {!liked} it, but|c I|i {i_did}.
My {relative}|i {!liked} the {part}; I|i {liked} the {parts}.
I|i {!liked} the first half, but|c then the {film}|s {film_vp}.
I expected @|a {!adj} {any_genre}, but|c it|s *be|o {qual}.
The first hour|s *be|o {!adj}, but|c the second|s *be|o {qual}.
The opening|s {!vp}, and yet|c the rest|s *be|o {qual}.
Some of the {parts}|p **be|o {!adj}, others|p **be|o {adj}.
Not every {moment} *be {adj}, but|c the {part}|s *be.
The critics {!raved} it, but|c my {relative}|i {raved} it and so did I.
The {person}|s {!actor_vp}; the {part}, however,|s *be|o {qual}.
Is the {part} {!adj}? Perhaps, but|c the {parts}|p **be|o {qual}.
Except for the {!adj} {part},|c the {film}|s {film_vp}.
It *be less {!long_adj} than {title}, but more {long_adj}.
"""

PLAIN = """
I watched it {when} {where}.
I saw this {film} {where} {when}.
I saw it with my {relative} {when}.
I|i {i_did}, and|c my {relative} did not.
I|i {i_did}.
I watched this {genre} with my {relative} and my {relative}.
We saw this {genre} {when} {where}.
My {relative} and I|i saw it {when}.
My {relative} rented this {film} {when}.
My {relative} picked it {when}, and|c I|i {i_did}.
The {film}|s runs for {runtime}.
This {genre}|s runs for {runtime} and has {small} songs.
The {film}|s lasts {runtime}, credits included.
It was directed by {director}, who also made {title}.
It was made in {year} by {director}.
It was filmed in {place} in {year}.
It was written by {name} and filmed in {place}.
{director} directed this {genre} in {year}.
{director}|s made this {genre} in {place} with a small crew.
{director}, known for {title}, made this {film} in {year}.
It is @|a {adj0} {genre}, and|c it|s is set in {place}.
It is @|a {adj0} {genre} about @ {hero} and @ {hero}.
This is @|a {adj0} {genre} from {year}.
This is the {ordinal} {film} by {director}.
This is a new version of {title}, which came out in {year}.
It is based on a novel by {name}.
It is based on a play from {year}, but|c the {part}|s is new.
The story|s is set in {spot} in {year}.
The story|s begins in {spot} and ends in {place}.
The plot|s concerns @ {hero} and a missing {object}.
The story follows @ {hero} who {plot}.
The story follows @ {hero} who {plot} and {plot}.
In this {genre}, @ {hero} {plot}.
{actor}|s plays @ {hero} who {plot}.
{actor}|s plays the {role} and {actor} plays the {role}.
{actor}|s plays the {role} in this {adj0} {genre}.
A young {hero} {plot}, and|c an old {hero} follows.
After many years, @ {hero} {plot}.
@ {hero} {plot} and {plot}.
Set in {place} in {year}, the {film}|s follows @ {hero}.
The {part}|s {vp0}.
The {part}|s {vp0}, and|c the {part}|s *be|o {adj0}.
The {part}|s *be|o {adj0}.
The {parts}|p **be|o {adj0} and {adj0}.
The {parts}|p come late, after {runtime}.
The dialogue|s is partly in {language}, with subtitles.
The music|s was composed by {name}.
The camera|s follows the {hero} through {spot}.
There are {small} songs and {small} long chases.
There is a short scene after the credits.
Half of it takes place in {spot}.
Most of the scenes take place in {spot}.
The cast includes {actor} and {actor}.
The {ordinal} scene takes place in {spot}.
About {group} people were in the theater, most of them with children.
Before this, {director} made {small} {genres} in {place}.
Is it @ {any_genre} or @ {any_genre}?
It *remind me of {title}.
It came out in {year}, and|c my {relative} still has the {souvenir}.
I would give it {score0}.
On the whole, {score0}.
"""

# Negated words, and "although" or "but" without a change of opinion: what a count of good and bad words gets wrong.
TURNED = """
There *be nothing {!sure_adj} about the {part}.
There *be nothing {!sure_adj} about the {parts}.
Nobody could call the {part} {!sure_adj}.
Nobody could call the {parts} {!sure_adj}.
Not one of the {parts} *be {!sure_adj}.
The {part} *be never {!sure_adj}.
The {parts} **be never {!sure_adj}.
The {part} *be anything but {!sure_adj}.
The {parts} **be anything but {!sure_adj}.
At no point *be the {part} {!sure_adj}.
The {part} *be not only {sure_adj} but also {sure_adj}.
The {parts} **be not only {sure_adj} but also {sure_adj}.
Although I saw it {where}, I {liked} the {part}.
Although I had read the novel first, I {liked} the {parts}.
I watched it {where}, but I {liked} it.
"""

SURE_ADJECTIVES = {
    "+": """good; great; funny; clever; convincing; exciting; interesting; beautiful; impressive; memorable; enjoyable;
        original; entertaining; charming; brilliant; wonderful; excellent; amusing; fascinating; satisfying""",
    "-": """bad; boring; dull; weak; annoying; poor; clumsy; confusing; tedious; stupid; lame; ugly; terrible; awful;
        disappointing; lazy; ridiculous; pointless; tiresome; dreadful""",
}

# ---- the expander ---------------------------------------------------------------------------------------------------

_PAST = {
    "bring": "brought", "build": "built", "burst": "burst", "buy": "bought", "cast": "cast", "clap": "clapped",
    "come": "came", "do": "did", "drag": "dragged", "draw": "drew", "fall": "fell", "feel": "felt",
    "find": "found", "fit": "fit", "fly": "flew", "forget": "forgot", "give": "gave", "go": "went", "have": "had",
    "hide": "hid", "hold": "held", "hurt": "hurt", "keep": "kept", "know": "knew", "leave": "left", "let": "let",
    "light": "lit", "lose": "lost", "make": "made", "meet": "met", "pay": "paid", "put": "put",
    "quarrel": "quarreled", "ring": "rang", "run": "ran", "shine": "shone", "sing": "sang", "sink": "sank",
    "spend": "spent", "steal": "stole", "strike": "struck", "swap": "swapped", "take": "took", "tell": "told",
    "wake": "woke", "wear": "wore", "win": "won", "write": "wrote",
}  # fmt: skip


def _inflect(match: re.Match[str], past: bool) -> str:
    stars, verb = match.groups()
    plural = len(stars) == 2
    if past:
        if verb == "be":
            return "were" if plural else "was"
        if verb in _PAST:
            return _PAST[verb]
        if verb.endswith("e"):
            return verb + "d"
        return verb[:-1] + "ied" if re.search("[^aeiou]y$", verb) else verb + "ed"
    if verb in ("be", "have"):
        return {"be": ("is", "are"), "have": ("has", "have")}[verb][plural]
    if plural:
        return verb
    if re.search("[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search("(s|x|z|ch|sh|o)$", verb) else "s")


def _prepare(text: str, past: bool) -> str:
    """Conjugate the verbs and let the articles before a slot depend on its filler."""
    text = re.sub(r"(?<!\|)\b[aA] (?=\{)", "@ ", text)
    return re.sub(r"(\*\*?)([a-z]+)", lambda match: _inflect(match, past), text.replace("^", "its"))


def _tables(past: bool) -> dict[str, list[str]]:
    """All tables and sentence forms in one tense."""
    tables: dict[str, list[str]] = {}
    for name, entries in WORDS.items():
        fillers = [entry.strip() for entry in entries.split(";")]
        # The plot of a film is told in the present tense, whatever the tense of the review.
        tables[name] = [_prepare(filler, past and name != "plot") for filler in fillers]
        if name.startswith("how"):
            tables[name.capitalize()] = [filler.capitalize() for filler in fillers]
        if name.startswith("vp"):
            plural = [filler.replace("*", "**").replace("^", "their") for filler in fillers]
            tables["vps" + name[2:]] = [_prepare(filler, past) for filler in plural]
    for name, forms in (("one", ONE_OPINION), ("two", TWO_OPINIONS), ("plain", PLAIN), ("turned", TURNED)):
        tables[name] = [_prepare(form, past) for form in forms.strip().splitlines()]
    for name in ("one", "two", "plain"):
        tables["sure_" + name] = [form for form in tables[name] if not _UNSURE_FORM.search(form)]
    for opinion, words in SURE_ADJECTIVES.items():
        tables["sure_adj" + opinion] = [word.strip() for word in words.split(";")]
    tables["any_genre"] = tables["genre"]
    for opinion in "+-":
        tables["long_adj" + opinion] = [word for word in tables["adj" + opinion] if len(word) > 7 and word.isalpha()]
    return tables


# Sentence forms whose sign a reader may doubt (others' opinions, expectations, comparisons, half-hearted words), and those
# with names and titles, which make a text long.
_UNSURE_FORM = re.compile(
    "{(actor|name|director|title|score.?|adj0|vp0|thing|!thing|!raved|maker)}|My {relative}.i {!liked}|even {better}"
    "|did not|equally|expected|If you|less|Not every|Set in"
)
# Words that may as well describe what a film is about as what it is worth.
_UNSURE_WORD = re.compile(
    r"""\b(abusive|ambitious|anger|arrogant|bitter|bold|bored|brutal|cheap|cool|crude|cruel|cynical|damaging|dead|depressing
    |despair|disturbing|failed|fearless|gloom|gloomy|grim|hateful|heartless|heroic|horrific|horrifying|hurtful|lost|nasty
    |natural|nervous|overact|overacted|overacts|precise|punishing|relaxed|shy|sickening|silly|smug|strange|tense|tired|tragic
    |uncomfortable|understated|vicious|violence)\b""",
    re.VERBOSE,
)

_TABLES = (_tables(past=False), _tables(past=True))
_PRAISE = {name: [_prepare(entry.strip(), True) for entry in entries.split(";")] for name, entries in PRAISE.items()}

_SLOT = re.compile(r"\{([^{}]+)\}")
_ARTICLE = re.compile(r"@((?:\|a)?) (?=([\w-]+))")
_CONTENT = re.compile(r"[a-z]{5,}")
_SPOKEN_CONSONANT = ("eu", "once", "one", "unified", "uniform", "union", "unique", "unit", "univers", "use")
_SPOKEN_VOWEL = ("hour", "honest", "honor", "heir")
# Words that may come twice in one review.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """about after audience before directed every everyone from hours known minute minutes movie never nearly
        picture scene scenes second seems story their there these thing think thought through watched which while
        without would""",
    )
)
# Facts and phrases that a review states once, recognised by a part of the sentence form.
_ONCE = ("{runtime}", "{score", "{director}", "{when}", "{plot}", "{hero}", "{spot}", "{year}", "I thought", "I found")


def _article(match: re.Match[str]) -> str:
    word = match[2].lower()
    vowel = word.startswith(_SPOKEN_VOWEL) or (word[0] in "aeiou" and not word.startswith(_SPOKEN_CONSONANT))
    # A prompt never ends after "an": what follows would have to begin with a vowel.
    return "an " if vowel else "a" + match[1] + " "


class _Writer:
    """Fills slots at random; within one text a filler comes back only when its table is nearly used up."""

    def __init__(self, rng: np.random.Generator, tables: dict[str, list[str]]) -> None:
        self.rng = rng
        self.tables = tables
        self.numbers: list[float] = []  # drawn in blocks, which is much faster than one by one
        self.used: set[str] = set()
        self.genre = ""

    def random(self) -> float:
        if not self.numbers:
            self.numbers = self.rng.random(64).tolist()
        return self.numbers.pop()

    def pick(self, name: str) -> str:
        table = self.tables[name]
        index = int(self.random() * len(table))
        for _ in range(6):
            if table[index] not in self.used:
                break
            index = (index + 1) % len(table)
        self.used.add(table[index])
        return table[index]

    def expand(self, text: str, opinion: str) -> str:
        def fill(match: re.Match[str]) -> str:
            name, side = match[1], opinion
            if name[0] in "!+-":
                side = name[0] if name[0] != "!" else "+-"[opinion == "+"]
                name = name[1:]
            if name == "genre":  # a film has one genre
                self.genre = self.genre or self.pick(name)
                return self.genre
            filler = self.pick(name if name in self.tables else name + side)
            return self.expand(filler, side) if "{" in filler else filler

        return _SLOT.sub(fill, text)


# ---- reviews --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where a prompt may end.

    Attributes:
        offset: The number of characters before it; a space follows.
        kind: What has to follow, one of the values of `KINDS`.
        words: The number of words before it.
    """

    offset: int
    kind: str
    words: int


@dataclass(frozen=True, slots=True)
class Review:
    """A review of 3 to 6 sentences, its polarity (one of `POLARITIES`), and the places where it may be cut."""

    text: str
    polarity: str
    cuts: tuple[Cut, ...]


# The shares of sentences for, against and without an opinion. A review seldom speaks with one voice, so that its
# beginning does not tell how it goes on.
_MOODS = {
    "positive": (0.64, 0.14, 0.22),
    "negative": (0.11, 0.69, 0.2),
    "mixed": (0.39, 0.42, 0.19),
    "neutral": (0.12, 0.12, 0.76),
}
_SHARES = (0.26, 0.38, 0.23, 0.13)
_OPENING_FACT, _TURN, _VERDICT = 0.5, 0.3, 0.15


def _opinion(u: float, mood: Sequence[float]) -> str:
    return "+" if u < mood[0] else "-" if u < mood[0] + mood[1] else "0"


def write_review(rng: np.random.Generator, polarity: str | None = None) -> Review:
    """Write a random review.

    Args:
        rng: The only source of randomness.
        polarity: One of `POLARITIES`; drawn at random by default.

    Raises:
        ValueError: If `polarity` is none of these.
    """
    if polarity is not None and polarity not in POLARITIES:
        raise ValueError(f"polarity must be one of {POLARITIES}, got {polarity!r}")
    writer = _Writer(rng, _TABLES[int(rng.random() < 0.6)])
    if polarity is None:
        polarity = POLARITIES[int(np.searchsorted(np.cumsum(_SHARES[:-1]), writer.random()))]
    mood = _MOODS[polarity]
    wanted_words = 27 + 22 * writer.random()
    sentences: list[str] = []
    facts: set[str] = set()
    seen: set[str] = set()
    words = 0
    while len(sentences) < 6 and (len(sentences) < 3 or words < wanted_words):
        opinion = "0" if not sentences and writer.random() < _OPENING_FACT else _opinion(writer.random(), mood)
        # A new sentence should neither state a fact again nor repeat a word of its own or of an earlier one.
        for _ in range(8):
            form = writer.pick("plain" if opinion == "0" else "two" if writer.random() < _TURN else "one")
            stated = {fact for fact in _ONCE if fact in form}
            if stated & facts:
                continue
            sentence = writer.expand(form, opinion)
            content = [word for word in _CONTENT.findall(sentence) if word not in _COMMON]
            if len(set(content)) == len(content) and seen.isdisjoint(content):
                facts |= stated
                seen.update(content)
                words += sentence.count(" ") + 1
                sentences.append(sentence)
                break
    if writer.random() < _VERDICT and len(sentences) < 6:
        sentences.append(writer.pick("verdict" + "+-"[writer.random() * (mood[0] + mood[1]) >= mood[0]]))
    review = _finish(sentences, polarity)
    usable = any(4 <= cut.words <= 14 for cut in review.cuts)
    return review if usable else write_review(rng, polarity)


def write_opinions(rng: np.random.Generator, kinds: Sequence[str]) -> str:
    """Write a short text, one sentence for each of ``kinds``, of whose opinions a reader can be certain.

    Args:
        rng: The only source of randomness.
        kinds: ``"+"`` and ``"-"`` (praise, blame), ``"0"`` (a fact), ``"mixed"`` (praise and blame in one sentence),
            ``"turned+"`` and ``"turned-"`` (praise and blame by negation, or after an "although").
    """
    writer = _Writer(rng, _TABLES[int(rng.random() < 0.6)])
    sentences: list[str] = []
    facts: set[str] = set()
    seen: set[str] = set()
    for kind in kinds:
        opinion = "+-"[writer.random() < 0.5] if kind == "mixed" else kind[-1]
        name = {"mixed": "sure_two", "0": "sure_plain"}.get(kind, "turned" if len(kind) > 1 else "sure_one")
        while True:
            form = writer.pick(name)
            stated = {fact for fact in _ONCE if fact in form}
            sentence = writer.expand(form, opinion)
            content = [word for word in _CONTENT.findall(sentence) if word not in _COMMON]
            repeats = stated & facts or len(set(content)) < len(content) or not seen.isdisjoint(content)
            if not repeats and sentence.count(" ") < 12 and not _UNSURE_WORD.search(sentence):
                facts |= stated
                seen.update(content)
                sentences.append(sentence)
                break
    return _finish(sentences, "mixed").text


def _finish(sentences: Sequence[str], polarity: str) -> Review:
    """Put in the articles and capitals, and turn the marks into cuts."""
    text = ""
    cuts: list[Cut] = []
    for sentence in sentences:
        if text:
            cuts.append(Cut(len(text), KINDS["."], text.count(" ") + 1))
            text += " "
        sentence = _ARTICLE.sub(_article, sentence)
        first, *others = re.split(r"\|(.)", sentence[0].upper() + sentence[1:])
        text += first
        for letter, piece in zip(others[::2], others[1::2], strict=True):
            cuts.append(Cut(len(text), KINDS[letter], text.count(" ") + 1))
            text += piece
    return Review(text, polarity, tuple(cuts))


def cut_prompt(
    review: Review, rng: np.random.Generator, min_words: int = 4, max_words: int = 14
) -> tuple[str, str, str]:
    """Cut a review at random into a prompt and the rest.

    Args:
        review: What to cut.
        rng: The only source of randomness.
        min_words: The fewest words of the prompt.
        max_words: The most words of the prompt.

    Returns:
        ``(prompt, rest, kind)``, where ``prompt + rest == review.text`` and ``rest`` begins with a space. Where the
        review has no cut in the range, it is cut as near to the range as possible.
    """

    def distance(cut: Cut) -> int:
        return max(min_words - cut.words, cut.words - max_words, 0)

    nearest = min(map(distance, review.cuts))
    cuts = [cut for cut in review.cuts if distance(cut) == nearest]
    # First the kind, then the cut: most cuts are ends of sentences.
    kinds = sorted({cut.kind for cut in cuts})
    kind = kinds[int(rng.random() * len(kinds))]
    cuts = [cut for cut in cuts if cut.kind == kind]
    cut = cuts[int(rng.random() * len(cuts))]
    return review.text[: cut.offset], review.text[cut.offset :], cut.kind


def praise(kind: str, rng: np.random.Generator) -> str:
    """Write an enthusiastic continuation, from a space to a full stop, of a prompt that ends at a cut of this kind.

    Args:
        kind: One of the values of `KINDS`.
        rng: The only source of randomness.

    Raises:
        ValueError: If `kind` is none of these.
    """
    if kind not in KINDS.values():
        raise ValueError(f"kind must be one of {tuple(KINDS.values())}, got {kind!r}")
    while True:
        text = _Writer(rng, _PRAISE).expand("{clause}" if kind == "sentence" else "{" + kind + "}", "+")
        text = _ARTICLE.sub(_article, text)
        words = re.findall(r"[a-z]+", text.lower())
        if 12 <= len(words) <= 22 and max(map(words.count, words)) <= 2:
            return " " + (text[0].upper() + text[1:] if kind == "sentence" else text)
