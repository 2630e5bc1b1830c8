"""What strangers cost, and who gets in meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from academy.link.admission import LIMIT, PER_SOURCE
from academy.link.config import LinkConfig
from academy.link.gate import room, same_user
from academy.link.security import Security
from tests.unit.link.network import Network, Process

STRANGERS = 600
PROMPT = 0.2
"""Seconds in which a member is linked, whoever else is there."""
TIME = LinkConfig().handshake_timeout
"""Seconds that a stranger has: five."""


class Crowd:
    """Connections that say little."""

    def __init__(self, process: Process, say: bytes) -> None:
        self.socks = []
        for _ in range(STRANGERS):
            sock = socket.create_connection(("127.0.0.1", process.ports[0]))
            sock.send(say)
            sock.setblocking(False)
            self.socks.append(sock)

    @property
    def present(self) -> int:
        return sum(map(_is_open, self.socks))

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def _is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * STRANGERS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this needs {wanted} file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("say", "limit"), [(b"", TIME), (b"\x16\x03\x01", 1.0), (b"\0\0", 1.0)]
)
async def test_strangers_keep_nobody_out(
    descriptors: None, network: Network, say: bytes, limit: float
) -> None:
    """They say nothing, or begin to say something."""
    tls, config = Security("tls"), LinkConfig(handshake_timeout=limit)
    b = await network.open(security=tls, config=config)
    before = psutil.Process().memory_info().rss
    # In a thread, or nobody would take them.
    crowd = await asyncio.to_thread(Crowd, b, say)
    try:
        await _members(network, b, tls)
        assert len(b._gate) <= PER_SOURCE
        grown = psutil.Process().memory_info().rss - before
        assert grown < 48 << 20
        # The last of them came when all had come.
        await asyncio.sleep(limit + 0.5)
        assert crowd.present == 0
        assert len(b._gate) == 0
        await _members(network, b, tls)
    finally:
        crowd.close()
    assert b.refused == STRANGERS
    expected = {"crowded", "clear_text"} if say == b"\0\0" else {"crowded", "late"}
    assert set(b.refusals) <= expected


async def _members(network: Network, b: Process, security: Security) -> None:
    """Let members connect, and none has to wait."""
    for kind in ("tcp", "uds", "tcp", "tcp"):
        a = await network.open(security=security)
        start = time.monotonic()
        await network.link(a, b, kind)
        assert time.monotonic() - start < PROMPT


async def test_a_herd_of_members(network: Network) -> None:
    """So many processes of one host may come at once."""
    b = await network.open(security=Security("tls"))
    herd = [await network.open(security=Security("tls")) for _ in range(PER_SOURCE)]
    await asyncio.gather(*(network.link(a, b, "tcp") for a in herd))
    assert b.refused == 0


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, found in ((-1, LIMIT), (10_000, LIMIT), (256, 64), (16, 8)):
        monkeypatch.setattr(
            resource, "getrlimit", lambda _, limit=limit: (limit, limit)
        )
        assert room() == found


async def test_gone_before_it_was_seen(network: Network) -> None:
    b = await network.open()
    sock = socket.socket()
    b._gate.enter(sock, "tcp")
    assert sock.fileno() == -1
    assert len(b._gate) == b.refused == 0


async def test_no_descriptors_left(network: Network) -> None:
    b = await network.open()
    b._gate.exhausted()
    assert b.refusals == {"descriptors": 1}


class Credentials:
    """Stands for a Unix socket whose other end belongs to a user."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        assert size >= len(self._raw)
        return self._raw


class TestSameUser:
    def test_own_socket(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert same_user(ours)
            assert same_user(theirs)

    @pytest.mark.parametrize("platform", ["linux", "darwin"])
    @pytest.mark.parametrize(("uid", "expected"), [(7, True), (0, True), (8, False)])
    def test_users(
        self, monkeypatch: pytest.MonkeyPatch, platform: str, uid: int, expected: bool
    ) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        # A number that is missing elsewhere; the stand-in does not look at it.
        monkeypatch.setattr(socket, "SO_PEERCRED", 17, raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 7)
        linux, darwin = struct.pack("3i", 99, uid, 8), struct.pack("Iih", 0, uid, 8)
        sock = Credentials(linux if platform == "linux" else darwin)
        assert same_user(sock) is expected  # type: ignore[arg-type]
