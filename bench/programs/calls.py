"""Program: no-op actions of one agent, called from here.

Only what academy-py 1.0 has, too, so that the same program measures both. Reads its
settings as JSON from standard input and prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from load import drive_all

from academy.agent import Agent, action
from academy.exchange import (
    HybridExchangeFactory,
    LocalExchangeFactory,
    RedisExchangeFactory,
)
from academy.manager import Manager


class Noop(Agent):
    @action
    async def noop(self) -> None:
        """Do nothing."""


def exchange(settings: dict[str, Any]) -> Any:
    if settings["exchange"] == "local":
        return LocalExchangeFactory()
    host, port = settings["host"], settings["port"]
    password = settings["password"]
    if settings["exchange"] == "redis":
        return RedisExchangeFactory(host, port, password=password)
    return HybridExchangeFactory(
        host, port, redis_kwargs={"password": password}, namespace=None
    )


async def measure(settings: dict[str, Any]) -> list[dict[str, float]]:
    executor = None
    if settings["processes"] == 2:
        spawn = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(1, mp_context=spawn)
    async with await Manager.from_exchange_factory(
        exchange(settings), executors=executor
    ) as manager:
        agent = await manager.launch(Noop)
        return await drive_all(agent.noop, settings)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
