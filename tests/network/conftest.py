"""Networks for the tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from academy.embedded import EmbeddedServer
from tests.network.topology import Host, Network, missing


@pytest.fixture
def network() -> Iterator[Network]:
    """A router and this host, and nothing is lost yet."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Network() as made:
        yield made


@pytest.fixture
def url(network: Network) -> Iterator[str]:
    """A server on this host that all hosts of the network reach."""
    with EmbeddedServer(host=network.here.address) as server:
        network.server_port = server.port
        yield server.url


@pytest.fixture
def ipv6(network: Network) -> tuple[Host, str]:
    """A host without IPv4, and the address of this host for it."""
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this host has no IPv6")
    return network.ipv6_host("six")


@pytest.fixture
def ipv6_host(ipv6: tuple[Host, str]) -> Host:
    return ipv6[0]


@pytest.fixture
def ipv6_url(ipv6: tuple[Host, str]) -> Iterator[str]:
    """A server that this host is reached at by IPv6 alone."""
    with EmbeddedServer(host=ipv6[1]) as server:
        yield server.url
