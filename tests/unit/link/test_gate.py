"""What strangers cost, and who gets in meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
import sys

import pytest

from academy.link.admission import LIMIT, PER_SOURCE
from academy.link.gate import room, same_user
from academy.link.security import Security
from tests.security.strangers import (
    LATE,
    SAYINGS,
    STRANGERS,
    TIME,
    besiege,
    descriptors,
)
from tests.unit.link.network import Network

PROMPT = 0.5
"""Seconds in which a member is linked, whoever else is there."""


@pytest.mark.parametrize(
    ("said", "limit"),
    [("nothing", TIME), ("the beginning of TLS", 1.0), ("clear text", 1.0)],
)
async def test_strangers_keep_nobody_out(
    network: Network, said: str, limit: float
) -> None:
    """They say nothing, or begin to say something."""
    with descriptors() as allowed:
        if not allowed:
            pytest.skip("this needs more file descriptors than this user may have")
        siege = await besiege(network, SAYINGS[said], limit)
    assert max(siege.members) < PROMPT
    assert siege.waiting <= PER_SOURCE + 1
    assert siege.gone < limit + LATE
    assert siege.growth < 48 << 20
    assert sum(siege.refusals.values()) == STRANGERS
    expected = {"crowded", "late"}
    if said == "clear text":
        assert "clear_text" in siege.refusals
        expected.add("clear_text")
    assert set(siege.refusals) <= expected


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
