"""Program: from the launch of an agent in a process of its own to its first answer."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from typing import Any

from academy.agent import Agent, action
from academy.exchange import HybridExchangeFactory
from academy.executor import SubprocessExecutor
from academy.manager import Manager


class Where(Agent):
    @action
    async def pid(self) -> int:
        return os.getpid()


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    seconds = []
    async with await Manager.from_exchange_factory(
        factory, SubprocessExecutor()
    ) as manager:
        for _ in range(settings["launches"]):
            begin = time.perf_counter()
            agent = await manager.launch(Where)
            assert await agent.pid() != os.getpid()
            seconds.append(time.perf_counter() - begin)
            await manager.shutdown(agent, blocking=True)
    return [
        {
            "executor": "SubprocessExecutor",
            "ready_ms": statistics.median(seconds) * 1000,
        }
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
