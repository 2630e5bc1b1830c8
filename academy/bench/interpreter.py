"""Running programs in interpreters: ours, and those of peers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
"""The programs that measure this package."""
TIMEOUT = 120.0
"""Seconds that a program may take, unless it is said otherwise."""

_HOME = Path(__file__).parent.parent.parent


class ProgramError(Exception):
    """A program failed or took too long."""


@dataclass(frozen=True)
class Interpreter:
    """A Python, and where it finds modules.

    Attributes:
        python: Its executable.
        import_path: A directory that is searched first; `None` for what is installed.
    """

    python: str = sys.executable
    # A clone has the package beside its programs; what is installed is found anyway,
    # and nothing beside it may hide modules of the standard library.
    import_path: Path | None = None if _HOME.name.endswith("-packages") else _HOME

    def run(
        self, program: Path, settings: dict[str, Any], *, timeout: float = TIMEOUT
    ) -> list[dict[str, Any]]:
        """Run a program and return the rows that it prints.

        Args:
            program: A Python script.
            settings: Go to its standard input: they have a password in them.
            timeout: Seconds that it may take.

        Raises:
            ProgramError: It failed, or took too long.
        """
        text = json.dumps(settings)
        output = self._communicate([str(program)], text, program.name, timeout)
        rows: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
        return rows

    def evaluate(self, code: str) -> str:
        """Run code and return what it prints.

        Raises:
            ProgramError: It failed, or it took longer than `TIMEOUT`.
        """
        return self._communicate(["-P", "-c", code], "", code, TIMEOUT).strip()

    def _communicate(
        self, arguments: list[str], text: str, what: str, timeout: float
    ) -> str:
        process = subprocess.Popen(
            [self.python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
            start_new_session=True,  # so that what it started can be ended with it
        )
        try:
            output, errors = process.communicate(text, timeout=timeout)
        except BaseException as e:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            raise ProgramError(f"{what} took longer than {timeout:g} s") from None
        if process.returncode != 0:
            reason = errors[-2000:].rstrip()
            raise ProgramError(
                f"{what} ended with exit code {process.returncode}:\n{reason}"
            )
        return output

    def _environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        # All have the event loop of asyncio itself, so that they can be compared.
        environment.setdefault("ACADEMY_UVLOOP", "0")
        if self.import_path is not None:
            environment["PYTHONPATH"] = str(self.import_path)
        return environment
