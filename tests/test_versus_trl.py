"""`benchmarks/versus_trl.py`: textgym's side on a small budget, the statistics, and what was recorded."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))  # scripts, not an installed package

import versus_trl
from compare_cases import peers
from versus_cases.results import compared, difference, table, verdict
from versus_cases.settings import ALGORITHMS

SMALL = {"tokens": 100, "episodes": 4, "minibatch": 4}
RECORDED = versus_trl.BENCHMARKS / "results" / "versus_trl.json"


def runs(side: str, rewards: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "side": side,
            "algorithm": "ppo",
            "seed": seed,
            "tokens": 100,
            "seconds": 10.0 if side == versus_trl.OURS else 25.0,
            "evaluation": {"reward": [reward, reward, reward], "kl": 2.0 + reward, "length": 40.0},
        }
        for seed, reward in enumerate(rewards)
    ]


def test_the_interval_is_welchs():
    middle, low, high = difference([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    margin = 2.571 * math.sqrt(2.5)  # variances of the means 0.5 and 2, 5.88 degrees of freedom
    assert (middle, low, high) == pytest.approx((-3, -3 - margin, -3 + margin))


def test_the_interval_of_equal_values_is_a_point_and_one_seed_has_none():
    assert difference([1, 1], [2, 2]) == (-1, -1, -1)
    with pytest.raises(ValueError, match="two seeds"):
        difference([1], [1, 2])


@pytest.mark.parametrize(
    ("theirs", "told"),
    [([0.5, 0.7, 0.6], "within"), ([0.1, 0.2, 0.15], "is better"), ([0.9, 0.95, 0.99], "is worse")],
)
def test_the_verdict_is_told_whichever_way_it_falls(theirs, told):
    (row,) = versus_trl.rows_of(runs(versus_trl.OURS, [0.55, 0.65, 0.6]) + runs(versus_trl.TRL, theirs))
    assert told in verdict(row)
    assert row["reward_within"] == (told == "within")


def test_the_table_has_every_seed_and_the_ratio_of_times():
    row = compared("ppo", runs(versus_trl.OURS, [0.5, 0.6]), runs(versus_trl.TRL, [0.4, 0.7]), versus_trl.TRL)
    shown = table([row])
    assert "| PPO | textgym | 0.550 | 0.50, 0.60 | 2.5 |" in shown
    assert "2.5×" in shown.splitlines()[-1] and "[" in shown.splitlines()[-1]
    alone = compared("ppo", runs(versus_trl.OURS, [0.5]), runs(versus_trl.TRL, [0.4]), versus_trl.TRL)
    assert "too few seeds" in verdict(alone)


def test_what_was_recorded_follows_from_its_runs():
    found = json.loads(RECORDED.read_text(encoding="utf-8"))
    rows = versus_trl.rows_of(found["runs"])
    assert rows == found["rows"]
    assert found["table"] == table(rows)
    for run in found["runs"]:  # the same budget for all, up to the last rollout
        settings = run["settings"]
        assert 0 <= run["tokens"] - settings["tokens"] < settings["episodes"] * settings["max_new_tokens"]
    assert found["same_rollout"]["gradient_difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_our_side_trains_and_is_evaluated_once(algorithm, tmp_path, monkeypatch):
    small = SMALL | ({"group": 2} if "group" in ALGORITHMS[algorithm] else {})
    job = versus_trl.Job(versus_trl.OURS, algorithm, 0)
    run = versus_trl.done(job, job.settings(small), 4, tmp_path, None)
    assert run["tokens"] >= 100 and run["curve"][-1][0] == run["tokens"]
    assert run["evaluation"]["episodes"] == 4
    monkeypatch.setattr(versus_trl, "train", None)  # the same again is read from the folder
    assert versus_trl.done(job, job.settings(small), 4, tmp_path, None) == json.loads(json.dumps(run))
    with pytest.raises(TypeError):  # other settings are another run
        versus_trl.done(job, job.settings({**small, "tokens": 200}), 4, tmp_path, None)


@pytest.fixture
def trl() -> peers.Peers:
    python = os.environ.get("TEXTGYM_TRL_PYTHON")
    if not python:
        pytest.skip("TRL lives in an environment of its own: name its Python in TEXTGYM_TRL_PYTHON")
    return peers.at(Path(python))


@pytest.mark.slow
@pytest.mark.parametrize("side", [versus_trl.TRL, versus_trl.AS_IS])
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_trls_side_trains_and_is_evaluated(algorithm, side, tmp_path, trl):
    small = SMALL | ({"group": 2} if "group" in ALGORITHMS[algorithm] else {})
    job = versus_trl.Job(side, algorithm, 0)
    run = versus_trl.done(job, job.settings(small), 4, tmp_path, trl)
    assert run["tokens"] >= 100 and run["evaluation"]["episodes"] == 4


@pytest.mark.slow
def test_grpo_makes_the_same_of_the_same_rollout(tmp_path, trl):
    found = versus_trl.probed(tmp_path, trl)
    assert found["clip_fraction"] > 0.01 and found["ref_kl"] > 0.001  # the weights have moved
    assert found["loss_difference"] < 1e-5 and found["gradient_difference"] < 1e-4


def test_without_trl_it_says_so(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(
        versus_trl, "evaluated", lambda *_: {"reward": [0.0, 0.0, 0.0], "kl": 0.0, "length": 1.0, "episodes": 1}
    )
    monkeypatch.setattr(versus_trl, "train", lambda *_: {"tokens": 100, "seconds": 1.0, "curve": [], "facts": {}})
    (tmp_path / "ppo-textgym-0").mkdir()
    assert versus_trl.main(["--seeds", "1", "--algorithms", "ppo", "--out", str(tmp_path)], said.append) == 1
    assert any("no --trl-python" in line for line in said)
