from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest

from academy.link import acceptor as acceptor_module
from academy.link.acceptor import BATCH, Acceptor
from tests.unit.link.network import PATIENCE, nothing_left


class Door:
    """An acceptor, and what it has said."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.at = self.sock.getsockname()
        self.taken: list[socket.socket] = []
        self.exhausted = 0
        self._changed = asyncio.Event()
        self.acceptor = Acceptor(self.sock, self._take, self._exhaust)

    def _take(self, sock: socket.socket) -> None:
        assert not sock.getblocking()
        self.taken.append(sock)
        self._changed.set()

    def _exhaust(self) -> None:
        self.exhausted += 1
        self._changed.set()

    async def until(self, count: int, exhausted: int = 0) -> None:
        async with asyncio.timeout(PATIENCE):
            while (len(self.taken), self.exhausted) != (count, exhausted):
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with nothing_left():
        door = Door()
        yield door
        door.acceptor.close()
        for sock in door.taken:
            sock.close()


async def test_takes_what_comes(door: Door) -> None:
    callers = [socket.create_connection(door.at) for _ in range(3 * BATCH)]
    await door.until(3 * BATCH)
    for caller in callers:
        caller.close()


async def test_closed(door: Door) -> None:
    door.acceptor.close()
    door.acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(door.at)


class Broken:
    """Stands for a listening socket that does not give connections."""

    def __init__(self, sock: socket.socket, errors: list[int]) -> None:
        self._sock = sock
        self.errors = errors
        self.asked = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        if self.errors:
            raise OSError(self.errors.pop(0), "broken")
        return self._sock.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_no_descriptors_left(
    door: Door, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It waits, and does not turn in circles; those who wait come in then."""
    monkeypatch.setattr(acceptor_module, "PAUSE", 0.1)
    broken = Broken(door.sock, [number])
    door.acceptor._sock = broken  # type: ignore[assignment]
    with socket.create_connection(door.at):
        await door.until(0, 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert broken.asked == 1
        await door.until(1, 1)


async def test_closed_while_it_waits(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "PAUSE", 0.01)
    door.acceptor._sock = Broken(door.sock, [errno.EMFILE])  # type: ignore[assignment]
    with socket.create_connection(door.at):
        await door.until(0, 1)
        door.acceptor.close()
        await asyncio.sleep(0.05)
    assert not door.taken


async def test_connection_that_is_gone_before_it_is_taken(door: Door) -> None:
    broken = Broken(door.sock, [errno.ECONNABORTED])
    door.acceptor._sock = broken  # type: ignore[assignment]
    with socket.create_connection(door.at):
        await door.until(1)
    assert door.exhausted == 0
