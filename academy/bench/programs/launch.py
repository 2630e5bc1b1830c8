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
    count = settings["agents"]
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    async with await Manager.from_exchange_factory(
        factory, EventLoopExecutor()
    ) as manager:
        begin = time.perf_counter()
        handles = await asyncio.gather(*(manager.launch(Idle) for _ in range(count)))
        await asyncio.gather(*(handle.ping() for handle in handles))
        ready = time.perf_counter()
        await asyncio.gather(*(manager.shutdown(handle) for handle in handles))
        ended = time.perf_counter()
    return [
        {
            "agents": count,
            "launched_per_s": count / (ready - begin),
            "ended_per_s": count / (ended - ready),
        }
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
