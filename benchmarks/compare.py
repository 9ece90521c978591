"""Ours against the peers, side by side in one run: ``python benchmarks/compare.py --json OUT --plot OUT.png``.

Every side is a process of its own that sets up, warms up, and then waits; the sides take turns (ours, peer, ours, peer, …), so
that a drift of the machine hits both alike. A ratio is taken round by round from two repetitions that are neighbours in time,
and the median of the rounds is reported. A round in which other programs used more than 5% of the machine is thrown away and
repeated while the patience lasts; rounds that count in spite of that are marked.

The peers (TRL 1.16 and, for PPO, TRL 1.12) need an environment of their own. It is made once in a cache folder, which needs
the network; or name the Python of one with --peers-python, with TRL 1.12 in the folder `trl112` beside the environment
(``pip install --no-deps --target trl112 trl==1.12.0``). Without peers their rows are reported as not run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from compare_cases import peers as environments
from compare_cases.catalogue import CASES, Case
from compare_cases.prompts import write_prompts
from compare_cases.report import draw, show
from compare_cases.rows import Context, Row
from compare_cases.workload import THREADS
from measuring import machine
from rich.console import Console

LEAST_REPETITIONS = 5


def main() -> int:
    args = arguments()
    console, began = Console(), time.perf_counter()
    if not console.is_terminal:  # a file has no width
        console = Console(width=150)
    problem: list[environments.PeersMissingError] = []

    @cache
    def found() -> environments.Peers:
        if args.peers_python:
            return environments.at(args.peers_python)
        return environments.made_in(args.peers_folder, console.print)

    def peers() -> environments.Peers:
        if problem:  # a failed installation is not tried again for every row
            raise problem[0]
        try:
            return found()
        except environments.PeersMissingError as error:
            problem.append(error)
            raise

    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="textgym-compare-") as folder:
        context = Context(Path(folder) / "prompts.json", args.repetitions, args.patience, peers)
        write_prompts(context.prompts)
        for case in args.cases:
            with console.status(f"{case.name} ({len(rows) + 1} of {len(args.cases)}) ..."):
                rows.append(case.run(context))
            row = rows[-1]
            told = row.status if row.ratio is None else f"{row.ratio:.2f}{row.unit}, target {row.target:g}{row.unit}"
            console.print(f"{row.name}: {told}{'' if row.quiet else ', not quiet'}")
            if args.json:  # after every row, so that a run that is broken off leaves what it has
                write(args.json, rows, args, began)
    show(rows, console)
    facts = machine("torch", "transformers", "stable-baselines3", "gymnasium")
    console.print(f"{facts['cpu']}, {facts['cores']} cores, {THREADS} threads", style="dim")
    if args.plot:
        draw(rows, args.plot)
    return 0 if all(row.status == "measured" for row in rows) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything that was measured to this file")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw the ratios into this file (.png, .svg, .pdf)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these; patterns such as 'rollout*' are allowed")
    parser.add_argument("--all", action="store_true", help="also run `memory`, which takes minutes and up to 24 GiB")
    parser.add_argument("--list", action="store_true", help="list the comparisons and end")
    parser.add_argument(
        "--repetitions",
        type=int,
        default=7,
        metavar="N",
        help=f"of each side, at least {LEAST_REPETITIONS} (default: 7)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300.0,
        metavar="S",
        help="most seconds to wait for a quiet machine, for each comparison (default: 300)",
    )
    parser.add_argument("--peers-python", type=Path, metavar="PATH", help="the Python of an environment that has TRL")
    parser.add_argument(
        "--peers-folder",
        type=Path,
        default=environments.CACHE,
        metavar="FOLDER",
        help="where the peers are installed if no Python is named (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.repetitions < LEAST_REPETITIONS:
        parser.error(f"--repetitions must be at least {LEAST_REPETITIONS}")
    args.cases = chosen(args.only, args.all)
    if not args.cases:
        parser.error(f"--only {' '.join(args.only)} matches none of: {', '.join(case.name for case in CASES)}")
    if args.list:
        for case in args.cases if args.only else CASES:
            print(f"{case.name}: target {case.target:g}{' (only with --all or --only)' if case.optional else ''}")
        parser.exit()
    return args


def chosen(only: list[str] | None, everything: bool) -> list[Case]:
    """The comparisons that the patterns match; without any, those that are not optional."""
    if only:
        return [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in only)]
    return [case for case in CASES if everything or not case.optional]


def write(file: Path, rows: list[Row], args: argparse.Namespace, began: float) -> None:
    result = {
        "benchmark": "compare",
        "how": __doc__,
        "repetitions": args.repetitions,
        "patience_seconds": args.patience,
        "threads": THREADS,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "ratios": {row.name: row.ratio for row in rows},
        "rows": [row.to_json() for row in rows],
        "machine": machine("torch", "transformers", "stable-baselines3", "gymnasium"),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
