"""Program: an xoscar actor in another process that is called from here."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

import xoscar as mo
from target import Target, measure
from xoscar.backends.allocate_strategy import ProcessIndex


class Echo(mo.Actor):
    async def pid(self) -> int:
        return os.getpid()

    async def noop(self) -> None:
        """Do nothing."""

    async def echo(self, value: Any) -> Any:
        """Return a value."""
        return value

    async def size(self, value: Any) -> int:
        """Return how many bytes a value has."""
        return memoryview(value).nbytes


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


async def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    pool = await mo.create_actor_pool(free_address(), n_process=1)
    async with pool:
        actor = await mo.create_actor(
            Echo,
            address=pool.external_address,
            allocate_strategy=ProcessIndex(1),
        )
        target = Target(actor.noop, actor.echo, actor.size, [await actor.pid()])
        return await measure(target, settings)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
