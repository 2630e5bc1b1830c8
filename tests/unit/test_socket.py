from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Generator
from types import SimpleNamespace

import psutil
import pytest

import academy.socket
from academy.socket import (
    address_by_hostname,
    address_by_interface,
    interface_addresses,
    open_port,
    wait_connection,
)


@pytest.mark.parametrize("name", academy.socket.__all__)
def test_public_names(name: str) -> None:
    assert getattr(academy.socket, name) is not None


class Host:
    """The interfaces of a made-up host, in place of those of this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interfaces: dict[str, list[str]] = {}
        self.down: set[str] = set()
        self.without_status: set[str] = set()
        self.names: dict[str, list[str]] = {}
        monkeypatch.setattr(psutil, "net_if_addrs", self._addresses)
        monkeypatch.setattr(psutil, "net_if_stats", self._status)
        monkeypatch.setattr(socket, "gethostname", lambda: "here")
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def _addresses(self) -> dict[str, list[SimpleNamespace]]:
        mac = SimpleNamespace(family=psutil.AF_LINK, address="02:00:00:00:00:01")
        return {
            name: [*(self._entry(address) for address in addresses), mac]
            for name, addresses in self.interfaces.items()
        }

    def _entry(self, address: str) -> SimpleNamespace:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return SimpleNamespace(family=family, address=address)

    def _status(self) -> dict[str, SimpleNamespace]:
        return {
            name: SimpleNamespace(isup=name not in self.down)
            for name in self.interfaces
            if name not in self.without_status
        }

    def _resolve(self, name: str, _: None) -> list[tuple[object, ...]]:
        if name not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in self.names[name]]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(monkeypatch)
    host.interfaces = {
        "lo": ["127.0.0.1", "::1"],
        "eth0": ["2001:db8::2", "fe80::2%eth0", "192.0.2.2"],
        "ib0": ["198.51.100.3", "169.254.0.3", "2001:db8::2"],
        "down0": ["203.0.113.4"],
        "empty0": [],
        "local0": ["fe80::5%local0"],
    }
    host.down = {"down0"}
    host.without_status = {"ib0"}
    return host


class TestInterfaceAddresses:
    def test_all(self, host: Host) -> None:
        assert interface_addresses() == ["192.0.2.2", "198.51.100.3", "2001:db8::2"]

    def test_no_network(self, host: Host) -> None:
        host.interfaces = {"lo": ["127.0.0.1", "::1"]}
        assert interface_addresses() == []

    @pytest.mark.parametrize(
        ("interface", "addresses"),
        [
            ("lo", ["127.0.0.1", "::1"]),
            ("eth0", ["192.0.2.2", "2001:db8::2"]),
            ("down0", ["203.0.113.4"]),
            ("203.0.113.4", ["203.0.113.4"]),
            ("::1", ["::1"]),
            ("0:0:0:0:0:0:0:1", ["::1"]),
        ],
    )
    def test_chosen(self, host: Host, interface: str, addresses: list[str]) -> None:
        assert interface_addresses(interface) == addresses

    @pytest.mark.parametrize(
        "interface", ["eth1", "empty0", "local0", "192.0.2.99", "0.0.0.0", ""]
    )
    def test_unknown(self, host: Host, interface: str) -> None:
        with pytest.raises(ValueError, match="no interface") as caught:
            interface_addresses(interface)
        assert str(caught.value) == (
            f"This host has no interface {interface!r} with an address. It has: "
            "lo (127.0.0.1, ::1); eth0 (192.0.2.2, 2001:db8::2); "
            "ib0 (198.51.100.3, 169.254.0.3, 2001:db8::2); down0 (203.0.113.4)."
        )

    def test_this_host(self) -> None:
        """What it says of the real interfaces can be bound."""
        for address in [*interface_addresses(), *interface_addresses("127.0.0.1")]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family) as probe:
                probe.bind((address, 0))


class TestAddressByInterface:
    @pytest.mark.parametrize(
        ("ifname", "address"),
        [("lo", "127.0.0.1"), ("eth0", "192.0.2.2"), ("v6", "2001:db8::9")],
    )
    def test_address(self, host: Host, ifname: str, address: str) -> None:
        host.interfaces["v6"] = ["2001:db8::9"]
        assert address_by_interface(ifname) == address

    @pytest.mark.parametrize("ifname", ["eth1", "empty0", "127.0.0.1"])
    def test_unknown(self, host: Host, ifname: str) -> None:
        with pytest.raises(ValueError, match=r"no interface .* It has: lo .*; eth0"):
            address_by_interface(ifname)


class TestAddressByHostname:
    @pytest.mark.parametrize(
        ("resolved", "address"),
        [
            (["198.51.100.3"], "198.51.100.3"),
            (["2001:db8::2", "198.51.100.3"], "198.51.100.3"),
            (["2001:db8::2"], "2001:db8::2"),
            (["127.0.1.1"], "192.0.2.2"),
            (["203.0.113.99"], "192.0.2.2"),
            (None, "192.0.2.2"),
        ],
    )
    def test_address(
        self, host: Host, resolved: list[str] | None, address: str
    ) -> None:
        if resolved is not None:
            host.names["here"] = resolved
        assert address_by_hostname() == address

    def test_no_network(self, host: Host) -> None:
        host.interfaces = {"lo": ["127.0.0.1"]}
        host.names["here"] = ["127.0.1.1"]
        assert address_by_hostname() == "127.0.0.1"


class TestOpenPort:
    def test_ports_are_free_and_differ(self) -> None:
        ports = [open_port() for _ in range(20)]
        assert len(set(ports)) == 20
        for port in ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))

    def test_does_not_search_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host with few free ports gives the same one again."""
        all_ports = deque(range(65536))
        monkeypatch.setattr(academy.socket, "_recent_ports", all_ports)
        assert 0 < open_port() < 65536


class TestWaitConnection:
    @pytest.fixture
    def bound(self) -> Generator[socket.socket]:
        """A socket with a port that nobody else can take, not yet listening."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            yield bound

    @pytest.mark.parametrize("timeout", [None, 10, 0])
    def test_somebody_listens(
        self, bound: socket.socket, timeout: float | None
    ) -> None:
        bound.listen()
        wait_connection(*bound.getsockname(), timeout=timeout)

    @pytest.mark.parametrize("timeout", [None, 10])
    def test_somebody_listens_later(
        self,
        bound: socket.socket,
        monkeypatch: pytest.MonkeyPatch,
        timeout: float | None,
    ) -> None:
        attempts = []
        create_connection = socket.create_connection

        def listen_before_the_third(*args: object, **kwargs: object) -> object:
            attempts.append(args)
            if len(attempts) == 3:
                bound.listen()
            return create_connection(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "create_connection", listen_before_the_third)
        wait_connection(*bound.getsockname(), sleep=0.001, timeout=timeout)
        assert len(attempts) == 3

    @pytest.mark.parametrize("sleep", [0.01, 60])
    def test_nobody_listens(self, bound: socket.socket, sleep: float) -> None:
        host, port = bound.getsockname()
        with pytest.raises(TimeoutError) as caught:
            wait_connection(host, port, sleep=sleep, timeout=0.05)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert f"at 127.0.0.1, port {port}, within 0.05 s" in str(caught.value)

    def test_silent_host(
        self, bound: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An attempt that gets no answer does not outlast the timeout."""
        given: list[float] = []

        def no_answer(_: object, timeout: float) -> None:
            given.append(timeout)
            threading.Event().wait(timeout)
            raise TimeoutError("timed out")

        monkeypatch.setattr(socket, "create_connection", no_answer)
        with pytest.raises(TimeoutError, match=r"within 0\.05 s: timed out"):
            wait_connection("192.0.2.99", 9, timeout=0.05)
        assert max(given) <= 0.05
