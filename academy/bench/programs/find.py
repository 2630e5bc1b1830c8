"""Program: agents are registered, and then discovered by their class.

Only what academy-py 1.0 has, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from agents import exchange
from load import percentile

from academy.agent import Agent


class Wanted(Agent):
    """Is registered, and never runs."""


class Other(Agent):
    """Is not looked for."""


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    count = settings["agents"]
    factory = exchange(settings)
    async with await factory.create_user_client() as user:
        begin = time.perf_counter()
        for number in range(count):
            await user.register_agent(Wanted if number % 2 else Other)
        registered = time.perf_counter() - begin
        trips: list[float] = []
        begin = time.perf_counter()
        while not trips or time.perf_counter() < begin + settings["seconds"]:
            start = time.perf_counter()
            found = await user.discover(Wanted)
            trips.append(time.perf_counter() - start)
            assert len(found) == count // 2
    trips.sort()
    return [
        {
            "agents": count,
            "registered_per_s": count / registered,
            "p50_ms": percentile(trips, 0.5) * 1e3,
            "p99_ms": percentile(trips, 0.99) * 1e3,
        }
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
