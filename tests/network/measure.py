"""`python -m tests.network.measure`: how long calls between two hosts take.

As root, between network namespaces: directly, encrypted and in clear, and through the
server while a firewall drops everything between the hosts.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from academy.embedded import EmbeddedServer
from academy.handle import Handle
from academy.link.security import Security
from tests.fault.agents import Recorder
from tests.fault.harness import Scene
from tests.network.paths import on_path
from tests.network.topology import Network, missing


async def timed(scene: Scene, handle: Handle[Recorder], calls: int) -> list[float]:
    """Return how long calls take, one after the other, in ms."""
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        await scene.call(handle)
        took.append(1000 * (time.perf_counter() - start))
    return took


async def rate(handle: Handle[Recorder], in_flight: int, seconds: float) -> float:
    """Return how many calls a second are answered, with so many at a time."""
    end = time.perf_counter() + seconds

    async def one_after_the_other() -> int:
        calls = 0
        while time.perf_counter() < end:
            await handle.nothing()
            calls += 1
        return calls

    counts = await asyncio.gather(*[one_after_the_other() for _ in range(in_flight)])
    return sum(counts) / seconds


async def directly(network: Network, url: str, folder: Path, security: str) -> None:
    """Measure direct calls."""
    scene = Scene(url, folder, "-", security)
    scene.factory.security = Security(security)
    async with scene:
        agent = await scene.spawn(prefix=network.host(security[0]).prefix)
        await scene.direct(agent.handle)
        took = await timed(scene, agent.handle, 3_000)
        rates = [await rate(agent.handle, 64, 1.0) for _ in range(5)]
        print(
            f"direct, {security}: {statistics.median(took):.3f} ms with its record on "
            f"disk; 64 in flight: {statistics.median(rates):,.0f} calls/s (medians)"
        )


async def blocked(network: Network, url: str, folder: Path) -> None:
    """Measure calls while there is no way, and how soon it is used when there is."""
    host = network.host("b")
    async with Scene(url, folder, "-", "blocked") as scene:
        agent = await scene.spawn(prefix=host.prefix)
        network.block_both(network.here, host)
        first, *took = await timed(scene, agent.handle, 500)
        print(f"blocked from the start: first call {first:.1f} ms, then ", end="")
        print(f"{statistics.median(took):.2f} ms (median)")
        scene.load(agent.handle, 4, pause=0.02)
        start = time.monotonic()
        network.heal()
        await on_path(scene, agent, "tcp", 15)
        print(f"let through: direct again after {time.monotonic() - start:.1f} s")
        scene.rest()
        await scene.direct(agent.handle)


def main() -> None:
    """Measure all."""
    if reason := missing():
        sys.exit(reason)
    with Network() as network, EmbeddedServer(host=network.here.address) as server:
        network.server_port = server.port
        for security in ("tls", "authenticated"):
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(directly(network, server.url, Path(folder), security))
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(blocked(network, server.url, Path(folder)))


if __name__ == "__main__":
    main()
