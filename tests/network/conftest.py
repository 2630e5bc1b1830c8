"""Networks for the tests here, and the table of faults at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from academy.embedded import EmbeddedServer
from tests.fault import conftest as faults
from tests.network.topology import Network, missing


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, unless the tests beside these do."""
    manager = terminalreporter.config.pluginmanager
    if not manager.hasplugin(str(Path(faults.__file__))):
        faults.pytest_terminal_summary(terminalreporter)
