"""Program: the bare floor, bytes to another process and back.

No header, no pickle, no names: what is left of a call when everything is taken away. A
message must have arrived before it is answered, so a large one goes one way at a time;
the answer is its beginning, if not all of it.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import functools
import json
import multiprocessing
import socket
import struct
import sys
import tempfile
import threading
from multiprocessing.connection import Connection
from typing import Any, cast

from target import Target, measure

SMALL = b"x" * 200
"""About as long as the head of a call."""

LENGTHS = struct.Struct("!QQ")
"""What a connection begins with: how long messages are, and their answers."""

Address = str | tuple[str, int]
"""Where the other process listens: a path, or host and port."""


# Blocking sockets: one call at a time.


def receive(sock: socket.socket, buffer: memoryview) -> bool:
    """Fill a buffer; return false when the other side has closed before that."""
    while buffer:
        count = sock.recv_into(buffer)
        if count == 0:
            return False
        buffer = buffer[count:]
    return True


def answer(sock: socket.socket) -> None:
    """Answer all messages."""
    with sock:
        lengths = bytearray(LENGTHS.size)
        if not receive(sock, memoryview(lengths)):
            return
        size, answer_size = LENGTHS.unpack(lengths)
        buffer = memoryview(bytearray(size))
        while receive(sock, buffer):
            sock.sendall(buffer[:answer_size])


def serve_blocking(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        # Small and large messages have connections of their own.
        threading.Thread(target=answer, args=(sock,), daemon=True).start()


class BlockingLine:
    """A connection for answers of one length. No other task runs during a call."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        self._sock = sock
        self._size = size

    async def call(self, message: bytes) -> bytearray:
        buffer = bytearray(self._size)
        self._sock.sendall(message)
        receive(self._sock, memoryview(buffer))
        return buffer

    def close(self) -> None:
        self._sock.close()


# asyncio: many calls at a time.


class Messages(asyncio.BufferedProtocol, abc.ABC):
    """Receives messages of one length: small ones together, a large one by itself."""

    AT_ONCE = 1 << 16

    def __init__(self, size: int) -> None:
        self._size, self._filled = size, 0
        self._buffer = self._fresh()

    def _fresh(self) -> bytearray:
        return bytearray(max(self._size, self.AT_ONCE // self._size * self._size))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        whole = self._filled // self._size * self._size
        if whole == len(self._buffer):
            self.take(self._buffer)
            self._buffer, self._filled = self._fresh(), 0
        elif whole:
            self.take(self._buffer[:whole])
            self._buffer[: self._filled - whole] = self._buffer[whole : self._filled]
            self._filled -= whole

    @abc.abstractmethod
    def take(self, messages: bytearray) -> None:
        """Take one message or more that have arrived."""


class Answers(Messages):
    """Sends messages back; of a large one as much as is asked for."""

    def __init__(self, size: int, answer_size: int) -> None:
        super().__init__(size)
        self._most = max(answer_size, self.AT_ONCE)

    def take(self, messages: bytearray) -> None:
        self.transport.write(memoryview(messages)[: self._most])


class Line(Messages):
    """Sends messages, and gives those that come back to those who wait."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._waiting: collections.deque[asyncio.Future[bytearray]]
        self._waiting = collections.deque()

    def take(self, messages: bytearray) -> None:
        for _ in range(len(messages) // self._size):
            self._waiting.popleft().set_result(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(ConnectionResetError("the server has ended"))

    async def call(self, message: bytes) -> bytearray:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.transport.write(message)
        return await future

    def close(self) -> None:
        self.transport.close()


async def serve_asyncio(listener: socket.socket) -> None:
    """Answer on each connection."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    while True:
        sock, _ = await loop.sock_accept(listener)
        lengths = LENGTHS.unpack(await loop.sock_recv(sock, LENGTHS.size))
        await loop.connect_accepted_socket(functools.partial(Answers, *lengths), sock)


# Both.


def listen(directory: str | None) -> socket.socket:
    """Return a Unix socket in that directory, or one of TCP, that listens."""
    if directory is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{directory}/s")
    listener.listen()
    return listener


def serve(way: str, directory: str | None, pipe: Connection) -> None:
    """Answer until the process is ended."""
    with listen(directory) as listener:
        pipe.send(listener.getsockname())
        if way == "blocking":
            serve_blocking(listener)
        else:
            asyncio.run(serve_asyncio(listener))


def connect(address: Address, size: int, answer_size: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.connect(address)
    if isinstance(address, tuple):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(LENGTHS.pack(size, answer_size))
    return sock


async def open_line(
    way: str, address: Address, size: int, answer_size: int
) -> BlockingLine | Line:
    sock = connect(address, size, answer_size)
    if way == "blocking":
        return BlockingLine(sock, answer_size)
    _, line = await asyncio.get_running_loop().create_connection(
        functools.partial(Line, answer_size), sock=sock
    )
    return line


async def run(
    address: Address, pid: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    way = settings["way"]
    lines: dict[tuple[int, int], BlockingLine | Line] = {}

    async def call(message: bytes, answer_size: int) -> bytearray:
        lengths = len(message), answer_size
        line = lines.get(lengths) or await open_line(way, address, *lengths)
        lines[lengths] = line
        return await line.call(message)

    async def echo(message: bytes) -> bytearray:
        return await call(message, len(message))

    async def send(message: bytes) -> int:
        await call(message, Messages.AT_ONCE)
        return len(message)

    try:
        await echo(SMALL)
        small = lines[len(SMALL), len(SMALL)]
        target = Target(lambda: small.call(SMALL), echo, send, [pid])
        return await measure(target, settings)
    finally:
        for line in lines.values():
            line.close()


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        place = directory if settings["family"] == "unix" else None
        here, there = spawn.Pipe()
        server = spawn.Process(
            target=serve, args=(settings["way"], place, there), daemon=True
        )
        server.start()
        there.close()
        try:
            assert server.pid is not None
            return asyncio.run(run(here.recv(), server.pid, settings))
        finally:
            server.terminate()
            server.join()


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
