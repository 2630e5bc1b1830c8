"""Addresses and ports for a server to listen on."""

from __future__ import annotations

import errno
import secrets
import socket

PORTS = range(20_000, 30_000)
"""Where free ports are looked for.

These lie below the ports that systems give to outgoing connections. One of those
could be taken while the server is down, even by a client that connects to itself.
"""


def listen_addresses(host: str) -> list[str]:
    """Return the addresses to listen on: the loopback one and that of ``host``.

    Raises:
        OSError: The host has no address (``errno.EADDRNOTAVAIL``).
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(
            errno.EADDRNOTAVAIL, f"The host {host!r} has no address ({error.strerror})"
        ) from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    address = str(found[0][4][0])
    alone = address in ("0.0.0.0", "127.0.0.1")
    return [address] if alone else ["127.0.0.1", address]


def check_port(addresses: list[str], port: int) -> None:
    """Check that a server can listen on the port at each of the addresses.

    Raises:
        OSError: It cannot: ``errno`` says whether the port is in use
            (``EADDRINUSE``), not permitted, or an address is not this machine's.
    """
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"The server cannot listen on port {port} of {address} "
                    f"({error.strerror}): choose another, or none to get a free one",
                ) from error


def is_free(addresses: list[str], port: int) -> bool:
    """Tell whether nobody uses the port; raise ``OSError`` if nobody can use it."""
    try:
        check_port(addresses, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def free_port(addresses: list[str], preferred: int | None = None) -> int:
    """Return a port that is free at this moment: the preferred one, or a random one.

    Raises:
        OSError: An address is not of this machine, or a hundred ports were in use.
    """
    if preferred is not None and is_free(addresses, preferred):
        return preferred
    for _ in range(100):
        port = secrets.choice(PORTS)
        if is_free(addresses, port):
            return port
    raise OSError(
        errno.EADDRINUSE, f"No free port found from {PORTS[0]} to {PORTS[-1]}"
    )
