"""Program: one calls many agents, and each of many calls all the others.

The agents are spread over two worker processes. Only what academy-py 1.0 has, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents import exchange, workers
from ways import PROCESSES, call_all, measure_ways

from academy.agent import Agent, action
from academy.manager import Manager


class Member(Agent):
    @action
    async def noop(self) -> None:
        """Do nothing."""

    @action
    async def call_others(self, others: list[Any], rounds: int) -> None:
        """Call all others at a time, so many times."""
        await call_all(others, rounds)


class Host(Agent):
    """Keeps members in its process, which an executor gives one agent only."""

    @action
    async def open(self, count: int) -> list[Any]:
        """Launch so many members here."""
        return [await self.agent_launch_alongside(Member) for _ in range(count)]


async def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    async with await Manager.from_exchange_factory(
        exchange(settings), executors=workers(PROCESSES)
    ) as manager:
        hosts = [await manager.launch(Host) for _ in range(PROCESSES)]
        opened = [await host.open(settings["agents"] // PROCESSES) for host in hosts]
        members = [member for here in opened for member in here]
        return await measure_ways(members, settings["seconds"])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
