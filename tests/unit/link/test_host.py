"""What this host and process are."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from academy.link import host as host_module
from academy.link.address import TCP_LIMIT, Addresses, Endpoint
from academy.link.host import addresses_of, has_ended, host_id
from tests.unit.link.network import Network

PRINT_HOST = "from academy.link.host import host_id; print(host_id())"


@pytest.fixture
def fresh() -> Iterator[None]:
    host_id.cache_clear()
    yield
    host_id.cache_clear()


class Child:
    """Another process, and what it publishes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        self.addresses = Addresses(
            process="61" * 16,
            host=host_id(),
            unix=None,
            tcp=(),
            fingerprint="",
            pid=self.process.pid,
            started=host_module._started(self.process.pid) or 0.0,
            version=1,
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.end()


class TestHostId:
    def test_same_in_every_process(self) -> None:
        result = subprocess.run(
            [sys.executable, "-c", PRINT_HOST],
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert result.stdout.strip() == host_id()

    @pytest.mark.usefixtures("fresh")
    def test_other_namespace_is_another_host(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A path or a pid means something else there."""
        here = host_id()
        host_id.cache_clear()
        monkeypatch.setattr(os, "readlink", lambda path: f"{path}:[1]")
        assert host_id() != here

    @pytest.mark.usefixtures("fresh")
    def test_without_the_files_of_linux(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> None:
        def missing(path: str) -> str:
            raise FileNotFoundError(path)

        monkeypatch.setattr(host_module, "_IDENTITY_FILES", (str(tmp_path / "none"),))
        monkeypatch.setattr(os, "readlink", missing)
        monkeypatch.setattr(psutil, "boot_time", lambda: 12345.6)
        monkeypatch.setattr("socket.gethostname", lambda: "name")
        assert host_id() == "name/12345"

    def test_fits_into_a_record(self) -> None:
        assert 0 < len(host_id()) <= 256
        assert host_id().isprintable()


class TestAddresses:
    async def test_record(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hosts = ["10.1.2.3", "fd00::1"]
        monkeypatch.setattr(host_module, "interface_addresses", lambda: hosts)
        node = await network.open("a")
        found = addresses_of(node)
        (port,) = node.ports
        assert found.tcp == tuple(Endpoint(host=host, port=port) for host in hosts)
        assert found.process == "61" * 16
        assert (found.host, found.unix) == (host_id(), node.unix_path)
        assert found.pid == os.getpid()
        assert found.started > 0.0
        assert Addresses.from_dict(found.to_dict()) == found

    async def test_bound_addresses(self, network: Network) -> None:
        node = await network.open()
        (port,) = node.ports
        assert addresses_of(node, ["127.0.0.1"]).tcp == (
            Endpoint(host="127.0.0.1", port=port),
        )

    async def test_no_network(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_module, "interface_addresses", list)
        node = await network.open()
        (endpoint,) = addresses_of(node).tcp
        assert endpoint.host == "127.0.0.1"

    async def test_more_addresses_than_a_record_has(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a host with many containers. Ports that were asked for go first."""
        hosts = [f"10.0.0.{n}" for n in range(1, TCP_LIMIT)]
        monkeypatch.setattr(host_module, "interface_addresses", lambda: hosts)
        node = await network.open()
        port = await node.add_port(0)
        found = addresses_of(node).tcp
        assert len(found) == TCP_LIMIT
        assert [str(e) for e in found[:2]] == [
            f"tcp://10.0.0.1:{port}",
            f"tcp://10.0.0.2:{port}",
        ]


class TestEnd:
    async def test_this_process(self, network: Network) -> None:
        node = await network.open()
        assert not has_ended(addresses_of(node, ["127.0.0.1"]))

    def test_running(self, child: Child) -> None:
        assert child.addresses.started > 0.0
        assert not has_ended(child.addresses)

    def test_zombie(self, child: Child) -> None:
        """It has ended, whether or not its parent has asked."""
        child.process.kill()
        os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(child.addresses)

    def test_gone(self, child: Child) -> None:
        child.end()
        assert has_ended(child.addresses)

    def test_pid_of_another_process(self, child: Child) -> None:
        other = dataclasses.replace(
            child.addresses, started=child.addresses.started + 1
        )
        assert has_ended(other)

    def test_start_is_not_known(self, child: Child) -> None:
        unknown = dataclasses.replace(child.addresses, started=0.0)
        assert not has_ended(unknown)
        child.end()
        assert has_ended(unknown)


class TestEndWithoutProc(TestEnd):
    """The same on a system without `/proc`."""

    @pytest.fixture(autouse=True)
    def no_proc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read_text = pathlib.Path.read_text

        def missing(path: pathlib.Path) -> str:
            if str(path).startswith("/proc"):
                raise FileNotFoundError(path)
            return read_text(path)

        monkeypatch.setattr(pathlib.Path, "read_text", missing)
        monkeypatch.setattr(sys, "platform", "darwin")
