"""The command `academy`."""

from __future__ import annotations

from collections.abc import Sequence

from academy.cli.error import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    It is 0 when the command did what was asked, 1 when that failed, 2 when it was
    asked wrongly (a bad option, no server given, an unknown agent), and 128 plus the
    number of the signal when a signal ended it.

    Args:
        argv: Arguments; `None` for those of the process.
    """
    try:
        from academy.cli.app import invoke

        return invoke(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
