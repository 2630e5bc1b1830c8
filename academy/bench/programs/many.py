"""Program: many agents in one process: launched, called, called again, and closed."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import redis

from academy.agent import Agent, action
from academy.exchange import HybridExchangeFactory
from academy.executor import EventLoopExecutor
from academy.handle import Handle
from academy.manager import Manager

AT_A_TIME = 256
"""Calls in flight."""
WARM_UP = 50
"""Agents that are there before: the first ones cost the engine of the process."""


class Echo(Agent):
    """Answers, and counts how many have started."""

    started = 0

    async def agent_on_startup(self) -> None:
        Echo.started += 1

    @action
    async def echo(self, value: int) -> int:
        return value


async def launch(manager: Manager[Any], count: int) -> list[Handle[Echo]]:
    """Launch agents in one batch, and wait until all have started."""
    expected = Echo.started + count
    async with manager.launch_batch() as batch:
        handles = [await batch.queue(Echo) for _ in range(count)]
    while Echo.started < expected:  # noqa: ASYNC110 - perhaps in another event loop
        await asyncio.sleep(0.005)
    return handles


async def call_all(handles: list[Handle[Echo]]) -> None:
    """Call each agent once; all answer."""
    free = asyncio.Semaphore(AT_A_TIME)

    async def call(number: int) -> None:
        async with free:
            assert await handles[number].echo(number) == number

    await asyncio.gather(*map(call, range(len(handles))))


class Usage:
    """What this process has, above what it had at the beginning."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._memory, self._descriptors = self._now()

    def above(self) -> tuple[int, int]:
        """Return bytes of memory, and descriptors."""
        memory, descriptors = self._now()
        return memory - self._memory, descriptors - self._descriptors

    def _now(self) -> tuple[int, int]:
        gc.collect()
        return self._process.memory_info().rss, self._process.num_fds()


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    count, clock = settings["agents"], time.perf_counter
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    server = redis.Redis(
        settings["host"], settings["port"], password=settings["password"]
    )
    keys = server.dbsize()
    executor = EventLoopExecutor() if settings["apart"] else None
    async with await Manager.from_exchange_factory(
        factory, executor, shutdown_timeout=60
    ) as manager:
        await call_all(await launch(manager, WARM_UP))
        usage = Usage()
        begin = clock()
        handles = await launch(manager, count)
        launched = clock() - begin
        started, descriptors = usage.above()
        begin = clock()
        await call_all(handles)
        first = clock() - begin
        answered, _ = usage.above()
        begin = clock()
        await call_all(handles)
        again = clock() - begin
        begin = clock()
    closed = clock() - begin
    left = server.dbsize() - keys
    server.close()
    return [
        {
            "event_loop": "their own" if settings["apart"] else "the manager's",
            "agents": count,
            "launched_per_s": count / launched,
            "first_calls_per_s": count / first,
            "calls_per_s": count / again,
            "started_kb_each": started / 1000 / count,
            "answered_kb_each": answered / 1000 / count,
            "fds_each": descriptors / count,
            "close_s": closed,
            "keys_left": left,
        }
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
