"""Program: one calls many agents, and each of many calls all the others.

The agents are spread over two worker processes. Only what academy-py 1.0 has, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from agents import exchange, workers
from load import percentile

from academy.agent import Agent, action
from academy.manager import Manager

PROCESSES = 2


class Member(Agent):
    @action
    async def noop(self) -> None:
        """Do nothing."""

    @action
    async def call_others(self, others: list[Any], rounds: int) -> None:
        """Call all others at a time, so many times."""
        for _ in range(rounds):
            await asyncio.gather(*(other.noop() for other in others))


class Host(Agent):
    """Keeps members in its process, which an executor gives one agent only."""

    @action
    async def open(self, count: int) -> list[Any]:
        """Launch so many members here."""
        return [await self.agent_launch_alongside(Member) for _ in range(count)]


async def one_to_many(members: list[Any], seconds: float) -> dict[str, Any]:
    trips: list[float] = []
    begin = time.perf_counter()
    while not trips or time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        await asyncio.gather(*(member.noop() for member in members))
        trips.append(time.perf_counter() - start)
    return {
        "way": "one to many",
        "agents": len(members),
        "round_p50_ms": percentile(sorted(trips), 0.5) * 1e3,
        "calls_per_s": len(members) * len(trips) / sum(trips),
    }


async def all_to_all(members: list[Any], seconds: float) -> dict[str, Any]:
    others = {m: [other for other in members if other is not m] for m in members}

    async def rounds(count: int) -> float:
        begin = time.perf_counter()
        await asyncio.gather(*(m.call_others(others[m], count) for m in members))
        return time.perf_counter() - begin

    await rounds(1)  # now everybody is connected
    count = max(1, min(500, int(seconds / await rounds(1))))
    elapsed = await rounds(count)
    return {
        "way": "all to all",
        "agents": len(members),
        "round_p50_ms": elapsed / count * 1e3,
        "calls_per_s": len(members) * (len(members) - 1) * count / elapsed,
    }


async def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    async with await Manager.from_exchange_factory(
        exchange(settings), executors=workers(PROCESSES)
    ) as manager:
        hosts = [await manager.launch(Host) for _ in range(PROCESSES)]
        opened = [await host.open(settings["agents"] // PROCESSES) for host in hosts]
        members = [member for here in opened for member in here]
        await one_to_many(members, 0)
        return [
            await one_to_many(members, settings["seconds"]),
            await all_to_all(members, settings["seconds"]),
        ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
