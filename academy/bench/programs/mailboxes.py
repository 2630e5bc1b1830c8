"""Program: what each of many mailboxes costs the process that holds them all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from typing import Any

from academy.agent import Agent
from academy.exchange import HybridExchangeFactory

BATCH = 50


class Idle(Agent):
    """Waits."""


async def take(request: Any) -> None:
    raise AssertionError(f"Nobody sends anything here, but here is {request}.")


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    import psutil

    count = settings["mailboxes"]
    process = psutil.Process()
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    async with contextlib.AsyncExitStack() as stack:
        user = await stack.enter_async_context(await factory.create_user_client())

        async def open_mailbox() -> None:
            registration = await user.register_agent(Idle)
            client = await factory.create_agent_client(registration, take)
            stack.push_async_exit(client)

        # What the first ones cost is the engine of the process.
        await asyncio.gather(*(open_mailbox() for _ in range(BATCH)))
        gc.collect()
        memory, descriptors = process.memory_info().rss, process.num_fds()
        begin = time.perf_counter()
        for start in range(0, count, BATCH):
            batch = range(start, min(start + BATCH, count))
            await asyncio.gather(*(open_mailbox() for _ in batch))
        elapsed = time.perf_counter() - begin
        gc.collect()
        grown = process.memory_info().rss - memory
        opened = process.num_fds() - descriptors
        return [
            {
                "mailboxes": count,
                "kib_each": grown / 1024 / count,
                "fds_each": opened / count,
                "fds_of_process": float(process.num_fds()),
                "opened_per_s": count / elapsed,
            }
        ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
