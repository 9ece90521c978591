"""The parts of the page, each a function from a run to HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from textgym_agents.report.charts import draw, points_per_mean
from textgym_agents.report.html import escape
from textgym_agents.report.numbers import bounds, show
from textgym_agents.report.quantities import quantities
from textgym_agents.report.run import Episode, Interval, Measures, Run, Sample

_MOST_PROMPTS = 12
_MOST_TIMES = 12
_MOST_TOKENS = 6000  # of all episodes together


def title(run: Run) -> str:
    """What was trained on what."""
    env_id, algo = run.config.get("env_id") or "A training run", run.config.get("algo")
    return f"{env_id} · {algo.upper()}" if algo else str(env_id)


def lead(run: Run) -> str:
    """The run in two sentences."""
    config, model = run.config, run.config.get("model") or {}
    if not config:
        return f'<p class="lead">{_absent("config.json", "what was trained is not known")}</p>'
    size = model.get("parameters")
    trained = run.progress.timesteps[-1] if run.progress.timesteps else 0
    planned = config.get("total_timesteps")
    sentences = (
        f"A language model learned by reinforcement learning: {escape(str(config.get('algo', '')).upper())} trained "
    )
    sentences += f"the model <b>{escape(model['name'])}</b>" if "name" in model else "a model"
    sentences += f" ({_size(size)} parameters)" if isinstance(size, int) else ""
    sentences += f" for <b>{trained:,}</b> tokens" if trained else ""
    sentences += f" on <b>{escape(config.get('env_id', ''))}</b>"
    sentences += f", seed {escape(config['seed'])}" if "seed" in config else ""
    sentences += "."
    if run.before and run.before.reward and run.after and run.after.reward:
        (old, old_low, old_high), (new, low, high) = run.before.reward, run.after.reward
        many = f"{run.after.episodes:,} held-out prompts" if run.after.episodes else "held-out prompts"
        sentences += f" On {many} the mean reward went from <b>{show(old)}</b> to <b>{show(new)}</b>"
        overlap = low <= old_high and old_low <= high
        sentences += "; the intervals overlap, so that some of the change may be chance." if overlap else "."
    elif run.before is not None and isinstance(planned, int) and trained < planned:
        sentences += f" It was stopped before the {planned:,} tokens that were planned, so that there are no results after training yet."
    return f'<p class="lead">{sentences}</p>'


# ---- results --------------------------------------------------------------------------------------------------------


def results(run: Run) -> str:
    """The key numbers, before and after."""
    before, after = run.before, run.after
    if "evaluation.json" in run.missing:
        return _absent("evaluation.json", "there are no results on held-out prompts")
    if before is None and after is None:
        return '<p class="absent">The run was not evaluated yet.</p>'
    note = (
        "" if after else '<p class="absent">Training has not ended, so that there are only the results before it.</p>'
    )
    cards = [
        _interval_card(
            "Reward", "per episode, with 95% interval", "The mean over held-out prompts.", before, after, "reward"
        )
    ]
    if (before and before.success) or (after and after.success):
        text = "Share of held-out prompts that were solved."
        cards.append(_interval_card("Success", "share, with 95% interval", text, before, after, "success"))
    cards += [
        _card(
            "KL",
            "nats per episode",
            "Distance from the model that training started from: the price of the reward.",
            before.kl if before else None,
            after.kl if after else None,
        ),
        _card(
            "Distinct-2",
            "share of word pairs",
            "Variety: different word pairs out of all. A collapse to one phrase gives nearly 0.",
            before.distinct_2 if before else None,
            after.distinct_2 if after else None,
        ),
        _card(
            "Perplexity",
            "under the first model",
            "How unusual the first model finds the texts. Low is fluent, very low is monotonous.",
            before.perplexity if before else None,
            after.perplexity if after else None,
        ),
    ]
    return f'{note}<div class="cards">{"".join(cards)}</div>{_other_results(before, after)}'


def _card(
    name: str, unit: str, text: str, before: float | None, after: float | None, extra: str = "", kind: str = ""
) -> str:
    if before is None and after is None:
        numbers = '<span class="old">not measured</span>'
    elif before is None or after is None:
        only, when = (after, "after") if before is None else (before, "before")
        numbers = f'<span class="new">{show(only)}</span> <span class="old">{when}</span>'
    else:
        numbers = (
            f'<span class="old"><span class="sr">before </span>{show(before)}</span><span class="arrow" aria-hidden="true">→</span>'
            f'<span class="new"><span class="sr">after </span>{show(after)}</span>'
        )
    return (
        f'<div class="card{kind}"><h3>{name} <span>{unit}</span></h3><p class="numbers">{numbers}</p>{extra}'
        f'<p class="note">{text}</p></div>'
    )


def _interval_card(name: str, unit: str, text: str, before: Measures | None, after: Measures | None, key: str) -> str:
    intervals: list[tuple[str, Interval]] = []
    for label, measures in (("before", before), ("after", after)):
        interval = getattr(measures, key, None)
        if interval is not None and all(map(math.isfinite, interval)):
            intervals.append((label, interval))
    rows = ""
    if intervals:
        low, high = bounds([x for _, interval in intervals for x in interval], zero=False)

        def place(x: float) -> str:
            return f"{100 * (x - low) / (high - low):.2f}%"

        rows = "".join(
            f'<div class="range {label}"><span>{label}</span><span class="track">'
            f'<i class="span" style="left:{place(lo)};right:calc(100% - {place(hi)})"></i>'
            f'<i class="mean" style="left:{place(mean)}"></i></span><span>{show(lo)} to {show(hi)}</span></div>'
            for label, (mean, lo, hi) in intervals
        )
        rows = f'<div class="ranges">{rows}</div>'
    means = {label: interval[0] for label, interval in intervals}
    return _card(name, unit, text, means.get("before"), means.get("after"), rows, " first")


def _other_results(before: Measures | None, after: Measures | None) -> str:
    def cell(value: Interval | float | None) -> str:
        if isinstance(value, tuple):
            mean, low, high = value
            return f'<td>{show(mean)} <span class="faint">{show(low)} to {show(high)}</span></td>'
        return f"<td>{show(value)}</td>"

    names = list(dict.fromkeys([*(before.parts if before else ()), *(after.parts if after else ())]))
    rows: list[tuple[str, Any, Any]] = [
        (f"Reward part: {n}", before.parts.get(n) if before else None, after.parts.get(n) if after else None)
        for n in names
    ]
    rows += [
        ("Length, tokens", before and before.length, after and after.length),
        ("Distinct-1, share of words", before and before.distinct_1, after and after.distinct_1),
        ("Held-out prompts", before and before.episodes, after and after.episodes),
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{cell(old)}{cell(new)}</tr>'
        for name, old, new in rows
        if old is not None or new is not None
    )
    return (
        '<div class="scroll"><table class="plain"><thead><tr><th scope="col">Also measured</th><th scope="col">before</th>'
        f'<th scope="col">after</th></tr></thead><tbody>{body}</tbody></table></div>'
        if body
        else ""
    )


# ---- curves ---------------------------------------------------------------------------------------------------------


def curves(run: Run) -> tuple[str, dict[str, Any]]:
    """Learning curves, and what their read-outs need."""
    if "progress.csv" in run.missing:
        return _absent("progress.csv", "there are no learning curves"), {}
    shown = quantities(run.progress) if run.progress.timesteps else []
    if not shown:
        return '<p class="absent">Nothing was logged yet, so that there are no learning curves.</p>', {}
    data, main, more = {}, "", ""
    for quantity in shown:
        html, data[quantity.column] = draw(quantity, run.progress, run.before, run.after, run.best)
        if quantity.main or quantity.column.startswith("rollout/reward/"):
            main += html
        else:
            more += html
    k = points_per_mean(run.progress)
    hint = "Point at a curve, or use the arrow keys on it, to read all of them at the same moment."
    if k > 1:
        hint += f" Each point is the mean of {k} logged values."
    html = f'<p class="hint">{hint}</p><div class="charts">{main}</div>'
    if more:
        html += f'<details class="more"><summary>More from the log</summary><div class="charts">{more}</div></details>'
    return html, data


# ---- samples --------------------------------------------------------------------------------------------------------


def samples(run: Run) -> str:
    """The same prompts before, during and after training, side by side."""
    if "samples.jsonl" in run.missing:
        return _absent("samples.jsonl", "there are no samples")
    if not run.samples:
        return '<p class="absent">No samples were written yet.</p>'
    rows = _by_prompt(run.samples)
    times = sorted({s.timesteps for s in run.samples})
    if run.after is not None and run.best in times:  # the result comes last, wherever it was found
        times = [t for t in times if t != run.best] + [run.best]
    inner = _spread(times[1:-1], _MOST_TIMES)
    middle = len(inner) // 2
    low, high = _range([s.reward for s in run.samples])
    first = "Before" if times[0] == 0 else "First"
    last = "Latest" if run.after is None and "evaluation.json" not in run.missing else "After"
    columns = [(times[0], first, "")]
    columns += [(t, "During", "" if i == middle else " hidden") for i, t in enumerate(inner)]
    columns += [(times[-1], last, "")] if len(times) > 1 else []

    def head(t: int, name: str) -> str:
        return f'{name} <span class="faint">{_after(t)}</span>'

    body = ""
    for prompt, by_time in rows[:_MOST_PROMPTS]:
        cells = "".join(
            f'<td{hidden}{f" data-during={inner.index(t)}" if name == "During" else ""}><p class="when">{head(t, name)}</p>'
            f"{_sample(by_time.get(t), low, high)}</td>"
            for t, name, hidden in columns
        )
        width = min(3, len(times))
        body += (
            f'<tbody><tr><th colspan="{width}" scope="rowgroup" class="prompt" dir="auto">{escape(prompt)}</th></tr>'
        )
        body += f"<tr>{cells}</tr></tbody>"
    heads = "".join(
        f'<th scope="col"{hidden}{f" data-during={inner.index(t)}" if name == "During" else ""}>{head(t, name)}</th>'
        for t, name, hidden in columns
    )
    slider = ""
    if len(inner) > 1:
        slider = (
            f'<p class="slider"><label for="during">Show during training</label> <input type="range" id="during" min="0" '
            f'max="{len(inner) - 1}" value="{middle}"> <output for="during">{_after(inner[middle])}</output></p>'
            f'<script type="application/json" id="during-times">{json.dumps([_after(t) for t in inner])}</script>'
        )
    notes = "The policy continues the same held-out prompts, after more and more tokens of training."
    if len(rows) > _MOST_PROMPTS:
        notes += f" The first {_MOST_PROMPTS} of {len(rows)} prompts are shown; samples.jsonl has all."
    return f'<p class="hint">{notes}</p>{slider}<table class="samples"><thead><tr>{heads}</tr></thead>{body}</table>'


def _by_prompt(found: Sequence[Sample]) -> list[tuple[str, dict[int, Sample]]]:
    """One row for each prompt, or several where a prompt was sampled several times at once."""
    at: dict[str, dict[int, list[Sample]]] = {}
    for s in found:
        at.setdefault(s.prompt, {}).setdefault(s.timesteps, []).append(s)
    rows = []
    for prompt, times in at.items():
        # The last samples of training and those after it can be of the same time: then the newest count.
        n = min(len(v) for v in times.values())
        rows += [(prompt, {t: v[len(v) - n + k] for t, v in times.items()}) for k in range(n)]
    return rows


def _sample(s: Sample | None, low: float, high: float) -> str:
    if s is None:
        return '<p class="absent">none</p>'
    text = escape(s.completion) if s.completion else '<span class="faint">(empty)</span>'
    parts = " · ".join(f"{escape(name)} {show(v)}" for name, v in s.parts.items())
    # Around 0 where rewards have both signs, otherwise from the lowest to the highest.
    if low < 0 < high:
        side, strength = ("neg" if s.reward < 0 else "pos"), abs(s.reward) / max(-low, high)
    else:
        side, strength = "pos", (s.reward - low) / ((high - low) or 1.0)
    strength = strength if math.isfinite(strength) else 0.0
    return (
        f'<div class="completion" dir="auto"><span class="faint" aria-hidden="true">…</span>{text}</div><p class="score"><span class="chip {side}" '
        f'style="--a:{min(max(strength, 0.0), 1.0):.2f}">reward {show(s.reward)}</span> <span class="faint">{parts}</span></p>'
    )


def _spread(items: list[int], most: int) -> list[int]:
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    return min(finite), max(finite)


# ---- episodes -------------------------------------------------------------------------------------------------------


def episodes(run: Run) -> tuple[str, list[dict[str, Any]]]:
    """One episode token by token, and the episodes as data."""
    if "episodes.json" in run.missing:
        return _absent("episodes.json", "no episode can be shown token by token"), []
    kept: list[Episode] = []
    for episode in run.episodes:
        if kept and sum(len(e.tokens) for e in (*kept, episode)) > _MOST_TOKENS:
            break
        kept.append(episode)
    if not kept:
        return '<p class="absent">No episode was recorded.</p>', []
    options = "".join(
        f'<option value="{i}">{i + 1} · return {show(e.total)} · {escape(_clipped(e.prompt, 48))}</option>'
        for i, e in enumerate(kept)
    )
    fewer = (
        f" The first {len(kept)} of {len(run.episodes)} episodes are here; episodes.json has all."
        if len(kept) < len(run.episodes)
        else ""
    )
    choices = "".join(
        f'<label><input type="radio" name="colour" value="{value}"{" checked" if value == "advantage" else ""}> {name}</label>'
        for value, name in (
            ("advantage", "Advantage"),
            ("probability", "Probability"),
            ("kl", "KL"),
            ("value", "Value"),
        )
    )
    html = f"""<p class="hint">Every box is a token, one action of the policy. Point at one, tap it, or step through them with the
arrow keys.
The bars below show the same numbers as the colours.{fewer}</p>
<noscript><p class="absent">The tokens need JavaScript, which is switched off here.</p></noscript>
<div class="controls">
<label class="choice">Episode <select id="episode">{options}</select></label>
<fieldset class="segments"><legend>Colour by</legend>{choices}</fieldset>
</div>
<div class="episode">
<p class="facts" id="facts"></p>
<div class="scale" id="scale"></div>
<p class="tokens" id="tokens" dir="auto"></p>
<div class="bars" id="bars" aria-hidden="true"></div>
</div>
<dl class="glossary">
<div><dt>Probability</dt><dd>what the policy gave this token, after all the text to the left of it.</dd></div>
<div><dt>Reference probability</dt><dd>what the model that training started from would have given it.</dd></div>
<div><dt>Value</dt><dd>the critic’s forecast, just before the token, of the rewards still to come.</dd></div>
<div><dt>Advantage</dt><dd>how much better it went from this token on than the critic had forecast: the learner makes tokens above 0 likelier and tokens below 0 rarer.</dd></div>
<div><dt>KL</dt><dd>logarithm of probability over reference probability; its sum is what this episode adds to the KL from the reference model.</dd></div>
<div><dt>Reward</dt><dd>what the environment paid for this token; many tasks pay only at the end.</dd></div>
</dl>"""
    return html, [_episode_data(e) for e in kept]


def _episode_data(episode: Episode) -> dict[str, Any]:
    def column(name: str) -> list[float]:
        return [float(f"{getattr(t, name):.4g}") for t in episode.tokens]

    names = ("probability", "reference_probability", "value", "advantage", "kl", "reward")
    return {
        "prompt": episode.prompt,
        "total": episode.total,
        "finish": episode.finish_reason,
        "text": [t.text for t in episode.tokens],
        **{name: column(name) for name in names},
    }


# ---- settings -------------------------------------------------------------------------------------------------------


def settings(run: Run) -> str:
    """The command, and everything else that decided the run."""
    if "config.json" in run.missing:
        return _absent("config.json", "its settings are not known")
    config = run.config
    command = config.get("command")
    html = f'<pre class="command"><code>{escape(command)}</code></pre>' if command else ""
    html = (
        f"<p>This command runs it again:</p>{html}" if html else '<p class="absent">The command was not recorded.</p>'
    )
    plain = {k: v for k, v in config.items() if not isinstance(v, dict) and k != "command"}
    names = {
        "hyperparameters": "Hyperparameters",
        "env_kwargs": "Environment",
        "model": "Model",
        "versions": "Versions",
    }
    groups = [("Run", plain)]
    groups += [(name, config[key]) for key, name in names.items() if config.get(key)]
    groups += [(key, v) for key, v in config.items() if isinstance(v, dict) and key not in names and v]
    tables = "".join(
        f'<div><h3>{escape(name)}</h3><div class="scroll"><table class="plain"><tbody>'
        + "".join(f'<tr><th scope="row">{escape(k)}</th><td>{_setting(v)}</td></tr>' for k, v in group.items())
        + "</tbody></table></div></div>"
        for name, group in groups
    )
    return (
        f'{html}<details><summary>Hyperparameters and versions</summary><div class="settings">{tables}</div></details>'
    )


def _setting(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"<code>{escape(text)}</code>"


# ---- helpers --------------------------------------------------------------------------------------------------------


def _absent(name: str, consequence: str) -> str:
    return f'<p class="absent">The run folder has no <code>{name}</code>, so {consequence}.</p>'


def _after(timesteps: int) -> str:
    return f"{timesteps:,} tokens"


def _clipped(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _size(parameters: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if parameters >= size:
            return f"{parameters / size:.3g} {word}"
    return f"{parameters:,}"
