"""Program: an agent in another process (or in this one) that is called from here.

Only what academy-py 1.0 has, too, so that the same program measures both.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from target import Target, measure

from academy.agent import Agent, action
from academy.exchange import (
    HybridExchangeFactory,
    LocalExchangeFactory,
    RedisExchangeFactory,
)
from academy.manager import Manager


class Echo(Agent):
    @action
    async def noop(self) -> None:
        """Do nothing."""

    @action
    async def echo(self, value: Any) -> Any:
        """Return a value."""
        return value

    @action
    async def size(self, value: Any) -> int:
        """Return how many bytes a value has."""
        return memoryview(value).nbytes

    @action
    async def neighbour(self) -> Any:
        """Launch another one in the same process, and return its handle."""
        return await self.agent_launch_alongside(Echo)


def exchange(settings: dict[str, Any]) -> Any:
    if settings["exchange"] == "local":
        return LocalExchangeFactory()
    host, port = settings["host"], settings["port"]
    password = settings["password"]
    if settings["exchange"] == "redis":
        return RedisExchangeFactory(host, port, password=password)
    return HybridExchangeFactory(
        host, port, redis_kwargs={"password": password}, namespace=None
    )


def workers(count: int) -> ProcessPoolExecutor | None:
    """Return so many fresh processes, or nothing for the event loop of this one."""
    if count == 0:
        return None
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


async def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    async with await Manager.from_exchange_factory(
        exchange(settings), executors=workers(settings["workers"])
    ) as manager:
        agent = await manager.launch(Echo)
        others = [p.pid for p in multiprocessing.active_children() if p.pid]
        small = agent
        if settings["measure"] == "beside":
            # Messages of one to the other keep their order: small ones would wait.
            small = await agent.neighbour()
        target = Target(small.noop, agent.echo, agent.size, others)
        return await measure(target, settings)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
