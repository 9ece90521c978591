"""Reward models: what they read, that every objective learns, what is saved, and how they are measured."""

import gzip
import itertools
import json
import math
from pathlib import Path

import agent_fixtures  # noqa: F401  (one thread)
import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fixtures import EOS, VOCAB, tiny_gpt2
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, GPT2Config, T5Config

from textgym import Completion
from textgym.cli import main
from textgym.rewards import RewardModel, Sentiment
from textgym_agents.models.loading import ModelError
from textgym_agents.reward_models import (
    DataError,
    RewardModelTrainer,
    TrainingError,
    evaluate_reward_model,
    read_judgements,
)
from textgym_agents.reward_models.evaluation import evaluate_scores, pearson, spearman

GOOD, BAD, OTHER = (
    "good fine great lovely".split(),
    "bad poor awful dull".split(),
    "the a film plot actor scene".split(),
)


def review(rng):
    """A text and how many of its words are good, less how many are bad."""
    good, bad = rng.integers(0, 4, size=2)
    words = [*rng.choice(GOOD, good), *rng.choice(BAD, bad), *rng.choice(OTHER, 3)]
    return " ".join(rng.permutation(words)), float(good - bad)


def reviews(n, seed=0):
    rng = np.random.default_rng(seed)
    return [dict(zip(("text", "rating"), review(rng), strict=True)) for _ in range(n)]


def rankings(n, k, seed=0):
    found = []
    for rated in np.array(reviews(n * k, seed)).reshape(n, k):
        values = [record["rating"] for record in rated]
        ranks = [1 + sum(other > value for other in values) for value in values]
        found.append({"prompt": "My view: ", "completions": [record["text"] for record in rated], "ranks": ranks})
    return found


def comparisons(n, seed=0):
    pairs = []
    for record in rankings(2 * n, 2, seed):
        if record["ranks"] != [1, 1]:
            better = record["ranks"].index(1)
            texts = record["completions"]
            pairs.append({"prompt": "My view: ", "chosen": texts[better], "rejected": texts[1 - better]})
    return pairs[:n]


def bert(**changes):
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(**{"vocab_size": VOCAB, "max_position_embeddings": 64, **settings, **off, **changes})


def gpt2():
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    special = {"bos_token_id": EOS, "eos_token_id": EOS}
    return GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=2, n_positions=64, **off, **special)


def trainer_of(train, dev=None, model=None, **options):
    settings = {"tokenizer": "bundled", "learning_rate": 1e-2, "num_train_epochs": 3, "device": "cpu", **options}
    return RewardModelTrainer(bert() if model is None else model, train, dev, **settings)


def rewards_of(folder, texts, **options):
    return RewardModel(folder, device="cpu", **options)([Completion("", text) for text in texts])


TRAIN, DEV = reviews(240), reviews(80, seed=1)
TEXTS = [record["text"] for record in DEV]

# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["regression", "classification", "bradley-terry", "plackett-luce", "margin"])
def test_every_objective_learns_from_scores_and_is_an_environments_reward(objective, tmp_path):
    model = bert() if objective != "plackett-luce" else gpt2()
    trainer = trainer_of(TRAIN, DEV, model, objective=objective)
    before = spearman(trainer.score(TEXTS), np.array([record["rating"] for record in DEV]))
    history = trainer.train()
    assert history[-1]["loss"] < history[0]["loss"]
    assert max(entry["eval_spearman"] for entry in history) > max(0.75, before + 0.3)
    assert history[trainer.best_epoch - 1]["eval_spearman"] == max(entry["eval_spearman"] for entry in history)
    assert trainer.evaluate(DEV, 10).spearman[0] == pytest.approx(history[trainer.best_epoch - 1]["eval_spearman"])
    trainer.save(tmp_path)
    np.testing.assert_allclose(rewards_of(tmp_path, TEXTS), trainer.score(TEXTS), atol=1e-5)
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pt"))
    assert json.loads((tmp_path / "reward_training.json").read_text())["objective"] == objective
    env = gym.make("TextGen-Sentiment-v0", reward=RewardModel(tmp_path, device="cpu"), max_new_tokens=1)
    env.reset(seed=0)
    assert math.isfinite(env.step(EOS)[1])


@pytest.mark.parametrize(
    ("train", "dev", "objective"),
    [
        (comparisons(150), comparisons(60, 1), "bradley-terry"),
        (rankings(60, 4), rankings(30, 4, 1), "plackett-luce"),
        (rankings(60, 4), comparisons(60, 1), "bradley-terry"),
    ],
)
def test_comparisons_and_rankings(train, dev, objective):
    trainer = trainer_of(train, dev, objective=None if train[0].keys() == dev[0].keys() else objective)
    assert trainer.settings.objective == objective
    assert max(entry["eval_pairwise_accuracy"] for entry in trainer.train()) > 0.85
    assert trainer.evaluate(dev, 10).spearman is None


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_ratings_of_any_scale(scale, tmp_path):
    """Ratings are standardised within; scores, and what is saved, have their units."""
    train = [{**record, "rating": 50 * scale + scale * record["rating"]} for record in TRAIN]
    trainer = trainer_of(train, objective="regression")
    assert 45 * scale < trainer.score(TEXTS).mean() < 55 * scale  # before anything is learnt
    trainer.train()
    trainer.save(tmp_path)
    wanted = np.array([50 * scale + scale * record["rating"] for record in DEV])
    assert np.corrcoef(trainer.score(TEXTS), wanted)[0, 1] > 0.7
    assert abs((trainer.score(TEXTS) - wanted).mean()) < scale
    np.testing.assert_allclose(rewards_of(tmp_path, TEXTS), trainer.score(TEXTS), rtol=1e-5)


def test_votes_are_classes_and_the_score_is_the_expected_one(tmp_path):
    train = [{"text": "good", "ratings": [1, 1, 1, -2]}, {"text": "bad", "ratings": [-2, -2, -2, 0.5]}] * 16
    trainer = trainer_of(train, objective="classification", num_train_epochs=20, batch_size=8)
    trainer.train()
    trainer.save(tmp_path)
    assert RewardModel(tmp_path).range == (-2.0, 1.0)
    np.testing.assert_allclose(rewards_of(tmp_path, ["good", "bad"]), [0.25, -1.375], atol=0.1)
    np.testing.assert_allclose(rewards_of(tmp_path, ["good", "bad"], label="1"), [0.75, 0.0], atol=0.05)
    with pytest.raises(ValueError, match="several labels, all of them numbers"):
        RewardModel(tmp_path, label="1", activation="expected")


def test_same_seed_same_bits():
    one, two, other = (
        trainer_of(TRAIN[:64], num_train_epochs=1, model=bert(hidden_dropout_prob=0.2), seed=s) for s in (3, 3, 4)
    )
    state = torch.get_rng_state()
    one.train()
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers change
    torch.rand(3)
    two.train()
    other.train()
    weights = [trainer.model.state_dict() for trainer in (one, two, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_early_stopping_keeps_the_best():
    trainer = trainer_of(TRAIN[:64], DEV, num_train_epochs=30, early_stopping_patience=2, metric_for_best_model="mse")
    history = trainer.train()
    assert len(history) == trainer.best_epoch + 2 < 30
    assert trainer.evaluate(DEV, 1).mse[0] == pytest.approx(min(entry["eval_mse"] for entry in history), rel=1e-4)


def test_goes_on_from_a_saved_model(tmp_path):
    first = trainer_of(TRAIN, objective="regression")
    first.train()
    first.save(tmp_path)
    again = trainer_of(TRAIN, model=tmp_path, tokenizer=None, learning_rate=1e-9, num_train_epochs=1)
    np.testing.assert_allclose(again.score(TEXTS), first.score(TEXTS), atol=1e-5)
    reward = RewardModel(tmp_path, device="cpu")
    again.train()  # next to nothing, but through the standardised ratings and back
    np.testing.assert_allclose(again.score(TEXTS), first.score(TEXTS), atol=1e-3)
    other = trainer_of(TRAIN[:32], model=tmp_path, tokenizer=None)
    other.train()
    other.save(tmp_path)
    np.testing.assert_allclose(rewards_of(tmp_path, TEXTS), other.score(TEXTS), atol=1e-5)
    np.testing.assert_allclose(
        reward([Completion("", t) for t in TEXTS]), first.score(TEXTS), atol=1e-5
    )  # not that one


# ---- models ----------------------------------------------------------------------------------------------------------


def test_native_heads_need_only_transformers(tmp_path):
    for name, model, pooling in (("bert", bert(), "native"), ("gpt2", gpt2(), None), ("mine", tiny_gpt2(), None)):
        trainer = trainer_of(TRAIN[:64], model=model, pooling=pooling, num_train_epochs=1, learning_rate=1e-3)
        trainer.train()
        trainer.save(tmp_path / name)
        network, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"]
        inputs = trainer.tokenizer(TEXTS[0], return_tensors="pt")
        with torch.no_grad():
            logits = network(input_ids=inputs["input_ids"]).logits
        assert float(logits) == pytest.approx(trainer.score(TEXTS[:1])[0], abs=1e-4)


def test_a_given_encoder_is_trained_with_the_mean_over_tokens(tmp_path):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(bert())
    encoder.save_pretrained(tmp_path)
    trainer = trainer_of(TRAIN, model=tmp_path, objective="bradley-terry")
    short, long = "good", "bad film the plot"
    states = [
        encoder(**trainer.tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in (short, long)
    ]
    layer = trainer.model.classifier
    np.testing.assert_allclose(
        trainer.score([short, long]), [layer(state).item() for state in states], atol=1e-5
    )  # padding does not matter


def test_long_texts_keep_their_end():
    trainer = trainer_of(TRAIN[:32], max_length=6)
    ends = [f"{start} a scene of the film was very, very good" for start in ("good film the plot " * 9, "bad " * 20)]
    scores = trainer.score(ends)
    assert scores[0] == pytest.approx(scores[1], abs=1e-5) and len(trainer._scorer.encode(ends)[0]["input_ids"]) == 6


# ---- bad input -------------------------------------------------------------------------------------------------------

FINE = {"text": "a", "rating": 1}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([FINE, "text"], "record 2: Expected `record` to be a mapping"),
        ([FINE, {"words": "a"}], "record 2: Expected `record`.*'chosen' with 'rejected'"),
        ([{"text": 3, "rating": 1}], "record 1: Expected `text` to be a text, actual value: 3"),
        ([FINE, {"text": "b", "rating": "4"}], "record 2: Expected `rating` to be a finite number, actual value: '4'"),
        ([{"text": "b", "rating": float("nan")}], "record 1: Expected `rating`.*nan"),
        ([{"text": "b"}], "record 1: Expected `rating`.*or `ratings` a list"),
        ([{"text": "b", "ratings": [1, None]}], "record 1: Expected `ratings`.*None"),
        ([{"text": "b", "ratings": []}], "record 1: Expected `ratings` to be a list"),
        ([{"chosen": "b"}], "record 1: Expected `rejected` to be a text, actual value: None"),
        ([{"prompt": 1, "chosen": "b", "rejected": "c"}], "record 1: Expected `prompt` to be a text"),
        ([{"completions": ["a"], "ranks": [1]}], "record 1: Expected `completions` to be a list of at least two"),
        ([{"completions": ["a", "b"]}], "record 1: Expected `ranks`.*or `ratings`"),
        ([{"completions": ["a", "b"], "ranks": [1]}], "record 1: Expected `ranks` to be 2 numbers"),
        (
            [FINE, {"chosen": "b", "rejected": "c"}],
            "record 2: expected scores, as in train_dataset, record 1, actual: comp",
        ),
        ([], "at least one record"),
        ([{"completions": ["a", "b"], "ranks": [1, 1]}], "a text is better than another"),
        (3, "a JSON Lines file or a list"),
        (
            "nowhere.jsonl",
            "Expected `train_dataset` to be the path of a JSON Lines file, but there is no file 'nowhere.jsonl'",
        ),
    ],
)
def test_bad_records(records, message):
    with pytest.raises(DataError, match=message):
        trainer_of(records)


def test_bad_files(tmp_path):
    path = tmp_path / "ratings.jsonl"
    path.write_text('{"text": "a", "rating": 1}\n{"text": \n')
    with pytest.raises(DataError, match=r"Line 2 of '.*ratings.jsonl' is not JSON"):
        trainer_of(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="is not UTF-8"):
        trainer_of(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "ranking"}, "`objective`.*'regression'"),
        ({"pooling": "max"}, "`pooling`"),
        ({"learning_rate": 0}, "`learning_rate`"),
        ({"num_train_epochs": 0}, "`num_train_epochs`"),
        ({"batch_size": 1.5}, "`batch_size`"),
        ({"group_size": 1}, "`group_size`"),
        ({"warmup_ratio": 1}, "`warmup_ratio`"),
        ({"weight_decay": -1}, "`weight_decay`"),
        ({"max_length": 1}, "`max_length`"),
        ({"margin": 0}, "`margin`"),
        ({"seed": -1}, "`seed`"),
        ({"metric_for_best_model": "loss"}, "`metric_for_best_model`.*'spearman'"),
        ({"early_stopping_patience": 1}, "`early_stopping_patience`.*eval_dataset"),
        ({"tokenizer": None}, "`tokenizer`"),
        ({"tokenizer": "/nowhere"}, "Could not load the tokenizer"),
        ({"model": "/nowhere"}, "Could not load the model '/nowhere'"),
        ({"model": T5Config(vocab_size=VOCAB, d_model=8, d_ff=8, num_layers=1, num_heads=1)}, "an encoder or a causal"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(TRAIN, **options)


def test_data_that_do_not_fit_the_objective():
    with pytest.raises(DataError, match=r"record 1: expected ratings.*'regression'.*comparisons"):
        trainer_of(comparisons(4), objective="regression")
    with pytest.raises(DataError, match=r"2 to 32 different values.*actual: 40"):
        trainer_of([{"text": "a", "rating": i / 7} for i in range(40)], objective="classification")
    with pytest.raises(ValueError, match="'pairwise_accuracy': the eval_dataset has no ratings"):
        trainer_of(TRAIN, comparisons(4), metric_for_best_model="spearman")
    with pytest.raises(TypeError, match="`model`"):
        trainer_of(TRAIN, model=3)
    with pytest.raises(ModelError):
        trainer_of(TRAIN, model=Path("/nowhere"))


def test_a_loss_that_is_not_finite_says_where():
    trainer = trainer_of(TRAIN[:64], num_train_epochs=2)
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"nan at step 1 \(epoch 1, batch 1 of 2, of the texts '.+learning_rate"):
        trainer.train()


def test_reads_files_and_what_textgym_rate_writes(tmp_path):
    path = tmp_path / "ratings.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("\n".join(json.dumps(record) for record in TRAIN))
    assert [item.texts[0] for item in read_judgements(path)] == [record["text"] for record in TRAIN]
    (score,) = read_judgements([{"prompt": "p", "completion": " c", "score": 4, "scale": [1, 5]}])
    assert score.texts == ("p c",) and score.values == (4.0,)
    pair, *more = read_judgements([{"prompt": "p", "completions": [" c", " d"], "chosen": " d", "rejected": " c"},
                                   {"prompt": "p", "completions": [" c", " d"], "better": None}])  # fmt: skip
    assert pair.texts == ("p d", "p c") and not more  # a tie says nothing
    (ranking,) = read_judgements([{"prompt": "", "completions": ["c", "d", "e"], "ranks": [2, 1, 3]}])
    assert np.argsort(ranking.values).tolist() == [2, 0, 1]


# ---- evaluation ------------------------------------------------------------------------------------------------------


def test_correlations():
    x, y = np.array([1.0, 2, 2, 5]), np.array([3.0, 1, 4, 9])
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert spearman(x, y) == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [2, 1, 3, 4])[0, 1])  # ties share their ranks
    assert spearman(x, np.ones(4)) == 0


def test_numbers_of_ratings_are_the_loops():
    rng = np.random.default_rng(0)
    ratings = rng.integers(-2, 3, 40).astype(float)
    scores = np.round(ratings + rng.normal(size=40), 1)
    found = evaluate_scores(read_judgements([{"text": "a", "rating": r} for r in ratings]), scores, 200)
    right, bins = [], [[] for _ in range(10)]
    for i, j in itertools.combinations(range(40), 2):
        if ratings[i] != ratings[j]:
            difference = (scores[i] - scores[j]) * np.sign(ratings[i] - ratings[j])
            right.append((np.sign(difference) + 1) / 2)
            sure = 1 / (1 + math.exp(-abs(difference)))
            bins[min(int(sure * 10), 9)].append(sure - right[-1])
    assert found.pairwise_accuracy[0] == pytest.approx(np.mean(right))
    assert found.pairwise_ece[0] == pytest.approx(sum(abs(sum(gaps)) for gaps in bins) / len(right))
    assert found.mse[0] == pytest.approx(np.mean((scores - ratings) ** 2))
    slope, intercept = np.polyfit(scores, ratings, 1)
    assert (found.calibration_slope[0], found.calibration_intercept[0]) == pytest.approx((slope, intercept))
    for name in found.names():
        value, low, high = getattr(found, name)
        assert low < high and (low <= value <= high or name == "pairwise_ece"), name
    assert "spearman" in found.table() and found.n == 40
    json.dumps(found.to_json(), allow_nan=False)


def test_pairs_of_rankings_are_those_within_a_record():
    judged = read_judgements(
        [{"completions": ["a", "b", "c"], "ranks": [1, 2, 2]}, {"completions": ["d", "e"], "ranks": [2, 1]}]
    )
    found = evaluate_scores(judged, [3.0, 1.0, 3.0, 0.0, 5.0], 50)
    assert found.pairwise_accuracy[0] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found.spearman is None and found.names() == ["pairwise_accuracy", "pairwise_ece"]


def test_many_records_are_a_sample_of_pairs():
    ratings = np.random.default_rng(0).normal(size=2500)
    found = evaluate_scores(read_judgements([{"text": "a", "rating": r} for r in ratings]), ratings, 5)
    assert found.pairwise_accuracy[:2] == (1.0, 1.0) and found.n == 2500


def test_any_reward_can_be_measured():
    found = evaluate_reward_model(Sentiment(), DEV, 20)
    assert found.spearman[1] > 0.5
    with pytest.raises(ValueError, match="80 finite numbers"):
        evaluate_scores(read_judgements(DEV), np.zeros(3))


# ---- command line ----------------------------------------------------------------------------------------------------


def run_cli(*argv):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    return stop.value.code or 0


def test_trains_and_measures_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "dumb")
    for name, records in (("train", comparisons(40)), ("dev", comparisons(20, 1))):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    tiny_gpt2().save_pretrained(tmp_path / "tiny")
    files = ["--data", tmp_path / "train.jsonl", "--eval-data", tmp_path / "dev.jsonl", "--model", tmp_path / "tiny"]
    settings = ["--set", "num_train_epochs=2", "--set", 'tokenizer="bundled"', "--device", "cpu"]
    assert run_cli("reward-model", "train", *files, *settings, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "epoch 2: loss" in shown and "pairwise_accuracy" in shown and "is kept" in shown
    assert (
        run_cli(
            "reward-model", "eval", tmp_path / "out", "--data", tmp_path / "dev.jsonl", "--json", tmp_path / "r.json"
        )
        == 0
    )
    assert 0 <= json.loads((tmp_path / "r.json").read_text())["pairwise_accuracy"][0] <= 1
    capsys.readouterr()
    for wrong, message in (
        (["--out", tmp_path / "out"], "new or empty folder"),
        (["--out", tmp_path / "new", "--set", "lr=1"], "learning_rate"),
        (["--out", tmp_path / "new", "--set", "margin"], "KEY=VALUE"),
        (["--out", tmp_path / "new", "--objective", "regression"], "record 1: expected ratings"),
    ):
        assert run_cli("reward-model", "train", *files, "--set", 'tokenizer="bundled"', *wrong) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
