"""``textgym reward-model``: trains a reward model on what people said of texts, and measures one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from textgym.cli import options
from textgym.cli.options import agents, assignments, bad_input, make_console

app = typer.Typer(
    help="Train a reward model on people's scores, comparisons or rankings; measure one.", no_args_is_help=True
)

Data = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="JSON Lines of 'text' and 'rating', of 'chosen' and 'rejected', or of 'completions' and 'ranks'; what "
        "'textgym rate' wrote.",
        show_default=False,
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results here.")]


@app.command("train")
def train_reward_model(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model is saved.", show_default=False)],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="'bundled', a folder, a Hub id: encoder or causal.")
    ] = "bundled",
    eval_data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Held-out records; the best epoch is kept.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="'regression', 'classification', 'bradley-terry', 'plackett-luce', 'margin'.",
            show_default="by the data",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any argument of RewardModelTrainer, as JSON, such as learning_rate=1e-4; as often as needed.",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Train a reward model; in Python, RewardModel(FOLDER) is then a reward for any environment."""
    console = make_console()
    with bad_input():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"Expected --out to be a new or empty folder, actual: {str(out)!r}")
        given = assignments(set_ or ())
    with agents(console):
        import inspect

        from textgym_agents.reward_models import RewardModelTrainer
    with bad_input():
        known = [
            name for name, p in inspect.signature(RewardModelTrainer).parameters.items() if p.kind == p.KEYWORD_ONLY
        ]
        known = [name for name in known if name not in ("objective", "seed", "device")]
        if strange := sorted(set(given) - set(known)):
            raise ValueError(f"Expected --set to name one of {', '.join(known)}; actual: {', '.join(strange)}")
        where = None if device == "auto" else device
        trainer = RewardModelTrainer(model, data, eval_data, objective=objective, seed=seed, device=where, **given)  # type: ignore[arg-type]
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"Training ({trainer.settings.objective})", total=1.0)
            history = trainer.train(lambda step, done, loss: bar.update(task, completed=done))
        for entry in history:
            numbers = [f"{name.removeprefix('eval_')} {value:.4f}" for name, value in entry.items() if name != "epoch"]
            console.print(f"epoch {entry['epoch']:.0f}: " + ", ".join(numbers), soft_wrap=True)
        trainer.save(out)
        if eval_data is not None:
            console.print(f"Epoch {trainer.best_epoch} is kept:", style="bold")
            console.print(trainer.evaluate(eval_data).table())
    console.print(f"Saved in {out}", style="dim", soft_wrap=True)


@app.command("eval")
def evaluate_reward_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or Hub id.", show_default=False)],
    data: Data,
    json_out: Json = None,
) -> None:
    """Measure a reward model against people: rank correlation, pairs in the right order, calibration."""
    console = make_console()
    with agents(console):
        from textgym_agents.reward_models import evaluate_reward_model as measure
    with bad_input():
        found = measure(model, data)
        console.print(found.table())
        if json_out is not None:
            json_out.parent.mkdir(parents=True, exist_ok=True)
            json_out.write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
            console.print(f"Written to {json_out}", style="dim", soft_wrap=True)
