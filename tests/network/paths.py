"""Which way the calls of this process go, as it reports, and how often that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from academy.exchange.engine import Engine
from academy.exchange.link_info import LinkInfo
from tests.fault.harness import AgentProcess, Scene

RELAY = "relay"
LOOK = 0.01
"""Seconds between two looks at the report."""


def engine_of(scene: Scene) -> Engine:
    """Return the engine of this process."""
    engine: Engine = scene.client._transport.engine
    return engine


async def link(scene: Scene, agent: AgentProcess) -> LinkInfo:
    """Return what this process reports about its link to an agent's."""
    report = await scene.client._transport.links()
    assert report is not None
    found = [info for info in report.links if info.pid == agent.pid]
    return found[0] if found else LinkInfo("", reason="nothing is known")


async def path(scene: Scene, agent: AgentProcess) -> str:
    """Return how calls to an agent go now: `uds`, `tcp` or `relay`."""
    info = await link(scene, agent)
    assert bool(info.reason) == (info.path == RELAY), (
        f"no reason, or one too many: {info}"
    )
    return info.path


async def on_path(
    scene: Scene, agent: AgentProcess, wanted: str, timeout: float
) -> None:
    """Wait until calls to an agent go that way; somebody must be calling it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while await path(scene, agent) != wanted:
        late = f"not on {wanted} after {timeout:g} s: {await link(scene, agent)}"
        assert loop.time() < end, late
        await asyncio.sleep(LOOK)


class Watch:
    """How often the path to an agent has changed."""

    def __init__(self) -> None:
        self.switches = 0


@contextlib.asynccontextmanager
async def watched(scene: Scene, agent: AgentProcess) -> AsyncIterator[Watch]:
    """Count the changes of a path, as far as one sees them with a look now and then."""
    watch = Watch()

    async def look() -> None:
        last = await path(scene, agent)
        while True:
            await asyncio.sleep(LOOK)
            now = await path(scene, agent)
            watch.switches += now != last
            last = now

    task = asyncio.create_task(look())
    try:
        yield watch
    finally:
        task.cancel()
        (ended,), _ = await asyncio.wait([task])
        if not ended.cancelled():
            ended.result()
