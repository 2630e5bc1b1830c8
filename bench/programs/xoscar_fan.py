"""Program: one calls many xoscar actors, and each of many calls all the others."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import xoscar as mo
from ways import PROCESSES, call_all, measure_ways
from xoscar.backends.allocate_strategy import ProcessIndex
from xoscar_actor import free_address


class Member(mo.Actor):
    async def noop(self) -> None:
        """Do nothing."""

    async def call_others(self, others: list[Any], rounds: int) -> None:
        """Call all others at a time, so many times."""
        # Calls of an actor wait for each other unless it gives way meanwhile.
        yield call_all(others, rounds)


async def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    pool = await mo.create_actor_pool(free_address(), n_process=PROCESSES)
    async with pool:
        members = [
            await mo.create_actor(
                Member,
                address=pool.external_address,
                allocate_strategy=ProcessIndex(1 + number % PROCESSES),
            )
            for number in range(settings["agents"])
        ]
        return await measure_ways(members, settings["seconds"])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
