"""The hosts of these tests are other hosts: nothing local is used between them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.harness import Scene
from tests.network.paths import engine_of, on_path
from tests.network.topology import NAMESPACES, CommandError, Network

pytestmark = pytest.mark.root


async def test_other_hosts_get_no_local_address(
    network: Network, url: str, tmp_path: Path
) -> None:
    host = network.host("a")
    async with Scene(url, tmp_path, "48a", "nothing fails, another host") as scene:
        agent = await scene.spawn(prefix=host.prefix)
        scene.load(agent.handle, 4, pause=0.01)
        await on_path(scene, agent, "tcp", 5)
        engine = engine_of(scene)
        assert engine.links is not None
        mine = engine.links.mine
        found = await engine.directory.locate(agent.handle.agent_id, mine.process)
        assert found is not None
        theirs = found.addresses
        assert theirs.host != mine.host
        for published in (theirs, mine):
            assert published.tcp
            assert not [e for e in published.tcp if e.is_local]
        assert [e.host for e in theirs.tcp] == [host.address]
        assert network.here.address in {e.host for e in mine.tcp}
        for candidates in (mine.candidates(theirs), theirs.candidates(mine)):
            assert {e.kind for e in candidates} == {"tcp"}
        scene.rest()
        await scene.direct(agent.handle)


async def test_two_other_hosts_need_no_server(
    network: Network, url: str, tmp_path: Path
) -> None:
    one, other = network.host("a"), network.host("b")
    async with Scene(url, tmp_path, "48b", "nothing fails, two other hosts") as scene:
        agent = await scene.spawn(prefix=one.prefix)
        caller = await scene.spawn_caller(
            "caller", [agent.registration], tasks=4, pause=0.01, prefix=other.prefix
        )
        await scene.executed(200)
        before = await scene.commands()
        await scene.executed(600)
        assert await scene.commands() - before < 100
        await scene.collect(caller)
        assert not scene.oracle.errors()


CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], sys.argv[2]), 1)"


def test_a_network_leaves_nothing_behind(network: Network) -> None:
    with Network() as other, socket.create_server(("", 0)) as listener:
        host = other.host("a", delay=0.01)
        assert not {host.address, other.here.address} & {network.here.address}
        where = (other.here.address, str(listener.getsockname()[1]))
        connect = (sys.executable, "-c", CONNECT, *where)
        left = subprocess.Popen(("ip", "netns", "exec", host.name, "sleep", "60"))
        try:
            host.run(*connect)
            other.isolate(host)
            with pytest.raises(CommandError, match="timed out"):
                host.run(*connect)
            other.heal()
            host.run(*connect)
            assert list(NAMESPACES.glob(f"{host.name}*"))
        finally:
            other.close()
        assert left.wait(5) == -9
    assert not [*NAMESPACES.glob(f"{host.name}*"), *NAMESPACES.glob(other.router)]
    links = subprocess.run(
        ("ip", "-o", "link"), capture_output=True, text=True, check=True
    ).stdout
    assert other.here.own_device not in links
    assert network.here.own_device in links
