"""The harness of `benchmarks/compare.py`, with workers that only claim to work: no torch, no peers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))  # scripts, not an installed package

import measuring
from compare_cases import pairing, peers
from compare_cases.catalogue import CASES
from compare_cases.pairing import take_turns
from compare_cases.report import draw, show
from compare_cases.rows import Comparison, Context, Row, Side
from compare_cases.workers import Worker, WorkerError
from compare_cases.workload import letter_share

BENCHMARKS = Path(measuring.__file__).parent
ANSWERS = """
import json, sys
print(json.dumps({"ready": True, "facts": {}}), flush=True)
for seconds, line in zip(%s, sys.stdin):
    print(json.dumps({"seconds": seconds, "cpu_seconds": 0.0, "tokens": 100}), flush=True)
"""


def fake(folder: Path, name: str, code: str) -> Worker:
    return Worker(name, (sys.executable, "-c", code), folder, patience=30.0)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A machine on which others use what the list says, one entry a repetition, and then nothing."""
    shares: list[float] = []
    monkeypatch.setattr(pairing, "wait_until_quiet", lambda *_: True)
    monkeypatch.setattr(pairing, "foreign_share", lambda *_: shares.pop(0) if shares else 0.0)
    return shares


def in_turns(folder: Path, ours: list[float], theirs: list[float], rounds: int, patience: float = 60.0):
    workers = [fake(folder, "ours", ANSWERS % ours), fake(folder, "peer", ANSWERS % theirs)]
    with workers[0], workers[1]:
        for worker in workers:
            worker.wait_until_ready()
        return take_turns(workers, rounds, patience=patience)


def test_ratios_are_taken_round_by_round(tmp_path, quiet):
    found = in_turns(tmp_path, [1.0, 2.0, 1.0], [3.0, 4.0, 10.0], rounds=3)
    assert found.ratios() == pytest.approx([3.0, 2.0, 10.0])
    assert found.rates(0) == pytest.approx([100.0, 50.0, 100.0])
    assert statistics.median(found.ratios()) == pytest.approx(3.0)  # the ratio of the medians would be 4
    row = Row("x", "ours", "peer", target=3.5).measured(found.ratios(), found)
    assert (row.status, row.ratio, row.reached, row.quiet) == ("measured", pytest.approx(3.0), False, True)
    assert row.to_json()["details"]["sides"]["peer"]["tokens_per_second"] == pytest.approx(25.0)


def test_a_target_from_above():
    assert Row("x", "", "", target=1.5, at_most=True).measured([1.4]).reached is True
    assert Row("x", "", "", target=1.5, at_most=True).measured([1.6]).reached is False
    assert Row("x", "", "", target=1.5).reached is None


def test_a_busy_round_is_thrown_away_as_a_whole(tmp_path, quiet):
    quiet += [0.0, 0.5]  # others were at work during the peer's first repetition
    found = in_turns(tmp_path, [1.0, 1.0, 1.0], [9.0, 2.0, 2.0], rounds=2)
    assert found.ratios() == pytest.approx([2.0, 2.0])
    assert (found.discarded, found.quiet) == (1, True)


def test_without_patience_busy_rounds_count_and_are_marked(tmp_path, quiet):
    quiet += [0.5, 0.5, 0.5, 0.5]
    found = in_turns(tmp_path, [1.0, 1.0], [9.0, 2.0], rounds=2, patience=0.0)
    assert found.ratios() == pytest.approx([9.0, 2.0])
    assert (found.discarded, found.quiet) == (0, False)


def test_only_one_worker_works_at_a_time(tmp_path, quiet):
    log = tmp_path / "log"
    code = """
import json, sys, time
print(json.dumps({{"ready": True}}), flush=True)
for line in sys.stdin:
    assert line == "go\\n"
    open({log!r}, "a").write("+{name}"); time.sleep(0.05); open({log!r}, "a").write("-{name}")
    print(json.dumps({{"seconds": 1.0, "cpu_seconds": 0.0, "tokens": 1}}), flush=True)
"""
    workers = [fake(tmp_path, name, code.format(log=str(log), name=name)) for name in "ab"]
    with workers[0], workers[1]:
        for worker in workers:
            worker.wait_until_ready()
        take_turns(workers, 2)
    assert log.read_text() == "+a-a+b-b+a-a+b-b"


def test_a_worker_that_dies_is_reported_with_its_standard_error(tmp_path, quiet):
    died = pytest.raises(WorkerError, match=r"ours: ended with exit status 1.*\n.*no such model")
    with fake(tmp_path, "ours", "raise SystemExit('no such model')") as worker, died:
        worker.wait_until_ready()
    with pytest.raises(WorkerError, match="peer: ended with exit status 0"):  # in the middle of a measurement
        in_turns(tmp_path, [1.0, 1.0], [1.0], rounds=2)


def test_a_worker_that_hangs_is_reported_and_ended(tmp_path):
    worker = fake(tmp_path, "ours", "import time; time.sleep(600)")
    worker.patience = 0.2
    with worker, pytest.raises(WorkerError, match=r"no answer within 0\.2 s"):
        worker.wait_until_ready()
    assert worker._process.returncode is not None


def test_a_failure_stays_in_its_row(tmp_path):
    side = Side("ours", "no_such_module")
    row = Comparison("x", side, side, 2.0).run(Context(tmp_path / "p", 5, 0.0, no_peers))
    assert (row.status, row.ratio, row.reached) == ("failed", None, None)
    assert "no_such_module" in row.reason


def no_peers() -> peers.Peers:
    raise peers.PeersMissingError("there is no network")


def test_missing_peers_are_reported_and_nothing_is_invented(tmp_path, capsys):
    trl = Side("TRL", "trl_trainers", {}, "trl")
    row = Comparison("x", trl, trl, 2.0).run(Context(tmp_path / "p", 5, 0.0, no_peers))
    assert (row.status, row.reason, row.ratio, row.ratios) == ("not run", "there is no network", None, [])
    show([row], Console(width=150))
    told = capsys.readouterr().out
    assert "not run" in told and "there is no network" in told and "reached" not in told
    draw([row], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()  # nothing to draw


def test_a_python_without_peers_says_what_it_lacks(tmp_path):
    with pytest.raises(peers.PeersMissingError, match="does not run"):
        peers.at(tmp_path / "venv" / "bin" / "python")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -S -c 'raise SystemExit(\"No package trl\")'\n")
    python.chmod(0o755)
    with pytest.raises(peers.PeersMissingError, match="No package trl"):
        peers.at(python)
    python.write_text("#!/bin/sh\necho 1.16.0\n")
    with pytest.raises(peers.PeersMissingError, match=r"trl==1\.12\.0"):
        peers.at(python)


def test_an_installation_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "TORCH", ("./no-such-package-anywhere",))
    with pytest.raises(peers.PeersMissingError, match="could not make the peers' environment"):
        peers.made_in(tmp_path, lambda _: None)
    assert not (tmp_path / "installed").exists()


SESSION = """
import sys, time
from compare_cases.serving import Session, serve
session = Session(least_seconds=0.1)
print("chatter")
serve(lambda: (time.sleep(0.03), 7)[1], session, facts={"a": 1})
"""


def test_a_session_repeats_steps_and_keeps_its_output_clean(tmp_path):
    with fake(tmp_path, "ours", SESSION) as worker:
        worker.wait_until_ready()
        answer = worker.go()
        time.sleep(1.0)  # it waits: that is not part of its next repetition
        again = worker.go()
    steps = worker.facts["steps"]
    assert 1 <= steps <= 4 and worker.facts["facts"] == {"a": 1}
    assert answer.tokens == again.tokens == 7 * steps
    assert 0.03 * steps <= again.seconds < 1.0
    assert again.cpu_seconds < 0.1
    assert worker._process.returncode == 0  # ended by itself when the pipe was closed


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the load check needs Linux")
def test_the_work_of_workers_is_not_foreign():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before, unknown = measuring.look_at_clocks([busy.pid]), measuring.look_at_clocks()
        time.sleep(0.5)
        after = measuring.look_at_clocks([busy.pid])
        counted = after[2] - before[2]
        own = measuring.look_at_clocks()[2] - unknown[2]
    finally:
        busy.kill()
        busy.wait()
    assert counted > own + 0.1  # the difference is what the worker used
    assert measuring.cpu_seconds_of(busy.pid) == 0.0


def test_foreign_share_leaves_out_what_is_ours():
    wall, cores = 2.0, measuring.CORES
    assert measuring.foreign_share((0.0, 0.0, 0.0), (wall, 3.0, 3.0)) == 0.0
    assert measuring.foreign_share((0.0, 0.0, 0.0), (wall, 3.0, 2.0)) == pytest.approx(1.0 / (wall * cores))


def test_the_catalogue():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    comparisons = [case for case in CASES if isinstance(case, Comparison)]
    assert all(case.differs and case.target > 0 for case in comparisons)
    for side in (side for case in comparisons for side in (case.ours, case.peer)):
        assert (BENCHMARKS / "compare_cases" / f"{side.module}.py").is_file()
        json.dumps(side.options)


def test_fewer_than_five_repetitions_are_refused():
    command = [sys.executable, str(BENCHMARKS / "compare.py"), "--repetitions", "4"]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert found.returncode == 2 and "--repetitions must be at least 5" in found.stderr


def test_the_reward_differs_between_texts():
    assert letter_share(["aa", "b", ""]) == pytest.approx([2 / 3, 0.0, 0.0])
