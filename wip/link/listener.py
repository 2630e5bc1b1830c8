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
from collections.abc import Callable, Iterable
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
        self._servers: list[asyncio.Server] = []
        self.unix_path: str | None = None
        self.ports: list[int] = []

    async def open(self, *, host: str | None, ports: Iterable[int] = ()) -> None:
        """Bind a Unix socket in a private directory, and TCP ports.

        Args:
            host: Address to bind TCP to; `None` for all.
            ports: Further ports; one is always chosen by the system.

        Raises:
            OSError: A port cannot be bound.
        """
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, NotImplementedError):
            await self._open_unix(loop)
        for port in (0, *ports):
            await self.add_port(host, port)

    async def add_port(self, host: str | None, port: int) -> int:
        """Bind one more TCP port and return its number.

        Raises:
            OSError: It cannot be bound.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: self._factory("tcp"), host, port, backlog=BACKLOG
        )
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        self.ports.append(bound)
        return bound

    async def _open_unix(self, loop: asyncio.AbstractEventLoop) -> None:
        _sweep()
        prefix = f"{PREFIX}{os.getpid()}-"
        self._folder = Path(tempfile.mkdtemp(prefix=prefix))
        path = str(self._folder / "link")
        server = await loop.create_unix_server(
            lambda: self._factory("uds"), path, backlog=BACKLOG
        )
        self._servers.append(server)
        self.unix_path = path

    async def close(self) -> None:
        """Stop to listen and remove the Unix socket. Idempotent."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _sweep() -> None:
    """Remove the socket directories of processes of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError, ValueError):
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
    """Return whether the other end of a Unix socket belongs to this user, or to root."""
    if sys.platform == "darwin":
        # LOCAL_PEERCRED: version, uid, number of groups, groups.
        raw = sock.getsockopt(0, 0x001, 76)
        uid = struct.unpack_from("Ii", raw)[1]
    else:
        size = struct.calcsize("3i")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        uid = struct.unpack("3i", raw)[1]
    return uid in (os.getuid(), 0)
