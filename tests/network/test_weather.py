"""Networks that lose, delay, flap, and forget."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.fault.harness import Scene, until
from tests.network.paths import RELAY, on_path, path, watched
from tests.network.topology import Host, Network

pytestmark = pytest.mark.root
FULL = pytest.mark.fault


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("calls", "share", "delay"),
    [
        (500, 0.05, 0.01),
        pytest.param(10_000, 0.2, 0.05, marks=[FULL, pytest.mark.slow]),
    ],
)
async def test_loss_and_delay(
    network: Network, url: str, tmp_path: Path, calls: int, share: float, delay: float
) -> None:
    host = network.host("a", delay=delay)
    name = f"{share:.0%} loss each way, {delay * 1000:g} ms delay"
    async with Scene(url, tmp_path, "16", name, ordered=True, settle=60) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        network.lose(network.here, host, share)
        for _ in range(calls // 500):
            scene.call_many(agent.handle, 500)
            await asyncio.sleep(0)  # they have begun
            # More than the window, so that senders wait, too.
            await until(lambda: len(scene.oracle.unresolved()) < 500, 60)
        await scene.settled(60)
        assert len(scene.oracle.calls) >= calls
        assert not scene.oracle.errors()


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_flapping(network: Network, url: str, tmp_path: Path) -> None:
    host = network.host("a")
    name = "p2p 1 s off, 1 s on, for 20 s"
    async with Scene(url, tmp_path, "17", name) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        scene.load(agent.handle, 16, 0.05)
        async with watched(scene, agent) as watch:
            for _ in range(10):
                network.block_both(network.here, host)
                await asyncio.sleep(1)
                network.heal()
                await asyncio.sleep(1)
            await on_path(scene, agent, "tcp", 10)
        assert watch.switches <= 20
        assert not scene.oracle.errors()


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_flapping_in_step_with_the_suspicion(
    network: Network, url: str, tmp_path: Path
) -> None:
    """Each time it is off for just so long that the other way is taken."""
    host = network.host("a")
    name = "p2p 7 s off, 3 s on, for 30 s"
    async with Scene(url, tmp_path, "17b", name, worst=8.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        scene.load(agent.handle, 16, 0.05)
        async with watched(scene, agent) as watch:
            for _ in range(3):
                network.block_both(network.here, host)
                await asyncio.sleep(7)
                network.heal()
                await asyncio.sleep(3)
            await on_path(scene, agent, "tcp", 10)
        assert 2 <= watch.switches <= 30
        assert not scene.oracle.errors()


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(260)
async def test_idle(network: Network, url: str, tmp_path: Path) -> None:
    """For longer than the link is kept, and than any timeout of the server's client."""
    host = network.host("a")
    async with Scene(url, tmp_path, "23", "idle for 150 s", worst=1.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        await asyncio.sleep(150)
        assert await path(scene, agent) == RELAY
        scene.oracle.fault()
        scene.call_many(agent.handle, 20)
        await scene.settled(5)
        assert not scene.oracle.errors()
        await scene.direct(agent.handle)
        said = [process.errors.read_text() for process in scene.processes]
        assert said == [""]


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_forgotten_connections(
    network: Network, url: str, tmp_path: Path
) -> None:
    """A firewall drops what belongs to all connections, and lets new ones through."""
    host = network.host("a")
    name = "firewall forgets all connections"
    async with Scene(url, tmp_path, "23b", name, worst=12.0) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        scene.oracle.fault()
        network.forget(*flows(host))
        await scene.call(agent.handle)
        scene.load(agent.handle, 4, pause=0.02)
        await asyncio.sleep(12)
        await on_path(scene, agent, "tcp", 10)
        started = time.monotonic()
        await scene.answered(50)
        assert time.monotonic() - started < 2
        assert not scene.oracle.errors()


def flows(host: Host) -> set[tuple[int, int]]:
    """Return the pairs of ports of a host's connections."""
    lines = host.run("ss", "-tnH", "state", "established").splitlines()
    return {
        (int(here), int(there))
        for line in lines
        for here, there in re.findall(r":(\d+)\s+\S+:(\d+)\s*$", line)
    }
