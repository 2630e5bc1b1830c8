"""Program: many agents are registered and launched in one thread of one process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from academy.agent import Agent
from academy.exchange import HybridExchangeFactory
from academy.executor import EventLoopExecutor
from academy.manager import Manager


class Idle(Agent):
    """Waits."""


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    import psutil

    count, process = settings["agents"], psutil.Process()
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    async with await Manager.from_exchange_factory(
        factory, EventLoopExecutor()
    ) as manager:
        await (await manager.launch(Idle)).ping()  # what the first costs is no agent
        memory, descriptors = process.memory_info().rss, process.num_fds()
        begin = time.perf_counter()
        handles = await asyncio.gather(*(manager.launch(Idle) for _ in range(count)))
        await asyncio.gather(*(handle.ping() for handle in handles))
        launched = time.perf_counter() - begin
        grown = process.memory_info().rss - memory
        opened = process.num_fds() - descriptors
        begin = time.perf_counter()
        await asyncio.gather(*(manager.shutdown(handle) for handle in handles))
        ended = time.perf_counter() - begin
    return [
        {
            "agents": count,
            "launched_per_s": count / launched,
            "ended_per_s": count / ended,
            "kib_each": grown / 1024 / count,
            "fds_each": opened / count,
        }
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
