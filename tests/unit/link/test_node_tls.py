"""Encrypted links: who gets one, who is refused, and that nothing falls back."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import socket
import ssl

import pytest

from academy.link import certificate as certificate_module
from academy.link import gate as gate_module
from academy.link.certificate import certificate
from academy.link.config import LinkConfig
from academy.link.connection import Connection
from academy.link.handshake import Handshake, HandshakeError, Identity, Role
from academy.link.protocol import Cause
from academy.link.security import Security
from tests.unit.link.network import Network, Process, Stranger, dial, where

TLS = Security("tls")


async def refused(network: Network, a: Process, b: Process) -> str:
    """Wait until a has given up to dial b, and return why."""
    await network.until(lambda: "down" in a.told and not b.connections)
    assert not a.linked(b)
    assert not b.peers
    return a.peer(b).reason


async def test_messages_go_both_ways(network: Network) -> None:
    a, b = await network.open(security=TLS), await network.open(security=TLS)
    await network.link(a, b, "tcp")
    for one, other in ((a, b), (b, a)):
        assert one.connection(other).encrypted
        assert one.peer(other).encrypted
        assert one.peer(other).path == "tcp"
        cipher = one.transport(other).get_extra_info("cipher")
        assert cipher[1] == "TLSv1.3"
        await network.exchange(one, other)
    assert a.refused == b.refused == 0
    assert len(b._gate) == 0


async def test_large_messages(network: Network) -> None:
    a, b = await network.open(security=TLS), await network.open(security=TLS)
    await network.link(a, b, "tcp")
    key = await network.channel(a, b)
    data = os.urandom(3 << 20)
    a.peer(b).session.send(key, 1, [data])
    a.peer(b).flush_soon()
    await network.until(lambda: bool(b.received()))
    assert b.received() == [(1, [data])]


async def test_unix_sockets_stay_in_clear(network: Network) -> None:
    a, b = await network.open(security=TLS), await network.open(security=TLS)
    await network.link(a, b, "uds")
    assert not a.peer(b).encrypted
    assert not b.peer(a).encrypted


async def test_loopback_is_in_clear_by_default(network: Network) -> None:
    a, b = await network.open(), await network.open()
    assert b.fingerprint == ""
    await network.link(a, b, "tcp")
    assert not a.peer(b).encrypted


async def test_other_hosts_are_not_dialled_in_clear(network: Network) -> None:
    """Also where the address would allow it."""
    a, b = await network.open(), await network.open()
    theirs = dataclasses.replace(where(b, "tcp"), host="another host")
    endpoint = theirs.tcp[0]
    route = a._security.route(endpoint, where(a), theirs)
    assert route.pin == ""
    a._security = Security("tls")
    a.connect(b.process, where(a), where(b, "tcp"))
    assert "has no certificate" in await refused(network, a, b)
    assert b.refused == 0


async def test_another_certificate(network: Network) -> None:
    """The one of a man in the middle, who has the address but not the key."""
    a, b = await network.open(security=TLS), await network.open(security=TLS)
    theirs = dataclasses.replace(where(b, "tcp"), fingerprint="0" * 64)
    a.connect(b.process, where(a), theirs)
    assert "its certificate is not the one" in await refused(network, a, b)
    assert a.refusals == {"certificate": 1}
    assert (Cause.REFUSED, a.peer(b).reason.split(": ", 1)[1]) in a.closed_links


async def test_a_man_in_the_middle_cannot_relay_the_proofs(network: Network) -> None:
    """He ends TLS on both sides; the proofs are bound to what each side has seen."""
    process, nonce = b"p" * 16, b"n" * 32

    def identity(of: bytes, binding: bytes) -> Identity:
        return Identity(of * 16, process, nonce, binding)

    client = Handshake(Role.CLIENT, identity(b"c", b"his certificate"), [b"secret"])
    server = Handshake(Role.SERVER, identity(b"s", b"its certificate"), [b"secret"])
    challenge = server.receive(client.start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="does not know the secret"):
        client.receive(challenge)


async def test_clear_text_is_refused(network: Network) -> None:
    """From a member, too, and it says nothing to the peer."""
    a = await network.open(security=Security("authenticated"))
    b = await network.open(security=TLS)
    theirs = dataclasses.replace(where(b, "tcp"), fingerprint="")
    a.connect(b.process, where(a), theirs)
    await refused(network, a, b)
    assert b.refusals == {"clear_text": 2}


async def test_clear_text_from_other_hosts_is_refused(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await network.open(), await network.open()
    monkeypatch.setattr(
        Security, "admits_clear", lambda self, host: host != "127.0.0.1"
    )
    dial(a, b, "tcp")
    await refused(network, a, b)
    assert b.refusals == {"clear_text": 2}


async def test_tls_where_there_is_no_certificate(network: Network) -> None:
    a, b = await network.open(security=TLS), await network.open()
    theirs = dataclasses.replace(where(b, "tcp"), fingerprint=a.fingerprint)
    a.connect(b.process, where(a), theirs)
    await refused(network, a, b)
    assert b.refusals == {"tls": 2}


async def test_authenticated_has_no_certificate(network: Network) -> None:
    plain = Security("authenticated")
    a, b = await network.open(security=plain), await network.open(security=plain)
    assert b.fingerprint == ""
    await network.link(a, b, "tcp")
    assert not a.peer(b).encrypted


async def test_authenticated_encrypts_where_the_other_can(network: Network) -> None:
    a = await network.open(security=Security("authenticated"))
    b = await network.open(security=TLS)
    await network.link(a, b, "tcp")
    assert a.peer(b).encrypted
    assert b.peer(a).encrypted


async def test_older_versions_are_refused(network: Network) -> None:
    b = await network.open(security=TLS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("127.0.0.1", b.ports[0], ssl=context)
    while len(b._gate):  # noqa: ASYNC110 - the gate tells nobody
        await asyncio.sleep(0)
    assert b.refusals == {"tls": 1}


async def test_garbage_after_the_first_byte(network: Network) -> None:
    b = await network.open(security=TLS)
    async with Stranger.dial(b) as stranger:
        stranger.write(b"\x16" + b"\xff" * 100)
        await stranger.dropped()
    assert b.refusals == {"tls": 1}
    assert len(b._gate) == 0


@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x02\x00"])
async def test_too_slow(network: Network, data: bytes) -> None:
    """Before the first byte, and amid the handshake of TLS."""
    config = LinkConfig(handshake_timeout=0.1)
    b = await network.open(security=TLS, config=config)
    async with Stranger.dial(b) as stranger:
        stranger.write(data)
        assert await stranger.dropped()
    assert b.refusals == {"late": 1}
    assert len(b._gate) == 0


async def test_silent_within_tls(network: Network) -> None:
    """The time for the handshake begins with the connection."""
    config = LinkConfig(handshake_timeout=0.2)
    b = await network.open(security=TLS, config=config)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", b.ports[0], ssl=certificate_module.client_context()
    )
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    assert b.refusals == {"late": 1}
    writer.close()


async def test_strangers_within_tls_do_not_linger(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They never end TLS properly; who has to go is gone at once."""
    monkeypatch.setattr(gate_module, "room", lambda: 4)
    monkeypatch.setattr(gate_module, "SHUTDOWN", 60.0)
    b = await network.open(security=TLS)
    made: list[Connection] = []
    monkeypatch.setattr(b, "link_made", made.append)
    context = certificate_module.client_context()
    strangers = []
    for _ in range(12):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", b.ports[0], ssl=context
        )
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        strangers.append(writer)
    while len(made) < 12:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    gone = [connection for connection in made if connection.closed]
    assert len(gone) >= 8
    async with asyncio.timeout(2):
        while not all(map(_has_no_socket, gone)):  # noqa: ASYNC110
            await asyncio.sleep(0)
    for writer in strangers:
        writer.transport.abort()


def _has_no_socket(connection: Connection) -> bool:
    transport = connection._transport
    assert transport is not None
    sock = transport.get_extra_info("socket")
    return sock is None or sock.fileno() == -1


async def test_closed_amid_the_handshake(network: Network) -> None:
    b = await network.open(security=TLS)
    async with Stranger.dial(b) as stranger:
        stranger.write(b"\x16\x03\x01\x02\x00")
        while not len(b._gate):  # noqa: ASYNC110 - the gate tells nobody
            await asyncio.sleep(0)
        await b.close()
        assert await stranger.dropped()
    assert len(b._gate) == 0


async def test_given_certificate(tmp_path: pathlib.Path, network: Network) -> None:
    pem, key, found = certificate_module._make()
    (tmp_path / "c.pem").write_bytes(b"A comment.\n" + pem)
    (tmp_path / "k.pem").write_bytes(key)
    given = Security("tls", str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    a, b = await network.open(security=TLS), await network.open(security=given)
    assert b.fingerprint == found != a.fingerprint
    await network.link(a, b, "tcp")
    await network.exchange(a, b)
    assert certificate(given).fingerprint == found


async def test_members_come_in_while_strangers_wait(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "room", lambda: 8)
    b = await network.open(security=TLS)
    strangers = [socket.create_connection(("127.0.0.1", b.ports[0])) for _ in range(40)]
    try:
        for stranger in strangers[::2]:
            stranger.send(b"\x16\x03")
        for _ in range(5):
            a = await network.open(security=TLS)
            await network.link(a, b, "tcp")
        assert len(b._gate) <= 8
        assert set(b.refusals) == {"crowded"}
    finally:
        for stranger in strangers:
            stranger.close()
