"""The table of metrics."""

import json
import math

import numpy as np
import pytest

from textgym.core import Completion
from textgym.metrics import BLEU, ROUGE, MeanMetric, MetricError, MetricTable, evaluate
from textgym.rewards import Length, RewardError

COMPLETIONS = [
    Completion(f"prompt {i}", text, references, {"table": [["a", "film"]]}, tuple(range(len(text.split()))))
    for i, (text, references) in enumerate(
        [
            ("the film was good and the story long", ("the film was very good and the story long",)),
            ("a bad film", ("a good film", "a very good film")),
            ("the house is red", ("the house is red",)),
            ("", ("nothing at all",)),
            ("one two three four five", ("five four three two one",)),
        ]
    )
]


def test_rows_are_the_metrics_own_scores_and_intervals():
    table = evaluate(COMPLETIONS, ["bleu", ROUGE("rouge1"), "ter"], confidence=0.9, n_resamples=40, seed=3)
    assert isinstance(table, MetricTable) and len(table) == 3
    assert [row.name for row in table] == ["bleu", "rouge1", "ter"]
    for row, metric in zip(table, [BLEU(), ROUGE("rouge1")], strict=False):
        assert (row.score, row.low, row.high) == metric.interval(COMPLETIONS, 0.9, 40, 3)
        assert row.signature.split("|")[0] == row.name and row.n == 5
    assert table["bleu"].signature.startswith("bleu|nrefs:var|")
    assert table["bleu"].higher_is_better and not table["ter"].higher_is_better
    assert (table.confidence, table.n_resamples, table.seed) == (0.9, 40, 3)
    assert table == evaluate(COMPLETIONS, ["bleu", ROUGE("rouge1"), "ter"], confidence=0.9, n_resamples=40, seed=3)
    assert table != evaluate(COMPLETIONS, ["bleu", ROUGE("rouge1"), "ter"], confidence=0.9, n_resamples=40, seed=4)


def test_rewards_functions_and_weights_are_means():
    def words(text):
        return len(text.split())

    table = evaluate(COMPLETIONS, [words, {"rouge1": 2.0, "length": -1.0}, Length()], n_resamples=50)
    counts = [8, 3, 4, 0, 5]
    assert table["words"].score == pytest.approx(np.mean(counts))
    assert min(counts) <= table["words"].low < np.mean(counts) < table["words"].high <= max(counts)
    weighted = table.rows[1]
    assert weighted.name == "2 * rouge1 - length"
    assert weighted.score == pytest.approx(np.mean(2 * ROUGE("rouge1")(COMPLETIONS) - Length()(COMPLETIONS)), abs=1e-6)
    assert table["length"].score == pytest.approx(float(np.mean(Length()(COMPLETIONS))))
    assert table["words"].signature == "words|mean of rewards"


def test_duplicate_names_are_numbered():
    table = evaluate(COMPLETIONS, ["rougeL", ROUGE("rougeL", use_stemmer=True), "rougeL", "bleu"], n_resamples=5)
    assert [row.name for row in table] == ["rougeL", "rougeL_2", "rougeL_3", "bleu"]
    assert "stemmer:yes" in table["rougeL_2"].signature and "stemmer:no" in table["rougeL_3"].signature


def test_text_is_aligned():
    table = evaluate(COMPLETIONS, ["rougeLsum", "ter", lambda text: 1000.0 * len(text)], n_resamples=5)
    header, *lines = str(table).split("\n")
    assert header.split() == ["metric", "score", "0.95", "interval", "n", "better", "signature"]
    assert len(lines) == 3
    for line, row in zip(lines, table, strict=True):
        assert line.startswith(row.name) and f" {row.score:.4f}  " in line
        assert f"[{row.low:.4f}, {row.high:.4f}]" in line
        assert line.index(row.signature) == header.index("signature")  # columns stand one below the other
        assert line.index("higher" if row.higher_is_better else "lower") == header.index("better")
        assert line.index(f"{row.score:.4f}  ") + len(f"{row.score:.4f}") == header.index("score") + len("score")


def test_markdown():
    table = evaluate(COMPLETIONS, ["bleu", "ter"], confidence=0.5, n_resamples=5)
    lines = table.to_markdown().split("\n")
    assert lines[0] == "| metric | score | 0.5 interval | n | better | signature |"
    assert lines[1] == "| :-- | --: | --: | --: | :-- | :-- |"
    assert len(lines) == 4
    row = table["ter"]
    signature = row.signature.replace("|", "\\|")
    assert lines[3] == f"| ter | {row.score:.4f} | [{row.low:.4f}, {row.high:.4f}] | 5 | lower | {signature} |"


def test_json():
    table = evaluate(COMPLETIONS, ["bleu", "meteor"], n_resamples=5, seed=1)
    loaded = json.loads(table.to_json())
    assert (loaded["confidence"], loaded["n_resamples"], loaded["seed"]) == (0.95, 5, 1)
    for row, read in zip(table, loaded["rows"], strict=True):
        assert read == {
            "name": row.name,
            "score": row.score,
            "low": row.low,
            "high": row.high,
            "n": 5,
            "signature": row.signature,
            "higher_is_better": True,
        }


def test_json_of_a_score_that_is_not_finite():
    class Endless(MeanMetric):
        name = "endless"

        def each(self, completions):
            return [math.inf] * len(completions)

    with np.errstate(invalid="ignore"):
        table = evaluate(COMPLETIONS, [Endless()], n_resamples=5)
    assert json.loads(table.to_json())["rows"][0]["score"] is None
    assert "inf" in str(table)


def test_a_row_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"one of \['bleu'\].*'blue'"):
        evaluate(COMPLETIONS, ["bleu"], n_resamples=2)["blue"]


@pytest.mark.parametrize(
    ("completions", "metrics", "kwargs", "error", "message"),
    [
        ([], ["bleu"], {}, MetricError, "Expected `completions` to be at least one completion"),
        (
            ["a text"],
            ["bleu"],
            {},
            TypeError,
            r"Expected `completions\[0\]` to be a Completion, actual value: 'a text'",
        ),
        ("a text", ["bleu"], {}, TypeError, "Expected `completions` to be a sequence of completions"),
        (COMPLETIONS, "bleu", {}, ValueError, "Expected `metrics` to be a list of at least one metric.*'bleu'"),
        (COMPLETIONS, [], {}, ValueError, "Expected `metrics` to be a list of at least one metric"),
        (COMPLETIONS, ["bleu", "blue"], {}, ValueError, "one of .*'bleu'.*actual value: 'blue'"),
        (COMPLETIONS, [ROUGE], {}, TypeError, r"write ROUGE\(\)"),
        (COMPLETIONS, [3], {}, TypeError, "actual value: 3"),
        (COMPLETIONS, ["bleu"], {"confidence": 1}, ValueError, "Expected `confidence`"),
        (COMPLETIONS, ["bleu"], {"n_resamples": 0}, ValueError, "Expected `n_resamples`"),
        (COMPLETIONS, [lambda text: math.nan], {}, RewardError, "must return finite scores"),
        ([Completion("Hello", "a")], ["length", "rougeL"], {}, MetricError, "'rougeL' compares.*'Hello' has none"),
        ([Completion("Hi", "a", ("a",))], ["parent"], {}, MetricError, r"'parent'.*meta\['table'\].*prompt 'Hi'"),
    ],
)
def test_bad_input_is_named(completions, metrics, kwargs, error, message):
    with pytest.raises(error, match=message):
        evaluate(completions, metrics, **kwargs)
