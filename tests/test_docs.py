"""The documentation says what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

from textgym import TASKS
from textgym.tasks.page import HEADINGS, page_of

ROOT = Path(__file__).parent.parent


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current():
    for name, text in generator().pages().items():
        assert (ROOT / "docs" / "environments" / name).read_text() == text, "run: python docs/generate.py"


def test_ratios_on_the_page_are_those_of_the_results():
    text = generator().performance()
    assert (ROOT / "docs" / "performance.md").read_text() == text, "run: python docs/generate.py"
    assert text.count("×") > 10


def test_rewards_on_the_page_are_those_of_the_code():
    text = generator().rewards()
    assert (ROOT / "docs" / "rewards.md").read_text() == text, "run: python docs/generate.py"
    assert text.count("\n| `") > 30


def test_agreement_on_the_page_is_that_of_the_results():
    text = generator().reward_models()
    assert (ROOT / "docs" / "reward_models.md").read_text() == text, "run: python docs/generate.py"
    assert text.count("| `scratch` |") >= 3 and "| `minilm` |" in text


def test_algorithms_on_the_page_are_those_of_the_results():
    text = generator().algorithms()
    assert (ROOT / "docs" / "algorithms.md").read_text() == text, "run: python docs/generate.py"
    assert text.count("%") >= 8


@pytest.mark.parametrize("page", ["rewards.md", "data.md", "reward_models.md", "algorithms.md"])
def test_python_on_the_pages_runs(page, tmp_path, monkeypatch):
    """Every block whose data set is not somewhere else."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "dev", "test"):
        (tmp_path / f"reviews.{name}.jsonl").write_text('{"prompt": "The film was"}\n')
    (tmp_path / "reviews.jsonl").write_text('{"text": "I liked it.", "stars": "5"}\n')
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.S)
    namespace: dict = {}
    for block in blocks:
        if "dataset=" not in block:
            exec(block.replace(".jsonl.gz", ".jsonl"), namespace)
    assert len(blocks) >= 2


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.id)
def test_page_has_gymnasiums_headings(task):
    assert re.findall(r"^## (.+)$", page_of(task), flags=re.M) == list(HEADINGS)


def test_readme_code_runs(tmp_path, monkeypatch):
    """Every Python block of the README, in one namespace, with the training shortened."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) == 3
    namespace: dict = {}
    for block in blocks:
        block = (
            block.replace("n_envs=64", "n_envs=2")
            .replace("100_000, progress_bar=True", "8")
            .replace("verbose=1", "verbose=0")
        )
        exec(block, namespace)
    assert (tmp_path / "run" / "ppo.zip").exists()


def test_links_of_the_readme_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
