from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator

import pytest

from academy.embedded import port as ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("192.0.2.7", ["127.0.0.1", "192.0.2.7"]),
        ("::1", ["127.0.0.1", "::1"]),
    ],
)
def test_listen_addresses(host: str, expected: list[str]) -> None:
    assert ports.listen_addresses(host) == expected


def test_unknown_host_is_named() -> None:
    with pytest.raises(OSError, match=r"'no\.such\.invalid' has no address") as caught:
        ports.listen_addresses("no.such.invalid")
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_port_in_use(taken: int) -> None:
    with pytest.raises(OSError, match=f"port {taken} of 127.0.0.1") as caught:
        ports.check_port(["127.0.0.1"], taken)
    assert caught.value.errno == errno.EADDRINUSE
    assert not ports.is_free(["127.0.0.1"], taken)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8")
def test_every_address_counts(taken: int) -> None:
    assert ports.is_free(["127.0.0.2"], taken)
    assert not ports.is_free(["127.0.0.2", "127.0.0.1"], taken)


def test_address_of_another_machine() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.7") as caught:
        ports.free_port(["192.0.2.7"])
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_preferred_port_only_while_it_is_free(taken: int) -> None:
    free = ports.free_port(["127.0.0.1"])
    assert free in ports.PORTS
    assert ports.free_port(["127.0.0.1"], free) == free
    assert ports.free_port(["127.0.0.1"], taken) != taken


def test_all_ports_in_use(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(ports, "PORTS", range(taken, taken + 1))
    with pytest.raises(OSError, match="No free port") as caught:
        ports.free_port(["127.0.0.1"])
    assert caught.value.errno == errno.EADDRINUSE
