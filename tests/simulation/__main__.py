"""`python -m tests.simulation --seeds N`: run many seeds and print a table."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence

from tests.simulation.check import Result
from tests.simulation.rules import FULL, WITHOUT
from tests.simulation.world import World

CHUNK = 50
FULL_LABEL = "nothing"
COLUMNS = (
    "seeds",
    "messages",
    "twice",
    "hung",
    "lost",
    "disorder",
    "lies",
    "needless",
    "errors",
    "ran",
    "memory",
)


Job = tuple[int, int, str, tuple[str, ...]]


def run(job: Job) -> Result:
    """Run some seeds in a row."""
    first, count, without, faults = job
    rules = WITHOUT[without].rules if without else FULL
    total = Result()
    for seed in range(first, first + count):
        try:
            total.add(World(seed, rules, faults).run())
        except Exception as e:
            raise RuntimeError(f"seed {seed}") from e
    return total


def run_all(
    seeds: range, without: str, faults: Sequence[str], jobs: int
) -> tuple[Result, float]:
    """Run many seeds in several processes, and say how long it took."""
    start = time.monotonic()
    work: list[Job] = [
        (first, min(CHUNK, seeds.stop - first), without, tuple(faults))
        for first in range(seeds.start, seeds.stop, CHUNK)
    ]
    total = Result()
    with multiprocessing.Pool(jobs) as pool:
        for result in pool.imap_unordered(run, work):
            total.add(result)
    return total, time.monotonic() - start


def show(label: str, total: Result, seconds: float, *, names: bool) -> None:
    """Print a row of the table."""
    cells = [f"{getattr(total, name):,}" for name in COLUMNS]
    print(f"| {label} |", " | ".join(cells), f"| {seconds:.0f} |", flush=True)
    if total.bad and label == FULL_LABEL:
        print("bad seeds:", *sorted(total.bad)[:20])
    if names:
        for name, count in total.by_name.most_common():
            print(f"{count:8,}  {name}")


def main() -> int:
    """Run what the command line asks for; fail when the whole protocol fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--without", choices=sorted(WITHOUT), help="leave out a rule")
    parser.add_argument("--faults", help="kinds of faults: cut,move,...")
    parser.add_argument("--all", action="store_true", help="leave out each rule, too")
    parser.add_argument("--names", action="store_true", help="show errors by name")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    print("| without |", " | ".join(COLUMNS), "| seconds |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    violations = 0
    for without in ["", *WITHOUT] if options.all else [options.without or ""]:
        faults: Sequence[str] = WITHOUT[without].faults if without else ()
        if options.faults:
            faults = options.faults.split(",")
        total, seconds = run_all(seeds, without, faults, options.jobs)
        show(without or FULL_LABEL, total, seconds, names=options.names)
        violations += 0 if without else total.violations
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
