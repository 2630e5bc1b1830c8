"""Tables of rows: plain for a terminal, or in Markdown."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """The rows of one class as text.

    Attributes:
        title: What the class says of itself.
        names: Names of the columns.
        lines: Cells of the rows.
        numbers: Which columns are to be aligned to the right.
    """

    title: str
    names: Sequence[str]
    lines: Sequence[Sequence[str]]
    numbers: Sequence[bool]

    def plain(self) -> str:
        """Return the table for a terminal, headed by its title."""
        columns = zip(self.names, *self.lines, strict=True)
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, self.numbers, strict=True)
            ).rstrip()
            for line in (self.names, *self.lines)
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, *lines])

    def markdown(self) -> str:
        """Return the table in Markdown, headed by its title."""
        rule = ["---:" if number else "---" for number in self.numbers]
        lines = [self.names, rule, *self.lines]
        rows = (" | ".join(_escaped(cell) for cell in line) for line in lines)
        return "\n".join([self.title, "", *(f"| {row} |" for row in rows)])


def tables(rows: Iterable[Any]) -> list[Table]:
    """Return one table for each class of rows."""
    groups: dict[type[Any], list[Any]] = {}
    for row in rows:
        groups.setdefault(type(row), []).append(row)
    return [_table(cls, group) for cls, group in groups.items()]


def _table(cls: type[Any], rows: Sequence[Any]) -> Table:
    # A column of texts that are all empty says nothing.
    names = [n for n in vars(rows[0]) if any(getattr(row, n) != "" for row in rows)]
    title = " ".join((inspect.getdoc(cls) or cls.__name__).split())
    return Table(
        title,
        [name.replace("_", " ") for name in names],
        [[_cell(getattr(row, name)) for name in names] for row in rows],
        [not isinstance(getattr(rows[0], name), str) for name in names],
    )


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _cell(value: Any) -> str:
    """Return a value as text: three figures, and all those before the point."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
