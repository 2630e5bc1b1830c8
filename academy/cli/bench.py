"""`academy bench`: how fast this machine is."""

from __future__ import annotations

import sys
from collections.abc import Collection

from academy.bench.cases import CASES
from academy.bench.suite import choose, run
from academy.cli.error import FAILED, UsageError
from academy.cli.output import print_json, print_text


def bench(
    only: Collection[str], *, quick: bool, seconds: float | None, as_json: bool
) -> int:
    """Measure, print the figures, and return the exit code.

    Args:
        only: Groups of cases; none for all.
        quick: Measure less.
        seconds: How long each figure is measured; `None` for the usual time.
        as_json: Print JSON.

    Raises:
        UsageError: There is no such group.
        ServerNotFoundError: There is no server to run.
        ServerStartError: It did not start.
        KeyboardInterrupt: Ctrl-C; no process is left.
    """
    if unknown := sorted(set(only) - set(CASES)):
        raise UsageError(f"There is no {unknown[0]!r}; there are: {', '.join(CASES)}.")
    groups = choose(CASES, only, quick=quick)
    results = run(groups, quick=quick, seconds=seconds, say=_say)
    if as_json:
        print_json(results.as_dict())
    else:
        print_text(results.plain())
    return FAILED if results.failed else 0


def _say(text: str) -> None:
    """Print what is done meanwhile, where it is in nobody's way."""
    print(text, file=sys.stderr, flush=True)
