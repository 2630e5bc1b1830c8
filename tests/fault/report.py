"""The table of all faults: how many calls there were, and what became of them."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterable


@dataclasses.dataclass
class Row:
    """What one test has seen."""

    number: str
    name: str
    rounds: int
    calls: int
    results: int
    errors: dict[str, int]
    unresolved: int
    twice: int
    worst: float
    p99: float
    passed: bool


_rows: list[Row] = []

HEADINGS = (
    "#",
    "fault",
    "rounds",
    "calls",
    "results",
    "errors",
    "unresolved",
    "twice",
    "worst, s",
    "p99, s",
    "",
)


def add(row: Row) -> None:
    """Add a row to the table of this run."""
    _rows.append(row)


def rows() -> list[Row]:
    """Return the rows of this run, by their numbers."""
    return sorted(_rows, key=lambda row: (_number(row.number), row.name, row.rounds))


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def title() -> str:
    """Return on what this was measured."""
    return f"Python {platform.python_version()}, {platform.system()}"


def _number(number: str) -> int:
    digits = "".join(c for c in number if c.isdigit())
    return int(digits or 0)


def _cells(row: Row) -> list[str]:
    errors = ", ".join(f"{n} {name}" for name, n in sorted(row.errors.items()))
    return [
        row.number,
        row.name,
        f"{row.rounds:,}",
        f"{row.calls:,}",
        f"{row.results:,}",
        errors or "0",
        str(row.unresolved),
        str(row.twice),
        f"{row.worst:.2f}",
        f"{row.p99:.2f}",
        "ok" if row.passed else "FAILED",
    ]
