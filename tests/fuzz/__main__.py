"""`python -m tests.fuzz --seconds N`: damage inputs and print a table."""

from __future__ import annotations

import argparse
import random

from tests.fuzz.harness import fuzz, replay, write_corpus
from tests.fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets")
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--replay", metavar="HEX", help="feed one input to the targets")
    parser.add_argument(
        "--write-corpus", action="store_true", help="after a change of a format"
    )
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    if options.write_corpus:
        write_corpus()
        return
    if options.replay:
        for target in targets:
            valid, _ = replay(target, bytes.fromhex(options.replay))
            print(target, "valid" if valid else "refused")
        return
    print(f"seed {options.seed}\n")
    print("| target | inputs | MB | valid | slowest ms | growth MiB |")
    print("|---|---|---|---|---|---|")
    for target in targets:
        r = fuzz(target, options.seconds / len(targets), options.seed)
        print(
            f"| {r.target} | {r.inputs:,} | {r.size / 1e6:.1f} | {r.valid:,} "
            f"| {r.slowest * 1e3:.1f} | {r.growth / (1 << 20):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
