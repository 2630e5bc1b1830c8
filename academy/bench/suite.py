"""Runs cases in turn, round after round, and keeps what came of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from academy.bench import rows as kinds
from academy.bench.case import Bench, Case
from academy.bench.cases import NOT_QUICK, OURS, Groups
from academy.bench.interpreter import ProgramError
from academy.bench.machine import Machine, this_machine
from academy.bench.table import Table, tables
from academy.embedded import EmbeddedServer

RATIOS = "How many times better ours is. "
BUDGET = 600.0
"""Seconds that a run may take: no round begins that would take it beyond."""


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        machine: Where.
        quick: Whether little was measured.
        seconds: How long it took.
        rows: The medians, and what failed, as classes of `academy.bench.rows`.
    """

    machine: Machine
    quick: bool
    seconds: float
    rows: list[Any]

    @property
    def failed(self) -> bool:
        """Whether something of this package failed. Peers may."""
        return any(row.ours for row in self.rows if isinstance(row, kinds.Failure))

    def tables(self) -> list[Table]:
        """Return the figures, each with the ratios to others behind it."""
        ratios = {table.title: table for table in tables(kinds.ratios(self.rows, OURS))}
        found = []
        for table in tables(self.rows):
            found.append(table)
            if ratio := ratios.get(table.title):
                found.append(dataclasses.replace(ratio, title=RATIOS + ratio.title))
        return found

    def plain(self) -> str:
        """Return all of it for a terminal."""
        blocks = [str(self.machine), *(table.plain() for table in self.tables())]
        return "\n\n".join([*blocks, f"{self.seconds:.0f} s"])

    def as_dict(self) -> dict[str, Any]:
        """Return it as a value that JSON can hold."""
        found: dict[str, list[Any]] = {}
        for row in self.rows:
            found.setdefault(type(row).__name__, []).append(dataclasses.asdict(row))
        return {
            **vars(self),
            "machine": dataclasses.asdict(self.machine),
            "rows": found,
        }

    def as_json(self) -> str:
        """Return it as JSON, which `from_json` reads."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Return what `as_json` wrote."""
        found = json.loads(text)
        found["machine"] = Machine(**found["machine"])
        found["rows"] = [
            getattr(kinds, name)(**row)
            for name, rows in found["rows"].items()
            for row in rows
        ]
        return cls(**found)


def choose(groups: Groups, only: Collection[str], *, quick: bool) -> Groups:
    """Return the groups that are asked for, or else all that such a run has."""
    wanted = set(only) or set(groups) - (NOT_QUICK if quick else set())
    return {name: cases for name, cases in groups.items() if name in wanted}


def run(
    groups: Groups,
    *,
    quick: bool = False,
    seconds: float | None = None,
    say: Callable[[str], None],
) -> Results:
    """Run all cases in turn, again and again, with a server of their own.

    A case that failed is not run again. There are fewer rounds where one takes long.

    Args:
        groups: The cases.
        quick: Measure less, in one round.
        seconds: How long each figure is measured; `None` for the usual time.
        say: Is told what is run, and how it failed.

    Raises:
        ServerNotFoundError: There is no server to run.
        ServerStartError: It did not start.
    """
    machine, begin = this_machine(), time.monotonic()
    found: list[Any] = []
    failures: dict[int, kinds.Failure] = {}
    spent: dict[int, float] = {}
    with EmbeddedServer() as server:
        bench = Bench(server, quick, seconds)
        for number, cases in enumerate(rounds(groups, quick=quick), 1):
            due = sum(spent.get(id(case), 0.0) for case in cases)
            if due and time.monotonic() - begin + due > BUDGET:
                say(f"no round {number}: it would take too long")
                break
            for case in [c for c in cases if id(c) not in failures]:
                say(f"round {number}: {case.row.__name__}, {case.name or 'academy'}")
                start = time.monotonic()
                try:
                    found += case.run(bench)
                except ProgramError as e:
                    say(str(e))
                    failures[id(case)] = case.failure(e)
                spent[id(case)] = time.monotonic() - start
    took = time.monotonic() - begin
    rows = [*kinds.medians(found), *failures.values()]
    return Results(machine, quick, took, rows)


def rounds(groups: Groups, *, quick: bool) -> list[list[Case]]:
    """Return the cases of each round, in the order in which they are run."""
    cases = [case for group in groups.values() for case in group]
    last = 1 if quick else max((case.rounds for case in cases), default=0)
    return [[c for c in cases if number <= c.rounds] for number in range(1, last + 1)]
