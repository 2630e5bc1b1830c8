"""Running programs in interpreters: ours, and that of a peer."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = pathlib.Path(__file__).parent / "programs"
TIMEOUT = 120.0
"""Seconds that a program may take."""


class ProgramError(Exception):
    """A program failed or took too long."""


@dataclass(frozen=True)
class Interpreter:
    """A Python and the `academy` that it finds.

    Attributes:
        python: Its executable.
        import_path: Where it finds modules first; `None` for what is installed.
    """

    python: str = sys.executable
    import_path: pathlib.Path | None = ROOT

    def run(self, program: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a program of `bench/programs` and return the rows that it prints.

        The settings go to its standard input: they have a password in them.

        Raises:
            ProgramError: It failed, or it took longer than `TIMEOUT`.
        """
        output = self._communicate(
            [str(PROGRAMS / f"{program}.py")], json.dumps(settings)
        )
        rows: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
        return rows

    def evaluate(self, code: str) -> str:
        """Run code and return what it prints.

        Raises:
            ProgramError: It failed, or it took longer than `TIMEOUT`.
        """
        return self._communicate(["-P", "-c", code], "").strip()

    def time(self, code: str) -> float:
        """Return the wall time in seconds of an interpreter that runs code and ends.

        Raises:
            ProgramError: The code failed, or it took longer than `TIMEOUT`.
        """
        begin = time.perf_counter()
        self._communicate(["-P", "-c", code], "")
        return time.perf_counter() - begin

    def _communicate(self, arguments: list[str], text: str) -> str:
        process = subprocess.Popen(
            [self.python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
            start_new_session=True,  # so that what it started can be ended with it
        )
        what = pathlib.Path(arguments[0]).name if text else arguments[-1]
        try:
            output, errors = process.communicate(text, timeout=TIMEOUT)
        except BaseException as e:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            raise ProgramError(f"{what} took longer than {TIMEOUT:g} s") from None
        if process.returncode != 0:
            reason = errors[-2000:].rstrip()
            raise ProgramError(
                f"{what} ended with exit code {process.returncode}:\n{reason}"
            )
        return output

    def _environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if self.import_path is not None:
            environment["PYTHONPATH"] = str(self.import_path)
        return environment
