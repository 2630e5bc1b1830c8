"""Where other processes reach this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator

import pytest

from academy.link.folder import PREFIX
from academy.link.listener import Listener
from tests.unit.link.network import PATIENCE, nothing_left

LOCAL = ["127.0.0.1"]


def greet(sock: socket.socket, kind: str) -> None:
    """Say by which kind of socket one was reached, and hang up."""
    with sock:
        sock.send(kind.encode())


@pytest.fixture
async def listener(folder: pathlib.Path) -> AsyncIterator[Listener]:
    async with nothing_left():
        listener = Listener(greet, lambda: None)
        yield listener
        listener.close()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def greeting(at: str | tuple[str, int]) -> str:
    """Return what the listener says at a path, or an address."""
    async with asyncio.timeout(PATIENCE):
        if isinstance(at, str):
            reader, writer = await asyncio.open_unix_connection(at)
        else:
            reader, writer = await asyncio.open_connection(*at)
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def directories(folder: pathlib.Path) -> list[str]:
    return sorted(os.listdir(folder))


class TestUnix:
    async def test_private_socket(
        self, listener: Listener, folder: pathlib.Path
    ) -> None:
        listener.open(LOCAL)
        assert listener.unix_path is not None
        assert await greeting(listener.unix_path) == "uds"
        parent = os.path.dirname(listener.unix_path)
        assert os.path.dirname(parent) == str(folder)
        assert stat.S_IMODE(os.stat(parent).st_mode) == 0o700
        assert f"{PREFIX}{os.getpid()}-" in parent

    async def test_closed(self, listener: Listener, folder: pathlib.Path) -> None:
        listener.open(LOCAL)
        path = listener.unix_path
        assert path is not None
        listener.close()
        listener.close()
        assert not directories(folder)
        with pytest.raises(FileNotFoundError):
            await greeting(path)

    async def test_without_one(
        self,
        listener: Listener,
        folder: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The path is too long for a socket: then it is TCP alone."""
        deep = folder / ("x" * 100)
        os.mkdir(deep)
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        listener.open(LOCAL)
        assert listener.unix_path is None
        assert await greeting(("127.0.0.1", listener.ports[0])) == "tcp"
        listener.close()
        assert not directories(deep)
        os.rmdir(deep)

    async def test_no_temporary_directory(
        self, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
        listener.open(LOCAL)
        assert listener.unix_path is None
        assert len(listener.ports) == 1


class TestPorts:
    async def test_chosen_by_the_system(self, listener: Listener) -> None:
        listener.open(LOCAL)
        (port,) = listener.ports
        assert await greeting(("127.0.0.1", port)) == "tcp"

    async def test_chosen_ones_come_first(self, listener: Listener) -> None:
        listener.open(LOCAL)
        (first,) = listener.ports
        second = listener.add_port(0)
        assert listener.ports == [second, first]
        for port in listener.ports:
            assert await greeting(("127.0.0.1", port)) == "tcp"

    async def test_removed(self, listener: Listener) -> None:
        listener.open(LOCAL)
        (first,) = listener.ports
        port = listener.add_port(0)
        listener.remove_port(port)
        listener.remove_port(port)
        assert listener.ports == [first]
        with pytest.raises(ConnectionRefusedError):
            await greeting(("127.0.0.1", port))
        assert listener.add_port(port) == port
        assert await greeting(("127.0.0.1", port)) == "tcp"

    async def test_taken(self, listener: Listener, taken_port: int) -> None:
        listener.open(LOCAL)
        ports = list(listener.ports)
        with pytest.raises(OSError, match=rf"Port {taken_port} .*give other ports"):
            listener.add_port(taken_port)
        assert listener.ports == ports

    async def test_one_of_the_addresses_is_not_of_this_host(
        self, listener: Listener
    ) -> None:
        with pytest.raises(OSError, match=r"Port 0 cannot be used"):
            listener.open([*LOCAL, "192.0.2.1"])
        assert not listener.ports

    @pytest.mark.parametrize("hosts", [[], ["127.0.0.1", "::1"]])
    async def test_same_port_for_both_families(
        self, listener: Listener, hosts: list[str]
    ) -> None:
        """Others know of one port, and dial it at each address."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("This host has no IPv6.")
        listener.open(hosts)
        port = listener.add_port(0)
        for host in ("127.0.0.1", "::1"):
            assert await greeting((host, port)) == "tcp"

    async def test_without_ipv6(
        self, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
        listener.open()
        assert await greeting(("127.0.0.1", listener.ports[0])) == "tcp"

    async def test_ipv6_is_switched_off(
        self, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The system knows it, but no socket can be bound."""
        create = socket.create_server

        def no_ipv6(address: object, **options: object) -> socket.socket:
            if options.get("family") == socket.AF_INET6:
                raise OSError(99, "Cannot assign requested address")
            return create(address, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
        monkeypatch.setattr(socket, "create_server", no_ipv6)
        listener.open()
        assert await greeting(("127.0.0.1", listener.ports[0])) == "tcp"
