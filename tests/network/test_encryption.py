"""What goes between hosts, as those see it who listen to the wire or sit on it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from academy.exchange.directory import Directory, Location
from academy.exchange.hybrid import HybridExchangeFactory
from academy.link.codec import LENGTH
from academy.link.handshake import Handshake, Identity, Role, namespace_hash
from academy.link.security import Security
from tests.fault.harness import AgentProcess, Scene
from tests.network.capture import Capture, forms
from tests.network.paths import engine_of, link, on_path
from tests.network.topology import Host, Network

pytestmark = pytest.mark.root


def canary() -> bytes:
    return b"canary-" + uuid.uuid4().hex.encode()


async def sing(scene: Scene, agent: AgentProcess, song: bytes) -> None:
    """Let a text go to an agent and back, as bytes and in a string, a few times."""
    for text in [song * 3, song.decode()] * 5:
        assert await scene.call(agent.handle, text, action="echo") == text


def test_what_is_looked_for() -> None:
    song = canary()
    for before in range(4):
        coded = base64.b64encode(b"x" * before + song + b"tail")
        assert any(form in coded for form in forms(song))


@pytest.mark.parametrize("security", ["auto", "tls", "authenticated"])
async def test_nobody_can_read_along(
    network: Network, url: str, tmp_path: Path, security: str
) -> None:
    """But where the user has chosen so, which shows that the test can fail."""
    host = network.host("a")
    scene = Scene(url, tmp_path, "44", f"a listener on the wire, {security}")
    scene.factory.security = Security(security)
    song = canary()
    with Capture(network.here.own_device, network.server_port) as capture:
        async with scene:
            agent = await scene.spawn(prefix=host.prefix)
            scene.load(agent.handle, 1, pause=0.01)
            await on_path(scene, agent, "tcp", 10)
            scene.rest()
            info = await link(scene, agent)
            assert info.encrypted == (security != "authenticated")
            await sing(scene, agent, song)
    assert len(capture.data) > 2_000
    assert capture.sees(song) == (security == "authenticated")
    secret = await stored_secret(scene)
    assert not capture.sees(secret)


async def stored_secret(scene: Scene) -> bytes:
    async with redis.asyncio.Redis.from_url(scene.url) as admin:
        keys = [key async for key in admin.scan_iter("*secret")]
        (key,) = [key for key in keys if scene.namespace.encode() in key]
        found = await admin.get(key)
    assert isinstance(found, bytes)
    return found


def misled(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let this process find other addresses in the directory than were published."""
    locate = Directory.locate

    async def changed(self: Directory, *args: Any) -> Location | None:
        found = await locate(self, *args)
        if found is None:
            return None
        return found._replace(addresses=dataclasses.replace(found.addresses, **changes))

    monkeypatch.setattr(Directory, "locate", changed)


async def told(scene: Scene, agent: AgentProcess, reason: str) -> None:
    """Wait until this process reports why the link to an agent's is not there."""
    async with asyncio.timeout(10):
        while reason not in (await link(scene, agent)).reason:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("fingerprint", "reason"),
    [("0" * 64, "its certificate is not the one"), ("", "has no certificate")],
)
async def test_there_is_no_way_back_to_clear_text(
    network: Network,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fingerprint: str,
    reason: str,
) -> None:
    """Another process answers at the address, or there is no certificate to know."""
    host = network.host("a")
    network.shield(network.here)
    misled(monkeypatch, fingerprint=fingerprint)
    song = canary()
    with Capture(network.here.own_device, network.server_port) as capture:
        async with Scene(url, tmp_path, "40", "man in the middle") as scene:
            agent = await scene.spawn(prefix=host.prefix)
            scene.load(agent.handle, 1, pause=0.02)
            await told(scene, agent, reason)
            scene.rest()
            await sing(scene, agent, song)
            info = await link(scene, agent)
            assert (info.path, info.encrypted) == ("relay", False)
            links = engine_of(scene).links
            assert links is not None
            refusals = links.node.refusals
            assert (refusals.get("certificate", 0) > 0) == bool(fingerprint)
            assert not scene.oracle.errors()
    assert not capture.sees(song)


async def test_clear_text_is_refused(
    network: Network, url: str, tmp_path: Path
) -> None:
    """From a member, too: it knows the secret, and says so in clear."""
    host = network.host("a")
    async with Scene(url, tmp_path, "40", "a member without encryption") as scene:
        agent = await scene.spawn(prefix=host.prefix)
        engine = engine_of(scene)
        found = await engine.directory.locate(agent.handle.agent_id, engine.process)
        assert found is not None
        theirs = found.addresses
        me = Identity(b"m" * 16, namespace_hash(scene.namespace), b"n" * 32)
        hello = Handshake(Role.CLIENT, me, engine.keyring.stored()).start()
        where = (theirs.tcp[0].host, theirs.tcp[0].port)
        reader, writer = await asyncio.open_connection(*where)
        writer.write(LENGTH.pack(len(hello)) + hello)
        async with asyncio.timeout(4):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        info = await scene.client.links(agent.handle.agent_id)
        assert info is not None
        assert info.refusals == {"clear_text": 1}


async def test_settings_that_do_not_agree(
    network: Network, url: str, tmp_path: Path
) -> None:
    """One side has no certificate: it dials the other, which cannot dial it."""
    host = network.host("a")
    async with Scene(url, tmp_path, "40", "settings that do not agree") as scene:
        plain = HybridExchangeFactory.from_url(
            scene.member_url, namespace=scene.namespace, security="authenticated"
        )
        agent = await scene.spawn(prefix=host.prefix, factory=plain)
        scene.load(agent.handle, 1, pause=0.02)
        await on_path(scene, agent, "tcp", 10)
        assert (await link(scene, agent)).encrypted


@pytest.mark.parametrize("behind", ["agent", "caller"])
async def test_behind_a_router_that_lets_nobody_in(
    network: Network, url: str, tmp_path: Path, behind: str
) -> None:
    """The other side dials: one direction is enough."""
    host = network.host("a")
    network.shield(host if behind == "agent" else network.here)
    async with Scene(url, tmp_path, "11", f"the {behind} cannot be dialled") as scene:
        agent = await scene.spawn(prefix=host.prefix)
        scene.load(agent.handle, 4, pause=0.02)
        await on_path(scene, agent, "tcp", 10)
        assert (await link(scene, agent)).encrypted
        scene.rest()
        await scene.direct(agent.handle)
        assert not scene.oracle.errors()


async def test_both_behind_such_routers(
    network: Network, url: str, tmp_path: Path
) -> None:
    host = network.host("a")
    network.shield(host)
    network.shield(network.here)
    async with Scene(url, tmp_path, "11", "nobody can be dialled", worst=5.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        for _ in range(20):
            assert await scene.call(agent.handle) is not None
        info = await link(scene, agent)
        assert info.path == "relay"
        assert not scene.oracle.errors()


async def test_ipv6_alone(
    network: Network, ipv6_url: str, ipv6_host: Host, tmp_path: Path
) -> None:
    async with Scene(ipv6_url, tmp_path, "53", "IPv6 alone") as scene:
        agent = await scene.spawn(prefix=ipv6_host.prefix)
        engine = engine_of(scene)
        found = await engine.directory.locate(agent.handle.agent_id, engine.process)
        assert found is not None
        assert [e.host for e in found.addresses.tcp] == [ipv6_host.address]
        scene.load(agent.handle, 4, pause=0.02)
        await on_path(scene, agent, "tcp", 10)
        assert (await link(scene, agent)).encrypted
        scene.rest()
        await scene.direct(agent.handle)
        assert not scene.oracle.errors()
