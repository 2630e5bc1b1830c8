"""Hosts that others reach at other addresses than their own."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tests.fault.harness import Scene
from tests.network.paths import engine_of, link, on_path
from tests.network.topology import CommandError, Host, Network, command

pytestmark = pytest.mark.root


@pytest.fixture
def inside(network: Network, url: str) -> Host:
    """A host behind NAT: the router has an address for it, at which all ports lead
    there, and lets through no other connection but those to the server.
    """
    host = network.host("a")
    outside = network.here.device
    for rule in (
        f"nat -A PREROUTING -i {outside} -d {router_of(network)} -p tcp "
        f"-j DNAT --to-destination {host.address}",
        f"mangle -A PREROUTING -i {outside} -d {host.address} -p tcp --syn -j DROP",
        f"mangle -A PREROUTING -i {host.device} -p tcp --syn "
        f"! --dport {network.server_port} -j DROP",
    ):
        try:
            command(
                *("ip", "netns", "exec", network.router, "iptables", "-t"),
                *rule.split(),
            )
        except CommandError as e:
            pytest.skip(f"no NAT can be set up here: {e}")
    return host


def router_of(network: Network) -> str:
    """Return the address of the router that this host sees."""
    return str(ipaddress.ip_address(network.here.address) - 1)


async def test_a_host_behind_nat(
    network: Network, url: str, tmp_path: Path, inside: Host
) -> None:
    address = router_of(network)
    prefix = (*inside.prefix, "env", f"ACADEMY_ADVERTISE={address}")
    async with Scene(url, tmp_path, "53a", "NAT, and its address is told") as scene:
        agent = await scene.spawn(prefix=prefix)
        scene.load(agent.handle, 4, pause=0.01)
        await on_path(scene, agent, "tcp", 10)
        engine = engine_of(scene)
        assert engine.links is not None
        mine = engine.links.mine
        found = await engine.directory.locate(agent.handle.agent_id, mine.process)
        assert found is not None
        assert {e.host for e in found.addresses.tcp} == {address}
        scene.rest()


async def test_a_host_behind_nat_that_does_not_tell(
    network: Network, url: str, tmp_path: Path, inside: Host
) -> None:
    """Nobody gets through: the queues are there."""
    async with Scene(url, tmp_path, "53b", "NAT, and its address is not told") as scene:
        agent = await scene.spawn(prefix=inside.prefix)
        scene.load(agent.handle, 4, pause=0.01)
        await scene.executed(200)
        with pytest.raises(AssertionError, match="not on tcp"):
            await on_path(scene, agent, "tcp", 5)
        assert "no answer in time" in (await link(scene, agent)).reason
        scene.rest()
