"""The report of a training run: its page and its picture."""

import base64
import copy
import hashlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textgym_agents.report import write_learning_curve, write_report
from textgym_agents.report.html import clean, embed, escape
from textgym_agents.report.numbers import bounds, show, smoothed, thinned, tick_labels, ticks
from textgym_agents.report.run import read_run

FILES = ["config.json", "progress.csv", "samples.jsonl", "evaluation.json", "episodes.json"]
NASTY = (
    "</script><script>alert(1)</script> <b>bold</b> \"double\" 'single' &amp; <!-- {{data}} \u2028 \x00 \ud83d $x \\1"
)
TOKEN = {
    "text": " fine",
    "probability": 0.5,
    "reference_probability": 0.25,
    "value": 0.1,
    "kl": 0.6931,
    "reward": 0.0,
    "advantage": -0.25,
}
MEASURES = {
    "episodes": 200,
    "reward": [0.125, 0.051, 0.212],
    "parts": {"sentiment": [0.33, 0.3, 0.36]},
    "kl": 0.0,
    "perplexity": 4.25,
    "distinct_1": 0.41,
    "distinct_2": 0.87,
    "length": 23.5,
}
AFTER = {**MEASURES, "reward": [0.875, 0.83, 0.91], "kl": 6.5, "distinct_2": 0.77}


def write_run(folder: Path, rows: int = 200) -> Path:
    """A run folder with everything in it."""
    rng = np.random.default_rng(0)
    config = {
        "env_id": "TextGen-Sentiment-v0",
        "algo": "ppo",
        "total_timesteps": rows * 1024,
        "seed": 7,
        "hyperparameters": {"n_envs": 64, "clip_range": 0.2, "policy_kwargs": {"freeze": 2}},
        "model": {"name": "bundled", "parameters": 2_271_360},
        "versions": {"torch": "2.13.0"},
        "command": "textgym train TextGen-Sentiment-v0 --algo ppo --seed 7",
    }
    names = [
        "time/total_timesteps",
        "rollout/ep_rew_mean",
        "rollout/kl",
        "rollout/ep_len_mean",
        "rollout/reward/grammar",
    ]
    names += [
        "train/entropy_loss",
        "train/value_loss",
        "train/policy_gradient_loss",
        "train/clip_range",
        "custom/thing",
    ]
    lines = [",".join(names)]
    for i in range(rows):
        train = [-1.5 + 0.001 * i, 1 / (i + 1), 0.01 * rng.normal(), 0.2] if i else ["", "", "", ""]
        cells = [(i + 1) * 1024, rng.random(), i / 30, 32, rng.random(), *train, rng.random()]
        lines.append(",".join(map(str, cells)))
    samples = [
        {"timesteps": t, "prompt": p, "completion": f" text {k} at {t}", "reward": k - 0.5, "parts": {"sentiment": 0.5}}
        for t in (0, 50_000, 100_000, rows * 1024)
        for k, p in enumerate(["The film", "I saw"])
    ]
    episode = {"prompt": "The film is", "tokens": [TOKEN] * 48, "return": 0.9, "finish_reason": "length"}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "progress.csv").write_text("\n".join(lines) + "\n")
    (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    (folder / "evaluation.json").write_text(json.dumps({"before": MEASURES, "after": AFTER}))
    (folder / "episodes.json").write_text(json.dumps([episode, copy.deepcopy(episode)]))
    return folder


class Page(HTMLParser):
    """What a browser would see: elements, texts, scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.scripts, self.texts = [], [], [], []
        self._script, self.html = False, html
        self.feed(html)
        self.text = "".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._script = tag == "script"
        if self._script:
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1][1] += data
        else:
            self.texts.append(data)

    def data(self):
        return next(json.loads(text) for attrs, text in self.scripts if attrs.get("id") == "data")


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


# ---- the page -------------------------------------------------------------------------------------------------------


def test_page_has_every_section(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert {v for t, n, v in page.attributes if t == "section" and n == "id"} == {
        "results",
        "curves",
        "samples",
        "episodes",
        "settings",
    }
    for text in (
        "TextGen-Sentiment-v0 · PPO",
        "2.27 million",
        "seed 7",
        "on 200 held-out prompts the mean reward went",
    ):
        assert text.lower() in page.text.lower()
    for text in ("0.051 to 0.21", "0.83 to 0.91", "0.88", "6.50", "0.87", "0.77", "4.25"):  # cards
        assert text in page.text
    for text in (" text 0 at 0", " text 1 at 204800", "reward −0.50", "reward 0.50", "After 204,800 tokens"):  # samples
        assert text in page.text
    for text in ("clip_range", "2.13.0", '{"freeze": 2}', "textgym train TextGen-Sentiment-v0 --algo ppo --seed 7"):
        assert text in page.text
    assert "The run folder has no" not in page.text


def test_every_quantity_of_the_log_gets_a_chart(run):
    page = page_of(run)
    charts = page.data()["charts"]
    assert [v for _, n, v in page.attributes if n == "data-chart"] == list(charts)
    assert set(charts) == {
        "rollout/ep_rew_mean",
        "rollout/kl",
        "rollout/ep_len_mean",
        "rollout/reward/grammar",
        "train/entropy_loss",
        "train/value_loss",
        "train/policy_gradient_loss",
        "custom/thing",  # unknown, under its own name; train/clip_range never changes
    }
    assert page.tags.count("svg") == len(charts)
    assert len(charts["rollout/kl"]["raw"]) == len(charts["rollout/kl"]["smooth"]) == 200
    assert len(charts["train/value_loss"]["t"]) == 199  # a cell is empty
    assert charts["train/entropy_loss"]["raw"][0] == pytest.approx(1.499)  # logged as its negative


def test_episodes_are_data(run):
    first, _ = page_of(run).data()["episodes"]
    assert first["prompt"] == "The film is" and first["total"] == 0.9 and first["finish"] == "length"
    for name in ("text", "probability", "reference_probability", "value", "kl", "reward", "advantage"):
        assert first[name] == [TOKEN[name]] * 48


def test_page_is_small(run):
    assert write_report(run).stat().st_size < 1_000_000


def test_long_runs_stay_small(tmp_path):
    run = write_run(tmp_path / "run", rows=20_000)
    episodes = [{"prompt": "p", "tokens": [TOKEN] * 900, "return": 1.0, "finish_reason": "stop"}] * 100
    (run / "episodes.json").write_text(json.dumps(episodes))
    path = write_report(run)
    assert path.stat().st_size < 1_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.data()["charts"]["rollout/kl"]["t"]) <= 400
    assert "Each point is the mean of 50 logged values." in page.text
    assert "The first 6 of 100 episodes are here" in page.text


def test_page_asks_the_network_for_nothing(run):
    html = write_report(run).read_text(encoding="utf-8")
    assert (
        "http:" not in html and "https:" not in html and "//" not in re.sub(r"^\s*//.*|\s// .*", "", html, flags=re.M)
    )
    page = Page(html)
    assert not {"iframe", "object", "embed", "img", "base"} & set(page.tags)
    links = [v for _, n, v in page.attributes if n in ("src", "href", "action", "data", "srcset")]
    assert links and all(v.startswith(("#", "data:")) for v in links)
    assert "url(" not in html and "@import" not in html


def test_policy_lets_only_our_script_run(run):
    page = page_of(run)
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    [script] = [text for attrs, text in page.scripts if attrs.get("type") is None]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_everything_is_escaped(run):
    config = json.loads((run / "config.json").read_text())
    config |= {"env_id": NASTY, "algo": NASTY, "command": NASTY, NASTY: {NASTY: NASTY}}
    config["model"]["name"] = config["hyperparameters"][NASTY] = config["versions"][NASTY] = NASTY
    (run / "config.json").write_text(json.dumps(config))
    sample = {"timesteps": 0, "prompt": NASTY, "completion": NASTY, "reward": 1.0, "parts": {NASTY: 1.0}}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (run / "evaluation.json").write_text(json.dumps({"before": {**MEASURES, "parts": {NASTY: [1, 1, 1]}}}))
    episode = {"prompt": NASTY, "tokens": [{**TOKEN, "text": NASTY}], "return": 1.0, "finish_reason": NASTY}
    (run / "episodes.json").write_text(json.dumps([episode]))
    rows = (run / "progress.csv").read_text()
    quoted = '"' + NASTY.replace('"', '""').replace("\u2028", "").replace("\ud83d", "").replace("\x00", "") + '"'
    (run / "progress.csv").write_text(rows.replace("custom/thing", quoted))
    page = page_of(run)
    assert "<b>bold" not in page.html and "<script>alert" not in page.html
    assert len([1 for attrs, _ in page.scripts if attrs.get("type") is None]) == 1
    assert not any("alert" in text for attrs, text in page.scripts if attrs.get("type") is None)
    shown = clean(NASTY)
    assert page.text.count(shown) >= 8
    data = page.data()
    assert data["episodes"][0]["prompt"] == data["episodes"][0]["text"][0] == data["episodes"][0]["finish"] == shown
    assert any("alert" in name for name in data["charts"])


def test_embedded_json_cannot_end_its_element():
    text = embed({"a<b": ["</script>", "<!--", "\u2028", "\ud83d", 1.5, None], "x": math.nan, "y": -math.inf})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a<b": ["</script>", "<!--", "\u2028", "\ufffd", 1.5, None], "x": None, "y": None}


def test_escape_keeps_what_can_be_shown():
    assert escape("a\tb\r\nc\x1b[0m \x00 é 日本 \"'<&>") == "a\tb\nc\ufffd[0m \ufffd é 日本 &quot;&#x27;&lt;&amp;&gt;"


# ---- what is missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_costs_its_section_only(run, name):
    whole = page_of(run).text
    (run / name).unlink()
    page = page_of(run)
    assert f"The run folder has no {name}, so" in page.text
    kept = {"samples.jsonl": "0.83 to 0.91"}.get(name, "text 0 at 0")
    assert kept in page.text and kept in whole


def test_an_empty_folder_gives_a_page(tmp_path):
    page = page_of(tmp_path)
    assert page.text.count("The run folder has no") == 6  # config.json is missed twice
    assert page.data() == {"charts": {}, "episodes": []}


def test_files_of_a_run_that_has_hardly_begun(run):
    for name in ("progress.csv", "samples.jsonl"):
        (run / name).write_text("")
    (run / "evaluation.json").write_text("{}")
    (run / "episodes.json").write_text("[]")
    page = page_of(run)
    for text in (
        "Nothing was logged yet",
        "No samples were written yet",
        "not evaluated yet",
        "No episode was recorded",
    ):
        assert text in page.text


def test_an_interrupted_run_has_no_results_after(run):
    (run / "evaluation.json").write_text(json.dumps({"before": {**MEASURES, "kl": None}}))
    rows = (run / "progress.csv").read_text().splitlines()
    (run / "progress.csv").write_text("\n".join([*rows[:50], rows[50][:9]]))  # killed while it wrote a line
    page = page_of(run)
    assert "stopped before the 204,800 tokens" in page.text and "trained the model bundled" in page.text
    assert "only the results before it" in page.text and "not measured" in page.text
    assert "Latest 204,800 tokens" in page.text
    assert len(read_run(run).progress.timesteps) == 49


def test_one_row_is_enough(tmp_path):
    run = write_run(tmp_path / "run", rows=1)
    assert page_of(run).data()["charts"]["rollout/kl"]["raw"] == [0]
    write_learning_curve(run)


def test_rows_of_one_time_belong_together(run):
    (run / "progress.csv").write_text(
        "time/total_timesteps,rollout/ep_rew_mean,eval/mean_reward,note\n20,2,,\n10,1,,\n10,,5,words\n20,nan,6,\n,9,9,\n"
    )
    progress = read_run(run).progress
    assert progress.timesteps == (10, 20)
    assert progress.columns == {"rollout/ep_rew_mean": [1, 2], "eval/mean_reward": [5, 6]}


def test_samples_after_training_replace_those_of_the_same_time(run):
    sample = {"timesteps": 0, "prompt": "p", "completion": "first", "reward": 0.0, "parts": {}}
    later = [{**sample, "timesteps": 9, "completion": text} for text in ("during", "last")]
    (run / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in [sample, *later]))
    page = page_of(run)
    assert "…first" in page.text and "…last" in page.text and "…during" not in page.text


# ---- what is malformed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "expected the file to be an object"),
        ("config.json", '{"env_id": 3}', "expected `env_id` to be a string, actual value: 3"),
        ("config.json", '{"model": "bundled"}', "expected `model` to be an object"),
        ("progress.csv", "a,b\n1,2\n", "header with the column time/total_timesteps"),
        (
            "progress.csv",
            "time/total_timesteps,rollout/kl\n1,2\n2,many\n",
            "expected `rollout/kl` in line 3 to be a number, actual value: 'many'",
        ),
        ("progress.csv", "time/total_timesteps,rollout/kl\n1,2,3\n", "line 2 to be at most 2 cells"),
        ("progress.csv", "time/total_timesteps\n-5\n", "line 2 to be a whole number"),
        ("samples.jsonl", '{"timesteps": 0', "line 1: not JSON"),
        (
            "samples.jsonl",
            '\n{"timesteps": 0, "prompt": "p", "completion": null, "reward": 1}\n',
            "expected `completion` in line 2 to be a string, actual value: None",
        ),
        (
            "samples.jsonl",
            '{"timesteps": 0.5, "prompt": "p", "completion": "c", "reward": 1}',
            "expected `timesteps` in line 1 to be a whole number, actual value: 0.5",
        ),
        (
            "samples.jsonl",
            '{"timesteps": 0, "prompt": "p", "completion": "c", "reward": true}',
            "expected `reward` in line 1 to be a number, actual value: True",
        ),
        ("evaluation.json", '{"after": {"reward": [1, 2]}}', "expected `after.reward` to be [mean, low, high]"),
        ("evaluation.json", '{"before": {"kl": "low"}}', "expected `before.kl` to be a number, actual value: 'low'"),
        ("episodes.json", "{}", "expected the file to be a list"),
        (
            "episodes.json",
            '[{"prompt": "p", "tokens": [{"text": "t"}], "return": 1}]',
            "expected `probability` of token 0 of episode 0 to be a number, actual value: None",
        ),
    ],
)
def test_a_malformed_file_is_named(run, name, content, says):
    (run / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        write_report(run)
    assert str(run / name) in str(error.value)
    assert not (run / "report.html").exists()


def test_a_file_that_is_not_text_is_named(run):
    (run / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"Could not read .*config\.json"):
        write_report(run)


@pytest.mark.parametrize("write", [write_report, write_learning_curve])
def test_no_folder(tmp_path, write):
    with pytest.raises(ValueError, match=r"Expected the folder of a training run, but .*nowhere"):
        write(tmp_path / "nowhere")


# ---- the picture ----------------------------------------------------------------------------------------------------


def test_learning_curve(run):
    path = write_learning_curve(run)
    assert path == run / "learning_curve.png"
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (1200, 900)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert 10_000 < path.stat().st_size < 500_000
    top, bottom = pixels[:450], pixels[450:]
    blue, orange = (43, 92, 184), (184, 86, 10)  # both curves are there, each in its panel
    assert _close(top, blue) > 500 > 0 == _close(top, orange)
    assert _close(bottom, orange) > 500 > 0 == _close(bottom, blue)


def _close(pixels, colour):
    return int((np.abs(pixels - colour).max(-1) < 10).sum())


def test_learning_curve_without_a_log(tmp_path):
    assert write_learning_curve(tmp_path).stat().st_size > 5_000


def test_learning_curve_of_a_malformed_log(run):
    (run / "progress.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"progress\.csv"):
        write_learning_curve(run)


def test_matplotlib_comes_late_and_without_a_display():
    code = "import sys, textgym_agents.report; assert 'matplotlib' not in sys.modules"
    code += "\nfrom pathlib import Path; import tempfile"
    code += "\ntextgym_agents.report.write_learning_curve(Path(tempfile.mkdtemp()))"
    code += "\nassert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (32.0, "32"),
        (-0.5, "−0.50"),
        (0.8764, "0.88"),
        (0.0123, "0.012"),
        (0.00123, "0.0012"),
        (0.000123, "0.00012"),
        (0.0000123, "1.2e−5"),
        (5.754, "5.75"),
        (57.54, "57.5"),
        (575.4, "575"),
        (12345.6, "12,346"),
    ],
)
def test_show(x, text):
    assert show(x) == text


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.21, 0.83, ["−0.2", "0.0", "0.2", "0.4", "0.6", "0.8"]),
        (0, 153_059, ["0", "50k", "100k", "150k"]),
        (0, 32.4, ["0", "5", "10", "15", "20", "25", "30"]),
        (0, 3.2e-6, ["0", "5.0e−7", "1.0e−6", "1.5e−6", "2.0e−6", "2.5e−6", "3.0e−6"]),
    ],
)
def test_ticks(low, high, labels):
    assert tick_labels(ticks(low, high, 5 if high > 1e5 else 7)) == labels


def test_bounds_have_air():
    assert bounds([1.0, 2.0], zero=False) == pytest.approx((0.94, 2.06))
    assert bounds([1.0, 2.0], zero=True) == pytest.approx((0.0, 2.12))
    for values in ([0.0], [5.0, 5.0], [-3.0]):
        for zero in (False, True):
            low, high = bounds(values, zero=zero)
            assert low <= min(values) and max(values) <= high and low < high


def test_smoothed_is_the_mean_of_neighbours():
    assert smoothed([1.0, 2.0, 6.0, 3.0], 1) == pytest.approx([1.5, 3.0, 11 / 3, 4.5])
    assert smoothed([1.0, 2.0], 0) == [1.0, 2.0]


def test_thinned_keeps_the_mean():
    points = [(i, float(i % 7)) for i in range(1000)]
    few = thinned(points, 100)
    assert len(few) == 100 and sum(v for _, v in few) / 100 == pytest.approx(sum(v for _, v in points) / 1000)
    assert thinned(points, 1000) == points
