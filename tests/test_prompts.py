"""Where prompts come from: lists, JSON Lines files, data sets, mappings."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import assert_same

from textgym import Example, make_task
from textgym.core import SPLITS
from textgym.prompts import FixedPrompts, GeneratedPrompts, Prompts, load_prompts

TASK = make_task("sentiment")
RECORDS = [
    {"prompt": "The film", "references": ["was good.", "was bad."], "stars": 4},
    {"prompt": "Größe, 日本", "references": "one"},
    {"prompt": " leading space "},
]
EXAMPLES = [
    Example("The film", ("was good.", "was bad."), {"stars": 4}),
    Example("Größe, 日本", ("one",)),
    Example(" leading space "),
]


def load(prompts: Any, split: Any = "train") -> list[Example]:
    found = load_prompts(prompts, TASK, split, "normal")
    assert isinstance(found, FixedPrompts)
    return list(found)


def write(path: Path, records: list[Any], encoding: str = "utf-8") -> Path:
    lines = "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records)  # blank lines do no harm
    data = (lines + "\n").encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# ---- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_list(kind):
    assert load(kind(["one", Example("two", ("r",)), {"prompt": "three", "stars": 1}])) == [
        Example("one"),
        Example("two", ("r",)),
        Example("three", (), {"stars": 1}),
    ]
    assert load(kind(RECORDS)) == EXAMPLES


def test_records_with_a_split_are_filtered_by_it():
    records = [
        {"prompt": str(i), "split": split} for i, split in enumerate(["train", "validation", "dev", "test", "valid"])
    ]
    records.append({"prompt": "5"})  # none: taken for any
    assert {split: [e.prompt for e in load(records, split)] for split in SPLITS} == {
        "train": ["0", "5"],
        "dev": ["1", "2", "4", "5"],
        "test": ["3", "5"],
    }


def test_fixed_prompts_are_a_sequence_and_drawn_uniformly():
    prompts = load_prompts(["a", "b", "c", "d"], TASK, "train", "normal")
    assert isinstance(prompts, FixedPrompts)
    assert len(prompts) == 4 and prompts[1].prompt == "b" and [e.prompt for e in prompts[2:]] == ["c", "d"]
    rng = np.random.default_rng(0)
    counts = Counter(prompts.draw(rng).prompt for _ in range(4000))
    assert all(abs(counts[p] - 1000) < 120 for p in "abcd")  # four standard deviations


def test_prompts_object_is_taken_as_it_is():
    class Counted(Prompts):
        def draw(self, rng):
            return Example("counted")

    prompts = Counted()
    assert load_prompts(prompts, TASK, "test", "normal") is prompts
    assert gym.make("TextGen-Sentiment-v0", prompts=prompts).reset()[1] == {"prompt": "counted"}


def test_none_is_the_tasks_generator():
    assert load_prompts(None, TASK, "dev", "hard") == GeneratedPrompts(TASK, "dev", "hard")


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
@pytest.mark.parametrize("kind", [str, Path])
def test_json_lines(tmp_path, name, kind):
    assert load(kind(write(tmp_path / name, RECORDS))) == EXAMPLES


def test_json_lines_of_texts(tmp_path):
    assert load(write(tmp_path / "p.jsonl", ["one", "two"])) == [Example("one"), Example("two")]


def test_json_lines_with_a_byte_order_mark(tmp_path):
    assert load(write(tmp_path / "p.jsonl", RECORDS, "utf-8-sig")) == EXAMPLES


def test_split_in_the_path(tmp_path):
    for split in SPLITS:
        write(tmp_path / f"{split}.jsonl.gz", [f"of {split}"])
    for split in SPLITS:
        assert load(str(tmp_path / "{split}.jsonl.gz"), split) == [Example(f"of {split}")]
        assert load({"path": str(tmp_path / "{split}.jsonl.gz")}, split) == [Example(f"of {split}")]


def test_columns_and_first_words(tmp_path):
    records = [
        {"text": " a b\n c  d e", "answers": ["x"], "id": 7, "prompt": "other"},
        {"text": "f", "answers": "y", "id": 8},
    ]
    path = str(write(tmp_path / "p.jsonl", records))
    columns = {"prompt": "text", "references": "answers"}
    assert load({"path": path, "columns": columns}) == [
        Example(" a b\n c  d e", ("x",), {"id": 7, "prompt": "other"}),
        Example("f", ("y",), {"id": 8}),
    ]
    assert [e.prompt for e in load({"path": path, "columns": columns, "prompt_words": 3})] == ["a b c", "f"]
    assert load({"path": path, "columns": {"prompt": "text"}})[0].meta["answers"] == ["x"]


def test_file_in_a_spec_that_goes_through_json(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"text": f"The film number {i} was"} for i in range(9)])
    env = gym.make(
        "TextGen-Sentiment-v0", prompts={"path": str(path), "columns": {"prompt": "text"}, "prompt_words": 4}
    )
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert_same(again.reset(seed=2), env.reset(seed=2))
    assert env.reset(seed=2)[1]["prompt"].startswith("The film number")


def test_real_reviews(shared_data):
    prompts = {
        "path": str(shared_data / "movie-ratings.{split}.jsonl.gz"),
        "columns": {"prompt": "text"},
        "prompt_words": 6,
    }
    found = load(prompts, "dev")
    assert len(found) == 1000
    assert all(1 <= len(e.prompt.split()) <= 6 and "rating" in e.meta for e in found)
    envs = gym.make_vec("TextGen-Sentiment-v0", num_envs=3, prompts=prompts, max_prompt_tokens=64)
    assert set(envs.reset(seed=0)[1]["prompt"]) <= {e.prompt for e in load(prompts, "train")}


# ---- data sets ------------------------------------------------------------------------------------------------------


class Rows:
    """Iterates dicts and has columns by name, as a Dataset of Hugging Face does."""

    column_names = ("prompt", "references", "stars")

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


def test_dataset_like():
    assert load(Rows(RECORDS)) == EXAMPLES


@pytest.mark.parametrize("dev", ["dev", "validation", "valid"])
def test_mapping_of_splits(dev, tmp_path):
    splits = {"train": Rows(RECORDS[:1]), dev: write(tmp_path / "p.jsonl", RECORDS), "test": ["x"]}
    assert load(splits, "train") == EXAMPLES[:1]
    assert load(splits, "dev") == EXAMPLES
    assert load(splits, "test") == [Example("x")]


def test_datasets_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "a", "references": ["x"], "stars": 1}, {"prompt": "b", "references": [], "stars": 2}]
    dataset = datasets.Dataset.from_list(rows)
    wanted = [Example("a", ("x",), {"stars": 1}), Example("b", (), {"stars": 2})]
    assert load(dataset) == wanted
    both = datasets.DatasetDict({"train": dataset, "validation": dataset.select([1])})
    assert load(both, "train") == wanted
    assert load(both, "dev") == wanted[1:]


# ---- in an environment ----------------------------------------------------------------------------------------------


def test_references_and_meta_reach_the_reward():
    def hits(completion, references, meta):
        return meta["stars"] * (completion in references)

    env = gym.make("TextGen-Sentiment-v0", prompts=[RECORDS[0]], reward=hits).unwrapped
    env.reset(seed=0)
    for token in [*env.setting.tokenizer.encode("was bad."), env.setting.tokenizer.eos_token_id]:
        _, reward, terminated, _, info = env.step(token)
    assert terminated and reward == 4
    assert info["references"] == ["was good.", "was bad."]


def test_own_prompts_are_drawn_by_seed():
    prompts = [f"Prompt number {i}" for i in range(50)]
    env = gym.make("TextGen-Sentiment-v0", prompts=prompts)
    drawn = [env.reset(seed=s)[1]["prompt"] for s in range(20)]
    assert len(set(drawn)) > 10 and set(drawn) <= set(prompts)
    envs = gym.make_vec("TextGen-Sentiment-v0", num_envs=20, prompts=prompts)
    assert envs.reset(seed=0)[1]["prompt"].tolist() == drawn
