"""Reinforcement learning from human feedback: raters, candidates, and the loop, its stages done once."""

import io
import json
import shutil

import numpy as np
import pytest
from agent_fixtures import ENV_ID, tiny_gpt2, tiny_ppo

from textgym.cli import main
from textgym.core import TextGymError
from textgym.tokenization import ASSETS
from textgym_agents.reward_models import read_judgements
from textgym_agents.rlhf import (
    STRATEGIES,
    Candidates,
    RLHFRun,
    RLHFSettings,
    SimulatedRaters,
    agreement,
    draw_prompts,
    records_of,
    sample_candidates,
)  # fmt: skip
from textgym_agents.rlhf.files import read_points
from textgym_agents.rlhf.judgements import held_out_prompts, questions, read_lines, read_ratings
from textgym_agents.runs.evaluation import setting_of

ENV = {"max_new_tokens": 6, "min_new_tokens": 2}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_gpt2().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ASSETS / name, folder)
    return folder


def settings(model_folder, **kwargs):
    small = {
        "rounds": 2,
        "prompts": 10,
        "timesteps": 60,
        "eval_prompts": 6,
        "points": 2,
        "model": str(model_folder),
        "reward_model": str(model_folder),
        "hyperparameters": {"n_envs": 4, "batch_size": 2, "n_epochs": 1},
        "reward_model_settings": {"num_train_epochs": 1},
        "env_kwargs": {"tokenizer": str(model_folder), **ENV},
        "device": "cpu",
    }
    return RLHFSettings(ENV_ID, **{**small, **kwargs})


def made_up(prompts=60, texts=5, seed=0):
    rng = np.random.default_rng(seed)
    names = tuple((name,) for name in STRATEGIES)
    words = tuple(f" text {i}" for i in range(texts))
    return [Candidates(f"prompt {i}", words, names[:texts], tuple(rng.normal(2, 3, texts))) for i in range(prompts)]


# ---- raters --------------------------------------------------------------------------------------------------------------


def test_perfect_raters_say_the_truth():
    candidates = made_up()
    votes = SimulatedRaters(3, noise=0, disagreement=0).rate(candidates, 2.0, 3.0)
    for item, scores in zip(candidates, votes, strict=True):
        np.testing.assert_allclose(scores, np.tile((np.array(item.rewards) - 2) / 3, (3, 1)))
    assert agreement(candidates, votes) == {"spearman": pytest.approx(1), "same_order": 1, "truth": 1}
    for record, item in zip(records_of(candidates, votes, "rankings"), candidates, strict=True):
        assert np.argsort(record["ranks"]).tolist() == np.argsort(item.rewards)[::-1].tolist()
    rewards = {(c.prompt, text): r for c in candidates for text, r in zip(c.completions, c.rewards, strict=True)}
    for record in records_of(candidates, votes, "comparisons"):
        better, worse = (rewards[record["prompt"], record[key]] for key in ("chosen", "rejected"))
        assert better > worse
        assert record["votes"] == 3


def test_agreement_falls_with_noise_and_disagreement():
    candidates = made_up()
    for name in ("noise", "disagreement"):
        quiet = {"noise": 0, "disagreement": 0}
        found = [
            agreement(candidates, SimulatedRaters(**{**quiet, name: x}).rate(candidates, 2, 3)) for x in (0.1, 0.5, 2)
        ]
        for key in ("spearman", "same_order", "truth"):
            values = [numbers[key] for numbers in found]
            assert values == sorted(values, reverse=True)
            assert values[0] - values[-1] > 0.1


def test_size_of_noise_and_disagreement():
    candidates = made_up(400)
    raters = SimulatedRaters(2, noise=0.5, disagreement=0.3, seed=1)
    first, second = (np.concatenate(raters.rate(candidates, 2, 3, session), 1) for session in (1, 2))
    truth = (np.array([r for item in candidates for r in item.rewards]) - 2) / 3
    assert (first - truth).std() == pytest.approx(np.hypot(0.5, 0.3), rel=0.06)
    assert (first - second).std() == pytest.approx(0.5 * np.sqrt(2), rel=0.06)  # the taste stays
    assert abs(np.corrcoef(*(first - truth))[0, 1]) < 0.08  # of two raters
    np.testing.assert_array_equal(first, np.concatenate(raters.rate(candidates, 2, 3, 1), 1))


def test_agreement_of_one_rater_and_of_single_texts():
    found = agreement(made_up(), SimulatedRaters(1).rate(made_up(), 2, 3))
    assert found["spearman"] is found["same_order"] is None
    assert 0.5 < found["truth"] < 1
    alone = made_up(texts=1)
    assert agreement(alone, SimulatedRaters().rate(alone, 2, 3))["truth"] is None


@pytest.mark.parametrize("mode", ["scores", "rankings", "comparisons"])
def test_formats_are_those_of_the_trainer(mode, tmp_path):
    candidates = [*made_up(4), *made_up(1, texts=1, seed=1)]
    records = records_of(candidates, SimulatedRaters().rate(candidates, 0, 1), mode)
    assert len(records) == questions(candidates, mode)
    assert {item.kind for item in read_judgements(records)} == {mode}
    path = tmp_path / "ratings.jsonl"
    extra = [
        {"prompt": "p", "completions": ["a", "b"], "better": None},
        {"prompt": "p", "completion": "a", "skipped": 1},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records, *extra]))
    assert read_ratings(path, mode) == records
    for other in {"scores", "rankings", "comparisons"} - {mode}:
        with pytest.raises(TextGymError, match=f"to have {other}"):
            read_ratings(path, other)


def test_held_out_prompts_stay_held_out():
    first, second = [f"p{i}" for i in range(50)], [f"p{i}" for i in range(40, 90)]
    one, both = held_out_prompts([first], 0.2, 0), held_out_prompts([first, second], 0.2, 0)
    assert len(one) == 10
    assert one <= both
    assert both - one <= set(second) - set(first)
    assert len(both) == 18
    assert held_out_prompts([["a", "b"]], 0.01, 0) in ({"a"}, {"b"})


# ---- candidates ----------------------------------------------------------------------------------------------------------


def test_candidates_of_five_strategies():
    setting, policy = setting_of(ENV_ID, split="train", **ENV), tiny_ppo().policy
    examples = draw_prompts(setting, 12, 3)
    assert len({e.prompt for e in examples}) == 12
    assert [e.prompt for e in draw_prompts(setting, 12, 3)] == [e.prompt for e in examples]
    found = sample_candidates(policy, setting, examples, 0)
    assert found == sample_candidates(policy, setting, examples, 0)
    assert found != sample_candidates(policy, setting, examples, 1)
    for item, example in zip(found, examples, strict=True):
        assert item.prompt == example.prompt
        assert len(set(item.completions)) == len(item.completions) == len(item.rewards)
        assert sorted(name for names in item.strategies for name in names) == sorted(STRATEGIES)
        assert Candidates.read(item.record(), {"rewards": list(item.rewards)}) == item
        assert "rewards" not in item.record()


# ---- the loop ------------------------------------------------------------------------------------------------------------


def everything(folder):
    """When the files of stages were written; the report is written anew."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("round-*/**/*")) if path.is_file()}


def test_two_rounds_and_again(model_folder, tmp_path):
    folder = tmp_path / "run"
    outcome = RLHFRun(folder, settings(model_folder, rounds=1)).run()
    assert outcome.finished
    first = everything(folder)
    outcome = RLHFRun(folder, settings(model_folder)).run()
    assert everything(folder).items() > first.items()
    assert outcome.finished
    assert len(outcome.rounds) == 2
    one, two = outcome.rounds
    assert one["before"]["kl"] == pytest.approx(0, abs=1e-4)
    assert one["before"]["true_z"] == one["before"]["proxy_z"] == pytest.approx(0, abs=1e-4)
    assert two["before"]["true"] == one["after"]["true"]  # it goes on with the policy that there is
    assert two["before"]["kl"] == pytest.approx(one["after"]["kl"], abs=1e-4)
    points = read_points(outcome.folder.curve)
    assert [p.round for p in points] == sorted(p.round for p in points)
    assert {p.timesteps for p in points if p.round == 1} >= {0}
    assert all(p.true_low <= p.true <= p.true_high for p in points)
    measured = json.loads((folder / "round-2" / "reward_model.json").read_text())
    ratings = [read_lines(folder / f"round-{n}" / "ratings.jsonl") for n in (1, 2)]
    assert measured["trained_on"] + measured["measured_on"] == sum(map(len, ratings))
    report = outcome.folder.report.read_text()
    assert "round 2" in report
    assert outcome.folder.picture.read_bytes().startswith(b"\x89PNG")

    before = everything(folder)
    assert RLHFRun(folder, settings(model_folder)).run().rounds == outcome.rounds
    assert everything(folder) == before  # nothing was done twice
    with pytest.raises(TextGymError, match="changed: noise, seed"):
        RLHFRun(folder, settings(model_folder, noise=1, seed=1))

    other = RLHFRun(tmp_path / "other", settings(model_folder, rounds=1)).run()
    assert other.rounds == outcome.rounds[:1]  # everything is seeded


def test_an_algorithm_that_compares_completions(model_folder, tmp_path):
    chosen = settings(model_folder, algo="grpo", hyperparameters={"n_envs": 4, "num_generations": 2, "batch_size": 4})
    outcome = RLHFRun(tmp_path / "run", chosen).run()
    assert outcome.finished
    assert len(outcome.rounds) == 2  # the second begins with a saved policy


def test_a_person_rates(model_folder, tmp_path, monkeypatch):
    chosen = settings(model_folder, rater="human", mode="rankings", rounds=1)
    outcome = RLHFRun(tmp_path / "run", chosen).run()
    files = outcome.folder.round(1)
    assert not outcome.finished
    assert outcome.rate_command == f"textgym rate {files.candidates} --mode rank --out {files.ratings}"
    assert outcome.left == questions(files.read_candidates(), "rankings") > 1
    before = files.candidates.stat().st_mtime_ns

    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SystemExit) as stop:  # what the person types, and the end of the input at once
        main(outcome.rate_command.split()[1:])
    assert not stop.value.code
    rankable = [c for c in files.read_candidates() if len(c.completions) > 1]
    lines = [
        {"id": str(i), "prompt": c.prompt, "completions": c.completions, "ranks": [*range(1, 1 + len(c.completions))]}
        for i, c in enumerate(rankable)
    ]
    text = [json.dumps(line) + "\n" for line in lines]
    files.ratings.write_text("".join(text[:-1]))
    assert RLHFRun(tmp_path / "run", chosen).run().left == 1
    files.ratings.write_text("".join(text))
    assert RLHFRun(tmp_path / "run", chosen).run().finished
    assert files.candidates.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 0), ("raters", 0), ("prompts", 1), ("noise", -1), ("disagreement", float("nan")), ("rater", "cat"),
        ("mode", "words"), ("algo", "sft"), ("held_out", 1), ("hyperparameters", {"ref_model": "x"}), ("points", 0),
        ("env_kwargs", {"split": "dev"}), ("hyperparameters", {"nonsense": 1}), ("reward_model_settings", {"seed": 1}),
        ("device", "abacus"),
    ],
)  # fmt: skip
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match="nonsense" if value == {"nonsense": 1} else name):
        RLHFSettings(ENV_ID, **{name: value})


def test_a_folder_of_something_else(model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TextGymError, match="folder"):
        RLHFRun(tmp_path, settings(model_folder))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_command_line(model_folder, tmp_path, capsys):
    small = [
        "--rater",
        "human",
        "--prompts",
        "5",
        "--eval-prompts",
        "2",
        "--max-new-tokens",
        "6",
        "--model",
        str(model_folder),
    ]
    with pytest.raises(SystemExit) as stop:
        main(["rlhf", ENV_ID, "--out", str(tmp_path / "run"), *small, "--set", "n_envs=4", "--device", "cpu"])
    assert not stop.value.code
    assert "textgym rate" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["rlhf", ENV_ID, "--out", str(tmp_path / "other"), "--noise", "-1"])
    assert stop.value.code == 2
    assert "noise" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
