"""Servers that are not what a client hopes for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """Run a server that answers all that it receives, and return its port.

    Args:
        answer: Returns the answer to some bytes; it may be empty.
    """
    connected: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.add(writer)
        with contextlib.suppress(ConnectionError):
            while received := await reader.read(65536):
                writer.write(answer(received))
        connected.discard(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(connected):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        # The handlers end when they find their connections closed.
        for _ in range(5):
            await asyncio.sleep(0)


def mute(received: bytes) -> bytes:
    """Answer nothing."""
    return b""


def without_hello(received: bytes) -> bytes:
    """Answer as a server before Redis 6 does."""
    commands = received.count(b"*")
    return b"-ERR unknown command 'HELLO'\r\n" * commands


def hello(version: str) -> Callable[[bytes], bytes]:
    """Answer as a server of some version does."""
    size = len(version)
    pairs = f"$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${size}\r\n{version}\r\n"
    pairs += "$5\r\nproto\r\n:3\r\n"
    reply = f"%3\r\n{pairs}".encode()

    def answer(received: bytes) -> bytes:
        commands = received.split(b"*")[1:]
        return b"".join(reply if b"HELLO" in c else b"+OK\r\n" for c in commands)

    return answer


def web_page(received: bytes) -> bytes:
    """Answer as a web server does."""
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


def agreeing(received: bytes) -> bytes:
    """Answer OK to whatever it is."""
    return b"+OK\r\n" * received.count(b"*")
