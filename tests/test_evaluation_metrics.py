"""An evaluation reports the metrics of its task."""

from __future__ import annotations

import gymnasium as gym
import pytest
from agent_fixtures import tiny_ppo

from textgym.cli.tables import results
from textgym.core import Completion
from textgym.metrics import BLEU, TER
from textgym_agents.runs.evaluation import evaluate, held_out, setting_of

ENV = {"split": "dev", "max_new_tokens": 6}


@pytest.fixture(scope="module")
def translator():
    return tiny_ppo(gym.make_vec("TextGen-Translate-v0", num_envs=2, max_new_tokens=6))


def test_corpus_scores_of_the_task_are_reported(translator):
    setting = setting_of("TextGen-Translate-v0", **ENV)
    examples = held_out(setting, 12)
    measured = evaluate(translator, setting, examples=examples)
    assert list(measured.metrics) == [metric.name for metric in setting.task.metrics()]
    completions = [
        Completion(e.prompt, s.completion, e.references) for e, s in zip(examples, measured.samples, strict=True)
    ]
    assert measured.metrics["ter"] == TER().interval(completions)
    assert measured.metrics["bleu"] == BLEU().interval(completions)
    assert measured.to_json()["metrics"]["ter"] == list(measured.metrics["ter"])
    assert "ter, corpus" in [str(cell) for cell in results({"now": measured.to_json()}).columns[0].cells]


def test_metrics_without_what_they_compare_with_are_left_out(translator):
    setting = setting_of("TextGen-Translate-v0", prompts=["Der Hund"], reward="length", **ENV)
    assert evaluate(translator, setting).metrics == {}
