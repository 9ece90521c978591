"""Do textgym's PPO and GRPO reach the reward that TRL's trainers reach? Equal tokens, model, reward and settings; some seeds.

``python benchmarks/versus_trl.py --trl-python PYTHON --out runs/versus_trl --json benchmarks/results/versus_trl.json``

TRL lives in an environment of its own, which needs textgym without its agents, for the prompts and the reward. PPO is TRL
1.12's, the last version that has it, in the folder `trl112` beside the environment:

    python -m venv trl-env
    trl-env/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.23.0 -e .
    trl-env/bin/pip install --no-deps --target trl112 trl==1.12.0

(A torch that is not pinned may be another build, with gigabytes of CUDA.) Every run, of a side, an algorithm and a seed, is a
process that trains and saves the model; this process then lets all models, whoever trained them, continue the same held-out
prompts, sampling at temperature 1. What is compared are those rewards: the difference of the sides' means, with a 95%
interval from the spread over seeds. Besides, and without any chance in it: GRPO's loss and gradient on the same rollout.

Runs that are already in the folder, with the same settings, are not repeated. The times are by-products: the sides take
turns, but nothing waits for a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare_cases import peers
from measuring import REPOSITORY, machine
from versus_cases.results import Run, compared, table, verdict
from versus_cases.settings import ALGORITHMS, COMMON, Settings

BENCHMARKS = Path(__file__).resolve().parent
OURS, TRL, AS_IS = "textgym", "TRL", "TRL as it comes"
AS_IT_COMES: Settings = {"critic": "separate", "positions": False}  # what `versus_cases.theirs` otherwise makes alike
DIFFERENCES = (
    "TRL reads its prompts from 4,096 of the training split, textgym draws them from the generator of that split",
    "TRL may write the padding token, and then takes the text to end before it; textgym forbids it (the untrained model's "
    "probability of it is 2e-8 on average)",
    "PPO: TRL pays the reward one step behind the end token and fits a value there too; with gamma and lambda 1 that leaves "
    "the advantages as they are",
    "PPO is TRL 1.12's, later versions do not have it; GRPO is TRL 1.16's",
    "GRPO: TRL computes the log-probabilities of a rollout anew, textgym keeps those that it drew with",
    "a seed draws other numbers on either side",
)


@dataclass(frozen=True)
class Job:
    """One training."""

    side: str
    algorithm: str
    seed: int

    def settings(self, changes: Settings) -> Settings:
        own = AS_IT_COMES if self.side == AS_IS else {}
        known = {**COMMON, **ALGORITHMS[self.algorithm]}
        return {**known, **own, **changes, "algorithm": self.algorithm, "seed": self.seed}

    def folder(self, out: Path) -> Path:
        return out / f"{self.algorithm}-{self.side.lower().replace(' ', '-')}-{self.seed}"


def work(job: Job, settings: Settings, folder: Path, trl: peers.Peers | None) -> None:
    """A side at work in a process of its own, which leaves what it found in the folder.

    Raises:
        RuntimeError: The process failed; the message has the end of its standard error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if job.side == OURS:
        python, module, path = Path(sys.executable), "ours", [REPOSITORY / "agents"]
    else:
        assert trl is not None
        python, module, path = trl.python, "theirs", [trl.ppo_folder] if job.algorithm == "ppo" else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (BENCHMARKS, REPOSITORY, *path))),
        "OMP_NUM_THREADS": str(settings["threads"]),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    asked = json.dumps({**settings, "folder": str(folder.resolve())})
    found = subprocess.run(
        [python, "-m", f"versus_cases.{module}", asked], cwd=folder, env=environment, capture_output=True, text=True
    )
    if found.returncode:
        last = "\n".join(found.stderr.strip().splitlines()[-8:])
        raise RuntimeError(f"{job} ended with exit status {found.returncode}; the end of its standard error:\n{last}")


def train(job: Job, settings: Settings, folder: Path, trl: peers.Peers | None) -> Run:
    """One training; it leaves the model in the folder."""
    work(job, settings, folder, trl)
    told: Run = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return told


def probed(out: Path, trl: peers.Peers) -> dict[str, float]:
    """Loss and gradient of both GRPOs on the same rollout; see `versus_cases.probe`."""
    from versus_cases.ours import algorithm
    from versus_cases.probe import apart

    job, folder = Job(TRL, "grpo", 0), out / "probe"
    settings = job.settings({"probe": True})
    work(job, settings, folder, trl)
    return apart(folder / "probe.pt", algorithm(settings), settings)


def evaluated(model: str | Path, settings: Settings, episodes: int) -> dict[str, Any]:
    """What a model writes after held-out prompts: the same prompts and draws for every model."""
    from gymnasium import spaces

    from textgym_agents.models.loading import load_model
    from textgym_agents.policies import CausalLMPolicy
    from textgym_agents.runs.evaluation import evaluate, setting_of

    limit = {"max_new_tokens": settings["max_new_tokens"]}
    setting = setting_of(settings["env"], **limit)
    actions = spaces.Discrete(setting.tokenizer.vocab_size)
    policy = CausalLMPolicy(setting.observation_space(), actions, lambda _: 0.0, model=model)
    return evaluate(policy, settings["env"], episodes, reference=load_model("bundled"), **limit).to_json()


def done(job: Job, settings: Settings, episodes: int, out: Path, trl: peers.Peers | None) -> Run:
    """The run with its evaluation; or what an earlier call left behind."""
    folder = job.folder(out)
    file = folder / "run.json"
    asked = {"side": job.side, "episodes": episodes, "settings": settings}
    if file.exists():
        known: Run = json.loads(file.read_text(encoding="utf-8"))
        if {name: known[name] for name in asked} == asked:
            return known
    told = train(job, settings, folder, trl)
    run = {
        **asked,
        "algorithm": job.algorithm,
        "seed": job.seed,
        **told,
        "evaluation": evaluated(folder / "model", settings, episodes),
    }
    file.write_text(json.dumps(run), encoding="utf-8")
    return run


def rows_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each algorithm and peer that there are runs of."""

    def those(algorithm: str, side: str) -> list[Run]:
        return [run for run in runs if run["algorithm"] == algorithm and run["side"] == side]

    return [
        compared(algorithm, those(algorithm, OURS), those(algorithm, peer), peer)
        for algorithm in ALGORITHMS
        for peer in (TRL, AS_IS)
        if those(algorithm, OURS) and those(algorithm, peer)
    ]


def summary(runs: Sequence[Run], base: dict[str, Any], probe: dict[str, float] | None, command: str) -> dict[str, Any]:
    """Everything that was measured."""
    rows = rows_of(runs)
    facts = {f"{run['algorithm']}, {run['side']}": run["facts"] for run in runs}
    return {
        "benchmark": "versus_trl",
        "how": __doc__,
        "untrained": base,
        "same_rollout": probe,
        "rows": rows,
        "table": table(rows),
        "differences": DIFFERENCES,
        "sides": facts,
        "runs": [{name: value for name, value in run.items() if name != "facts"} for run in runs],
        "machine": {**machine("torch", "transformers", "stable-baselines3", "gymnasium"), "command": command},
    }


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", type=Path, metavar="PATH", help="the Python of an environment that has TRL")
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=5, help="seeds a side (default: 5)")
    parser.add_argument("--tokens", type=int, default=COMMON["tokens"], help="of a run (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=200, help="held-out prompts of an evaluation (default: 200)")
    parser.add_argument(
        "--as-it-comes",
        type=int,
        default=0,
        metavar="SEEDS",
        help="also run TRL with a separate value model and without positions, with so many seeds (default: 0)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None, say: Callable[[str], None] = lambda text: print(text, flush=True)) -> int:
    """The command; 0 if both sides ran."""
    args, trl = arguments(given), None
    try:
        if args.trl_python is None:
            raise peers.PeersMissingError("no --trl-python was given")
        trl = peers.at(args.trl_python)
    except peers.PeersMissingError as error:
        say(f"TRL is left out: {error}")
    sides = [(OURS, args.seeds)] + ([(TRL, args.seeds), (AS_IS, args.as_it_comes)] if trl else [])
    jobs = [  # every seed of all before a second, and the sides in turn, so that a drift of the machine hits them alike
        Job(side, algorithm, seed)
        for seed in range(max(count for _, count in sides))
        for algorithm in args.algorithms
        for side, count in sides
        if seed < count
    ]
    import torch

    torch.set_num_threads(COMMON["threads"])
    base, runs = evaluated("bundled", COMMON, args.episodes), []
    say(f"untrained: reward {base['reward'][0]:.3f}")
    probe = probed(args.out, trl) if trl and "grpo" in args.algorithms else None
    if probe:
        losses, gradients = probe["loss_difference"], probe["gradient_difference"]
        say(f"GRPO on the same rollout: losses {losses:.0e} apart, gradients {gradients:.0e} of their norm")
    words = ["python benchmarks/versus_trl.py --trl-python PYTHON", f"--seeds {args.seeds}", f"--tokens {args.tokens}"]
    for job in jobs:
        run = done(job, job.settings({"tokens": args.tokens}), args.episodes, args.out, trl)
        runs.append(run)
        found = run["evaluation"]
        say(
            f"{job.algorithm:4} {job.side:15} seed {job.seed}  reward {found['reward'][0]:.3f}  KL {found['kl']:.1f}  "
            f"{run['tokens']:,} tokens  {run['seconds']:.0f} s"
        )
        if args.json:  # after every run, so that a command that is broken off leaves what it has
            text = json.dumps(summary(runs, base, probe, " ".join(words)), indent=1)
            args.json.write_text(text + "\n", encoding="utf-8")
    rows = rows_of(runs)
    if rows:
        say(f"\n{table(rows)}\n")
        for row in rows:
            say(verdict(row))
    return 0 if trl else 1


if __name__ == "__main__":
    raise SystemExit(main())
