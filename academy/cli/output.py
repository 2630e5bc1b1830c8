"""What commands print: tables and text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 240
"""Columns where no terminal sets a width, so that nothing is cut off."""


def print_json(value: Any) -> None:
    """Print a value as one line of JSON; what JSON has no type for as its `repr`."""
    try:
        text = json.dumps(value, default=repr, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        # Keys that are no strings, numbers that are none, or a cycle.
        text = json.dumps(repr(value))
    print(text, flush=True)


def print_value(value: Any) -> None:
    """Print a value for people: text as it is, all else as Python writes it."""
    if isinstance(value, str) and printable(value) == value:
        print(value, flush=True)
    else:
        from rich.pretty import Pretty

        console().print(Pretty(value))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; columns whose title ends with `#` hold numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify: Any = "right" if title.endswith("#") else "left"
        table.add_column(title.rstrip("#"), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console(markup=False).print(table)


def print_text(text: str = "") -> None:
    """Print text that may come from elsewhere."""
    print(printable(text), flush=True)


def complain(text: str) -> None:
    """Print what went wrong."""
    print(f"academy: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return a text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def console(*, markup: bool = True) -> Console:
    """Return a console for standard output."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDE
    return Console(markup=markup, width=width)
