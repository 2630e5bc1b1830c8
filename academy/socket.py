"""Addresses and ports of this host, and sockets that carry whole messages."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections import deque
from collections.abc import Iterable

from academy.simple_socket import (
    MAX_MESSAGE_SIZE,
    MESSAGE_HEADER_FORMAT,
    MESSAGE_HEADER_SIZE,
    SimpleSocket,
    SimpleSocketServer,
    SocketClosedError,
    SocketOpenError,
    SocketPool,
)

__all__ = [
    "MAX_MESSAGE_SIZE",
    "MESSAGE_HEADER_FORMAT",
    "MESSAGE_HEADER_SIZE",
    "SimpleSocket",
    "SimpleSocketServer",
    "SocketClosedError",
    "SocketOpenError",
    "SocketPool",
    "address_by_hostname",
    "address_by_interface",
    "interface_addresses",
    "open_port",
    "wait_connection",
]

_recent_ports: deque[int] = deque(maxlen=256)


def address_by_hostname() -> str:
    """Return the address of this host that goes with its name.

    Resolving the name may ask a name server and block for seconds. Where the name
    stands for a loopback address, as on many Linux systems, or for no address of
    this host, the answer is the first of `interface_addresses()`, and 127.0.0.1 if
    there is none.
    """
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        found = []
    reachable = interface_addresses()
    named = {str(address[0]) for *_, address in found}
    mine = [address for address in reachable if address in named]
    return next(iter(mine + reachable), "127.0.0.1")


def address_by_interface(ifname: str) -> str:
    """Return the address of an interface, IPv4 if it has one, else IPv6.

    Args:
        ifname: Name of the interface, such as ``eth0``.

    Raises:
        ValueError: If there is no such interface, or if it has no address. The
            message names the interfaces that exist.
    """
    interfaces = _interfaces()
    if not interfaces.get(ifname):
        raise _unknown_interface(ifname, interfaces)
    return interfaces[ifname][0]


def interface_addresses(interface: str | None = None) -> list[str]:
    """Return the addresses by which others may reach this host, IPv4 first.

    Args:
        interface: Name of an interface, or an address of this host, to be used
            alone. With None it is every address of every interface that is up,
            except loopback and link-local ones.

    Returns:
        The addresses. The list is empty only if `interface` is None and this host
        is on no network.

    Raises:
        ValueError: If `interface` is neither the name of an interface with an
            address nor an address of this host. The message names the interfaces
            that exist.
    """
    interfaces = _interfaces()
    if interface is None:
        return _reachable_addresses(interfaces)
    chosen = interfaces.get(interface) or [
        address
        for addresses in interfaces.values()
        for address in addresses
        if _same_address(address, interface)
    ]
    if not chosen:
        raise _unknown_interface(interface, interfaces)
    return chosen


def _interfaces() -> dict[str, list[str]]:
    """Return the addresses of each interface, IPv4 before IPv6."""
    import psutil

    # An address with a scope, as "fe80::1%eth0", means nothing on another host.
    return {
        name: _ipv4_first(
            str(entry.address)
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
            and "%" not in entry.address
        )
        for name, entries in psutil.net_if_addrs().items()
    }


def _reachable_addresses(interfaces: dict[str, list[str]]) -> list[str]:
    import psutil

    status = psutil.net_if_stats()
    addresses = [
        address
        for name, addresses in interfaces.items()
        if name not in status or status[name].isup
        for address in addresses
        if not _is_local(address)
    ]
    return _ipv4_first(dict.fromkeys(addresses))


def _ipv4_first(addresses: Iterable[str]) -> list[str]:
    return sorted(addresses, key=lambda address: ":" in address)


def _is_local(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return ip.is_loopback or ip.is_link_local


def _same_address(address: str, text: str) -> bool:
    try:
        return ipaddress.ip_address(address) == ipaddress.ip_address(text)
    except ValueError:
        return False


def _unknown_interface(name: str, interfaces: dict[str, list[str]]) -> ValueError:
    known = "; ".join(
        f"{name} ({', '.join(addresses)})"
        for name, addresses in interfaces.items()
        if addresses
    )
    return ValueError(
        f"This host has no interface {name!r} with an address. It has: {known}."
    )


def open_port() -> int:
    """Return a TCP port that is free at the moment.

    This is only a hint: nobody reserves the port, and another process can take it
    before you do. To be sure of a port, bind to port 0 and ask which one it became.
    """
    for _ in range(16):
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in _recent_ports:
            break
    _recent_ports.append(port)
    return port


def wait_connection(
    host: str,
    port: int,
    *,
    sleep: float = 0.01,
    timeout: float | None = None,
) -> None:
    """Block until somebody accepts connections at an address.

    It connects and hangs up again, as often as it takes. It blocks its thread: in
    an event loop, run it with `asyncio.to_thread()`.

    Args:
        host: Name or address of the host.
        port: TCP port.
        sleep: Seconds to wait between two attempts.
        timeout: Seconds to try at most; None tries for ever.

    Raises:
        TimeoutError: If no attempt succeeded within `timeout` seconds. Its cause
            is the error of the last attempt.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        try:
            socket.create_connection((host, port), timeout=left).close()
            return
        except OSError as e:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(
                    f"Nobody accepted a connection at {host}, port {port}, "
                    f"within {timeout} s: {e}."
                ) from e
        time.sleep(sleep if left is None else min(sleep, left))
