"""Where other processes reach this one: a Unix socket and TCP ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

BACKLOG = 128
PREFIX = "academy-link-"


class Listener:
    """The listening sockets of a process.

    Args:
        factory: Makes the protocol of an accepted connection; its argument is the kind
            of socket, `'uds'` or `'tcp'`. Returns `None` to refuse it.
    """

    def __init__(self, factory: Callable[[str], asyncio.Protocol]) -> None:
        self._factory = factory
        self._folder: Path | None = None
        self._hosts: Sequence[str] = ()
        self._unix: asyncio.Server | None = None
        self._servers: dict[int, list[asyncio.Server]] = {}
        self.unix_path: str | None = None
        self.ports: list[int] = []

    async def open(self, hosts: Sequence[str] = ()) -> None:
        """Bind a Unix socket in a private directory, and a TCP port.

        Args:
            hosts: Addresses to bind TCP to; all if there are none.

        Raises:
            OSError: No port can be bound.
        """
        self._hosts = hosts
        with contextlib.suppress(OSError, NotImplementedError):
            await self._open_unix(asyncio.get_running_loop())
        await self.add_port(0)

    async def add_port(self, port: int) -> int:
        """Bind one more TCP port and return its number.

        Args:
            port: The port; 0 for one that the system chooses.

        Raises:
            OSError: It cannot be bound.
        """
        loop = asyncio.get_running_loop()
        socks = _bind(self._hosts, port)
        bound: int = socks[0].getsockname()[1]
        servers = [
            await loop.create_server(lambda: self._factory("tcp"), sock=sock)
            for sock in socks
        ]
        self._servers[bound] = servers
        # Those that were asked for go first: a firewall may let only them pass.
        self.ports.insert(0, bound)
        return bound

    def remove_port(self, port: int) -> None:
        """Stop to listen on a TCP port; connections stay. Idempotent."""
        for server in self._servers.pop(port, []):
            server.close()
        if port in self.ports:
            self.ports.remove(port)

    async def _open_unix(self, loop: asyncio.AbstractEventLoop) -> None:
        _sweep()
        prefix = f"{PREFIX}{os.getpid()}-"
        self._folder = Path(tempfile.mkdtemp(prefix=prefix))
        path = str(self._folder / "link")
        self._unix = await loop.create_unix_server(
            lambda: self._factory("uds"), path, backlog=BACKLOG
        )
        self.unix_path = path

    async def close(self) -> None:
        """Stop to listen and remove the Unix socket. Idempotent."""
        for port in list(self.ports):
            self.remove_port(port)
        if self._unix is not None:
            self._unix.close()
            self._unix = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return listening sockets with the same port at all addresses.

    Raises:
        OSError: It cannot be bound.
    """
    try:
        if not hosts:
            return [_bind_all(port)]
        socks: list[socket.socket] = []
        try:
            for host in hosts:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                at = (host, port or (socks[0].getsockname()[1] if socks else 0))
                made = socket.create_server(at, family=family, backlog=BACKLOG)
                socks.append(made)
        except OSError:
            for sock in socks:
                sock.close()
            raise
        return socks
    except OSError as e:
        raise OSError(
            e.errno,
            f"Port {port} cannot be used ({e.strerror}). Another process has it, or "
            "it needs privileges; give other ports.",
        ) from e


def _bind_all(port: int) -> socket.socket:
    """Return a listening socket for IPv6 and IPv4, or IPv4 alone where that is all.

    One socket, since two would get different ports from the system.
    """
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", port),
                family=socket.AF_INET6,
                backlog=BACKLOG,
                dualstack_ipv6=True,
            )
    return socket.create_server(("", port), backlog=BACKLOG)


def _sweep() -> None:
    """Remove the socket directories of processes of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError, ValueError, OverflowError):
            if folder.stat().st_uid == os.getuid() and not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def same_user(sock: socket.socket) -> bool:
    """Return whether the other end of a Unix socket is of this user, or of root."""
    if sys.platform == "darwin":
        # LOCAL_PEERCRED: version, uid, number of groups, groups.
        raw = sock.getsockopt(0, 0x001, 76)
        uid = struct.unpack_from("Ii", raw)[1]
    else:
        size = struct.calcsize("3i")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        uid = struct.unpack("3i", raw)[1]
    return uid in (os.getuid(), 0)
