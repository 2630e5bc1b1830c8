"""Program: what operations cost the server: commands, time, and memory that stays."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis

from academy.agent import Agent
from academy.exchange import HybridExchangeFactory
from academy.message import Message, PingRequest

IDLE_SECONDS = 10.0
SETTLE_SECONDS = 5.0
"""Seconds until a process has done what it had still to do."""


class Idle(Agent):
    """Waits."""


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


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    count = settings["mailboxes"]
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    meter = Meter(settings)
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
        await asyncio.sleep(SETTLE_SECONDS)
        async with meter.measure("a process, per second", IDLE_SECONDS):
            await asyncio.sleep(IDLE_SECONDS)
        async with meter.measure("close, and leave the mailbox", count):
            await asyncio.gather(*(client.close() for client in clients))
        await asyncio.gather(*(user.terminate(m.agent_id) for m in made))
    meter.close()
    return meter.rows


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
