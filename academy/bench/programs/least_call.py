"""Program: the least that a call of a coroutine in another process takes in Python.

A frame is its length, a number, the last number taken of the other side, and a pickle.
There is a task for each call and a future for each answer, and what comes up in one
turn of the event loop is written together. Nobody proves who they are, nothing is sent
again or bounded: what does all that in Python can hardly be faster.
"""

from __future__ import annotations

import asyncio
import functools
import json
import multiprocessing
import pickle
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, cast

from target import METHODS, Target, measure

HEAD = struct.Struct("!IQQ")
"""Length of what follows it, number of the message, number of the last one taken."""


class Frames(asyncio.BufferedProtocol):
    """Sends and receives numbered frames; all of one turn in one write."""

    def __init__(self, take: Callable[[Frames, int, Any], None]) -> None:
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._buffer = memoryview(bytearray(1 << 18))
        self._partial = b""
        self._taken = 0
        self._prompt = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, number: int, body: Any) -> None:
        data = pickle.dumps(body, pickle.HIGHEST_PROTOCOL)
        out = self._out
        first = not out
        out.append(HEAD.pack(len(data), number, self._taken))
        out.append(data)
        if first and self._prompt:
            self._prompt = False
            self._flush()
        elif first:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._partial + self._buffer[:nbytes]
        begin, size, found = 0, len(data), 0
        while begin + HEAD.size <= size:
            length, number, _ = HEAD.unpack_from(data, begin)
            start = begin + HEAD.size
            if start + length > size:
                break
            begin = start + length
            self._taken = number
            found += 1
            self._take(self, number, pickle.loads(data[start:begin]))
        self._partial = data[begin:]
        self._prompt = found == 1

    def close(self) -> None:
        self._transport.close()


class Server:
    """Runs what it is asked for, each call in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def take(self, frames: Frames, number: int, request: Any) -> None:
        task = self._loop.create_task(self._run(frames, number, *request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, frames: Frames, number: int, name: str, value: Any) -> None:
        frames.send(number, await self.act(name, value))

    async def act(self, name: str, value: Any) -> Any:
        return METHODS[name](value)


class Client:
    """Calls the server."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.frames = Frames(self._take)

    def _take(self, frames: Frames, number: int, answer: Any) -> None:
        self._waiting.pop(number).set_result(answer)

    async def call(self, name: str, value: Any = None) -> Any:
        self._number += 1
        future = self._waiting[self._number] = self._loop.create_future()
        self.frames.send(self._number, (name, value))
        return await future


async def serve(listener: socket.socket) -> None:
    """Serve one client after the other, until the process is ended."""
    loop = asyncio.get_running_loop()
    server = Server()
    listener.setblocking(False)
    while True:
        sock, _ = await loop.sock_accept(listener)
        await loop.connect_accepted_socket(lambda: Frames(server.take), sock)


def run_server(path: str, pipe: Connection) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        pipe.send("listening")
        asyncio.run(serve(listener))


async def run(path: str, pid: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    client = Client()
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: client.frames, path)

    call = client.call
    target = Target(
        functools.partial(call, "noop"),
        functools.partial(call, "echo"),
        functools.partial(call, "size"),
        [pid],
    )
    try:
        return await measure(target, settings)
    finally:
        client.frames.close()


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        here, there = spawn.Pipe()
        server = spawn.Process(target=run_server, args=(path, there), daemon=True)
        server.start()
        there.close()
        try:
            here.recv()
            assert server.pid is not None
            return asyncio.run(run(path, server.pid, settings))
        finally:
            server.terminate()
            server.join()


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
