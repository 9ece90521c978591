"""The command line as a user meets it: what it prints, its files, its exit codes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import textgym
from textgym.cli import main
from textgym.tokenization import ASSETS

ENV_ID = "TextGen-Sentiment-v0"
TINY = ["--n-envs", "4", "--max-new-tokens", "8", "--eval-episodes", "12", "--timesteps", "100"]
TINY += ["--set", "batch_size=2", "--set", "n_epochs=1", "--no-tensorboard", "--device", "cpu"]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "dumb")
    for name in ("FORCE_COLOR", "TEXTGYM_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(capsys):
    """Runs the command: exit code, standard output, standard error."""

    def run(*argv):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    from agent_fixtures import tiny_gpt2

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_gpt2().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ASSETS / name, folder)
    return folder


@pytest.fixture(scope="session")
def trained(tiny_model, tmp_path_factory):
    """The folder of a finished run."""
    path = tmp_path_factory.mktemp("runs") / "first"
    with pytest.raises(SystemExit) as stop:
        main(["train", ENV_ID, "--algo", "ppo", "--out", str(path), "--model", str(tiny_model), *TINY])
    assert not stop.value.code
    return path


# ---- without torch -------------------------------------------------------------------------------------------------------


def subprocess_of(code):
    environment = {**os.environ, "COLUMNS": "140"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)


def test_light_commands_import_no_torch():
    done = subprocess_of(
        "import sys\n"
        "from textgym.cli import main\n"
        f"for argv in (['list'], ['info', {ENV_ID!r}], ['sample', {ENV_ID!r}, '--policy', 'oracle'], ['train', '--help'],"
        " ['reward-model', 'train', '--help'], ['rlhf', '--help']):\n"
        "    try: main(argv)\n"
        "    except SystemExit as stop: assert not stop.code, argv\n"
        "assert not {'torch', 'transformers', 'stable_baselines3', 'matplotlib'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("argv", [["train", ENV_ID], ["eval", "run"], ["sample", ENV_ID, "--policy", "run"]])
def test_without_the_agents_extra_the_error_says_what_to_install(argv):
    done = subprocess_of(
        "import sys; sys.modules['torch'] = None; sys.modules['stable_baselines3'] = None\n"
        f"from textgym.cli import main; main({argv!r})"
    )
    assert done.returncode == 2
    assert "pip install 'textgym[agents]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_installed_command():
    command = Path(sys.executable).parent / "textgym"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"textgym {textgym.__version__}\n")


def test_help_of_everything(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for command in ("list", "info", "sample", "train", "eval", "reward-model", "rlhf"):
        assert f" {command} " in out
        code, page, _ = cli(command, "--help")
        assert code == 0
        assert "Usage: textgym" in page


# ---- list, info, sample --------------------------------------------------------------------------------------------------


def test_list(cli):
    code, out, _ = cli("list")
    assert code == 0
    for task in textgym.TASKS.values():
        assert task.id in out
        assert f"{task.oracle_score:.2f}" in out
    assert "Continue a film review" in out
    assert "easy, normal*, hard" in out


@pytest.mark.parametrize("name", [ENV_ID, f"textgym:{ENV_ID}", "sentiment"])
def test_info(cli, name):
    code, out, _ = cli("info", name)
    assert code == 0
    for piece in (
        "Observation Space",
        "action space",
        "Discrete(",
        "sentiment - repetition - slips, in [-3, 1]",
        "easy, normal, hard",
    ):
        assert piece in out
    assert out.count("oracle ") >= 3
    assert ":class:" not in out
    scores = [float(x) for x in re.findall(r"reward\s+([+-]\d\.\d\d), with", out)]
    assert len(scores) == 3
    assert min(scores) > 0.8


def test_sample_oracle_earns_what_it_should(cli):
    code, out, _ = cli("sample", ENV_ID, "--policy", "oracle", "--episodes", "4")
    assert code == 0
    rewards = [float(r) for r in re.findall(r"tokens .* reward ([+-]\d\.\d\d) ", out)]
    assert len(rewards) == 4
    assert min(rewards) > 0.8
    assert out.count("sentiment +0.9") == 4
    assert out.count("   success\n") == 4
    assert "mean reward +0.9" in out


def test_sample_is_reproducible(cli):
    first, second, third = (cli("sample", "sentiment", "--seed", seed, "--episodes", 2)[1] for seed in (0, 0, 1))
    assert first == second != third


def test_sample_from_given_prompts(cli, tmp_path):
    code, out, _ = cli("sample", ENV_ID, "--prompt", "The ending of it", "--prompt", "Two [bold]friends[/bold]")
    assert code == 0
    assert out.count("tokens ") == 2
    assert "\nThe ending of it" in out
    assert "Two [bold]friends[/bold]" in out
    (tmp_path / "p.dev.jsonl").write_text(json.dumps({"text": "one two three four five"}) + "\n")
    where = ["--prompts", tmp_path / "p.{split}.jsonl", "--prompt-column", "text", "--prompt-words", 3]
    code, out, _ = cli("sample", ENV_ID, *where, "--episodes", 1, "--max-new-tokens", 4)
    assert code == 0
    assert "\none two three" in out
    assert "four five" not in out
    assert "tokens 4/4" in out


def test_sample_with_other_rewards(cli):
    out = cli("sample", ENV_ID, "--policy", "oracle", "--reward", '{"length": -0.5, "sentiment": 1}')[1]
    assert re.search(r"length \+\d+\.00   sentiment \+0\.9", out)


# ---- bad input -----------------------------------------------------------------------------------------------------------

BAD = [
    (["info", "TextGen-Sentimant-v0"], "did you mean 'TextGen-Sentiment-v0'"),
    (["info", "CartPole-v1"], "Expected an environment of textgym"),
    (["sample", "x"], "Unknown environment 'x'; `textgym list` shows all"),
    (["sample", "no_such_module:Env-v0"], "Could not import 'no_such_module'"),
    (["sample", ENV_ID, "--split", "valid"], "Expected `split` to be one of"),
    (["sample", ENV_ID, "--difficulty", "mad"], "Expected `difficulty` to be one of"),
    (["sample", ENV_ID, "--reward", "nice"], "Expected `reward` to be one of"),
    (["sample", ENV_ID, "--reward", "{nice}"], "Expected --reward to have a JSON value"),
    (["sample", ENV_ID, "--max-new-tokens", "0"], "Expected `max_new_tokens` to be a whole number of at least 1"),
    (["sample", ENV_ID, "--prompt", ""], "tokens, actual: 0 tokens in ''"),
    (["sample", ENV_ID, "--prompts", "none.jsonl"], "there is no file"),
    (["sample", ENV_ID, "--prompt-words", "3"], "give --prompts FILE too"),
    (["sample", ENV_ID, "--dataset", "imdb"], "Expected `dataset` to be 'hub:' and the name of a preset"),
    (["sample", ENV_ID, "--dataset", "hub:imbd"], "or 'owner/name' of the Hub, actual value: 'imbd'"),
    (["sample", ENV_ID, "--dataset", "{imdb}"], "Expected --dataset to have a JSON value"),
    (["sample", ENV_ID, "--dataset", '{"preset": "imdb", "path": "no.jsonl"}'], "no.jsonl"),
    (
        ["train", ENV_ID, "--dataset", "hub:imdb", "--prompts", "a.jsonl"],
        "Expected --prompts or --dataset, actual: both",
    ),
    (["sample", ENV_ID, "--policy", "oracle", "--greedy"], "Expected a saved policy for the decoding options"),
    (["sample", ENV_ID, "--policy", "nowhere"], "there is no 'nowhere'"),
    (["sample", ENV_ID, "--tokenizer", "/nowhere"], "Could not load the tokenizer '/nowhere'"),
    (["eval", "nowhere"], "there is no 'nowhere'"),
    (["eval", "."], "has no config.json"),
    (["eval", ".", "--prompt-column", "a"], "give --prompts FILE too"),
    (["train"], "Expected the ID of an environment to train on, or --resume RUN"),
    (["train", "TextGen-Nothing-v0"], "Unknown environment 'TextGen-Nothing-v0'"),
    (
        ["train", ENV_ID, "--algo", "sarsa"],
        "Expected `algo` to be one of ['a2c', 'bestofn', 'distillation', 'dpo', 'dqn', 'gail', 'grpo', 'ilql', 'nlpo', 'ppo',",
    ),
    (["train", ENV_ID, "--timesteps", "0"], "Expected `total_timesteps` to be a whole number of at least 1"),
    (["train", ENV_ID, "--set", "speed=1"], "Unknown hyperparameter 'speed' of ppo; the known ones are batch_size"),
    (["train", ENV_ID, "--set", "batch_size"], "Expected --set KEY=VALUE, actual: --set batch_size"),
    (["train", ENV_ID, "--set", "gamma=much"], "Expected --set gamma to have a JSON value"),
    (["train", ENV_ID, "--set", 'gamma="much"'], "Expected `gamma` to be a number"),
    (["train", ENV_ID, "--set", "gamma=1.5"], "Expected `gamma` to be a number from 0 to 1"),
    (["train", ENV_ID, "--n-envs", "0"], "Expected `n_envs` to be a whole number of at least 1"),
    (["train", ENV_ID, "--model", "/nowhere", "--tokenizer", "bundled"], "Could not load the model '/nowhere'"),
    (["train", ENV_ID, "--prompt-column", "text"], "give --prompts FILE too"),
    (["train", ENV_ID, "--prompts", "none.jsonl"], "there is no file"),
    (["train", ENV_ID, "--device", "abacus"], "Expected `device` to be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
    (["train", "--resume", "nowhere"], "'nowhere' does not exist"),
    (["train", ENV_ID, "--resume", "nowhere"], "Expected --resume without ID"),
    (["train", "--resume", "nowhere", "--seed", "3", "--set", "a=1"], "Expected --resume without --seed, --set"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_bad_input_is_one_clear_line(cli, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*argv)
    assert code == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argv", [["play"], ["sample"], ["sample", ENV_ID, "--episodes", "few"], ["eval", ".", "--samples", "-1"]]
)
def test_usage_errors(cli, argv):
    code, _, err = cli(*argv)
    assert code == 2
    assert "Usage: textgym" in err


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("TEXTGYM_TRACEBACK", "1")
    with pytest.raises(textgym.TextGymError):
        main(["info", "nothing"])


def test_a_model_folder_without_a_tokenizer(cli, tiny_model, tmp_path):
    bare = shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    code, _, err = cli("train", ENV_ID, "--model", bare, "--out", tmp_path / "run")
    assert code == 2
    assert "holds no tokenizer; give the model's own with --tokenizer NAME" in err


# ---- train, eval, sample a saved policy ----------------------------------------------------------------------------------


def test_train(cli, tiny_model, tmp_path):
    path = tmp_path / "run"
    code, out, err = cli("train", ENV_ID, "--out", path, "--model", tiny_model, *TINY)
    assert (code, err) == (0, "")
    assert f"PPO on {ENV_ID}, into {path}" in out
    assert "12 held-out prompts" in out
    for piece in (
        "before",
        "after",
        "sentiment",
        "KL, nats",
        "perplexity",
        "distinct-2",
        "length",
        "tokens/s in training",
    ):
        assert piece in out
    stored = json.loads((path / "evaluation.json").read_text())
    for moment in ("before", "after"):
        mean, low, high = (f"{v + 0.0:.3f}" for v in stored[moment]["reward"])
        assert f"{mean}  [{low}, {high}]" in out
    assert f"report: {path / 'report.html'}" in out
    config = json.loads((path / "config.json").read_text())
    assert config["env_kwargs"] == {"tokenizer": str(tiny_model), "max_new_tokens": 8}
    assert config["hyperparameters"]["n_epochs"] == 1
    assert not list(path.glob("events*"))


def test_train_on_a_file_makes_room_for_its_prompts(cli, tiny_model, tmp_path):
    for split in ("train", "dev"):
        lines = [json.dumps({"text": f"{split} {k} " + "word " * (40 if k == 7 else 3)}) for k in range(8)]
        (tmp_path / f"p.{split}.jsonl").write_text("\n".join(lines))
    files = ["--prompts", tmp_path / "p.{split}.jsonl", "--prompt-column", "text"]
    path = tmp_path / "run"
    code, out, _ = cli("train", ENV_ID, "--out", path, "--model", tiny_model, *TINY, *files)
    assert code == 0
    assert "8 held-out prompts" in out
    config = json.loads((path / "config.json").read_text())
    assert config["env_kwargs"]["max_prompt_tokens"] > 40
    assert config["env_kwargs"]["prompts"]["path"] == str(tmp_path / "p.{split}.jsonl")
    assert f"textgym eval {path}\n" in out
    code, _, err = cli("eval", path, "--split", "test")
    assert code == 2
    assert "p.test.jsonl" in err


def test_data_set_of_the_hub(cli, tiny_model, tmp_path):
    """A local copy of one, through all three commands; prompts and data set take each other's place."""
    for split, film in (("train", "A"), ("validation", "B"), ("test", "C")):
        rows = [json.dumps({"text": f"Film {film} {k} was long and slow", "label": k % 2}) for k in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    spec = {
        "hub": "owner/name",
        "path": str(tmp_path / "{split}.jsonl"),
        "columns": {"prompt": "text"},
        "prompt_words": 3,
    }
    code, out, _ = cli("sample", ENV_ID, "--dataset", json.dumps(spec), "--split", "test", "--max-new-tokens", 3)
    assert code == 0
    assert "Film C" in out
    assert "long and slow" not in out  # three words of each
    path = tmp_path / "run"
    code, out, _ = cli("train", ENV_ID, "--out", path, "--model", tiny_model, *TINY, "--dataset", json.dumps(spec))
    assert code == 0, out
    assert "4 held-out prompts" in out
    assert json.loads((path / "config.json").read_text())["env_kwargs"]["dataset"] == spec
    (tmp_path / "mine.jsonl").write_text('{"prompt": "My own words"}\n')
    assert "My own words" in cli("eval", path, "--prompts", tmp_path / "mine.jsonl", "--device", "cpu")[1]
    assert "1 dev prompts" in cli("eval", path, "--prompts", tmp_path / "mine.jsonl", "--device", "cpu")[1]
    code, out, err = cli("eval", path, "--split", "test", "--device", "cpu")
    assert code == 0, err
    assert "Film C" in out
    again = ["train", ENV_ID, "--model", tiny_model, *TINY, "--eval-prompts", tmp_path / "mine.jsonl"]
    code, out, _ = cli(*again, "--out", tmp_path / "run2", "--dataset", json.dumps(spec))
    assert code == 0
    assert "1 held-out prompts" in out


def test_a_missing_extra_is_one_line(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    code, _, err = cli("sample", ENV_ID, "--dataset", "hub:imdb")
    assert code == 2
    assert err.startswith("Error: ")
    assert "pip install 'textgym[hub]'" in err


def test_train_refuses_a_folder_that_is_in_use(cli, trained, tiny_model):
    code, _, err = cli("train", ENV_ID, "--out", trained, "--model", tiny_model)
    assert code == 2
    assert f"is not empty; to go on with that run: textgym train --resume {trained}" in err


def test_ctrl_c_and_resume(cli, trained, tiny_model, tmp_path):
    import torch

    from textgym_agents import PPO

    path = tmp_path / "run"

    def press():
        deadline = time.monotonic() + 50
        while not (path / "progress.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    argv = ["train", ENV_ID, "--out", path, "--model", tiny_model, *TINY]
    code, out, _ = cli(*argv, "--timesteps", "100000", "--checkpoint-every", "100000")
    thread.join()
    assert code == 130
    assert "Stopping at the next step" in out
    assert f"To go on: textgym train --resume {path}" in out
    # As if it had been asked for as many tokens as the other one from the beginning:
    code, out, _ = cli("train", "--resume", path, "--timesteps", "100")
    assert code == 0
    assert "Resuming" in out or "Training is complete" in out
    first, second = (PPO.load(folder / "model.zip", device="cpu") for folder in (trained, path))
    if second.num_timesteps == first.num_timesteps:  # else it was quicker than the thread
        pairs = zip(first.policy.state_dict().values(), second.policy.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_eval(cli, trained, tmp_path):
    where = tmp_path / "deep" / "result.json"
    code, out, err = cli("eval", trained, "--episodes", 12, "--samples", 2, "--json", where, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "12 dev prompts, sampled at temperature 1" in out
    measured, stored = json.loads(where.read_text()), json.loads((trained / "evaluation.json").read_text())["after"]
    assert {key: measured[key] for key in stored} == stored  # the same prompts and draws as at the end of training
    assert len(measured["samples"]) == 12
    assert set(measured["samples"][0]) >= {"prompt", "completion", "reward", "parts", "finish_reason"}
    code, out, _ = cli(
        "eval", trained, "--split", "test", "--episodes", 5, "--greedy", "--samples", 0, "--device", "cpu"
    )
    assert code == 0
    assert "5 test prompts, greedy" in out
    assert "which were not sampled from the policy as it is" in out
    assert "prompt and completion" not in out


def test_eval_on_other_prompts_and_of_a_checkpoint(cli, trained, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "My own words"}\n{"prompt": "' + "long " * 50 + '"}\n')
    checkpoint = next(iter((trained / "checkpoints").iterdir()))
    code, out, _ = cli("eval", checkpoint, "--prompts", tmp_path / "mine.jsonl", "--num-beams", 2, "--device", "cpu")
    assert code == 0
    assert "2 dev prompts, beam search of 2" in out
    assert "My own words" in out


def test_eval_needs_a_run(cli, trained, tmp_path):
    shutil.copy(trained / "model.zip", tmp_path / "loose.zip")
    code, _, err = cli("eval", tmp_path / "loose.zip")
    assert code == 2
    assert "there is no config.json beside" in err


def test_sample_of_a_saved_policy(cli, trained, tmp_path):
    first = cli("sample", ENV_ID, "--policy", trained, "--prompt", "The film", "--device", "cpu")
    assert first[0] == 0
    assert "tokens 8/8" in first[1] or "stop" in first[1]  # the run's max_new_tokens
    assert cli("sample", ENV_ID, "--policy", trained / "model.zip", "--prompt", "The film", "--device", "cpu") == first
    greedy = [cli("sample", ENV_ID, "--policy", trained, "--greedy", "--seed", seed)[1] for seed in (1, 1)]
    assert greedy[0] == greedy[1]
    shutil.copy(trained / "model.zip", tmp_path / "loose.zip")
    assert cli("sample", ENV_ID, "--policy", tmp_path / "loose.zip", "--top-k", 5)[0] == 0
    (tmp_path / "bad.zip").write_text("no zip")
    code, _, err = cli("sample", ENV_ID, "--policy", tmp_path / "bad.zip")
    assert code == 2
    assert "as a saved algorithm" in err
    code, _, err = cli("sample", ENV_ID, "--policy", trained, "--temperature", 0)
    assert code == 2
    assert "Expected `temperature` to be a number above 0" in err
