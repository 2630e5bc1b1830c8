"""Processes that the harness starts: agents, callers, and bare consumers."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from academy.handle import Handle
from tests.fault.actor import Part
from tests.fault.caller import CallerPart
from tests.fault.consumer import ConsumerPart

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 20.0
"""Seconds that a process has to start on a busy machine."""


class Program:
    """A process of one of the programs here.

    Args:
        module: Its module, such as `tests.fault.actor`.
        part: What it plays; goes through standard input, for it has the password.
        errors: Where its standard error goes.
        prefix: Command to run it with, such as `("ip", "netns", "exec", "a")`.
    """

    def __init__(
        self, module: str, part: Any, errors: Path, prefix: Sequence[str] = ()
    ) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
                text=True,
            )
        self.errors = errors
        assert self._process.stdin is not None
        self._process.stdin.write(base64.b64encode(pickle.dumps(part)).decode() + "\n")
        self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    async def read(self, timeout: float) -> str:
        """Return the next line that it says; empty when it has ended."""
        assert self._process.stdout is not None
        line = asyncio.to_thread(self._process.stdout.readline)
        return (await asyncio.wait_for(line, timeout)).rstrip("\n")

    async def ready(self) -> None:
        """Wait until it runs.

        Raises:
            AssertionError: It has ended instead.
        """
        line = await self.read(START_TIMEOUT)
        assert line == "ready", f"{line!r}: {self.errors.read_text()[-2000:]}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, as the kernel would."""
        self._process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal_kill(self) -> None:
        """End it without warning; it is a zombie until `kill`."""
        self._process.kill()

    def kill(self) -> None:
        """End it without warning, and reap it."""
        self._process.kill()
        self._process.wait(10)
        self._close()

    def begin_stop(self) -> None:
        """Ask it to end, and keep what is waited for."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def ended(self, timeout: float = 20) -> str:
        """Wait until it ends by itself; return the name of its error, if any."""
        last = ""
        async with asyncio.timeout(timeout):
            while line := await self.read(timeout):
                last = line
            await asyncio.to_thread(self._process.wait, timeout)
        self._close()
        return last.removeprefix("ended").strip()

    async def stop(self, timeout: float = 20) -> str:
        """Let it end by itself; return the name of its error, if any."""
        self.begin_stop()
        return await self.ended(timeout)

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            # What was not read any more is of no use.
            if not pipe.closed:
                pipe.close()


class AgentProcess(Program):
    """One agent in a process of its own."""

    def __init__(
        self, part: Part, handle: Handle[Any], errors: Path, prefix: Sequence[str] = ()
    ) -> None:
        super().__init__("tests.fault.actor", part, errors, prefix)
        self.registration = part.registration
        self.handle = handle

    async def condition(self) -> dict[str, Any]:
        """Return what it uses, and the worst lag of its loop since the last time."""
        found: dict[str, Any] = await self.handle.condition()
        return found


class CallerProcess(Program):
    """Calls from a process of its own, which writes them to a journal."""

    def __init__(
        self, part: CallerPart, errors: Path, prefix: Sequence[str] = ()
    ) -> None:
        super().__init__("tests.fault.caller", part, errors, prefix)
        self.journal = part.journal


class ConsumerProcess(Program):
    """Takes requests to an agent one by one, by a transport of its own."""

    def __init__(self, part: ConsumerPart, handle: Handle[Any], errors: Path) -> None:
        super().__init__("tests.fault.consumer", part, errors)
        self.handle = handle
