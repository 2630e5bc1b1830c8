"""Runs a command and turns what it raises into a sentence and an exit code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import typer

from academy.cli.error import INTERRUPTED, cause_of, explain, full_traceback
from academy.cli.output import complain
from academy.event_loop import loop_factory


def execute(
    command: Callable[[], int | Coroutine[Any, Any, int]],
    *,
    url: str | None = None,
    debug: bool = False,
) -> None:
    """Run a command to its end and exit with its code.

    Args:
        command: Returns the exit code, or a coroutine that does.
        url: URL in use; its password is printed nowhere.
        debug: Whether to log everything, and to print tracebacks.

    Raises:
        typer.Exit: The command has ended, with the exit code.
        BrokenPipeError: Nobody reads what it prints.
    """
    _set_up_logging(debug=debug)
    try:
        result = command()
        code = result if isinstance(result, int) else _run(result)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as e:
        if isinstance(cause := cause_of(e), BrokenPipeError):
            raise cause from e  # typer ends quietly then
        text, code = explain(e, url)
        complain(f"{text}\n{full_traceback(e, url)}" if debug else text)
    raise typer.Exit(code)


def _run(command: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(command)


def _set_up_logging(*, debug: bool) -> None:
    if debug:
        logging.basicConfig(level=logging.DEBUG)
    else:
        # What goes wrong is said in a sentence; without a handler, Python would
        # print the warnings of the library too.
        logging.getLogger("academy").addHandler(logging.NullHandler())
