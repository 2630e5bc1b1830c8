"""Processes and hosts that are gone, seen from another host."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from academy.exchange.hybrid import HybridExchangeFactory
from tests.fault.harness import Scene, until
from tests.network.topology import Network

pytestmark = pytest.mark.root
FULL = pytest.mark.fault

PORT = 20_777
"""In a namespace of its own every port is free."""
NAMED = {"PeerLostError", "PeerUnreachableError"}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("rounds", "calls"), [(2, 200), pytest.param(10, 1_000, marks=FULL)]
)
async def test_killed_on_another_host(
    network: Network, url: str, tmp_path: Path, rounds: int, calls: int
) -> None:
    host = network.host("a")
    name = f"SIGKILL of the receiver, {calls:,} calls in flight, another host"
    async with Scene(url, tmp_path, "2", name, rounds=rounds, p99=3.5) as scene:
        registration = await scene.register()
        for number in range(1, rounds + 1):
            agent = await scene.spawn(registration, prefix=host.prefix)
            scene.call_many(agent.handle, calls, 60.0)
            await scene.executed(number * calls)
            scene.oracle.fault()
            agent.kill()
            await scene.settled(20)
        assert scene.oracle.errors() == {"PeerLostError": rounds * calls}


async def test_killed_and_restarted_elsewhere(
    network: Network, url: str, tmp_path: Path
) -> None:
    """What the dead process had is lost at once, and new calls reach the next host."""
    one, other = network.host("a"), network.host("b")
    name = "SIGKILL of the receiver, restart on a third host"
    async with Scene(url, tmp_path, "2b", name, worst=3.5) as scene:
        agent = await scene.spawn(prefix=one.prefix)
        await scene.direct(agent.handle)
        before = scene.oracle.lines()
        scene.call_many(agent.handle, 100, 60.0)
        await scene.executed(before + 100)
        scene.oracle.fault()
        agent.kill()
        again = await scene.spawn(agent.registration, prefix=other.prefix)
        await scene.direct(again.handle)
        await scene.settled(10)
        assert scene.oracle.errors() == {"PeerLostError": 100}


@pytest.mark.parametrize("moved", [False, True])
async def test_address_is_used_by_another_process(
    network: Network, url: str, tmp_path: Path, moved: bool
) -> None:
    """What was for a dead process does not reach the one that has its address now."""
    host = network.host("a")
    name = "address and port of a killed process used by another agent"
    async with Scene(url, tmp_path, "48", name) as scene:
        factory = HybridExchangeFactory.from_url(
            scene.member_url, namespace=scene.namespace, ports=[PORT]
        )
        first = await scene.spawn(prefix=host.prefix, factory=factory)
        await scene.direct(first.handle)
        before = scene.oracle.lines()
        scene.call_many(first.handle, 100, 60.0)
        await scene.executed(before + 100)
        known = set(scene.oracle.calls)
        scene.oracle.fault()
        first.kill()
        if moved:
            host = network.host_in_place_of(host)
        second = await scene.spawn(prefix=host.prefix, factory=factory)
        await scene.direct(second.handle)
        scene.call_many(first.handle, 20, timeout=1.0)
        await scene.settled(10)
        assert scene.oracle.errors() == {"PeerLostError": 100}
        # What waits for the first agent was never executed, and nothing there twice.
        late = {c.id for c in scene.oracle.calls.values() if c.outcome == "cancelled"}
        assert len(late) == 20
        own = {e.id for e in scene.oracle.executions() if e.pid == second.pid}
        assert own
        assert not own & (known | late)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_host_lost_and_found(network: Network, url: str, tmp_path: Path) -> None:
    """Its caller learns it when the lease is over; it is of use when it is back."""
    host = network.host("a")
    name = "host of the receiver lost for 14 s"
    async with Scene(url, tmp_path, "15", name, worst=12.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        before = scene.oracle.lines()
        scene.call_many(agent.handle, 100, 60.0)
        await scene.executed(before + 100)
        scene.oracle.fault()
        network.isolate(host)
        lost = time.monotonic()
        await scene.settled(12)
        answered = len(scene.oracle.results())
        assert sum(scene.oracle.errors().values()) == 100
        assert set(scene.oracle.errors()) <= NAMED
        await asyncio.sleep(14 - (time.monotonic() - lost))
        network.heal()
        scene.call_many(agent.handle, 20, timeout=5.0)
        await scene.settled(6)
        assert len(scene.oracle.results()) == answered + 20
        await scene.direct(agent.handle)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_host_of_the_caller_lost_and_found(
    network: Network, url: str, tmp_path: Path
) -> None:
    """Without the server and the peer nobody is declared dead: after 30 s it knows
    that it cannot know.
    """
    near, far = network.host("a"), network.host("b")
    name = "host of the caller lost for 38 s"
    async with Scene(url, tmp_path, "15b", name, worst=31.0) as scene:
        agent = await scene.spawn(prefix=near.prefix)
        caller = await scene.spawn_caller(
            "lost", [agent.registration], tasks=64, hold=0.5, prefix=far.prefix
        )
        journal = caller.journal
        await until(lambda: journal.read_text().count(" ok ") > 200, 15)
        scene.oracle.fault()
        network.isolate(far)
        lost = time.monotonic()
        answered = journal.read_text().count(" ok ")
        await until(lambda: "Unreachable" in journal.read_text(), 31)
        await asyncio.sleep(38 - (time.monotonic() - lost))
        network.heal()
        await until(lambda: journal.read_text().count(" ok ") > answered + 300, 5)
        await scene.collect(caller)
        assert set(scene.oracle.errors()) <= NAMED


@pytest.mark.fault
async def test_host_lost_for_a_moment(
    network: Network, url: str, tmp_path: Path
) -> None:
    """Nobody is declared dead who comes back before its lease is over."""
    host = network.host("a")
    name = "host of the receiver lost for 5 s"
    async with Scene(url, tmp_path, "15c", name, worst=12.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        scene.load(agent.handle, 16, 0.2)
        await scene.answered(100)
        scene.oracle.fault()
        network.isolate(host)
        await asyncio.sleep(5)
        network.heal()
        await scene.answered(200, timeout=7)
        assert not scene.oracle.errors()


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_host_without_the_server(
    network: Network, url: str, tmp_path: Path
) -> None:
    """Its lease is over, but it is heard on the link: it is not dead."""
    host = network.host("a")
    name = "server lost for the host of the receiver for 20 s, p2p fine"
    async with Scene(url, tmp_path, "15d", name, worst=2.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        scene.load(agent.handle, 16, 1.0)
        scene.oracle.fault()
        network.cut_server(host)
        for _ in range(20):
            await scene.answered(10, timeout=3)
            await asyncio.sleep(1)
        network.heal()
        await scene.answered(50)
        assert not scene.oracle.errors()
