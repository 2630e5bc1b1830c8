"""Program: what operations cost the server: commands, time, and memory that stays."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import redis

from academy.agent import Agent, action
from academy.exchange import HybridExchangeFactory
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.engine import Engine
from academy.executor import EventLoopExecutor
from academy.manager import Manager
from academy.message import Message, PingRequest


class Idle(Agent):
    """Waits."""

    @action
    async def wait(self) -> None:
        await asyncio.Event().wait()


class Meter:
    """Reads the server's own counts.

    Args:
        settings: Where the server is.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._server = redis.Redis(
            settings["host"], settings["port"], password=settings["password"]
        )
        self.rows: list[dict[str, Any]] = []

    @asynccontextmanager
    async def measure(self, operation: str, count: float) -> AsyncIterator[None]:
        """Add a row with what the block costs, divided by a number."""
        before = self._read()
        yield
        commands, us, memory = (
            (now - then) / count for then, now in zip(before, self._read(), strict=True)
        )
        self.rows.append(
            {
                "operation": operation,
                "commands": commands,
                "server_us": us,
                "bytes_kept": memory,
            }
        )

    def close(self) -> None:
        """End the connection."""
        self._server.close()

    def _read(self) -> tuple[float, float, float]:
        """Return commands that clients sent, their microseconds, and bytes in use."""
        stats = self._server.info("commandstats")
        sent = [stats.get(f"cmdstat_{name}") for name in ("evalsha", "eval", "xread")]
        calls = sum(s["calls"] for s in sent if s)
        us = sum(s["usec"] for s in sent if s)
        return calls, us, self._server.info("memory")["used_memory"]


async def take(request: Any) -> None:
    """Take a request, and never answer it."""


async def measure_processes(meter: Meter, settings: dict[str, Any]) -> None:
    """Measure processes that have nothing to do; here each is an engine."""
    login = {"password": settings["password"]}
    info = RedisConnectionInfo(settings["host"], settings["port"], login)
    count = settings["processes"]
    async with AsyncExitStack() as stack:
        async with meter.measure(f"one of {count} processes", count):
            for _ in range(count):
                engine = Engine(info, "processes", direct=True)
                await engine.open()
                stack.push_async_callback(engine.close)
        await asyncio.sleep(settings["settle_s"])
        idle = settings["idle_s"]
        async with meter.measure(f"one of {count} processes, per second", count * idle):
            await asyncio.sleep(idle)


async def measure_long_calls(meter: Meter, settings: dict[str, Any]) -> None:
    """Measure calls that are not answered for long, each to another agent."""
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    count = settings["processes"]
    async with await Manager.from_exchange_factory(
        factory, EventLoopExecutor()
    ) as manager:
        async with manager.launch_batch() as batch:
            agents = [await batch.queue(Idle) for _ in range(count)]
        await asyncio.gather(*(agent.ping() for agent in agents))
        await asyncio.sleep(settings["settle_s"])
        calls = [asyncio.ensure_future(agent.wait()) for agent in agents]
        await asyncio.sleep(1.0)
        idle, long = settings["idle_s"], settings["long_s"]
        short = 0.7 * long
        async with meter.measure("a call of some seconds, per second", count * short):
            await asyncio.sleep(short)
        await asyncio.sleep(long - short)
        async with meter.measure("a long call, per second", count * idle):
            await asyncio.sleep(idle)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    meter = Meter(settings)
    await measure_mailboxes(meter, settings)
    await measure_processes(meter, settings)
    await measure_long_calls(meter, settings)
    meter.close()
    return meter.rows


async def measure_mailboxes(meter: Meter, settings: dict[str, Any]) -> None:
    """Measure what is done with mailboxes, many at a time."""
    count = settings["mailboxes"]
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    async with await factory.create_user_client() as user:
        async with meter.measure("register, in batches", count):
            made = await user.register_agents([(Idle, None)] * count)
        agents = [registration.agent_id for registration in made]
        async with meter.measure("status", count):
            await asyncio.gather(*map(user.status, agents))
        async with meter.measure("discover, per match", count):
            assert len(await user.discover(Idle)) == count
        async with meter.measure("first message, into a queue", count):
            pings = (Message.create(user.client_id, a, PingRequest()) for a in agents)
            await asyncio.gather(*map(user.send, pings))
        async with meter.measure("bind, and take one message", count):
            clients = await asyncio.gather(
                *(factory.create_agent_client(m, take) for m in made)
            )
            await asyncio.sleep(1.0)
        async with meter.measure("terminate", count):
            await asyncio.gather(*(user.terminate(a) for a in agents))
            await asyncio.gather(*(client.close() for client in clients))
        made = await user.register_agents([(Idle, None)] * count)
        async with meter.measure("bind", count):
            clients = await asyncio.gather(
                *(factory.create_agent_client(m, take) for m in made)
            )
        async with meter.measure("close, and leave the mailbox", count):
            await asyncio.gather(*(client.close() for client in clients))
        await asyncio.gather(*(user.terminate(m.agent_id) for m in made))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
