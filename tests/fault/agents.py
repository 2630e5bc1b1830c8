"""The agents that are killed, stopped and flooded, and what they show of themselves."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from academy import header
from academy.action import action
from academy.agent import Agent
from academy.exception import AgentTerminatedError
from academy.handle import Handle
from academy.identifier import AgentId
from academy.runtime import Runtime
from tests.fault.oracle import ExecutionLog, Journal

TICK = 0.01
"""Seconds between two looks at how late the event loop is."""


class Recorder(Agent):
    """Writes each call down before its effect.

    Args:
        log: The file that is appended to.
    """

    def __init__(self, log: str) -> None:
        super().__init__()
        self._path = log
        self._clock = LoopClock()

    async def agent_on_startup(self) -> None:
        self._log = ExecutionLog(self._path)
        self._clock.start()

    async def agent_on_shutdown(self) -> None:
        await self._clock.stop()

    def _journal(self, sender: str) -> Journal:
        return Journal(Path(self._path).with_name(f"{sender}.journal"))

    @action
    async def nothing(self) -> None:
        """Return at once, without a trace."""

    @action
    async def record(self, id: str, hold: float = 0.0) -> str:
        """Take some time."""
        self._log.add(id)
        if hold:
            await asyncio.sleep(hold)
        return id

    @action
    async def echo(self, id: str, payload: bytes) -> bytes:
        """Return what is sent."""
        self._log.add(id)
        return payload

    @action
    async def digest(self, id: str, payload: bytes) -> str:
        """Return the SHA-256 of what is sent."""
        self._log.add(id)
        return hashlib.sha256(payload).hexdigest()

    @action
    async def produce(self, id: str, size: int) -> bytes:
        """Return so many bytes."""
        self._log.add(id)
        return bytes(size)

    @action
    async def block(self, id: str, seconds: float) -> str:
        """Block the event loop."""
        self._log.add(id)
        time.sleep(seconds)  # noqa: ASYNC251 - this is the fault
        return id

    @action
    async def flood(self, id: str, other: Handle[Any], count: int, size: int) -> int:
        """Call another agent many times at once; return how many answers were right."""
        self._log.add(id)
        payload = os.urandom(size)
        journal = self._journal(f"flood-{id.replace(':', '-')}")
        calls = (
            journal.watch(n, lambda id: other.echo(id, payload))
            for n in range(1, count + 1)
        )
        answers = await asyncio.gather(*calls)
        return sum(answer == payload for answer in answers)

    @action
    async def shift_clock(self, seconds: float) -> None:
        """Let the wall clock of this process jump."""
        shift_clock(seconds)

    @action
    async def condition(self) -> dict[str, Any]:
        """Return what this process uses; not one of the calls that are written down."""
        lag = self._clock.worst
        self._clock.worst = 0.0
        return {**condition(), "lag": lag}


class Host(Recorder):
    """Runs many recorders in its process, and may use up its files."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self._guests: dict[AgentId[Any], Runtime[Recorder]] = {}
        self._files: list[Any] = []

    async def agent_on_shutdown(self) -> None:
        for guest in self._guests.values():
            await guest.__aexit__(None, None, None)
        await super().agent_on_shutdown()

    @action
    async def host(self, registrations: list[Any]) -> None:
        """Bind these mailboxes, too; terminated ones are left alone."""
        factory = self.agent_exchange_client.factory()
        for registration in registrations:
            guest = Runtime(
                Recorder(self._path),
                exchange_factory=factory,
                registration=registration,
            )
            with contextlib.suppress(AgentTerminatedError):
                await guest.__aenter__()
                self._guests[registration.agent_id] = guest

    @action
    async def mesh(self, others: list[AgentId[Any]], sender: str) -> int:
        """Call all others from every guest; return how many answers were right."""
        right = 0
        for number, guest in enumerate(self._guests.values()):
            own = guest.agent.agent_exchange_client
            journal = self._journal(f"{sender}-{number}")
            calls = [
                journal.watch(
                    n, Handle(other, exchange=own, ignore_context=True).record
                )
                for n, other in enumerate(others, 1)
            ]
            right += sum(a is not None for a in await asyncio.gather(*calls))
        return right

    @action
    async def use_up_files(self) -> int:
        """Open files until there are no more."""
        with contextlib.suppress(OSError):
            while True:
                self._files.append(open("/dev/null"))  # noqa: SIM115, ASYNC230
        return len(self._files)

    @action
    async def give_files_back(self) -> None:
        while self._files:
            self._files.pop().close()


class LoopClock:
    """Watches how late an event loop is."""

    def __init__(self) -> None:
        self.worst = 0.0
        """Seconds; may be set back to 0."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="loop-clock")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, loop.time() - due)


def shift_clock(seconds: float) -> Callable[[], None]:
    """Let the wall clock of this process jump; return what sets it right again."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)

    def undo() -> None:
        time.time, time.time_ns = real, real_ns

    return undo


def condition() -> dict[str, Any]:
    """Return what this process uses, in a running event loop."""
    process = psutil.Process()
    return {
        "tasks": len(asyncio.all_tasks()),
        "fds": process.num_fds(),
        "rss": process.memory_info().rss,
        "objects": objects(),
    }


_OURS = frozenset(
    ("AgentId", "Handle", "HybridAgentRegistration", "RedisAgentRegistration")
)
"""What tests keep themselves."""


def objects() -> dict[str, int]:
    """Return how many objects of the package's own classes there are."""
    header._identifier.cache_clear()  # it has a limit, far above what a test sends
    gc.collect()
    classes = map(type, gc.get_objects())
    names = (
        c.__qualname__ for c in classes if str(c.__module__).startswith("academy.")
    )
    return dict(collections.Counter(n for n in names if n not in _OURS))
