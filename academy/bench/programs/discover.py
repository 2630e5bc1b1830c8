"""Program: how long it takes to find a few agents among many."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

from crowd import Crowd

from academy.agent import Agent
from academy.exchange import HybridExchangeFactory


class Sought(Agent):
    """One of those that are looked for."""


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    rows = []
    async with await factory.create_user_client() as user, Crowd(user) as crowd:
        for matches in settings["matches"]:
            found = type(f"Sought{matches}", (Sought,), {})
            await crowd.add(matches, found)
            crowd.classes[matches] = found
        for registered in settings["registered"]:
            await crowd.grow(registered)
            for matches in settings["matches"]:
                seconds = []
                for _ in range(settings["repeats"]):
                    begin = time.perf_counter()
                    agents = await user.discover(crowd.classes[matches])
                    seconds.append(time.perf_counter() - begin)
                    assert len(agents) == matches
                rows.append(
                    {
                        "registered": registered,
                        "matches": matches,
                        "found_ms": statistics.median(seconds) * 1000,
                    }
                )
    return rows


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
