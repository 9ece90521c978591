"""A run in a folder: its files, its evaluation, and that stopping, crashing and resuming change nothing."""

import csv
import json
import math
import os
import shutil
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fixtures import ENV_ID, EOS, tiny_gpt2, tiny_ppo, vector
from transformers import T5Config, T5ForConditionalGeneration

from textgym import TASKS
from textgym.core import TextGymError
from textgym.prompts import FixedPrompts
from textgym.rewards import Sentiment
from textgym.tokenization import ASSETS
from textgym_agents import PPO, Decoding
from textgym_agents.algorithms.checkpoint import CheckpointError
from textgym_agents.algorithms.registry import hyperparameters_of, load_algorithm
from textgym_agents.runs.callbacks import CsvLog, Observer
from textgym_agents.runs.evaluation import evaluate, held_out, setting_of, write
from textgym_agents.runs.folder import RunError, RunFolder, find_run
from textgym_agents.runs.inspection import record_episodes
from textgym_agents.runs.recipes import applies, recipe_for, rows
from textgym_agents.runs.training import TrainingRun, make_config

ENV = {"max_new_tokens": 8, "min_new_tokens": 2}
TOTAL = 200  # tokens: seven rollouts of 4 episodes with at most 8 tokens


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_gpt2().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ASSETS / name, folder)
    return folder


def config(model_folder, **kwargs):
    settings = {
        "hyperparameters": {"n_envs": 4, "batch_size": 2, "n_epochs": 2, "learning_rate": 1e-3},
        "env_kwargs": {"tokenizer": str(model_folder), **ENV},
        "total_timesteps": TOTAL,
        "eval_episodes": 15,
        "checkpoint_every": 50,
        "device": "cpu",
        "tensorboard": False,
    }
    return make_config(ENV_ID, model=str(model_folder), **{**settings, **kwargs})


class Watcher(Observer):
    """Calls ``at(done)`` whenever the training, or another stage, advances, and keeps what it is told."""

    def __init__(self, at=None, stage="Training"):
        self.at, self.stage, self.title, self.notes = at, stage, "", []

    def phase(self, title, total, done=0):
        self.title = title

    def advance(self, done):
        if self.at is not None and self.title.startswith(self.stage):
            self.at(done)

    def note(self, text):
        self.notes.append(text)


def weights(folder):
    return PPO.load(folder.model, device="cpu").policy.state_dict()


def assert_same_run(a, b):
    """Weights bit for bit, samples and evaluation, and the log of all rollouts."""
    first, second = weights(a), weights(b)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert a.samples.read_text() == b.samples.read_text()
    assert a.read_json("evaluation.json") == b.read_json("evaluation.json")
    assert a.read_json("episodes.json") == b.read_json("episodes.json")
    rows = [list(csv.DictReader(folder.progress.open())) for folder in (a, b)]
    assert len(rows[0]) == len(rows[1])
    for one, other in zip(*rows, strict=True):
        for key in one:
            if key.startswith("rollout/") or key == "time/total_timesteps":
                assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-6), key


@pytest.fixture(scope="module")
def finished(model_folder, tmp_path_factory):
    """An uninterrupted run."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    watcher = Watcher()
    result = TrainingRun.new(path, config(model_folder), watcher).run()
    assert result.finished
    assert watcher.notes == []
    return result


# ---- files ---------------------------------------------------------------------------------------------------------------


def test_run_folder_has_everything(finished):
    files = {p.name for p in finished.folder.path.iterdir()}
    assert {
        "config.json",
        "progress.csv",
        "samples.jsonl",
        "checkpoints",
        "model.zip",
        "evaluation.json",
        "episodes.json",
        "learning_curve.png",
        "report.html",
    } == files
    assert TOTAL <= finished.timesteps == finished.trained < TOTAL + 4 * 8


def test_config_says_how_to_repeat_the_run(finished, model_folder):
    stored = json.loads((finished.folder.path / "config.json").read_text())
    assert stored["env_id"] == ENV_ID
    assert stored["algo"] == "ppo"
    assert stored["total_timesteps"] == TOTAL
    assert stored["hyperparameters"]["batch_size"] == 2
    assert stored["hyperparameters"]["gamma"] == 1.0  # a default, written down all the same
    assert stored["model"] == {"name": str(model_folder), "parameters": tiny_gpt2().num_parameters()}
    assert set(stored["versions"]) >= {"python", "textgym", "torch"}


def test_progress_has_a_row_an_iteration(finished):
    rows = list(csv.DictReader(finished.folder.progress.open()))
    steps = [int(row["time/total_timesteps"]) for row in rows]
    assert steps == sorted(steps)
    assert steps[-1] == finished.timesteps
    assert all(math.isfinite(float(row["rollout/ep_rew_mean"])) for row in rows)
    assert {"rollout/kl", "rollout/reward/sentiment", "train/value_loss"} <= set(rows[0])


def test_samples_are_of_the_same_held_out_prompts_over_time(finished):
    records = [json.loads(line) for line in finished.folder.samples.read_text().splitlines()]
    times = sorted({r["timesteps"] for r in records})
    assert times[0] == 0
    assert times[-1] == finished.timesteps
    assert len(times) == 5
    prompts = [[r["prompt"] for r in records if r["timesteps"] == t] for t in times]
    assert len(prompts[0]) == 12
    assert all(p == prompts[0] for p in prompts)
    assert set(records[0]) == {"timesteps", "prompt", "completion", "reward", "parts"}
    train = setting_of(ENV_ID, split="train")
    assert not {train.prompts.draw(np.random.default_rng(k)).prompt for k in range(50)} & set(prompts[0])


def test_evaluation_file(finished):
    stored = finished.folder.read_json("evaluation.json")
    assert finished.before == stored["before"]
    assert finished.after == stored["after"]
    for measured in (stored["before"], stored["after"]):
        assert measured["episodes"] == 15
        mean, low, high = measured["reward"]
        assert low <= mean <= high
        assert set(measured["parts"]) == {"sentiment", "repetition", "slips"}
        assert 0 < measured["distinct_1"] <= 1
        assert 2 < measured["length"] <= 8
        assert measured["perplexity"] > 1
    assert abs(stored["before"]["kl"]) < 1e-4
    assert stored["after"]["kl"] > 0.01


def test_only_the_newest_checkpoints_are_kept(finished):
    saved = finished.folder.checkpoints()
    assert len(saved) == 3
    assert saved[-1][0] == finished.timesteps
    assert os.path.samefile(saved[-1][1], finished.folder.model)


def test_a_folder_with_something_in_it_is_refused(finished, model_folder, tmp_path):
    with pytest.raises(RunError, match="is not empty; to go on with that run: textgym train --resume"):
        TrainingRun.new(finished.folder.path, config(model_folder))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty; choose another --out"):
        TrainingRun.new(tmp_path, config(model_folder))
    with pytest.raises(RunError, match="is a file"):
        TrainingRun.new(tmp_path / "notes.txt", config(model_folder))


def test_nothing_is_written_when_something_is_wrong(model_folder, tmp_path):
    with pytest.raises(ValueError, match="reward"):
        TrainingRun.new(tmp_path / "a", config(model_folder, env_kwargs={"reward": "nice"}))
    with pytest.raises(TextGymError, match="Could not load the model"):
        TrainingRun.new(tmp_path / "a", make_config(ENV_ID, model="/nowhere"))
    with pytest.raises(TextGymError, match="max_prompt_tokens=2 tokens"):
        TrainingRun.new(tmp_path / "a", config(model_folder, env_kwargs={**ENV, "max_prompt_tokens": 2}))
    assert not (tmp_path / "a").exists()


def test_held_out_prompts_that_are_trained_on_are_noticed(model_folder, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "The film"}\n{"prompt": "A story"}\n')
    watcher = Watcher()
    prompts = {"prompts": str(tmp_path / "p.jsonl"), **ENV}
    TrainingRun.new(tmp_path / "a", config(model_folder, env_kwargs=prompts), watcher)
    assert "2 of 2 held-out prompts are also training prompts" in watcher.notes[0]
    held = {"path": str(tmp_path / "q.jsonl")}
    (tmp_path / "q.jsonl").write_text('{"prompt": "Another film"}\n')
    run = TrainingRun.new(tmp_path / "b", config(model_folder, env_kwargs=prompts, eval_prompts=held), watcher)
    assert len(watcher.notes) == 1
    assert [e.prompt for e in run.examples] == ["Another film"]


# ---- stopping and resuming -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What the test throws where a machine would just go away."""


def test_a_killed_run_resumes_and_equals_the_uninterrupted_one(finished, model_folder, tmp_path):
    folder = RunFolder(tmp_path / "run")

    def kill_after_a_checkpoint(done):
        saved = folder.checkpoints()
        if saved and done > saved[-1][0] + 40:  # more than a rollout further: progress.csv knows too much
            raise Killed

    run = TrainingRun.new(folder.path, config(model_folder), Watcher(kill_after_a_checkpoint))
    with pytest.raises(Killed):
        run.run()
    timesteps = folder.checkpoints()[-1][0]
    logged = [int(row["time/total_timesteps"]) for row in csv.DictReader(folder.progress.open())]
    assert logged[-1] > timesteps
    with folder.samples.open("a") as file:
        file.write('{"timesteps": 9999, "prom')  # a line that was being written
    (folder.path / "checkpoints" / ".tokens-000000300.zip.x1y2").write_bytes(b"half")
    watcher = Watcher()
    result = TrainingRun.resume(folder.path, watcher).run()
    assert watcher.notes == [f"Resuming {folder.path}: {timesteps:,} of {TOTAL:,} tokens"]
    assert result.finished
    assert not list((folder.path / "checkpoints").glob(".*"))
    assert_same_run(finished.folder, folder)


@pytest.fixture(scope="module")
def seq2seq_folder(model_folder, tmp_path_factory):
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("seq2seq") / "t5")
    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 3072}
    T5ForConditionalGeneration(T5Config(**size, eos_token_id=EOS, decoder_start_token_id=0)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("algo", "kind"), [("grpo", "model"), ("rloo", "model"), ("ppo", "seq2seq")])
def test_a_killed_run_of_another_kind_equals_the_uninterrupted_one(algo, kind, request, tmp_path):
    model = request.getfixturevalue(f"{kind}_folder")
    groups = {} if algo == "ppo" else {"num_generations": 2}
    settings = {"n_envs": 4, "batch_size": 2, "n_epochs": 2, "learning_rate": 1e-3, **groups}

    def made(name, at=None):
        run_config = config(model, algo=algo, hyperparameters=settings, total_timesteps=100, eval_episodes=4)
        return TrainingRun.new(tmp_path / name, run_config, Watcher(at))

    whole = made("whole")
    assert type(whole.model.policy).__name__ == ("Seq2SeqLMPolicy" if kind == "seq2seq" else "CausalLMPolicy")
    whole.run()
    killed = RunFolder(tmp_path / "killed")

    def kill(done):
        if killed.checkpoints() and done > 50:
            raise Killed

    with pytest.raises(Killed):
        made("killed", kill).run()
    assert TrainingRun.resume(killed.path, Watcher()).run().finished
    first, second = (load_algorithm(f.model, device="cpu").policy.state_dict() for f in (whole.folder, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.folder.samples.read_text() == killed.samples.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_in_the_middle_of_a_rollout(number, finished, model_folder, tmp_path):
    folder = RunFolder(tmp_path / "run")
    sent = []

    def interrupt(done):
        if done > 110 and not sent:
            sent.append(done)
            os.kill(os.getpid(), number)

    watcher = Watcher(interrupt)
    before = signal.getsignal(number)
    result = TrainingRun.new(folder.path, config(model_folder, checkpoint_every=10_000), watcher).run()
    assert signal.getsignal(number) is before
    assert not result.finished
    assert "Stopping" in watcher.notes[0]
    assert result.after is None
    assert [result.timesteps] == [t for t, _ in folder.checkpoints()]
    assert result.timesteps < sent[0]
    assert not folder.model.exists()
    assert (folder.path / "report.html").exists()
    TrainingRun.resume(folder.path).run()
    assert_same_run(finished.folder, folder)


def test_a_signal_before_the_first_update_begins_anew(finished, model_folder, tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = Watcher(lambda done: os.kill(os.getpid(), signal.SIGINT) if done == 4 else None)
    assert TrainingRun.new(folder.path, config(model_folder), first).run().timesteps == 0
    TrainingRun.resume(folder.path).run()
    assert_same_run(finished.folder, folder)


def test_a_second_signal_ends_at_once(model_folder, tmp_path):
    def twice(done):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        TrainingRun.new(tmp_path / "run", config(model_folder), Watcher(twice)).run()


def test_a_signal_during_the_last_evaluation_loses_nothing(finished, model_folder, tmp_path):
    path = tmp_path / "run"
    stop = Watcher(lambda done: os.kill(os.getpid(), signal.SIGINT), "Evaluating the trained")
    with pytest.raises(KeyboardInterrupt):
        TrainingRun.new(path, config(model_folder), stop).run()
    resumed = TrainingRun.resume(path)
    assert resumed.model.num_timesteps >= TOTAL
    result = resumed.run()
    assert result.finished
    assert result.trained == 0
    assert_same_run(finished.folder, RunFolder(path))


def test_a_finished_run_is_left_as_it_is(finished, tmp_path):
    path = shutil.copytree(finished.folder.path, tmp_path / "copy")
    samples = (path / "samples.jsonl").read_text()
    result = TrainingRun.resume(path).run()
    assert result.finished
    assert result.after == finished.after
    assert (path / "samples.jsonl").read_text() == samples


def test_a_finished_run_can_be_made_longer(finished, model_folder, tmp_path):
    path = shutil.copytree(finished.folder.path, tmp_path / "copy")
    result = TrainingRun.resume(path, total_timesteps=TOTAL + 100).run()
    assert result.timesteps >= TOTAL + 100
    assert RunFolder(path).read_config().total_timesteps == TOTAL + 100
    whole = TrainingRun.new(tmp_path / "whole", config(model_folder, total_timesteps=TOTAL + 100)).run()
    first, second = weights(result.folder), weights(whole.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_looking_does_not_disturb_training(finished, model_folder, tmp_path):
    other = config(model_folder, eval_episodes=3, checkpoint_every=10_000, tensorboard=True)
    result = TrainingRun.new(tmp_path / "run", other).run()
    first, second = weights(finished.folder), weights(result.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert list(result.folder.path.glob("events.out.tfevents.*"))


def test_without_a_penalty_the_base_model_is_still_the_reference(model_folder, tmp_path):
    settings = {"n_envs": 4, "batch_size": 2, "n_epochs": 1, "learning_rate": 1e-3, "kl_coef": 0}
    result = TrainingRun.new(tmp_path / "run", config(model_folder, hyperparameters=settings, total_timesteps=40)).run()
    assert abs(result.before["kl"]) < 1e-4
    assert result.after["kl"] > 0


def test_resume_refuses_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        TrainingRun.resume(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"has no config\.json"):
        TrainingRun.resume(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match="as JSON"):
        TrainingRun.resume(tmp_path)
    (tmp_path / "config.json").write_text('{"env_id": "x"}')
    with pytest.raises(RunError, match="not that of a training run"):
        TrainingRun.resume(tmp_path)


def test_find_run(finished, tmp_path):
    folder, path = find_run(finished.folder.path)
    assert path == finished.folder.model
    assert folder.path == finished.folder.path
    inside, _ = find_run(finished.folder.checkpoints()[0][1])
    assert inside.path == finished.folder.path.resolve()
    loose = tmp_path / "loose.zip"
    shutil.copy(finished.folder.model, loose)
    assert find_run(loose) == (None, loose)
    assert isinstance(load_algorithm(loose, device="cpu"), PPO)
    with pytest.raises(RunError, match="there is no"):
        find_run(tmp_path / "nothing")
    loose.write_bytes(b"no zip")
    with pytest.raises(CheckpointError):
        load_algorithm(loose)


def test_csv_log_takes_new_columns_and_goes_on(tmp_path):
    path = tmp_path / "progress.csv"
    log = CsvLog(path)
    log.write({"b": 1, "a": np.float32(0.5)}, {})
    log.write({"b": 2, "c": 'with "quotes", and a comma', "hidden": 3}, {"hidden": ("csv",)})
    CsvLog(path).write({"a": 1.5, "d": 4}, {})
    rows = list(csv.DictReader(path.open()))
    assert rows == [
        {"a": "0.5", "b": "1", "c": "", "d": ""},
        {"a": "", "b": "2", "c": 'with "quotes", and a comma', "d": ""},
        {"a": "1.5", "b": "", "c": "", "d": "4"},
    ]


# ---- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"lerning_rate": 1},
            "Unknown hyperparameter 'lerning_rate' of ppo; the known ones are batch_size, clip_range",
        ),
        ({"env": 1}, "Unknown hyperparameter 'env'"),
        ({"learning_rate": "fast"}, "Expected `learning_rate` to be a number"),
        ({"batch_size": 2.5}, "Expected `batch_size` to be a whole number"),
        ({"normalize_advantage": 1}, "Expected `normalize_advantage` to be true or false"),
        ({"target_kl": "x"}, "Expected `target_kl` to be a number or null"),
        ({"policy_kwargs": 3}, "Expected `policy_kwargs` to be an object"),
        ({"policy_kwargs": {"model": "x"}}, "without 'model'"),
    ],
)
def test_bad_hyperparameters(given, message):
    with pytest.raises(ValueError, match=message):
        hyperparameters_of("ppo", given)


def test_bad_settings():
    with pytest.raises(
        ValueError, match=r"Expected `algo` to be one of \['a2c', 'bestofn', 'distillation', 'dpo', 'dqn', "
    ):
        make_config(ENV_ID, "sarsa")
    with pytest.raises(ValueError, match="Expected `total_timesteps` to be a whole number of at least 1"):
        make_config(ENV_ID, total_timesteps=0)
    with pytest.raises(ValueError, match="Expected `checkpoint_every`"):
        make_config(ENV_ID, checkpoint_every=-1)


@pytest.mark.parametrize(
    "row", rows(), ids=lambda row: "-".join(str(row.get(n, "any")) for n in ("env_id", "algo", "model"))
)
def test_every_recipe_is_of_something_that_exists(row):
    assert set(row) <= {"note", "env_id", "algo", "model", "total_timesteps", "hyperparameters"}
    named = {n: [row[n]] if isinstance(row[n], str) else row[n] for n in ("env_id", "algo", "model") if n in row}
    assert set(named.get("env_id", [])) <= {task.id for task in TASKS.values()}
    for algo in named.get("algo", []):
        hyperparameters_of(algo, row.get("hyperparameters", {}))
    for env_id in named.get("env_id", ["X"]):
        for algo in named.get("algo", ["x"]):
            assert applies(row, env_id=env_id, algo=algo, model=named.get("model", ["y"])[0])


def test_recipes_merge_from_general_to_special():
    special, general = recipe_for(ENV_ID, "ppo", "bundled"), recipe_for("TextGen-Other-v0", "ppo", "gpt2")
    assert special.total_timesteps and general.total_timesteps
    assert special.hyperparameters["learning_rate"] > general.hyperparameters["learning_rate"]
    assert make_config(ENV_ID, hyperparameters={"n_epochs": 9}).hyperparameters["n_epochs"] == 9


# ---- evaluation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"deterministic": True}, {"num_beams": 2}, {"decoding": Decoding(0.7, 20, 0.9)}])
def test_evaluation_equals_stepping_the_environment(how):
    model = tiny_ppo()
    env = gym.make(ENV_ID, split="dev", **{**ENV, "max_new_tokens": 6})  # not what the policy was made for
    setting = setting_of(env)
    examples = held_out(setting, 9, seed=3)
    measured = evaluate(model, env, seed=3, examples=examples, batch_size=4, **how)
    for example, sample in zip(examples, measured.samples, strict=True):
        env.reset(options={"example": example})
        total = 0.0
        for k, token in enumerate(sample.tokens):
            assert env.unwrapped.action_masks()[token]
            _, reward, terminated, _, info = env.step(token)
            total += reward
            assert terminated == (k == len(sample.tokens) - 1)
        assert sample.completion == info["completion"]
        assert sample.finish_reason == info["finish_reason"]
        assert sample.reward == pytest.approx(total, abs=1e-6)
        assert sample.is_success == info["is_success"]
        assert sample.parts == {k.removeprefix("reward/"): v for k, v in info.items() if k.startswith("reward/")}
    assert measured.reward[0] == pytest.approx(np.mean([s.reward for s in measured.samples]), abs=1e-6)


def test_greedy_evaluation_writes_what_predict_writes():
    model = tiny_ppo(vector(**ENV))
    env = gym.make(ENV_ID, split="dev", **ENV)
    examples = held_out(setting_of(env), 5)
    for example, sample in zip(examples, write(model, env, examples, deterministic=True), strict=True):
        observation, _ = env.reset(options={"example": example})
        tokens, terminated = [], False
        while not terminated:
            token, _ = model.predict(observation, deterministic=True, action_masks=env.unwrapped.action_masks())
            observation, _, terminated, _, _ = env.step(int(token))
            tokens.append(int(token))
        assert tokens == sample.tokens


def test_kl_and_perplexity_equal_a_loop_over_prefixes():
    model, reference = tiny_ppo(), tiny_gpt2(seed=9)
    setting = setting_of(ENV_ID, split="dev", **ENV)
    measured = evaluate(model, setting, 6, reference=reference)
    assert len({len(s.tokens) for s in measured.samples}) > 1 or setting.max_new_tokens == 8
    kls, nll, count = [], 0.0, 0
    for sample in measured.samples:
        prompt, kl = setting.tokenizer.encode(sample.prompt), 0.0
        for k, token in enumerate(sample.tokens):
            ids = torch.tensor([prompt + sample.tokens[:k]])
            allowed = torch.tensor(setting.always_allowed)
            allowed[setting.tokenizer.eos_token_id] &= k >= setting.min_new_tokens
            with torch.no_grad():
                own, other = (m(input_ids=ids).logits[0, -1].double() for m in (model.policy.model, reference))
            kl += float((own.masked_fill(~allowed, -torch.inf).log_softmax(-1))[token])
            kl -= float((other.masked_fill(~allowed, -torch.inf).log_softmax(-1))[token])
            nll, count = nll - float(other.log_softmax(-1)[token]), count + 1
        kls.append(kl)
    assert measured.kl == pytest.approx(np.mean(kls), abs=1e-3)
    assert measured.perplexity == pytest.approx(math.exp(nll / count), rel=1e-4)
    assert measured.length == count / 6


def test_evaluation_does_not_depend_on_how_much_is_scored_at_a_time(monkeypatch):
    from textgym_agents.runs import scoring

    model = tiny_ppo()
    setting = setting_of(ENV_ID, split="dev", **ENV)
    whole = evaluate(model, setting, 7, reference=tiny_gpt2(seed=9))
    monkeypatch.setattr(scoring, "_TOKENS_AT_ONCE", 1)
    single = evaluate(model, setting, 7, reference=tiny_gpt2(seed=9))
    assert single.kl == pytest.approx(whole.kl, abs=1e-3)
    assert single.perplexity == pytest.approx(whole.perplexity, rel=1e-4)


def test_evaluations_are_paired_and_leave_the_model_alone():
    model = tiny_ppo()
    state, limits = model.policy.generator.get_state(), model.policy.limits
    first = evaluate(model, ENV_ID, 8, seed=1, **ENV)
    assert torch.equal(state, model.policy.generator.get_state())
    assert model.policy.limits is limits
    assert evaluate(model, ENV_ID, 8, seed=1, **ENV) == first
    assert [s.prompt for s in evaluate(model, ENV_ID, 8, seed=2, **ENV).samples] != [s.prompt for s in first.samples]
    assert abs(first.kl) < 1e-4  # an untrained policy is its own reference


def test_held_out_prompts_of_a_list_come_once_each():
    prompts = [f"Film number {k}" for k in range(20)]
    setting = setting_of(ENV_ID, prompts=prompts)
    assert isinstance(setting.prompts, FixedPrompts)
    assert [e.prompt for e in held_out(setting)] == prompts
    some = [e.prompt for e in held_out(setting, 8)]
    assert len(set(some)) == 8
    assert some != prompts[:8]
    assert [e.prompt for e in held_out(setting, 8)] == some
    assert len(held_out(setting_of(ENV_ID, split="test"))) == 500
    with pytest.raises(ValueError, match="Expected `episodes`"):
        held_out(setting, 0)


def test_evaluate_refuses_what_it_cannot_measure():
    with pytest.raises(TypeError, match="Expected `env` to be an environment of textgym"):
        evaluate(tiny_ppo(), gym.make("CartPole-v1"), 2)
    with pytest.raises(TypeError, match="Expected `model` to be an LMPolicy"):
        evaluate("model", ENV_ID, 2)
    with pytest.raises(ValueError, match="at least one example"):
        evaluate(tiny_ppo(), ENV_ID, examples=[])


def test_recorded_episodes_add_up(finished):
    model = PPO.load(finished.folder.model, device="cpu")
    model.gae_lambda = 1.0  # then an advantage is all that is still to come, minus the value
    env = gym.make(ENV_ID, split="dev", **ENV)
    examples = held_out(setting_of(env), 4)
    for record in record_episodes(model, env, examples):
        tokens = record["tokens"]
        assert record["return"] == pytest.approx(sum(t["reward"] for t in tokens))
        assert record["finish_reason"] in ("stop", "length")
        for k, token in enumerate(tokens):
            assert 0 < token["probability"] <= 1
            assert token["kl"] == pytest.approx(
                math.log(token["probability"] / token["reference_probability"]), abs=1e-3
            )
            to_come = sum(t["reward"] - model.kl.coef * t["kl"] for t in tokens[k:])
            assert token["advantage"] == pytest.approx(to_come - token["value"], abs=1e-4)


@pytest.mark.parametrize("kind", ["reward", "loss"])
def test_what_goes_wrong_names_the_last_good_checkpoint(tmp_path, model_folder, kind, monkeypatch):
    def spoil(done):
        if done > 120 and kind == "loss":
            run.model.policy.value_head.weight.data.fill_(float("nan"))
        elif done > 120:
            monkeypatch.setattr(Sentiment, "__call__", lambda self, completions: np.full(len(completions), np.nan))

    run = TrainingRun.new(tmp_path / "run", config(model_folder), Watcher(spoil))
    with pytest.raises(
        TextGymError, match=r"the last good checkpoint is .*tokens-\d+\.zip \(textgym train --resume "
    ) as caught:
        run.run()
    assert ("minibatch 1 of pass 1" if kind == "loss" else "sentiment") in str(caught.value)
    assert run.folder.checkpoints()


# ---- early stopping ------------------------------------------------------------------------------------------------------


def scored_by(monkeypatch, scores):
    """Validation scores are these, in this order; returns those that are left."""
    left = list(scores)
    monkeypatch.setattr(TrainingRun, "_validation_score", lambda run: left.pop(0))
    return left


def logged_scores(folder):
    """What the log has, by tokens."""
    rows = csv.DictReader(folder.progress.open())
    found = {row["time/total_timesteps"]: row["eval/mean_reward"] for row in rows if row.get("eval/mean_reward")}
    return [{"timesteps": int(t), "reward": float(score)} for t, score in found.items()]


def test_training_ends_when_patience_does(model_folder, tmp_path, monkeypatch):
    left = scored_by(monkeypatch, [0.1, 0.4, 0.2, 0.3, 0.9])
    folder, watcher = RunFolder(tmp_path / "run"), Watcher()
    settings = {"checkpoint_every": 20, "patience": 2, "total_timesteps": 2000}
    result = TrainingRun.new(folder.path, config(model_folder, **settings), watcher).run()
    assert left == [0.9]
    assert result.finished
    scores = folder.read_json("validation.json")
    assert [row["reward"] for row in scores] == [0.1, 0.4, 0.2, 0.3]
    assert logged_scores(folder) == scores
    assert result.best == scores[1]["timesteps"] == folder.read_json("evaluation.json")["best"]
    assert result.timesteps == scores[3]["timesteps"]
    assert "was best" in watcher.notes[-1]
    # the best one is the result, and the one that is evaluated
    assert PPO.load(folder.model, device="cpu").num_timesteps == result.best
    evaluation = evaluate(PPO.load(folder.model, device="cpu"), ENV_ID, 15, tokenizer=str(model_folder), **ENV)
    assert evaluation.reward[0] == pytest.approx(result.after["reward"][0])
    assert json.loads(folder.samples.read_text().splitlines()[-1])["timesteps"] == result.best
    # it stays ended, unless there is more patience
    again = TrainingRun.resume(folder.path, watcher)
    assert "ended by its patience of 2" in watcher.notes[-1]
    assert not again.goes_on
    assert again.run().after == result.after
    with pytest.raises(RunError, match="a patience of more than 2"):
        TrainingRun.resume(folder.path, total_timesteps=3000)
    assert left == [0.9]
    left[:] = [0.9, *[0.5] * 9]
    more = TrainingRun.resume(folder.path, patience=3).run()
    assert more.best > result.timesteps
    assert len(left) == 6  # one that is better, three that are not


def test_an_equal_score_is_no_better_and_nothing_learned_is_not_scored(model_folder, tmp_path, monkeypatch):
    left = scored_by(monkeypatch, [0.3, 0.3, 0.3])
    settings = {"checkpoint_every": 1, "patience": 1, "total_timesteps": 2000}
    result = TrainingRun.new(tmp_path / "run", config(model_folder, **settings)).run()
    assert len(left) == 1
    assert 0 < result.best < result.timesteps


def test_the_best_checkpoint_outlives_newer_ones(model_folder, tmp_path, monkeypatch):
    scored_by(monkeypatch, [0.9, *[0.1] * 100])
    folder = RunFolder(tmp_path / "run")
    result = TrainingRun.new(folder.path, config(model_folder, checkpoint_every=20, patience=50)).run()
    saved = [timesteps for timesteps, _ in folder.checkpoints()]
    assert len(saved) == 4
    assert saved[0] == result.best < saved[1]
    assert result.timesteps == saved[-1] >= TOTAL
    assert len(folder.read_json("validation.json")) > 4
    page = (folder.path / "report.html").read_text()
    assert f'After <span class="faint">{result.best:,} tokens</span>' in page


def test_a_run_that_was_stopped_twice_has_the_scores_of_a_whole_one(model_folder, tmp_path):
    settings = {"checkpoint_every": 75, "patience": 3, "total_timesteps": 400}  # every third rollout or so
    whole = TrainingRun.new(tmp_path / "whole", config(model_folder, **settings)).run()
    assert len(whole.folder.read_json("validation.json")) >= 3

    def interrupted(at):
        sent = []

        def interrupt(done):
            if done > at and not sent:
                sent.append(done)
                os.kill(os.getpid(), signal.SIGINT)

        return Watcher(interrupt)

    path = tmp_path / "stopped"
    assert not TrainingRun.new(path, config(model_folder, **settings), interrupted(60)).run().finished
    assert not TrainingRun.resume(path, interrupted(160)).run().finished
    result = TrainingRun.resume(path).run()
    assert result.best == whole.best
    assert result.after == whole.after
    scores = RunFolder(path).read_json("validation.json")
    assert scores == whole.folder.read_json("validation.json") == logged_scores(RunFolder(path))


def test_validation_prompts_are_others_where_there_are_any(model_folder, tmp_path):
    watcher, prompts = Watcher(), ["A dog", "A cat", "The film"]
    settings = {"eval_prompts": prompts, "patience": 1}
    run = TrainingRun.new(tmp_path / "some", config(model_folder, eval_episodes=2, **settings), watcher)
    assert watcher.notes == []
    assert {e.prompt for e in run.examples} | {e.prompt for e in run._choosing} == set(prompts)
    TrainingRun.new(tmp_path / "all", config(model_folder, eval_episodes=3, **settings), watcher)
    assert watcher.notes == [
        "All 3 held-out prompts are evaluated, so they also choose the checkpoint, and the evaluation will flatter; with "
        "fewer --eval-episodes others are left for that"
    ]
    with pytest.raises(ValueError, match="Expected `patience`"):
        make_config(ENV_ID, patience=0)
