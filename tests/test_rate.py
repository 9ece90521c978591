"""A person at the terminal: `textgym rate`, and the reward `Human`."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textgym import Completion
from textgym.cli import main
from textgym.rewards import Human, RewardError, as_reward

SAMPLES = [
    {"timesteps": 0, "prompt": "The film", "completion": " was bad.", "reward": -0.5},
    {"timesteps": 9, "prompt": "The film", "completion": " was good.", "reward": 0.5},
    {"timesteps": 9, "prompt": "The book", "completion": " was\x1b[2J long.", "reward": 0.1},
    {"timesteps": 10, "prompt": "The film", "completion": " was bad.", "reward": -0.5},  # the same again
]


@pytest.fixture
def rate(tmp_path, capsys, monkeypatch):
    """Runs the command with answers: exit code, output, error, ratings."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "dumb")
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES))

    def run(answers: str, *options: str, file: Path = file) -> tuple[int, str, str, list[dict[str, Any]]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        with pytest.raises(SystemExit) as stop:
            main(["rate", str(file), *options])
        mode = options[options.index("--mode") + 1] if "--mode" in options else "score"
        out, err = capsys.readouterr()
        ratings = tmp_path / f"samples.{mode}.jsonl"
        lines = ratings.read_text(encoding="utf-8").splitlines() if ratings.exists() else []
        return stop.value.code or 0, out, err, [json.loads(line) for line in lines]

    return run


def shown(out: str) -> list[str]:
    """The texts in the order in which they were asked for."""
    return re.findall(r"was bad|was good|was\S* long", out)


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_scores(rate):
    code, out, _, ratings = rate("1\n2\n5\n")
    assert code == 0 and "3 rated, 0 skipped, 0 left" in out
    assert [r["score"] for r in ratings] == [1, 2, 5]
    assert {(r["prompt"], r["completion"]) for r in ratings} == {(s["prompt"], s["completion"]) for s in SAMPLES}
    assert all(r["mode"] == "score" and r["scale"] == [1, 5] for r in ratings)
    assert "\x1b[2J" not in out and "0.5" not in out and "timesteps" not in out  # harmless, and blind


def test_order_is_by_seed(rate, tmp_path):
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"prompt": "p", "completion": f" {i}."}) + "\n" for i in range(20)))
    orders = [re.findall(r"^ \d+\.$", rate("s\n" * 20, "--seed", seed, "--out", str(tmp_path / f"{n}"), file=file)[1], re.M)
              for n, seed in enumerate("001")]  # fmt: skip
    assert len(orders[0]) == 20 and orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != sorted(orders[0], key=float)


def test_bad_answers_are_asked_again(rate):
    _, out, _, ratings = rate("0\n6\nfive\n\n3.5\n1 2\n-1\n٣\n4\nq\n")
    assert [r["score"] for r in ratings] == [4]
    assert out.count("score 1 to 5 [s, u, q]:") == 10


def test_other_scales(rate):
    _, out, _, ratings = rate("-10\n10\n11\n0\n", "--scale", "-10", "10")
    assert [r["score"] for r in ratings] == [-10, 10, 0]
    assert "score -10 to 10" in out


def test_skip_undo_quit_and_resume(rate):
    _, out, _, ratings = rate("u\n3\ns\nu\nu\n5\nq\n")
    assert "There is nothing to undo." in out and out.count("One back.") == 2
    assert [r.get("score") for r in ratings] == [5]
    first = shown(out)[0]
    assert shown(out) == [first, first, shown(out)[2], shown(out)[3], shown(out)[2], first, shown(out)[2]]
    assert "1 rated, 0 skipped, 2 left" in out
    _, out, _, ratings = rate("s\n2\n")
    assert "2 to score, 1 done before" in out and first not in shown(out)
    assert [(r.get("score"), r.get("skipped")) for r in ratings] == [(5, None), (None, True), (2, None)]
    assert "2 rated, 1 skipped, 0 left" in out
    _, out, _, again = rate("1\n1\n1\n")
    assert again == ratings and "0 to score, 3 done before" in out


def test_undo_of_an_earlier_session(rate):
    _, _, _, before = rate("3\n4\nq\n")
    _, _, _, after = rate("u\n1\nq\n")
    assert [r["score"] for r in before] == [3, 4] and [r["score"] for r in after] == [3, 1]
    assert before[1]["id"] == after[1]["id"]


def test_a_file_that_has_grown(rate, tmp_path):
    rate("3\n3\n3\n")
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "The film", "completion": " is new."}) + "\n")
    _, out, _, ratings = rate("5\n1\n")
    assert "1 to score, 3 done before" in out and " is new." in out
    assert [r["score"] for r in ratings] == [3, 3, 3, 5]


def test_saved_after_every_answer(tmp_path):
    """A process that is killed while it waits for the second answer has saved the first; half a line does no harm."""
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES))
    command = [sys.executable, "-c", "from textgym.cli import main; main()", "rate", str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"4\n")
    process.stdin.flush()
    ratings = tmp_path / "samples.score.jsonl"
    seen = b""
    while seen.count(b"[s, u, q]") < 2:
        seen += process.stdout.read1(1000)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert [json.loads(line)["score"] for line in ratings.read_text().splitlines()] == [4]
    with ratings.open("a") as out:
        out.write('{"id": "ab')
    done = subprocess.run(command, input="1\nq\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["score"] for line in ratings.read_text().splitlines()] == [4, 1]


def until(done: Callable[[], bool]) -> None:
    for _ in range(3000):
        if done():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happens")


def test_one_key_at_a_terminal(tmp_path):
    """Without Enter; Ctrl-C ends with what was saved."""
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES))
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", "from textgym.cli import main; main()", "rate", str(file)]
    environment = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True, env=environment
    )
    os.close(terminal)
    seen = ""
    for asked, key in enumerate(["9", "2", "u", "3", "\x03"], start=1):
        while seen.count("[s, u, q]") < asked:
            seen += os.read(controller, 1000).decode()
        until(lambda: not termios.tcgetattr(controller)[3] & termios.ICANON)  # what is typed before single keys is lost
        os.write(controller, key.encode())
    assert process.wait(timeout=60) == 130
    os.close(controller)
    assert [json.loads(line)["score"] for line in (tmp_path / "samples.score.jsonl").read_text().splitlines()] == [3]


# ---- ranks and comparisons ------------------------------------------------------------------------------------------


def candidates(tmp_path: Path, count: int, prompts: int = 1) -> Path:
    file = tmp_path / "samples.jsonl"
    records = [{"prompt": f"p{k}", "completions": [f" c{i}." for i in range(count)]} for k in range(prompts)]
    file.write_text("\n".join(map(json.dumps, records)))
    return file


def test_rank(rate, tmp_path):
    file = candidates(tmp_path, 3, prompts=6)
    _, out, _, ratings = rate("312\n1 1 2\n12\n4,1,2\n2, 1, 3\n3 > 2 > 1\ns\nq\n", "--mode", "rank", file=file)
    assert "best first, such as 321" in out and "1 skipped, 2 left" in out
    displays = re.findall(r"1:  c(\d)\.\n2:  c(\d)\.\n3:  c(\d)\.", out)
    assert len(set(displays[:1] + displays[-3:])) > 1  # not always in the same order
    orders = [displays[0], displays[1], displays[2]]
    for rating, order, answer in zip(ratings, orders, ([3, 1, 2], [2, 1, 3], [3, 2, 1]), strict=False):
        best_first = [int(order[number - 1]) for number in answer]
        assert [rating["ranks"][candidate] for candidate in best_first] == [1, 2, 3]
        assert rating["completions"] == [" c0.", " c1.", " c2."]
    assert ratings[3] == {**ratings[3], "skipped": True} and "ranks" not in ratings[3]


def test_compare(rate, tmp_path):
    file = candidates(tmp_path, 3, prompts=2)
    _, out, _, ratings = rate("1\n2\n3\n0\n1\n1\n2\n", "--mode", "compare", file=file)
    assert "6 rated, 0 skipped, 0 left" in out  # three pairs of each prompt
    displays = [tuple(map(int, pair)) for pair in re.findall(r"1:  c(\d)\.\n2:  c(\d)\.", out)]
    assert len(displays) == 6 and len({(a < b) for a, b in displays}) == 2
    assert {(r["prompt"], *r["completions"]) for r in ratings} == {
        (p, a, b) for p in ("p0", "p1") for a, b in ((" c0.", " c1."), (" c0.", " c2."), (" c1.", " c2."))
    }
    for rating, display, answer in zip(ratings, displays, [1, 2, 0, 1, 1, 2], strict=True):
        if answer == 0:
            assert rating["better"] is None and "chosen" not in rating
        else:
            chosen = f" c{display[answer - 1]}."
            assert rating["chosen"] == chosen == rating["completions"][rating["better"]]
            assert rating["rejected"] == rating["completions"][1 - rating["better"]] != chosen


def test_samples_of_a_run_are_candidates_of_their_prompt(rate):
    ratings = rate("2\n2\n", "--mode", "compare")[3]
    assert len(ratings) == 1 and sorted(ratings[0]["completions"]) == [" was bad.", " was good."]


def test_what_eval_writes(rate, tmp_path):
    file = tmp_path / "samples.json"
    file.write_text(json.dumps({"run": "r", "samples": SAMPLES}, indent=1))
    _, _, _, ratings = rate("1\n2\n3\n", file=file)
    assert len(ratings) == 3


def test_gzip_and_default_name(rate, tmp_path):
    file = tmp_path / "samples.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(SAMPLES[0]).encode()))
    assert len(rate("1\n", file=file)[3]) == 1


# ---- bad input ------------------------------------------------------------------------------------------------------

BAD_FILES = [
    (
        b'{"prompt": "a", "completion": "b"}\n{"prompt": \n',
        r"Line 2 of '.*samples\.jsonl' is not JSON: Expecting value",
    ),
    (b'{"prompt": "a"}', r"Line 1 of .*: Expected `record` to be a record with 'prompt' and 'completion'"),
    (b'\n{"completion": "a"}', r"Line 2 of .*: Expected `record` to be"),
    (b'{"prompt": "a", "completions": []}', r"Line 1 of .*: Expected `record` to be"),
    (b'{"prompt": "a", "completions": ["b", 3]}', r"Line 1 of .*: Expected `record` to be"),
    (b'{"prompt": "a", "completions": "b"}', r"Line 1 of .*: Expected `record` to be"),
    (b"[1]", r"Line 1 of .*: Expected `record` to be .*, actual value: \[1\]"),
    (b"", "Expected at least one record to score, but there is none"),
    ("ä".encode("latin-1"), "is not UTF-8 text"),
]


@pytest.mark.parametrize(("data", "message"), BAD_FILES)
def test_bad_files(rate, tmp_path, data, message):
    (tmp_path / "samples.jsonl").write_bytes(data)
    code, _, err, _ = rate("1\n")
    assert code == 2 and err.startswith("Error: ") and err.count("\n") == 1 and re.search(message, err)


def test_bad_options(rate, tmp_path):
    for options, message in [
        (("--scale", "5", "1"), r"`scale` to be two whole numbers, the lower one first, actual value: \(5, 1\)"),
        (
            ("--out", str(tmp_path / "samples.jsonl")),
            r"Line 1 of .*: Expected `rating` to be one that textgym rate wrote",
        ),
    ]:
        code, _, err, _ = rate("1\n", *options)
        assert code == 2 and re.search(message, err)
    code, _, err, _ = rate("1\n", file=tmp_path / "nowhere.jsonl")
    assert code == 2 and "Could not read" in err
    one = candidates(tmp_path, 1)
    assert (
        "two different completions of the same prompt to compare, but there is none"
        in rate("", "--mode", "compare", file=one)[2]
    )
    many = candidates(tmp_path, 10)
    assert "at most 9 completions of a prompt to rank, actual: 10 of 'p0'" in rate("", "--mode", "rank", file=many)[2]


def test_ratings_of_other_options_are_not_mixed(rate, tmp_path):
    rate("3\nq\n")
    out = str(tmp_path / "samples.score.jsonl")
    code, _, err, _ = rate("1\n", "--mode", "compare", "--out", out)
    assert code == 2 and "Line 1 of" in err and "is not of mode 'compare'" in err
    code, _, err, _ = rate("1\n", "--scale", "0", "9")
    assert code == 2 and "is not of mode 'score', scale (0, 9)" in err
    out = str(tmp_path / "notes.jsonl")
    Path(out).write_text("nonsense\n")
    code, _, err, _ = rate("1\n", "--out", out)
    assert code == 2 and re.search(r"Line 1 of '.*notes\.jsonl' is not JSON", err)


# ---- the reward -----------------------------------------------------------------------------------------------------

BATCH = [Completion("Once", " upon"), Completion("Once", " a time\x1b[2J"), Completion("Once", " upon")]


def test_human():
    output = io.StringIO()
    human = Human(stream=io.StringIO("1\n9\nx\n\n4\n"), output=output)
    scores = human(BATCH)
    np.testing.assert_array_equal(scores, np.array([0, 0.75, 0], dtype=np.float32))
    assert scores.dtype == np.float32
    assert output.getvalue().count("score 1 to 5: ") == 5 and "\x1b[2J" not in output.getvalue()
    np.testing.assert_array_equal(human(BATCH[1:2]), scores[1:2])  # not asked again
    assert human.heavy and human.range == (0, 1)


def test_human_of_another_scale_in_a_sum():
    human = Human((0, 10), io.StringIO("5\n10\n"), io.StringIO())
    total, parts = (2 * human).parts(BATCH[:2])
    assert total.tolist() == [1, 2] and parts["human"].tolist() == [0.5, 1]


def test_human_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("3\n"))
    with pytest.raises(RewardError, match=r"'human' asks at the terminal, but standard input is none; .*textgym rate"):
        as_reward("human")(BATCH)
    with pytest.raises(RewardError, match="needs another answer, but the input has ended"):
        Human(stream=io.StringIO("3\n"), output=io.StringIO())(BATCH)


@pytest.mark.parametrize("scale", [(5, 1), (1, 1), (1,), (1.0, 5), "15", None, (False, True)])
def test_human_of_a_bad_scale(scale):
    with pytest.raises(ValueError, match="`scale` to be two whole numbers, the lower one first"):
        Human(scale)


def test_human_can_be_pickled():
    assert pickle.loads(pickle.dumps(Human((0, 3)))).scale == (0, 3)
