"""The command: runs the cases in turn, round after round, and prints the medians."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from academy.bench.cases import CASES
from academy.bench.interpreter import ProgramError
from academy.bench.suite import Results, choose, run
from academy.embedded import ServerNotFoundError, ServerStartError
from bench.peers import ACADEMY_PY_ENVIRONMENT, OTHERS_ENVIRONMENT, Peers
from bench.report import ReportError, draw_plots, write_report


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measure speed beside the peers that are there; the figures are "
        "medians of several rounds.",
        epilog=f"{ACADEMY_PY_ENVIRONMENT.variable} may name an interpreter that has "
        f"academy-py 1.0.0, and {OTHERS_ENVIRONMENT.variable} one that has xoscar, "
        "pyzmq, NumPy, matplotlib and nats-py; else those that `make peers` has made "
        "are used.",
    )
    parser.add_argument("--quick", action="store_true", help="one round, under 2 min")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        choices=CASES,
        help=f"one of {', '.join(CASES)}; can be repeated",
    )
    parser.add_argument(
        "--seconds", metavar="S", type=float, help="how long each figure is measured"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write figures there")
    parser.add_argument(
        "--load", metavar="FILE", type=Path, help="measure nothing, take those figures"
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write tables between its markers"
    )
    parser.add_argument(
        "--plots", metavar="DIR", type=Path, help="draw PNG files there"
    )
    return parser.parse_args(argv)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, peers: Peers) -> Results:
    """Return what an earlier run has written, or what is measured now."""
    if options.load is not None:
        return Results.from_json(options.load.read_text())
    for sentence in peers.missing:
        say(sentence)
    groups = choose(peers.groups(), options.only, quick=options.quick)
    return run(groups, quick=options.quick, seconds=options.seconds, say=say)


def write(options: argparse.Namespace, peers: Peers, results: Results) -> None:
    """Write what is asked for.

    Raises:
        OSError: A file cannot be written.
        ProgramError: Plots cannot be drawn.
        ReportError: The document has no place for the figures.
    """
    if options.json is not None:
        options.json.write_text(results.as_json())
    if options.report is not None:
        write_report(options.report, results)
    if options.plots is not None:
        if peers.others is None:
            raise ProgramError("matplotlib draws the plots: see `make peers`.")
        say(f"drawn: {', '.join(draw_plots(options.plots, results, peers.others))}")


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    try:
        peers = Peers.find()
        results = measure(options, peers)
        print(results.plain(), flush=True)
        write(options, peers, results)
    except (
        OSError,
        ProgramError,
        ReportError,
        ServerNotFoundError,
        ServerStartError,
    ) as e:
        say(f"error: {e}")
        return 2
    except KeyboardInterrupt:
        return 130
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
