"""Where other processes reach this one: a Unix socket and TCP ports."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from academy.link.acceptor import Acceptor
from academy.link.folder import private_folder, sweep

BACKLOG = 512
"""Connections that wait in the kernel until they are taken."""


class Listener:
    """The listening sockets of a process.

    Args:
        enter: Called with each connection and the kind of its socket, `'uds'` or
            `'tcp'`.
        exhausted: Called when there are no descriptors left for connections.
    """

    def __init__(
        self,
        enter: Callable[[socket.socket, str], None],
        exhausted: Callable[[], None],
    ) -> None:
        self._enter = enter
        self._exhausted = exhausted
        self._folder: Path | None = None
        self._hosts: Sequence[str] = ()
        self._unix: Acceptor | None = None
        self._acceptors: dict[int, list[Acceptor]] = {}
        self.unix_path: str | None = None
        self.ports: list[int] = []

    def open(self, hosts: Sequence[str] = ()) -> None:
        """Bind a Unix socket in a private directory, and a TCP port.

        Args:
            hosts: Addresses to bind TCP to; all if there are none.

        Raises:
            OSError: No port can be bound.
        """
        self._hosts = hosts
        with contextlib.suppress(OSError):
            self._open_unix()
        self.add_port(0)

    def add_port(self, port: int) -> int:
        """Bind one more TCP port and return its number.

        Args:
            port: The port; 0 for one that the system chooses.

        Raises:
            OSError: It cannot be bound.
        """
        socks = _bind(self._hosts, port)
        bound: int = socks[0].getsockname()[1]
        self._acceptors[bound] = [self._acceptor(sock, "tcp") for sock in socks]
        # Those that were asked for go first: a firewall may let only them pass.
        self.ports.insert(0, bound)
        return bound

    def remove_port(self, port: int) -> None:
        """Stop to listen on a TCP port; connections stay. Idempotent."""
        for acceptor in self._acceptors.pop(port, []):
            acceptor.close()
        if port in self.ports:
            self.ports.remove(port)

    def _open_unix(self) -> None:
        sweep()
        self._folder = private_folder()
        path = str(self._folder / "link")
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(path)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        self._unix = self._acceptor(sock, "uds")
        self.unix_path = path

    def _acceptor(self, sock: socket.socket, kind: str) -> Acceptor:
        return Acceptor(sock, lambda made: self._enter(made, kind), self._exhausted)

    def close(self) -> None:
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
