"""The words of TextGen-Reply-v0: what customers of a shop complain about, and what its agents say."""

from __future__ import annotations

from dataclasses import dataclass

from textgym.tasks._writing import WEEKDAYS


@dataclass(frozen=True, slots=True)
class Intent:
    """A problem that a customer writes about.

    Attributes:
        problems: What the customer says; ``{p}`` is the product.
        about_it: The same where the product was named before.
        actions: What solves the problem, with the product.
        bare_actions: The same without the product.
        keys: Words that only an answer to this problem has.
        goods: Products that may have the problem.
        in_hand: Whether the customer has the product, so that a photo of it is of use.
    """

    problems: tuple[str, ...]
    about_it: tuple[str, ...]
    actions: tuple[str, ...]
    bare_actions: tuple[str, ...]
    keys: tuple[str, ...]
    goods: tuple[str, ...]
    in_hand: bool = False


_ELECTRONIC = tuple("phone laptop tablet printer router watch speaker radio camera monitor".split())
_DEVICES = (*_ELECTRONIC, *"lamp clock blender toaster kettle oven heater scooter drone".split())
_HARD = (*_DEVICES, *"chair desk sofa table mirror bike helmet guitar".split())
GOODS = (*_HARD, *"tent jacket coat".split())

INTENTS = {
    "late": Intent(
        (
            "My {p} has not arrived.",
            "I am still waiting for my {p}.",
            "Where is the {p} that I ordered {when}?",
            "I ordered a {p} {when} and it is not here.",
        ),
        ("It has not arrived.", "I ordered it {when} and it is not here."),
        (
            "Your {p} will arrive on {day}.",
            "We will deliver the {p} on {day}.",
            "I will track the delivery of your {p} today.",
        ),
        ("It will arrive on {day}.", "We will deliver it on {day}."),
        ("arrive", "deliver", "delivery", "track"),
        GOODS,
    ),
    "broken": Intent(
        ("My new {p} came broken.", "The {p} broke {when}.", "My {p} has a crack.", "The {p} fell apart {when}."),
        ("It came broken.", "It broke {when}."),
        ("We will replace the {p} for free.", "I will send you a replacement for the {p} on {day}."),
        ("We will replace it for free.", "I will send you a replacement on {day}."),
        ("replace", "replacement"),
        _HARD,
        in_hand=True,
    ),
    "refund": Intent(
        (
            "I want my money back for the {p}.",
            "I sent the {p} back {when} but got no money.",
            "When do I get my money for the {p}?",
        ),
        ("I sent it back {when} but got no money.", "I want my money back."),
        ("We will refund the {p} on {day}.", "Your refund for the {p} is on its way."),
        ("Your refund is on its way.", "We will refund it on {day}."),
        ("refund",),
        GOODS,
    ),
    "wrong": Intent(
        (
            "I ordered a black {p} but got a white one.",
            "My {p} has the wrong color.",
            "The {p} that you sent is too small.",
        ),
        ("It has the wrong color.", "It is too small."),
        ("We will exchange the {p} for another one.", "Please exchange the {p} in our shop on {day}."),
        ("We will exchange it for another one.", "Please exchange it in our shop on {day}."),
        ("exchange",),
        GOODS,
        in_hand=True,
    ),
    "password": Intent(
        (
            "I forgot the password of my {p}.",
            "I cannot log in to my {p}.",
            "My {p} does not take my password.",
        ),
        ("I forgot the password.", "I cannot log in."),
        ("I will reset the password of your {p}.", "Here is a link to reset your {p}."),
        ("I will reset the password.", "Here is a link to reset it."),
        ("reset",),
        _ELECTRONIC,
    ),
    "invoice": Intent(
        ("I need the invoice for my {p}.", "I got no invoice for the {p}.", "Where is the invoice for my {p}?"),
        ("I need the invoice for it.", "I got no invoice for it."),
        ("I will send you the invoice for the {p}.", "Here is a copy of the invoice for your {p}."),
        ("I will send you the invoice.", "Here is a copy of the invoice."),
        ("invoice",),
        GOODS,
    ),
    "appointment": Intent(
        (
            "Somebody must come and look at my {p}.",
            "When can somebody look at the {p}?",
            "Nobody came to look at my {p} {when}.",
        ),
        ("When can somebody look at it?", "Nobody came to look at it {when}."),
        ("I can book an appointment for the {p} on {day}.", "Your appointment for the {p} is on {day}."),
        ("I can book an appointment on {day}.", "Your appointment is on {day}."),
        ("appointment",),
        _DEVICES,
    ),
    "cancel": Intent(
        (
            "I do not want the {p} any more.",
            "Please stop my order of the {p}.",
            "I ordered the {p} by mistake {when}.",
        ),
        ("I do not want it any more.", "I ordered it by mistake."),
        ("I will cancel the order of the {p}.", "We cancelled your order of the {p} today."),
        ("I will cancel the order.", "We cancelled your order today."),
        ("cancel", "cancelled"),
        GOODS,
    ),
    "repair": Intent(
        ("My {p} makes a strange noise.", "My {p} does not turn on.", "The {p} stopped working {when}."),
        ("It does not turn on.", "It makes a strange noise."),
        ("We will repair the {p} in our shop.", "A technician will repair your {p} on {day}."),
        ("We will repair it in our shop.", "A technician will repair it on {day}."),
        ("repair", "technician"),
        _DEVICES,
        in_hand=True,
    ),
    "payment": Intent(
        ("I paid twice for the {p}.", "You charged my card twice for the {p}.", "The price of my {p} was wrong."),
        ("I paid for it twice.", "The price of it was wrong."),
        ("I will correct the payment for the {p}.", "We will check the payment for your {p} on {day}."),
        ("I will correct the payment.", "We will check the payment on {day}."),
        ("payment",),
        GOODS,
    ),
    "address": Intent(
        (
            "I moved and the {p} goes to my old house.",
            "Please send the {p} to my office.",
            "I moved to a new house, and the {p} is on its way.",
        ),
        ("It goes to my old house.", "Please send it to my office."),
        ("I will change the address for the {p}.", "Your {p} will go to the new address."),
        ("I will change the address.", "It will go to the new address."),
        ("address",),
        GOODS,
    ),
    "part": Intent(
        ("A screw of my {p} is missing.", "There was no cable with the {p}.", "The box of my {p} was half empty."),
        ("A screw is missing.", "The box was half empty."),
        ("I will send you the missing part of the {p}.", "The part for your {p} will go out on {day}."),
        ("I will send you the missing part.", "The part will go out on {day}."),
        ("part",),
        _HARD,
        in_hand=True,
    ),
    "manual": Intent(
        ("How do I set up my {p}?", "I do not know how my {p} works.", "I cannot read the small text about my {p}."),
        ("I do not know how it works.", "How do I set it up?"),
        ("Here is the manual for the {p}.", "I will send you the manual of your {p}."),
        ("Here is the manual.", "I will send you the manual."),
        ("manual",),
        _DEVICES,
    ),
}  # fmt: skip

OPENINGS = (
    "I am sorry about that.",
    "Sorry for the trouble.",
    "Thank you for your message.",
    "Thank you for telling us.",
    "I am happy to help.",
)
STEPS = (
    "I will call you on {day}.",
    "I will write to you on {day}.",
    "You will get a message from us today.",
)
STEPS_IN_HAND = ("Please send me a photo.", "Please keep the box.")
GENERIC = (
    "We will look into it.",
    "Please wait a little longer.",
    "We will write to you soon.",
    "We get many messages these days.",
    "Somebody will help you soon.",
)
RUDE = (
    "That is not my problem.",
    "Stop bothering us.",
    "It is your own fault.",
    "Do not be so stupid.",
    "Nobody cares about your {p}.",
    "What a stupid question.",
)
OFF_TOPIC = (
    "The weather is nice on {day}.",
    "I like to cook for my family.",
    "My sister plays football on {day}.",
    "We open at nine on {day}.",
)
RUDE_WORDS = frozenset("stupid fault bothering cares fool idiot shut hate nonsense".split()) | {"not my problem"}
POLITE_WORDS = frozenset("sorry thank please happy".split())
STEP_WORDS = frozenset(day.lower() for day in WEEKDAYS) | frozenset("today photo keep call link free".split())

GREETINGS = ("Hello, this is {name}.", "Hi, {name} here.", "Good morning, my name is {name}.")
ASKS = ("How can I help you, {name}?", "Hello {name}, what can I do for you?", "Hi {name}, what is the problem?")
VAGUE = ("I have a problem with my {p}.", "It is about my {p}.", "I bought a {p} {when}.", "I need help with my {p}.")
WHAT = ("What is wrong with it?", "What happened?", "How can I help you?", "Tell me more, please.")
SIDE = ("My {q} is fine.", "The {q} works well.", "I like the {q}.", "I also have a {q} from you.")
NEXT = ("Thank you.", "That is good.", "Fine, thank you.")
NUMBER = ("My order is {number}.", "The order number is {number}.", "It is order {number}.")
WHEN = ("last week", "on {day}", "two weeks ago", "three days ago", "yesterday", "a month ago")
