"""Program: the bare floor, 200 bytes to another process and back, over asyncio.

No header, no pickle, no names: what is left of a call when everything is taken away.
"""

from __future__ import annotations

import asyncio
import collections
import json
import multiprocessing
import pathlib
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any, cast

from load import drive_all

MESSAGE = b"x" * 200


class Server(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Client(asyncio.Protocol):
    """Sends a message and waits for as many bytes to come back."""

    def __init__(self) -> None:
        self.waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        while self.received >= len(MESSAGE):
            self.received -= len(MESSAGE)
            self.waiting.popleft().set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self.waiting:
            future.set_exception(ConnectionError("The echo server is gone."))

    async def call(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.transport.write(MESSAGE)
        await future


async def serve(path: str | None, ready: Connection) -> None:
    """Listen on a Unix socket, or on a TCP port if no path is given."""
    loop = asyncio.get_running_loop()
    if path is not None:
        server: asyncio.Server = await loop.create_unix_server(Server, path)
        ready.send(0)
    else:
        server = await loop.create_server(Server, "127.0.0.1")
        ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run_server(path: str | None, ready: Connection) -> None:
    asyncio.run(serve(path, ready))


async def measure(
    path: str | None, port: int, settings: dict[str, Any]
) -> list[dict[str, float]]:
    loop = asyncio.get_running_loop()
    if path is not None:
        transport, client = await loop.create_unix_connection(Client, path)
    else:
        transport, client = await loop.create_connection(Client, "127.0.0.1", port)
    try:
        return await drive_all(client.call, settings)
    finally:
        transport.close()


def main(settings: dict[str, Any]) -> list[dict[str, float]]:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        unix = settings["family"] == "unix"
        path = str(pathlib.Path(directory, "s")) if unix else None
        here, there = spawn.Pipe()
        server = spawn.Process(target=run_server, args=(path, there), daemon=True)
        server.start()
        there.close()
        try:
            return asyncio.run(measure(path, here.recv(), settings))
        finally:
            server.terminate()
            server.join()


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
