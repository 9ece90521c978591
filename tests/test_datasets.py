"""A user's own data: templates, columns, the presets of public data sets on small files of their schemas, the Hub."""

# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import assert_same, play

from textgym import TASKS, Example, make_task
from textgym.data import PRESETS
from textgym.data.records import value_at
from textgym.prompts import FixedPrompts, PromptError, load_prompts

TRANSLATE, CLASSIFY, SENTIMENT = (make_task(name) for name in ("translate", "classify", "sentiment"))


def load(prompts: Any = None, split: Any = "train", task: Any = SENTIMENT, dataset: Any = None) -> list[Example]:
    found = load_prompts(prompts, task, split, task.default_difficulty, dataset)
    assert isinstance(found, FixedPrompts)
    return list(found)


def write(path: Path, records: list[Any]) -> str:
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


# ---- templates ------------------------------------------------------------------------------------------------------


def test_template_of_the_task():
    """Texts, records and rows get it; examples and prompts for ``reset`` do not."""
    wanted = "German: Hallo {x}.\nEnglish:"
    given = ["Hallo {x}.", {"prompt": "Hallo {x}.", "references": "Hello."}, Example("Hallo {x}.", ("Hello.",))]
    found = load(given, task=TRANSLATE)
    assert [e.prompt for e in found] == [wanted, wanted, "Hallo {x}."]
    assert found[1].references == ("Hello.",)
    env = gym.make("TextGen-Translate-v0", prompts=given[1:2])
    assert env.reset(seed=0)[1]["prompt"] == wanted
    assert env.reset(options={"example": "Hallo"})[1]["prompt"] == "Hallo"


def test_template_of_the_file(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": "one two three"}])
    assert load({"path": path, "prompt_words": 2, "template": "Say: {prompt}!"})[0].prompt == "Say: one two!"
    assert load({"path": path, "template": "{prompt}"}, task=TRANSLATE)[0].prompt == "one two three"
    assert load(dataset={"path": path, "template": "{prompt} {prompt}"})[0].prompt == "one two three one two three"


# ---- columns --------------------------------------------------------------------------------------------------------

NESTED = {
    "translation": {"de": "Hallo.", "en": "Hello."},
    "answers": [{"text": "a"}, {"text": "b"}],
    "dialog": ["one", "two", "three"],
    "squad": {"text": ["x", "y"]},
    "dotted.name": "z",
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("translation.de", "Hallo."),
        ("answers.text", ["a", "b"]),
        ("answers[1].text", "b"),
        ("answers.0.text", "a"),
        ("dialog[-1]", "three"),
        ("squad.text", ["x", "y"]),
        ("dotted.name", "z"),
        ("dialog", ["one", "two", "three"]),
    ],
)
def test_nested_columns(column, value):
    assert value_at(NESTED, column, "here") == value


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("title", r"^here has no column 'title', only \['answers', 'dialog', 'dotted.name', 'squad', 'translation'\]$"),
        ("translation.fr", r"^here has no column 'translation.fr': 'translation' has only \['de', 'en'\]$"),
        ("dialog[3]", r"^here has no column 'dialog\[3\]': 'dialog' has only 3 entries$"),
        ("answers.words", r"^here has no column 'answers.words': 'answers' has only \['text'\]$"),
        (
            "translation.de.x",
            r"^here has no column 'translation.de.x': 'translation.de' has no columns, it is 'Hallo.'$",
        ),
    ],
)
def test_missing_nested_columns(column, message):
    with pytest.raises(PromptError, match=message):
        value_at(NESTED, column, "here")


def test_columns_that_become_meta(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"text": "A film.", "stars": 4, "who": {"name": "Ann", "age": 3}, "id": 7}])
    columns = {"prompt": "text", "rating": "stars", "author": "who.name"}
    assert load({"path": path, "columns": columns}) == [
        Example("A film.", (), {"rating": 4, "author": "Ann", "who": {"name": "Ann", "age": 3}, "id": 7})
    ]
    with pytest.raises(
        PromptError, match=r"record 1 of .* has no column 'star', only \['id', 'stars', 'text', 'who'\]"
    ):
        load({"path": path, "columns": {"prompt": "text", "rating": "star"}})


def test_numbers_as_labels(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"text": "Good.", "label": 1}, {"text": "Bad.", "label": 0}])
    spec = {"path": path, "columns": {"prompt": "text", "references": "label"}}
    for labels in (["negative", "positive"], {"0": "negative", "1": "positive"}, {0: "negative", 1: "positive"}):
        found = load({**spec, "labels": labels}, task=CLASSIFY)
        assert [(e.prompt, e.references) for e in found] == [
            ("Review: Good.\nLabel:", ("positive",)),
            ("Review: Bad.\nLabel:", ("negative",)),
        ]
    with pytest.raises(PromptError, match=r"`references` to be .*, or one of the labels \['0'\], actual value: 1"):
        load({**spec, "labels": ["negative"]})
    with pytest.raises(PromptError, match=r"`references` to be a text or a list of texts, actual value: 1"):
        load(spec)


def test_blank_references_are_none():
    assert load([{"prompt": "a", "references": ["", " ", "b"]}])[0].references == ("b",)
    assert load([{"prompt": "a", "references": None}, {"prompt": "a", "references": ""}])[1].references == ()


# ---- presets --------------------------------------------------------------------------------------------------------


def cell(value: str, header: bool = False, columns: int = 1, rows: int = 1) -> dict[str, Any]:
    return {"column_span": columns, "is_header": header, "row_span": rows, "value": value}


TOTTO = {
    "id": 3,
    "table_page_title": "Ada Berg",
    "table_webpage_url": "http://en.wikipedia.org/wiki/Ada_Berg",
    "table_section_title": "Films",
    "table_section_text": "",
    "table": [
        [cell("Year", True, rows=2), cell("Work", True, columns=2)],
        [cell("Title", True), cell("Role", True)],  # below "Work"
        [cell("1990", rows=2), cell("Dawn"), cell("Eve")],
        [cell("Dusk"), cell("Lea")],  # of 1990 as well
    ],
    "highlighted_cells": [[2, 0], [3, 0], [3, 1]],
    "example_id": "-77",
    "sentence_annotations": {
        "original_sentence": ["..."],
        "sentence_after_deletion": ["..."],
        "sentence_after_ambiguity": ["..."],
        "final_sentence": ["Ada Berg was Lea in Dusk in 1990.", "In 1990 she was Lea in Dusk."],
    },
    "overlap_subset": "none",
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "imdb": [
        {"text": "I saw it once.<br /><br />It was a great film about a dog.", "label": 1},
        {"text": "Dull.", "label": 0},
    ],
    "imdb_labels": [{"text": "I saw it.<br />It was great.", "label": 1}, {"text": "Dull.", "label": 0}],
    "cnn_dailymail": [{"article": "A fire broke out.", "highlights": "Fire .\nNobody hurt .", "id": "f00"}],
    "common_gen": [
        {"concept_set_idx": 0, "concepts": ["dog", "ball"], "target": "A dog has a ball."},
        {"concept_set_idx": 0, "concepts": ["dog", "ball"], "target": "The ball is the dog's."},
        {"concept_set_idx": 1, "concepts": ["run", "park"], "target": "Run in the park."},
    ],
    "totto": [TOTTO],
    "narrativeqa": [
        {
            "document": {
                "id": "d1",
                "kind": "movie",
                "url": "u",
                "file_size": 1,
                "word_count": 1,
                "start": "s",
                "end": "e",
                "summary": {"text": " Ann lives in Rome. ", "tokens": ["Ann"], "url": "u", "title": "t"},
                "text": "",
            },
            "question": {"text": "Where is Ann?", "tokens": ["Where"]},
            "answers": [{"text": "Rome", "tokens": ["Rome"]}, {"text": "in Rome", "tokens": ["in"]}],
        }
    ],
    "iwslt2017": [{"translation": {"de": "Danke.", "en": "Thank you."}}],
    "daily_dialog": [{"dialog": [" Hi. ", "Hello !", "Bye ."], "act": [1, 2, 3], "emotion": [0, 4, 0]}],
}
EXAMPLES: dict[str, list[Example]] = {
    "imdb": [
        Example("I saw it once. It was", ("a great film about a dog.",), {"label": "positive"}),
        Example("Dull.", (), {"label": "negative"}),
    ],
    "imdb_labels": [
        Example("Review: I saw it. It was great.\nLabel:", ("positive",)),
        Example("Review: Dull.\nLabel:", ("negative",)),
    ],
    "cnn_dailymail": [Example("Article: A fire broke out.\nHeadline:", ("Fire .\nNobody hurt .",), {"id": "f00"})],
    "common_gen": [
        Example(
            "Words: dog, ball\nSentence:",
            ("A dog has a ball.", "The ball is the dog's."),
            {"words": ["dog", "ball"], "concept_set_idx": 0},
        ),
        Example("Words: run, park\nSentence:", ("Run in the park.",), {"words": ["run", "park"], "concept_set_idx": 1}),
    ],
    "totto": [
        Example(
            "page title[Ada Berg], section title[Films], Year[1990], Title[Dusk], Role[Lea]\nText:",
            ("Ada Berg was Lea in Dusk in 1990.", "In 1990 she was Lea in Dusk."),
            {
                "table": [["page title", "Ada Berg"], ["Year", "1990"], ["Title", "Dusk"], ["Role", "Lea"]],
                "example_id": "-77",
            },
        )
    ],
    "narrativeqa": [
        Example(
            "Passage: Ann lives in Rome.\nQuestion: Where is Ann?\nAnswer:", ("Rome", "in Rome"), {"document": "d1"}
        )
    ],
    "iwslt2017": [Example("German: Danke.\nEnglish:", ("Thank you.",))],
    "daily_dialog": [
        Example("A: Hi.\nB:", ("Hello !",), {"turn": 1, "act": 2, "emotion": 4}),
        Example("A: Hi.\nB: Hello !\nA:", ("Bye .",), {"turn": 2, "act": 3, "emotion": 0}),
    ],
}


def test_there_are_presets_for_all_of_grue():
    assert set(PRESETS) == set(ROWS) == set(EXAMPLES)
    assert {preset.task for preset in PRESETS.values()} <= set(TASKS)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_on_local_files(name, suffix, tmp_path):
    path = write(tmp_path / f"test{suffix}", ROWS[name])
    task = make_task(PRESETS[name].task)
    for spec in ({"preset": name, "path": path}, {"hub": name, "path": str(tmp_path / "{split}") + suffix}):
        assert load(split="test", task=task, dataset=spec) == EXAMPLES[name]


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_play(name, tmp_path):
    """An environment of the task that a preset is for, made from a spec that went through JSON, pays for the reference."""
    spec = {"preset": name, "path": write(tmp_path / "p.jsonl", ROWS[name])}
    env_id = make_task(PRESETS[name].task).id
    reward = "chrf" if name == "daily_dialog" else None  # the task's own knows the shop of its generator only
    env = gym.make(env_id, dataset=spec, reward=reward, max_prompt_tokens=200, max_new_tokens=64)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert_same(again.reset(seed=2), env.reset(seed=2))
    setting = env.unwrapped.setting
    env.reset(options={"example": setting.prompts[0]})
    ids = setting.tokenizer.encode(" " + setting.prompts[0].references[0])
    _, info = play(env, [*ids, *[setting.tokenizer.eos_token_id] * 64])
    assert info["references"] == list(EXAMPLES[name][0].references)
    if PRESETS[name].task in ("classify", "summarize", "answer", "translate"):
        assert sum(info[key] for key in info if key.startswith("reward/")) > 0.99
    envs = gym.make_vec(env_id, num_envs=2, dataset=spec, max_prompt_tokens=200)
    assert set(envs.reset(seed=0)[1]["prompt"]) <= {e.prompt for e in setting.prompts}


def test_other_splits_of_local_files(tmp_path):
    for split in ("train", "validation", "test"):
        write(tmp_path / f"{split}.jsonl", [{"translation": {"de": f"{split}.", "en": "x"}}])
    spec = {"preset": "iwslt2017", "path": str(tmp_path / "{split}.jsonl")}
    assert [load(split=s, dataset=spec)[0].prompt for s in ("train", "dev", "test")] == [
        "train.",
        "validation.",
        "test.",
    ]


def test_dev_split_of_imdb_is_cut_from_train(tmp_path):
    """There is none on the Hub. A single file is taken as the split asked for, as always."""
    rows = [{"text": f"Review {i}.", "label": i % 2} for i in range(50)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [{"text": "Of test.", "label": 0}])
    spec = {"preset": "imdb", "path": str(tmp_path / "{split}.jsonl")}
    train, dev, test = ([e.prompt for e in load(split=s, dataset=spec)] for s in ("train", "dev", "test"))
    assert dev == [f"Review {i}." for i in (9, 19, 29, 39, 49)] and test == ["Of test."]
    assert len(train) == 45 and not set(train) & set(dev)
    assert len(load(split="dev", dataset={"preset": "imdb", "path": str(tmp_path / "train.jsonl")})) == 50


def test_prompt_words_of_presets(tmp_path):
    def first(name: str, words: int | None) -> str:
        spec = {"preset": name, "path": write(tmp_path / "p.jsonl", ROWS[name])}
        return load(dataset=spec if words is None else {**spec, "prompt_words": words}, task=CLASSIFY)[-1].prompt

    assert first("narrativeqa", 2) == "Review: Passage: Ann lives\nQuestion: Where is Ann?\nLabel:"
    assert first("imdb", 1) == "Review: Dull.\nLabel:"
    assert first("cnn_dailymail", 3) == "Review: A fire broke\nLabel:"
    assert first("daily_dialog", 2) == "B: Hello !\nA:" and first("daily_dialog", 3) == "A: Hi.\nB: Hello !\nA:"
    long = {"dialog": [f"u{i}" for i in range(9)]}
    spec = {"preset": "daily_dialog", "path": write(tmp_path / "p.jsonl", [long])}
    assert load(dataset=spec)[-1].prompt == "B: u3\nA: u4\nB: u5\nA: u6\nB: u7\nA:"  # five before, as in GRUE


def test_other_columns_of_a_preset(tmp_path):
    spec = {"preset": "iwslt2017", "path": write(tmp_path / "p.jsonl", ROWS["iwslt2017"])}
    columns = {"prompt": "translation.en", "references": "translation.de"}
    found = load(dataset={**spec, "columns": columns, "template": "English: {prompt}\nGerman:"}, task=TRANSLATE)
    assert (found[0].prompt, found[0].references) == ("English: Thank you.\nGerman:", ("Danke.",))


def test_headers_of_totto(tmp_path):
    """Without a header above it a cell is a value; titles that are empty are left out."""
    row = {**TOTTO, "table": [[cell("Lea")]], "highlighted_cells": [[0, 0]], "table_section_title": ""}
    found = load(dataset={"preset": "totto", "path": write(tmp_path / "p.jsonl", [row])})
    assert found[0].prompt == "page title[Ada Berg], value[Lea]"


# ---- Parquet and saved data sets ------------------------------------------------------------------------------------


def test_parquet_and_saved_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    for name, rows in ROWS.items():
        task, folder = make_task(PRESETS[name].task), tmp_path / name
        dataset = datasets.Dataset.from_list(rows)
        folder.mkdir()
        dataset.to_parquet(str(folder / "test.parquet"))
        dataset.save_to_disk(str(folder / "saved"))
        datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(folder / "both"))
        for path in ("{split}.parquet", "saved", "both"):
            spec = {"preset": name, "path": str(folder / path)}
            assert load(split="test", task=task, dataset=spec) == EXAMPLES[name]
    with pytest.raises(PromptError, match=r"to have the split 'dev', actual: \['test', 'train'\]"):
        load(split="dev", dataset={"preset": "totto", "path": str(tmp_path / "totto" / "both")})
    assert load({"path": str(tmp_path / "imdb" / "test.parquet"), "columns": {"prompt": "text"}})[1].prompt == "Dull."
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    with pytest.raises(PromptError, match=r"Could not read '.*broken\.parquet' as Parquet"):
        load(str(tmp_path / "broken.parquet"))


def test_without_the_package(tmp_path, monkeypatch):
    for name in ("datasets", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "p.parquet").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    for dataset in ("hub:imdb", {"path": str(tmp_path / "p.parquet")}, {"path": str(tmp_path / "saved")}):
        with pytest.raises(ImportError, match=r"needs datasets: pip install 'textgym\[hub\]'"):
            load(dataset=dataset)


# ---- the Hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A package ``datasets`` that has what a test gives it, and notes what was asked for."""
    fake: Any = types.ModuleType("datasets")
    fake.calls, fake.rows = [], []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        fake.calls.append((args, kwargs))
        if isinstance(fake.rows, Exception):
            raise fake.rows
        return fake.rows

    fake.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_of_the_hub(hub, name):
    hub.rows = ROWS[name]
    task, preset = make_task(PRESETS[name].task), PRESETS[name]
    for dataset in (f"hub:{name}", {"hub": name}, {"preset": name}):
        assert load(split="test", task=task, dataset=dataset) == EXAMPLES[name]
    converted = f"hf://datasets/{preset.hub}@refs/convert/parquet/{preset.config or 'default'}/test/*.parquet"
    wanted = (
        ((preset.hub, preset.config), {"split": "test", "revision": None})
        if preset.revision is None
        else (("parquet",), {"data_files": {"test": converted}, "split": "test"})
    )
    assert hub.calls == [wanted] * 3  # never trust_remote_code


def test_splits_of_the_hub(hub):
    hub.rows = [{"text": f"Review {i}.", "label": 0} for i in range(20)]
    assert len(load(split="train", dataset="hub:imdb")) == 18
    assert [e.prompt for e in load(split="dev", dataset="hub:imdb")] == ["Review 9.", "Review 19."]
    assert len(load(split="dev", dataset={"hub": "imdb", "splits": {"dev": "test[:20]"}})) == 20
    hub.rows = ROWS["iwslt2017"]
    load(split="dev", dataset="hub:iwslt2017")
    load(split="train", dataset={"preset": "iwslt2017", "splits": {"train": "train[:100]"}})
    assert [call[1]["split"] for call in hub.calls] == ["train", "train", "test[:20]", "validation", "train[:100]"]
    assert list(hub.calls[-1][1]["data_files"]) == ["train"]


def test_any_dataset_of_the_hub(hub):
    hub.rows = [{"q": "One?", "a": {"text": ["1"]}}]
    spec = {
        "hub": "owner/name",
        "config": "small",
        "revision": "v1",
        "splits": {"dev": "holdout"},
        "columns": {"prompt": "q", "references": "a.text"},
        "template": "Q: {prompt}\nA:",
    }
    assert load(split="dev", dataset=spec) == [Example("Q: One?\nA:", ("1",), {"a": {"text": ["1"]}})]
    assert hub.calls == [(("owner/name", "small"), {"split": "holdout", "revision": "v1"})]
    hub.rows = [{"prompt": "p", "references": ["r"]}]
    assert load(dataset="hub:owner/name", task=TRANSLATE) == [Example("German: p\nEnglish:", ("r",))]


def test_hub_without_a_network(hub):
    hub.rows = ConnectionError("Offline mode is enabled.\nmore")
    message = (
        r"Could not load the split 'test' of the dataset 'abisee/cnn_dailymail', 3\.0\.0, from the Hugging Face Hub: "
        r"ConnectionError: Offline mode is enabled\.\. Offline choices: .*'path'.*prompts=.*own prompts"
    )
    with pytest.raises(PromptError, match=message):
        gym.make("TextGen-Summarize-v0", split="test", dataset="hub:cnn_dailymail")


def test_hub_without_a_network_for_real():
    pytest.importorskip("datasets")
    for dataset in ("hub:imdb", "hub:iwslt2017", "hub:nobody/nothing"):
        with pytest.raises(PromptError, match=r"Could not load the split 'train' of the dataset .*Offline choices"):
            load(dataset=dataset)


# ---- bad input ------------------------------------------------------------------------------------------------------

MAKE: list[tuple[str, Any, type[Exception], str]] = [
    ("unknown-preset", "hub:imbd", PromptError, r"`dataset` to be a preset, one of \['cnn_dailymail', .*'imdb'.*\], or 'owner/name' of the Hub, actual value: 'imbd'"),
    ("unknown-preset-with-path", {"preset": "a/b", "path": "p"}, PromptError, r"`dataset` to be a preset, one of .* actual value: 'a/b'"),
    ("no-hub", "imdb", PromptError, r"`dataset` to be 'hub:' and the name of a preset .* actual value: 'imdb'"),
    ("nothing-behind-hub", "hub:", PromptError, r"`dataset` to be 'hub:' and the name"),
    ("number", 3, TypeError, r"`dataset` to be a text or a mapping that JSON can hold, actual value: 3"),
    ("not-json", {"path": Path("p")}, TypeError, r"`dataset` to be a text or a mapping that JSON can hold"),
    ("unknown-key", {"hub": "imdb", "word": 3}, PromptError, r"`dataset` to be a mapping with keys among \['columns', .*\], actual value: \['word'\]"),
    ("no-source", {"columns": {}}, PromptError, r"`dataset` to be a mapping with 'hub' or 'preset', or with 'path'"),
    ("two-sources", {"hub": "imdb", "preset": "imdb"}, PromptError, r"`dataset` to be a mapping with 'hub' or 'preset', or"),
    ("config-number", {"hub": "a/b", "config": 3}, PromptError, r"`config` to be a text, actual value: 3"),
    ("splits", {"hub": "a/b", "splits": {"valid": "x"}}, PromptError, r"`splits` to be a mapping of \('train', 'dev', 'test'\) to the data set's own names, actual value: \{'valid'"),
    ("template", {"path": "p", "template": "Review:"}, PromptError, r"`template` to be a text with \{prompt\} in it, actual value: 'Review:'"),
    ("labels", {"path": "p", "labels": [1]}, PromptError, r"`labels` to be a list of texts, or a mapping of numbers to texts, actual value: \[1\]"),
    ("columns", {"path": "p", "columns": {"prompt": 1}}, PromptError, r"`columns` to be a mapping of 'prompt' and 'references' to column names, actual value: \{'prompt': 1\}"),
    ("prompt-words", {"path": "p", "prompt_words": True}, PromptError, r"`prompt_words` to be None or a whole number of at least 1, actual value: True"),
    ("no-file", {"preset": "imdb", "path": "nowhere/{split}.jsonl"}, PromptError, r"there is no file 'nowhere/train\.jsonl'"),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "error", "message"), [c[1:] for c in MAKE], ids=[c[0] for c in MAKE])
def test_bad_datasets(dataset, error, message):
    with pytest.raises(error, match=message):
        gym.make("TextGen-Sentiment-v0", dataset=dataset)
    with pytest.raises(error, match=message):
        gym.make_vec("TextGen-Sentiment-v0", num_envs=2, dataset=dataset)


def test_bad_files(tmp_path):
    def make(name: str, data: bytes, env_id: str = "TextGen-Sentiment-v0", **spec: Any) -> None:
        (tmp_path / "p.jsonl").write_bytes(data)
        gym.make(env_id, dataset={"preset": name, "path": str(tmp_path / "p.jsonl"), **spec})

    def line(record: Any) -> bytes:
        return json.dumps(record).encode()

    with pytest.raises(
        PromptError, match=r"Expected at least one prompt for the split 'train', but .*p\.jsonl.* has none"
    ):
        make("imdb", b"\n\n")
    with pytest.raises(PromptError, match=r"p\.jsonl' is not UTF-8 text"):
        make("imdb", '{"text": "ä", "label": 1}'.encode("latin-1"))
    with pytest.raises(PromptError, match=r"record 2 of .*p\.jsonl has no column 'label', only \['text'\]"):
        make("imdb", line(ROWS["imdb"][0]) + b'\n{"text": "a"}')
    with pytest.raises(
        PromptError, match=r"record 1 of .* has no column 'document.summary.text': 'document' has only \['id'\]"
    ):
        make("narrativeqa", line({"document": {"id": "x"}, "question": {"text": "a"}, "answers": []}))
    with pytest.raises(
        PromptError, match=r"record 1 of .*p\.jsonl is not of the schema of 'abisee/cnn_dailymail': AttributeError"
    ):
        make("cnn_dailymail", line({"article": 3, "highlights": "a"}), prompt_words=3)
    with pytest.raises(
        PromptError, match=r"record 1 of .*: Expected `prompt` to be a text that is not empty, actual value: 3"
    ):
        make("cnn_dailymail", line({"article": 3, "highlights": "a"}))
    with pytest.raises(PromptError, match=r"is not of the schema of 'google-research-datasets/totto': IndexError"):
        make("totto", line({**TOTTO, "highlighted_cells": [[9, 9]]}))
    with pytest.raises(
        PromptError, match=r"record 1 of .*: Expected `record` to be a mapping of column names to values"
    ):
        make("imdb", b'"a text"')
    with pytest.raises(
        PromptError,
        match=r"prompt of 1 to max_prompt_tokens=\d+ tokens, actual: \d+ tokens in 'Article: word .*\.\.\.'",
    ):
        make("cnn_dailymail", line({"article": "word " * 900, "highlights": "a"}), "TextGen-Summarize-v0")
    make("cnn_dailymail", line({"article": "word " * 900, "highlights": "a"}), "TextGen-Summarize-v0", prompt_words=9)


def test_both_prompts_and_dataset():
    for make in (gym.make, lambda *args, **kwargs: gym.make_vec(*args, num_envs=2, **kwargs)):
        with pytest.raises(
            ValueError, match=r"`prompts` to be None where a dataset is given \('hub:imdb'\), actual value: \['a'\]"
        ):
            make("TextGen-Sentiment-v0", prompts=["a"], dataset="hub:imdb")


REFERENCES: list[tuple[str, dict[str, Any], str]] = [
    ("TextGen-Translate-v0", {}, "bleu"),
    ("TextGen-Classify-v0", {}, "accuracy"),
    ("TextGen-Sentiment-v0", {"reward": "chrf"}, "chrf"),
    ("TextGen-Sentiment-v0", {"reward": {"sentiment": 1, "bleu": 0.5}}, "bleu"),
]


@pytest.mark.parametrize(("env_id", "kwargs", "name"), REFERENCES)
def test_missing_references(env_id, kwargs, name):
    given = [{"prompt": "Eins", "references": ["One"]}, {"prompt": "Zwei"}]
    with pytest.raises(
        PromptError, match=rf"Reward '{name}' compares with references, but the prompt .*Zwei.* has none"
    ):
        gym.make(env_id, prompts=given, **kwargs)
    gym.make(env_id, prompts=given[:1], **kwargs)
    gym.make(env_id, prompts=given, reward="length")


def test_missing_references_inside_of_other_rewards():
    from textgym.metrics import BLEU
    from textgym.rewards import Length, Shaped

    for reward in (Shaped(BLEU()), Length() * BLEU(), 1 - 2 * (BLEU() * Length())):
        with pytest.raises(PromptError, match="'bleu' compares with references"):
            gym.make("TextGen-Sentiment-v0", prompts=["a"], reward=reward)


# ---- data beside the repository -------------------------------------------------------------------------------------


def oracle_scores(env: gym.Env[Any, Any], episodes: int = 20) -> list[float]:
    setting, scores = env.unwrapped.setting, []
    for seed in range(episodes):
        _, info = env.reset(seed=seed)
        example = next(e for e in setting.prompts if e.prompt == info["prompt"])
        ids = setting.tokenizer.encode(setting.task.oracle(example))[: setting.max_new_tokens - 1]
        scores.append(sum(play(env, [*ids, *[setting.tokenizer.eos_token_id] * 2])[0]))
    return scores


def test_film_ratings(shared_data):
    """Beginnings to be continued; whole reviews with a label that their rating gives."""
    path = str(shared_data / "movie-ratings.{split}.jsonl.gz")
    columns = {"prompt": "text", "stars": "rating"}
    spec = {"path": path, "columns": columns, "prompt_words": 6}
    env = gym.make("TextGen-Sentiment-v0", split="dev", prompts=spec, max_prompt_tokens=64)
    assert len(env.unwrapped.setting.prompts) == 1000 and "stars" in env.unwrapped.setting.prompts[0].meta
    assert np.mean(oracle_scores(env)) > 0.9
    with gzip.open(path.replace("{split}", "dev"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    labelled = [
        {"prompt": " ".join(row["text"].split()[:20]), "references": "positive" if row["rating"] >= 2.5 else "negative"}
        for row in rows
        if abs(row["rating"] - 2) >= 0.5
    ]
    env = gym.make("TextGen-Classify-v0", prompts=labelled, max_prompt_tokens=160)
    assert re.fullmatch(r"Review: .*\nLabel:", env.reset(seed=0)[1]["prompt"], re.S)
    assert np.mean(oracle_scores(env)) == 1


def test_restaurants(shared_data):
    path = str(shared_data / "e2e-restaurants.{split}.jsonl.gz")
    env = gym.make("TextGen-Describe-v0", split="dev", prompts=path, max_prompt_tokens=200, max_new_tokens=200)
    prompt = env.reset(seed=0)[1]["prompt"]
    assert re.fullmatch(r"name\[.*\]\nText:", prompt)
    assert np.mean(oracle_scores(env)) > 0.8


def test_captions(shared_data):
    path = str(shared_data / "multi30k-de-en.{split}.jsonl.gz")
    env = gym.make("TextGen-Translate-v0", split="dev", prompts=path, max_prompt_tokens=200, max_new_tokens=200)
    assert re.fullmatch(r"German: .*\nEnglish:", env.reset(seed=0)[1]["prompt"])
    assert np.mean(oracle_scores(env)) == pytest.approx(1, abs=1e-4)
