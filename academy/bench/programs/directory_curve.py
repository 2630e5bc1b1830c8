"""Program: what single operations cost when few or many mailboxes are registered."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis
from crowd import Crowd

from academy.agent import Agent
from academy.exchange import HybridExchangeFactory
from academy.executor import SubprocessExecutor
from academy.manager import Manager


class Idle(Agent):
    """Waits."""


async def take(request: Any) -> None:
    raise AssertionError(f"Nobody sends anything here, but here is {request}.")


async def median_us(operation: Callable[[], Awaitable[Any]], repeats: int) -> float:
    """Repeat an operation, one at a time, and return the median."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        await operation()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) * 1e6


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    server = redis.Redis(
        settings["host"], settings["port"], password=settings["password"]
    )
    repeats, rows = settings["repeats"], []
    async with await Manager.from_exchange_factory(
        factory, SubprocessExecutor()
    ) as manager:
        user = manager.exchange_client
        agent = await manager.launch(Idle)
        await agent.ping()
        async with Crowd(user) as crowd:

            async def register() -> None:
                await crowd.add(1, Idle)

            async def bind() -> None:
                # It was registered by `register`; closing it is not timed.
                registration = fresh.pop()
                clients.append(await factory.create_agent_client(registration, take))

            async def lookup() -> None:
                await user.status(random.choice(crowd.agents))

            for registered in settings["registered"]:
                await crowd.grow(registered)
                used = server.info("memory")["used_memory"]
                fresh = await user.register_agents([(Idle, None)] * repeats)
                crowd.agents += [r.agent_id for r in fresh]
                clients: list[Any] = []
                row = {
                    "registered": registered,
                    "register_us": await median_us(register, repeats),
                    "bind_us": await median_us(bind, repeats),
                    "lookup_us": await median_us(lookup, repeats),
                    "ping_us": await median_us(agent.ping, repeats),
                    "server_mb": used / 1e6,
                }
                for client in clients:
                    await client.close()
                rows.append(row)
    server.close()
    return rows


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
