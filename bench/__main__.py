"""The command: runs the cases in turn, round after round, and prints the medians."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import Any

from academy.embedded import EmbeddedServer, ServerNotFoundError, ServerStartError
from bench.cases import CASES, OURS, PEERS, Bench, Case
from bench.interpreter import Interpreter, ProgramError
from bench.machine import Machine, this_machine
from bench.rows import medians, ratios
from bench.table import tables

PEER_VARIABLE = "ACADEMY_PEER_PYTHON"
PEER_VERSION = "import importlib.metadata as m; print(m.version('academy-py'))"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measure speed; the figures are medians of several rounds.",
        epilog=f"{PEER_VARIABLE} may name an interpreter that has academy-py 1.0.0; "
        "it is measured with the same program beside ours.",
    )
    parser.add_argument("--quick", action="store_true", help="one round, about 20 s")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        choices=CASES,
        help=f"one of {', '.join(CASES)}; can be repeated",
    )
    parser.add_argument(
        "--json", metavar="FILE", type=pathlib.Path, help="write all figures there, too"
    )
    return parser.parse_args(argv)


def find_peer() -> Interpreter | None:
    """Return the peer that the environment names, if it names one.

    Raises:
        ProgramError: It cannot be run, or it is not the release that is meant.
    """
    python = os.environ.get(PEER_VARIABLE)
    if not python:
        return None
    peer = Interpreter(python, import_path=None)
    try:
        version = peer.evaluate(PEER_VERSION)
    except (OSError, ProgramError) as e:
        reason = str(e).splitlines()[-1]
        raise ProgramError(
            f"{PEER_VARIABLE}={python} has no academy-py 1.0.0: {reason}"
        ) from e
    if version != "1.0.0":
        raise ProgramError(f"{PEER_VARIABLE}={python} has academy-py {version}.")
    return peer


def choose(only: list[str] | None, peer: Interpreter | None) -> dict[str, Case]:
    """Return the cases to run. The peer is compared, so it brings what with.

    Raises:
        ProgramError: Only the peer is wanted, and there is none.
    """
    names = set(only or CASES)
    if peer is None:
        if only and "peer" in only:
            raise ProgramError(f"There is no peer: set {PEER_VARIABLE}.")
        names -= {"peer"}
    if "peer" in names:
        names |= {"two-processes"}
    return {name: case for name, case in CASES.items() if name in names}


def run_rounds(bench: Bench, cases: dict[str, Case]) -> tuple[list[Any], list[str]]:
    """Run all cases in turn, again and again; return their rows, and what failed."""
    rows: list[Any] = []
    failures: list[str] = []
    for number in range(1 if bench.quick else max(c.rounds for c in cases.values())):
        for name, case in cases.items():
            if number < case.rounds:
                print(f"round {number + 1}: {name}", file=sys.stderr)
                try:
                    rows += case.run(bench)
                except ProgramError as e:
                    failures.append(f"{name}: {e}")
    return rows, failures


def as_json(machine: Machine, quick: bool, rows: list[Any]) -> str:
    results: dict[str, list[Any]] = {}
    for row in rows:
        results.setdefault(type(row).__name__, []).append(dataclasses.asdict(row))
    document = {"machine": dataclasses.asdict(machine), "quick": quick, **results}
    return json.dumps(document, indent=2) + "\n"


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    machine, begin = this_machine(), time.monotonic()
    try:
        peer = find_peer()
        cases = choose(options.only, peer)
        with EmbeddedServer() as server:
            bench = Bench(server, quick=options.quick, peer=peer)
            measured, failures = run_rounds(bench, cases)
    except (ProgramError, ServerNotFoundError, ServerStartError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    rows = medians(measured)
    rows += ratios(rows, OURS, PEERS)
    print(machine)
    print(f"\n{tables(rows)}\n\n{time.monotonic() - begin:.0f} s")
    if options.json is not None:
        options.json.write_text(as_json(machine, options.quick, rows))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
