"""What a measurement is: a program, in an interpreter, with settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from academy.bench.interpreter import TIMEOUT, Interpreter
from academy.bench.rows import Failure
from academy.embedded import EmbeddedServer

OWN = Interpreter()
"""The interpreter that has this package."""


@dataclass(frozen=True)
class Bench:
    """What the cases measure with.

    Attributes:
        server: The server that all exchanges use.
        quick: Measure less, so that it takes a fraction of the time.
        seconds: How long each figure is measured; `None` for the usual time.
    """

    server: EmbeddedServer
    quick: bool = False
    seconds: float | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings that all programs get."""
        return {
            "host": self.server.host,
            "port": self.server.port,
            "password": self.server.password,
            "url": self.server.url,
            "seconds": self.seconds or (0.15 if self.quick else 0.4),
        }


@dataclass(frozen=True)
class Case:
    """A program whose rows are figures.

    Attributes:
        row: The class of its rows.
        program: Reads settings as JSON, and prints rows as JSON.
        settings: What it gets beside the settings of all.
        quick: What is different in a quick run.
        name: The `case` of the rows, if that class has one.
        rounds: How often it is run; once in a quick run.
        python: Runs the program.
        timeout: Seconds that it may take.
    """

    row: type[Any]
    program: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    rounds: int = 3
    python: Interpreter = OWN
    timeout: float = TIMEOUT

    def run(self, bench: Bench) -> list[Any]:
        """Measure once and return the rows.

        Raises:
            ProgramError: The program failed, or took too long.
        """
        settings = {**bench.settings(), **self.settings}
        if bench.quick:
            settings |= self.quick
        label = {"case": self.name} if self.name else {}
        found = self.python.run(self.program, settings, timeout=self.timeout)
        return [self.row(**label, **row) for row in found]

    def failure(self, error: Exception) -> Failure:
        """Return the row for a case that failed."""
        *_, last = str(error).splitlines() or [""]
        what = self.row.__name__.lower()
        return Failure(self.name or "academy", what, last, self.python == OWN)
