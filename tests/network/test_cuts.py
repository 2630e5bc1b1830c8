"""Firewalls between two hosts that both reach the server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from academy.handle import Handle
from tests.fault.harness import Scene
from tests.fault.oracle import percentile
from tests.network.paths import RELAY, on_path, path
from tests.network.topology import Host, Network

pytestmark = pytest.mark.root
FULL = pytest.mark.fault

SWITCH = 8.0
"""Seconds in which calls go through the server when the direct way is gone."""
RETURN = 10.0
"""Seconds in which they go directly again."""
HOLD = 2.0


def both_ways(network: Network, agent: Host) -> None:
    network.block_both(network.here, agent)


def to_the_agent(network: Network, agent: Host) -> None:
    network.block(network.here, agent)


def from_the_agent(network: Network, agent: Host) -> None:
    network.block(agent, network.here)


def refused(network: Network, agent: Host) -> None:
    network.refuse(network.here, agent)
    network.refuse(agent, network.here)


async def call(scene: Scene, handle: Handle[Any], calls: int) -> Counter[str]:
    """Call with a deadline of 3 s; return what becomes of the calls."""
    before = set(scene.oracle.calls)
    await asyncio.gather(*scene.call_many(handle, calls, timeout=3.0))
    new = scene.oracle.calls.keys() - before
    return Counter(scene.oracle.calls[id].outcome for id in new)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("number", "cut"),
    [
        ("11", both_ways),
        pytest.param("12", to_the_agent, marks=FULL),
        pytest.param("12", from_the_agent, marks=FULL),
        pytest.param("11b", refused, marks=FULL),
    ],
)
async def test_cut_while_calls_run(
    network: Network,
    url: str,
    tmp_path: Path,
    number: str,
    cut: Callable[[Network, Host], None],
) -> None:
    """The calls are answered through the server, and then directly again."""
    host = network.host("a")
    name = f"p2p lost while 100 calls run: {cut.__name__.replace('_', ' ')}"
    async with Scene(url, tmp_path, number, name, worst=HOLD + SWITCH) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        await scene.direct(agent.handle)
        assert await path(scene, agent) == "tcp"
        before = scene.oracle.lines()
        running = scene.call_many(agent.handle, 100, HOLD)
        await scene.executed(before + 100)
        scene.oracle.fault()
        cut(network, host)
        scene.load(agent.handle, 8, pause=0.02)
        await on_path(scene, agent, RELAY, SWITCH)
        await asyncio.wait(running)
        assert len(scene.oracle.results()) >= before + 100
        # New calls are answered, too, while the cut lasts.
        await scene.answered(50)
        assert await path(scene, agent) == RELAY
        network.heal()
        await on_path(scene, agent, "tcp", RETURN)
        scene.rest()
        await scene.direct(agent.handle)
        assert not scene.oracle.errors()


async def test_cut_before_the_first_call(
    network: Network, url: str, tmp_path: Path
) -> None:
    """It is answered through the server in less than the time to give up dialling."""
    host = network.host("a")
    name = "p2p lost before the first call"
    async with Scene(url, tmp_path, "13a", name, worst=3.3) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        network.block_both(network.here, host)
        assert await call(scene, agent.handle, 20) == {"ok": 20}
        assert await path(scene, agent) == RELAY


async def test_deadline_for_a_host_out_of_reach(
    network: Network, url: str, tmp_path: Path
) -> None:
    """`wait_for(call, 3)` ends on time, the first time and later."""
    host = network.host("a")
    name = "wait_for(3), host lost before the first connect"
    async with Scene(url, tmp_path, "13", name, rounds=2, worst=3.3) as scene:
        agent = await scene.spawn(prefix=host.prefix)
        network.isolate(host)
        for calls in (1, 100):
            started = time.monotonic()
            assert await call(scene, agent.handle, calls) == {"cancelled": calls}
            assert 3.0 <= time.monotonic() - started <= 3.3
        network.heal()
        await scene.call(agent.handle, timeout=5.0)
        assert len(scene.oracle.results()) == 1


@pytest.mark.parametrize("cut", [both_ways, pytest.param("isolate", marks=FULL)])
async def test_others_are_not_delayed(
    network: Network, url: str, tmp_path: Path, cut: object
) -> None:
    lost, sound = network.host("a"), network.host("b")
    name = "a healthy peer, while another is out of reach"
    if cut == "isolate":
        name = "a healthy peer, while another host is lost"
    async with Scene(url, tmp_path, "14", name, worst=3.3) as scene:
        far = await scene.spawn(prefix=lost.prefix)
        near = await scene.spawn(prefix=sound.prefix)
        await scene.direct(near.handle)
        if cut == "isolate":
            network.isolate(lost)
        else:
            network.block_both(network.here, lost)
        scene.load(near.handle, 4, pause=0.005, sender="healthy")
        end = time.monotonic() + 4
        while time.monotonic() < end:
            await call(scene, far.handle, 20)
        scene.rest()
        await scene.settled(5)
        healthy = [c for c in scene.oracle.results() if c.sender == "healthy"]
        took = sorted((c.ended or 0.0) - c.begun for c in healthy)
        assert len(took) > 200
        assert percentile(took, 0.99) < 0.05
        assert not scene.oracle.errors()
