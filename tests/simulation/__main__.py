"""`python -m tests.simulation --seeds N`: run many seeds and print a table."""

from __future__ import annotations

import argparse
import multiprocessing
import time

from tests.simulation.check import Result
from tests.simulation.rules import FULL, WITHOUT
from tests.simulation.world import World

COLUMNS = (
    "seeds",
    "messages",
    "twice",
    "hung",
    "lost",
    "disorder",
    "lies",
    "errors",
    "ran",
    "memory",
)


def run(job: tuple[int, int, str, bool]) -> Result:
    """Run some seeds in a row."""
    first, count, without, rollback = job
    rules = WITHOUT[without] if without else FULL
    total = Result()
    for seed in range(first, first + count):
        try:
            total.add(World(seed, rules, rollback=rollback).run())
        except Exception as e:
            raise RuntimeError(f"seed {seed}") from e
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--without", choices=sorted(WITHOUT), default="")
    parser.add_argument("--rollback", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--names", action="store_true", help="show errors by name")
    options = parser.parse_args()
    start = time.monotonic()
    size = 50
    jobs = [
        (seed, min(size, options.first + options.seeds - seed), options.without,
         options.rollback)
        for seed in range(options.first, options.first + options.seeds, size)
    ]
    total = Result()
    with multiprocessing.Pool(options.jobs) as pool:
        for result in pool.imap_unordered(run, jobs):
            total.add(result)
    seconds = time.monotonic() - start
    print("| without |", " | ".join(COLUMNS), "| seconds |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    cells = [f"{getattr(total, name):,}" for name in COLUMNS]
    print(f"| {options.without or 'nothing'} |", " | ".join(cells), f"| {seconds:.0f} |")
    if total.bad:
        print("bad seeds:", *sorted(total.bad)[:20])
    if options.names:
        for name, count in total.by_name.most_common():
            print(f"{count:8,}  {name}")
    return 1 if total.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
