"""How an episode is shown: as a string, as a picture, or growing in the terminal.

The three render modes of Gymnasium share one input, :class:`View`, and none of them knows of environments. The text
comes from a policy that may write anything, so whatever could move a cursor, ring a bell or crash an encoder is
replaced first.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textgym.core import expected

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show of an episode.

    Attributes:
        title: One line above the text, such as the id of the task.
        prompt: The text that the episode started from.
        completion: Everything after the prompt so far.
        reward: Sum of the rewards of this episode so far.
        tokens: Number of tokens that the policy has written.
        budget: Number of tokens that it may write.
        finish_reason: Why the episode ended; ``None`` while it runs.
    """

    title: str
    prompt: str
    completion: str
    reward: float
    tokens: int
    budget: int
    finish_reason: str | None


class Renderer(Protocol):
    """Shows views, one after another."""

    def __call__(self, view: View) -> Any:
        """Shows ``view``: returns a string, a picture, or ``None`` if it was printed."""

    def close(self) -> None:
        """Finishes what is open; may be called more than once."""


def make_renderer(render_mode: str | None) -> Renderer | None:
    """The renderer of a Gymnasium render mode: ``"ansi"``, ``"rgb_array"``, ``"human"``, or ``None`` for none."""
    match render_mode:
        case None:
            return None
        case "ansi":
            return _Returned(to_ansi)
        case "rgb_array":
            return _Returned(to_rgb)
        case "human":
            return _Terminal()
    raise ValueError(expected("render_mode", render_mode, "None, 'human', 'ansi' or 'rgb_array'"))


class _Returned:
    """Renderer that hands back what ``draw`` makes of a view."""

    def __init__(self, draw: Callable[[View], Any]) -> None:
        self._draw = draw

    def __call__(self, view: View) -> Any:
        return self._draw(view)

    def close(self) -> None:
        pass


# -- text -------------------------------------------------------------------------------------------------------------

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _WRITTEN = "1", "2", "31", "32", "33", "1;32"  # codes of "Select Graphic Rendition"

# Controls except tab and newline, separators that some terminals break lines at, marks that turn the writing direction,
# and halves of surrogate pairs, which no encoder accepts.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"  # ␛, ␡, �


def harmless(text: str) -> str:
    """``text`` with something visible in place of each character that could do harm; newlines and tabs stay."""
    return _UNSAFE.sub(_visible, text)


def _paint(text: str, code: str, colour: bool = True) -> str:
    return f"\x1b[{code}m{harmless(text)}\x1b[0m" if colour and text else harmless(text)


def _cents(reward: float) -> float:
    """``reward`` as it is shown, rounded to two digits and never ``-0.0``."""
    return round(reward, 2) + 0.0


def _status(view: View, colour: bool = True) -> str:
    reward = _cents(view.reward)
    code = _GREEN if reward > 0 else _RED if reward < 0 else _YELLOW
    parts = [f"tokens {view.tokens}/{view.budget}", "reward " + _paint(f"{reward:+.2f}", code, colour)]
    return "   ".join(parts + ([harmless(view.finish_reason)] if view.finish_reason else []))


def to_ansi(view: View) -> str:
    """Draws ``view`` as lines of text with ANSI colours: title, text, status; ends with a newline."""
    text = _paint(view.prompt, _DIM) + _paint(view.completion, _WRITTEN)
    return f"{_paint(view.title, _BOLD)}\n{text}\n{_status(view)}\n"


class _Terminal:
    """Renderer that prints to ``sys.stdout`` what is new since the last view; in colour if that is a terminal."""

    def __init__(self) -> None:
        self._last: View | None = None
        self._printed = ""  # of the completion of `_last`
        self._open = False  # an episode is being printed

    def __call__(self, view: View) -> None:
        last = self._last
        if view == last:
            return
        title, prompt, tokens = (last.title, last.prompt, last.tokens) if last is not None else ("", "", 0)
        if not self._open or (view.title, view.prompt) != (title, prompt) or view.tokens < tokens:
            self._finish()
            self._write("\n" if last is not None else "")  # a blank line between episodes
            if view.title != title:
                self._write(view.title + "\n", _BOLD)
            self._write(view.prompt, _DIM)
            self._printed, self._open = "", True
        # A letter of several bytes may come in several tokens, and reads as U+FFFD until the last of them.
        self._grow(view.completion if view.finish_reason else view.completion.rstrip("\ufffd"))
        self._last = view
        if view.finish_reason:
            self._finish()
            self._write(_status(view, self._in_colour()) + "\n", raw=True)
        sys.stdout.flush()

    def close(self) -> None:
        if self._open:
            self._finish()
            sys.stdout.flush()
        self._last = None

    def _grow(self, text: str) -> None:
        """Prints what ``text`` adds to the completion."""
        if self._printed.startswith(text):
            return
        if not text.startswith(self._printed):  # the tokenizer has changed its mind about an earlier part
            self._write("\n")
            self._printed = ""
        self._write(text[len(self._printed) :], _WRITTEN)
        self._printed = text

    def _finish(self) -> None:
        """Ends the line of the episode being printed, if there is one, with all that was held back."""
        if self._open and self._last is not None:
            self._grow(self._last.completion)
            self._write("\n")
        self._open = False

    def _write(self, text: str, code: str = "", raw: bool = False) -> None:
        shown = text if raw else _paint(text, code, bool(code) and self._in_colour())
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(shown.encode(encoding, "replace").decode(encoding))

    @staticmethod
    def _in_colour() -> bool:
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org


# -- picture ----------------------------------------------------------------------------------------------------------

_Colour = tuple[int, int, int]

_PAPER, _RULE = (24, 26, 32), (58, 62, 74)
_TITLE, _PROMPT, _COMPLETION = (235, 237, 242), (150, 155, 168), (92, 225, 140)
_REWARDS = {1.0: (92, 225, 140), -1.0: (255, 107, 107), 0.0: (240, 200, 90)}  # by sign
_MARGIN, _TOP, _BOTTOM = 20, 50, 58  # pixels: around everything; for the title; for the bar and the status
_TITLE_SIZE, _TEXT_SIZE, _STATUS_SIZE, _LINE = 18, 18, 14, 26  # pixels: font sizes, and from line to line

# Pillow's own font has ASCII, “ ” ‘ ’ « » … · and no accented letters. We put the dots on ä, ö, ü ourselves, spell ß as
# ss (as the Swiss do), leave other accents off, and let the font draw its box for what remains.
_DOTS = "\u0308"
_SPELLED = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "„": ",,", "‚": ",", "–": "-", "—": "--", "−": "-", "×": "x", "•": "·", "€": "EUR"}
    | {"\t": "    ", "\u00a0": " ", "\u202f": " ", "\ufeff": ""}
)
_OTHER_MARKS = re.compile("[\u0300-\u0307\u0309-\u036f]")
_PIECES = re.compile(r"\n|[^\S\n]{1,100}|\S{1,100}")


def to_rgb(view: View, width: int = 640, height: int = 360) -> NDArray[np.uint8]:
    """Draws ``view`` as a picture. Text that does not fit scrolls: the newest lines are shown.

    Args:
        view: What to draw.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        Red, green and blue of each pixel, shape ``(height, width, 3)``, from 0 to 255.
    """
    from PIL import Image, ImageDraw  # lazily: most runs never draw

    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    right = max(_MARGIN + 1, width - _MARGIN)

    _write(picture, _MARGIN, 16, _drawable(view.title), _TITLE_SIZE, _TITLE)
    draw.line((_MARGIN, _TOP - 8, right, _TOP - 8), fill=_RULE)

    # Text: lines are spans of prompt + completion, and the one that holds the border has two colours.
    prompt = _drawable(view.prompt)
    text, border = prompt + _drawable(view.completion), len(prompt)
    lines = _wrap(text, right - _MARGIN)
    rows = max(1, (height - _TOP - _BOTTOM) // _LINE)
    for row, (start, end) in enumerate(lines[-rows:]):
        x, y = _MARGIN, _TOP + row * _LINE
        x = _write(picture, x, y, text[start : min(end, border)], _TEXT_SIZE, _PROMPT)
        x = _write(picture, x, y, text[max(start, border) : end], _TEXT_SIZE, _COMPLETION)
    if view.finish_reason is None:  # a cursor
        draw.rectangle((x + 2, y + 3, x + 3, y + _TEXT_SIZE + 1), fill=_COMPLETION)
    if len(lines) > rows:  # a scroll bar, at its end
        space = rows * _LINE
        draw.rectangle((right + 9, _TOP, right + 11, _TOP + space), fill=_RULE)
        draw.rectangle((right + 9, _TOP + space * (1 - rows / len(lines)), right + 11, _TOP + space), fill=_PROMPT)

    # Bar and status.
    y = height - 46
    done = min(1.0, max(0.0, view.tokens / max(1, view.budget)))
    draw.rectangle((_MARGIN, y, right, y + 6), fill=_RULE)
    if done:
        draw.rectangle((_MARGIN, y, _MARGIN + done * (right - _MARGIN), y + 6), fill=_COMPLETION)
    reason = f"   {view.finish_reason}" if view.finish_reason else ""
    _write(picture, _MARGIN, y + 14, _drawable(f"tokens {view.tokens}/{view.budget}{reason}"), _STATUS_SIZE, _PROMPT)
    reward = _cents(view.reward)
    shown = f"reward {reward:+.2f}"
    colour = _REWARDS.get(float(np.sign(reward)), _REWARDS[-1.0])  # also of NaN
    _write(picture, right - round(_font(_STATUS_SIZE).getlength(shown)), y + 14, shown, _STATUS_SIZE, colour)
    return np.array(picture, dtype=np.uint8)


@cache
def _font(size: int) -> Font:
    from PIL import ImageFont

    return ImageFont.load_default(size)


@lru_cache(maxsize=8192)
def _length(piece: str) -> float:
    """Width of a piece of text in pixels."""
    return _font(_TEXT_SIZE).getlength(piece.replace(_DOTS, ""))


def _drawable(text: str) -> str:
    """``text`` in the characters that :func:`_write` can draw; ``ä`` becomes ``a`` and :data:`_DOTS`."""
    return _OTHER_MARKS.sub("", unicodedata.normalize("NFD", harmless(text).translate(_SPELLED)))


def _wrap(text: str, room: int) -> list[tuple[int, int]]:
    """Breaks ``text`` into lines no wider than ``room`` pixels: the start and the end of each; at least one."""
    lines: list[tuple[int, int]] = []
    start = at = 0
    x = 0.0
    for piece in _PIECES.findall(text):
        # A word breaks inside only if it would not fit into a line of its own; spaces may stand over the edge.
        for part in [piece] if piece.isspace() or _length(piece) <= room else piece:
            wide = 0.0 if part == "\n" else _length(part)
            if part == "\n":
                lines.append((start, at))
                start, x = at + 1, 0.0
            elif x and wide and x + wide > room and not part.isspace():
                lines.append((start, at))
                start, x = at, 0.0
            x += wide
            at += len(part)
    return [*lines, (start, at)]


def _write(picture: Image.Image, x: int, y: int, text: str, size: int, colour: _Colour) -> int:
    """Draws ``text`` with its upper left corner at ``(x, y)`` pixels; returns the ``x`` of its right end."""
    text = text[: picture.width]  # the rest would be outside
    if text:
        picture.paste(colour, (x - size, y), _mask(text, size))
    return x + round(_font(size).getlength(text.replace(_DOTS, "")))


@lru_cache(maxsize=256)  # from one step to the next, all lines but the last stay the same
def _mask(text: str, size: int) -> Image.Image:
    """How much of each pixel ``text`` covers, with ``size`` pixels to spare on the left and on the right."""
    from PIL import Image, ImageDraw

    font, plain = _font(size), text.replace(_DOTS, "").replace("\n", " ")
    mask = Image.new("L", (round(font.getlength(plain)) + 2 * size, 2 * size))
    draw = ImageDraw.Draw(mask)
    draw.text((size, 0), plain, fill=255, font=font)
    for match in re.finditer(f"[^i{_DOTS}]{_DOTS}", text):  # not i, which has a dot already
        letter, before = match.group()[0], text[: match.start()].replace(_DOTS, "")
        middle = size + font.getlength(before) + font.getlength(letter) / 2 - font.getlength(".") / 2
        top = font.getbbox(letter)[1] - 0.2 * size - font.getbbox(".")[1]
        for side in (-0.17, 0.17):
            draw.text((middle + side * size, top), ".", fill=255, font=font)
    return mask
