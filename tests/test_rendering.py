import io
import re
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from textgym import rendering
from textgym.rendering import View, make_renderer, to_ansi, to_rgb

START = View("TextGen-Sentiment-v0", "The film was", "", 0.0, 0, 32, None)
MIDDLE = replace(START, completion=" really", tokens=2)
END = replace(START, completion=" really good.", tokens=5, reward=0.81, finish_reason="stop")
NASTY = "a\x1b[2Jb\rc\x07d\x00e\x7ff\x9b31mg\u202eh\u2028i\ud800j\nk"


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: str = "") -> str:
    """What an episode prints. Not a fixture: pytest puts its own `sys.stdout` in place before each phase of a test."""
    with monkeypatch.context() as patch:
        patch.setenv("NO_COLOR", no_color)
        patch.setattr(sys, "stdout", screen := Screen())
        show(START, MIDDLE, END)
    return screen.getvalue()


# -- make_renderer


def test_none_and_unknown_modes() -> None:
    assert make_renderer(None) is None
    with pytest.raises(ValueError, match="'humam'"):
        make_renderer("humam")


def test_modes_give_what_gymnasium_expects() -> None:
    ansi, rgb, human = (make_renderer(mode) for mode in ("ansi", "rgb_array", "human"))
    assert ansi is not None and ansi(END) == to_ansi(END)
    assert rgb is not None and (rgb(END) == to_rgb(END)).all()
    assert human is not None and human(END) is None
    for renderer in (ansi, rgb, human):
        renderer.close()
        renderer.close()


# -- ansi


def test_ansi_content() -> None:
    expected = "TextGen-Sentiment-v0\nThe film was really good.\ntokens 5/32   reward +0.81   stop\n"
    assert plain(to_ansi(END)) == expected
    assert plain(to_ansi(MIDDLE)).endswith("tokens 2/32   reward +0.00\n")


def test_ansi_colours() -> None:
    assert "\x1b[2mThe film was\x1b[0m\x1b[1;32m really good.\x1b[0m" in to_ansi(END)
    for reward, code in [(0.5, "32m+0.50"), (-0.5, "31m-0.50"), (0.0, "33m+0.00"), (-0.001, "33m+0.00")]:
        assert f"\x1b[{code}\x1b[0m" in to_ansi(replace(END, reward=reward))


@pytest.mark.parametrize("field", ["title", "prompt", "completion", "finish_reason"])
def test_ansi_control_characters_are_harmless(field: str) -> None:
    shown = plain(to_ansi(replace(END, **{field: NASTY})))
    assert "a␛[2Jb␍c␇d␀e␡f\ufffd31mg\ufffdh\ufffdi\ufffdj\nk" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)
    shown.encode()


# -- rgb


@pytest.mark.parametrize(
    "view",
    [START, MIDDLE, END]
    + [replace(END, completion=text) for text in (NASTY, "x" * 3000, " " * 500, "\n" * 50, "日本 🙂 é Größe", "\u0308")]
    + [replace(END, completion=text) for text in ("\u0308ä", "a\u0308\u0308ä", " " * 10**6)]
    + [replace(END, title="ü\n" * 300, prompt="", completion="")]
    + [replace(END, tokens=99, budget=0), replace(END, reward=float("nan")), replace(END, reward=-float("inf"))],
)
def test_rgb_has_one_shape_and_is_deterministic(view: View) -> None:
    picture = to_rgb(view)
    assert picture.shape == (360, 640, 3) and picture.dtype == np.uint8
    assert picture.flags.writeable
    assert (picture == to_rgb(view)).all()


@pytest.mark.parametrize(("width", "height"), [(320, 200), (1280, 720), (40, 30), (1, 1)])
def test_rgb_of_any_size(width: int, height: int) -> None:
    assert to_rgb(replace(END, completion=" word" * 200), width, height).shape == (height, width, 3)


def test_rgb_changes_with_everything() -> None:
    changes = [{"title": "Other"}, {"prompt": "A"}, {"completion": " rain"}, {"reward": -0.4}, {"tokens": 9}]
    views = [MIDDLE, END, *(replace(MIDDLE, **change) for change in changes)]  # type: ignore[arg-type]
    assert len({to_rgb(view).tobytes() for view in views}) == len(views)


def test_rgb_colours() -> None:
    text = slice(50, 300)  # rows of pixels
    start, end = to_rgb(replace(END, completion=""))[text], to_rgb(END)[text]
    assert rendering._PROMPT in colours(start) and rendering._COMPLETION not in colours(start)
    assert {rendering._PROMPT, rendering._COMPLETION} <= colours(end)
    for reward, sign in [(2.0, 1.0), (-2.0, -1.0), (0.0, 0.0)]:
        corner = to_rgb(replace(END, reward=reward))[-34:, 500:]
        assert {rendering._REWARDS[key] for key in (1.0, -1.0, 0.0)} & colours(corner) == {rendering._REWARDS[sign]}


def test_rgb_bar_shows_the_share_of_the_budget() -> None:
    for tokens, share in [(0, 0.0), (8, 0.25), (32, 1.0)]:
        row = to_rgb(replace(END, tokens=tokens))[360 - 43]
        assert (row == rendering._COMPLETION).all(-1).sum() == pytest.approx(600 * share, abs=1.5)


def test_rgb_scrolls_to_the_newest_lines() -> None:
    long = replace(START, completion="".join(f"\nline {i}" for i in range(40)))
    assert (to_rgb(long) != to_rgb(replace(long, completion=long.completion + "!"))).any()
    other = replace(long, prompt="Another one")  # has left the picture
    assert (to_rgb(long) == to_rgb(other)).all()
    assert rendering._PROMPT not in colours(to_rgb(long)[50:300, :620])


def test_rgb_draws_german_letters() -> None:
    pictures = [to_rgb(replace(START, completion=letter)).tobytes() for letter in "aäAÄoöOÖuüUÜß\ue000\ufffd"]
    assert len(set(pictures)) == len(pictures) - 1  # the last two are the box for what the font lacks
    composed, decomposed = (to_rgb(replace(START, completion=text)) for text in ("schön", "scho\u0308n"))
    assert (composed == decomposed).all()


def test_wrapping_keeps_every_character_and_fits() -> None:
    text = "Some words of several lengths, and\n\na line. " * 5
    for extra, room in [("", 200), ("antidisestablishmentarianism" * 9, 120), ("schön" * 30, 5)]:
        written = rendering._drawable(text + extra)
        lines = rendering._wrap(written, room)
        assert "".join(written[start:end] for start, end in lines) == written.replace("\n", "")
        shown = [written[start:end].rstrip() for start, end in lines]
        for line in shown:
            assert rendering._length(line) <= room + 3 or len(line.rstrip("\u0308")) == 1  # 3: for kerning
        if not extra:  # every word fits, so none is broken
            assert " ".join(shown).split() == text.split()
    assert rendering._wrap("", 200) == [(0, 0)]


def test_rgb_is_fast() -> None:
    view = replace(END, prompt="Some words of a prompt. " * 40, completion=" and more of them" * 20)
    to_rgb(view)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        to_rgb(view)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.1  # usually some milliseconds; loose, for machines under load


# -- human


def show(*views: View, close: bool = True) -> None:
    renderer = make_renderer("human")
    assert renderer is not None
    for view in views:
        renderer(view)
    if close:
        renderer.close()
        renderer.close()


def test_human_prints_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = make_renderer("human")
    assert renderer is not None
    printed = []
    for view in (START, MIDDLE, MIDDLE, END, END):  # a view shown twice adds nothing
        renderer(view)
        printed.append(capsys.readouterr().out)
    renderer.close()
    printed.append(capsys.readouterr().out)
    end = " good.\ntokens 5/32   reward +0.81   stop\n"
    assert printed == ["TextGen-Sentiment-v0\nThe film was", " really", "", end, "", ""]


def test_human_next_episode(capsys: pytest.CaptureFixture[str]) -> None:
    show(START, END, START, MIDDLE)
    status = "tokens 5/32   reward +0.81   stop"
    lines = ["TextGen-Sentiment-v0", "The film was really good.", status, "", "The film was really", ""]
    assert capsys.readouterr().out.split("\n") == lines


def test_human_episode_cut_off_by_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    show(START, replace(MIDDLE, completion=" caf\ufffd"), replace(START, prompt="It"), replace(MIDDLE, prompt="It"))
    lines = ["TextGen-Sentiment-v0", "The film was caf\ufffd", "", "It really", ""]
    assert capsys.readouterr().out.split("\n") == lines


def test_human_close_finishes_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(START, MIDDLE, close=False)
    assert capsys.readouterr().out.endswith("really")
    show(START, MIDDLE)
    assert capsys.readouterr().out.endswith("really\n")
    show()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("completions", "expected"),
    [
        ([" caf\ufffd", " café", " café!"], [" caf", "é", "!"]),
        ([" \ufffd\ufffd", " \ufffd\ufffd", " 日"], [" ", "", "日"]),
        ([" a\ufffd", " a\ufffdb"], [" a", "\ufffdb"]),  # never became a letter
        ([" ä", " \ufffd\ufffd\ufffd", " ä日"], [" ä", "", "日"]),  # decoders that give up on a whole run of bytes
        ([" it 's", " it's"], [" it 's", "\n it's"]),  # decoders that tidy up: say it again
    ],
)
def test_human_partial_letters(completions: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    renderer = make_renderer("human")
    assert renderer is not None
    renderer(START)
    capsys.readouterr()
    printed = []
    for tokens, completion in enumerate(completions, 1):
        renderer(replace(START, completion=completion, tokens=tokens))
        printed.append(capsys.readouterr().out)
    assert printed == expected


@pytest.mark.parametrize("reason", ["length", None])
def test_human_what_was_held_back_comes_at_the_end(reason: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    show(START, replace(START, completion=" caf\ufffd", tokens=32, finish_reason=reason))
    assert "The film was caf\ufffd\n" in capsys.readouterr().out


def test_human_on_a_terminal_is_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch)
    assert "\x1b[2mThe film was\x1b[0m\x1b[1;32m really\x1b[0m\x1b[1;32m good.\x1b[0m\n" in shown
    assert shown.endswith("tokens 5/32   reward \x1b[32m+0.81\x1b[0m   stop\n")


def test_human_respects_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch, no_color="1")
    assert "The film was really good.\n" in shown and "\x1b" not in shown


def test_human_control_characters_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    show(replace(END, prompt=NASTY, completion=NASTY))
    assert all(character.isprintable() or character == "\n" for character in capsys.readouterr().out)


def test_human_on_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", newline="\n"))
    show(replace(END, completion=" schön\x07"))
    assert b"The film was sch?n?\n" in raw.getvalue()
