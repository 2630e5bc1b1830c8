"""What this host and process are, for others to find them."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

from academy.link.address import Addresses, Endpoint
from academy.link.node import Node
from academy.socket import interface_addresses

_IDENTITY_FILES = ("/etc/machine-id", "/proc/sys/kernel/random/boot_id")
"""Together they name a host until it is booted again."""


@functools.cache
def host_id() -> str:
    """Return a text that is the same for all processes that share Unix sockets.

    It names the host, its boot, and the namespaces that decide what a path and a
    process number mean; without such files (macOS), the host's name and boot time.
    """
    parts = []
    for name in _IDENTITY_FILES:
        try:
            parts.append(Path(name).read_text().strip())
        except OSError:
            parts.append("")
    for kind in ("pid", "mnt"):
        try:
            parts.append(os.readlink(f"/proc/self/ns/{kind}"))
        except OSError:
            parts.append("")
    if not any(parts):
        import psutil

        parts = [socket.gethostname(), str(int(psutil.boot_time()))]
    return "/".join(parts)


def addresses_of(node: Node) -> Addresses:
    """Return where a node of this process can be reached."""
    import psutil

    hosts = interface_addresses() or ["127.0.0.1"]
    found = [Endpoint(host=host, port=port) for port in node.ports for host in hosts]
    if node.unix_path is not None:
        found.insert(0, Endpoint(path=node.unix_path))
    return Addresses(
        process=node.process.hex(),
        host_id=host_id(),
        endpoints=tuple(map(str, found)),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
    )
