"""Agents that the tests of managers and executors launch."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import threading
import time
from typing import Any

from academy.agent import Agent, action, loop
from academy.handle import Handle


class Counter(Agent):
    """Counts, and tells where it runs."""

    def __init__(self, start: int = 0, *, step: int = 1) -> None:
        self.value = start
        self.step = step

    @action
    async def add(self) -> int:
        self.value += self.step
        return self.value

    @action
    async def place(self) -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    @action
    async def loop_module(self) -> str:
        return type(asyncio.get_running_loop()).__module__

    @action
    async def frozen(self) -> int:
        return gc.get_freeze_count()

    @action
    async def sleep(self) -> None:
        await asyncio.sleep(1000)

    @action
    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251

    @action
    async def exit(self, code: int) -> None:
        os._exit(code)


class Asker(Agent):
    """Calls another agent."""

    def __init__(self, counter: Handle[Counter]) -> None:
        self.counter = counter

    @action
    async def ask(self) -> int:
        result: int = await self.counter.add()
        return result


class BadConstructor(Agent):
    def __init__(self) -> None:
        raise ValueError("no such lattice")

    @action
    async def ping_me(self) -> None: ...


class BadStartup(Agent):
    async def agent_on_startup(self) -> None:
        raise ValueError("no such lattice")

    @action
    async def answer(self) -> int:
        return 42


class BadLoop(Agent):
    @loop
    async def fail(self, shutdown: asyncio.Event) -> None:
        raise KeyError("lattice")


class Flaky(Agent):
    """Fails until a file has so many lines, one for each start."""

    def __init__(self, path: str, failures: int) -> None:
        self.path = path
        self.failures = failures

    async def agent_on_startup(self) -> None:
        if await self.agent_run_sync(self.note_start) <= self.failures:
            raise RuntimeError("not this time")

    def note_start(self) -> int:
        with open(self.path, "a+") as starts:
            starts.write("started\n")
            starts.seek(0)
            return len(starts.readlines())

    @action
    async def answer(self) -> int:
        return 42


class Stubborn(Counter):
    """Does not end when it is asked to, only when it is cancelled."""

    async def agent_on_shutdown(self) -> None:
        await asyncio.sleep(1000)

    @action
    async def answer(self) -> int:
        return 42


class Tidy(Counter):
    """Leaves a file behind when it ends in good order."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    async def agent_on_shutdown(self) -> None:
        await self.agent_run_sync(pathlib.Path(self.path).touch)


class UnpicklableError(Exception):
    """Cannot leave its process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class RaisesUnpicklable(Agent):
    async def agent_on_startup(self) -> None:
        raise UnpicklableError("stays here")


def twice(value: Any) -> Any:
    return value + value
