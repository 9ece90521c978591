"""``textgym eval``: measures the policy of a training run on held-out prompts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from textgym.cli import options
from textgym.cli.options import agents, bad_input, environment_kwargs, make_console, prompt_room, replaced
from textgym.cli.tables import NOTE, results, samples
from textgym.core import TextGymError

_OUTPUT = "Output"


def evaluate_run(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a training run, or a model saved in one.", show_default=False),
    ],
    split: Annotated[str, typer.Option(metavar="NAME", help="'dev', 'test' or 'train'.")] = "dev",
    episodes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of prompts.", show_default="500; of a file: each prompt once"),
    ] = None,
    seed: options.Seed = 0,
    prompts: options.Prompts = None,
    prompt_column: options.PromptColumn = None,
    prompt_words: options.PromptWords = None,
    dataset: options.Dataset = None,
    temperature: options.Temperature = 1.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    greedy: options.Greedy = False,
    num_beams: options.NumBeams = 1,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts at a time.")] = 64,
    device: options.Device = "auto",
    shown: Annotated[
        int, typer.Option("--samples", metavar="N", min=0, help="Completions to show.", rich_help_panel=_OUTPUT)
    ] = 8,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write results and all completions here.", rich_help_panel=_OUTPUT),
    ] = None,
) -> None:
    """Measure a trained policy on held-out prompts: reward, KL, perplexity, distinct-n."""
    console = make_console()
    source = environment_kwargs(
        prompts=prompts, prompt_column=prompt_column, prompt_words=prompt_words, dataset=dataset
    )
    with agents(console):
        from textgym_agents.algorithms.registry import load_algorithm
        from textgym_agents.models.loading import load_model
        from textgym_agents.rollouts.sampling import Decoding
        from textgym_agents.runs.evaluation import evaluate, held_out, setting_of
        from textgym_agents.runs.folder import find_run
    with bad_input():
        folder, path = find_run(run)
        if folder is None:
            raise TextGymError(
                f"Expected a model in the folder of a training run, but there is no config.json beside {str(path)!r}"
            )
        config = folder.read_config()
        kwargs = replaced(config.eval_kwargs, {**source, "split": split})
        if (room := prompt_room(config.env_id, kwargs, [split])) is not None:
            kwargs["max_prompt_tokens"] = max(room, kwargs.get("max_prompt_tokens", room))
        decoding = Decoding(temperature, top_k, top_p)
        setting = setting_of(config.env_id, **kwargs)
        examples = held_out(setting, episodes, seed)
        model = load_algorithm(path, device=device)
        reference = model.reference or load_model(config.model["name"]).to(model.device)  # type: ignore[arg-type]
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("Evaluating", total=len(examples))
            measured = evaluate(
                model,
                setting,
                seed=seed,
                examples=examples,
                reference=reference,
                deterministic=greedy,
                decoding=decoding,
                num_beams=num_beams,
                batch_size=batch_size,
                progress=lambda done: bar.update(task, completed=done),
            )
    how = (
        "greedy" if greedy else f"beam search of {num_beams}" if num_beams > 1 else _sampling(temperature, top_k, top_p)
    )
    console.print(f"{config.env_id}, {len(examples)} {split} prompts, {how}", style="bold", soft_wrap=True)
    console.print(results({path.name: measured.to_json()}))
    console.print(NOTE, style="dim", soft_wrap=True)
    if greedy or num_beams > 1 or decoding != Decoding():
        console.print("The KL is that of these tokens, which were not sampled from the policy as it is.", style="dim")
    if shown:
        step = max(1, len(measured.samples) // shown)
        console.print(samples([asdict(s) for s in measured.samples[::step][:shown]]))
    if json_out is not None:
        record = {
            "run": str(folder.path),
            "model": str(path),
            "env_id": config.env_id,
            "split": split,
            "seed": seed,
            "decoding": {**asdict(decoding), "greedy": greedy, "num_beams": num_beams},
            **measured.to_json(),
            "samples": [asdict(s) for s in measured.samples],
        }
        with bad_input():
            json_out.parent.mkdir(parents=True, exist_ok=True)
            json_out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"Written to {json_out}", style="dim", soft_wrap=True)


def _sampling(temperature: float, top_k: int, top_p: float) -> str:
    parts = [f"temperature {temperature:g}"]
    parts += [f"top-k {top_k}"] if top_k else []
    parts += [f"top-p {top_p:g}"] if top_p < 1 else []
    return "sampled at " + ", ".join(parts)
