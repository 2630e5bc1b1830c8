"""Plain tables of rows, for a terminal or a file."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any


def tables(rows: Iterable[Any]) -> str:
    """Return one table for each class of rows, headed by what that class says."""
    groups: dict[type[Any], list[Any]] = {}
    for row in rows:
        groups.setdefault(type(row), []).append(row)
    return "\n\n".join(_table(cls, group) for cls, group in groups.items())


def _table(cls: type[Any], rows: Sequence[Any]) -> str:
    names = list(vars(rows[0]))
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[_cell(value) for value in vars(row).values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [isinstance(value, str) for value in vars(rows[0]).values()]
    lines = [
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, texts, strict=True)
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([inspect.getdoc(cls) or cls.__name__, *lines])


def _cell(value: Any) -> str:
    """Return a value as text: three figures, and all those before the point."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
