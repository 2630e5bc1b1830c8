"""What this host and process are, for others to find them."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from academy.link.address import TCP_LIMIT, Addresses, Endpoint
from academy.link.handshake import VERSION
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


def addresses_of(node: Node, hosts: Sequence[str] = ()) -> Addresses:
    """Return where a node of this process can be reached.

    Args:
        node: The node.
        hosts: Addresses that it is bound to; if there are none, it is to all.
    """
    hosts = hosts or interface_addresses() or ["127.0.0.1"]
    found = [Endpoint(host=host, port=port) for port in node.ports for host in hosts]
    pid = os.getpid()
    return Addresses(
        process=node.process.hex(),
        host=host_id(),
        unix=node.unix_path,
        tcp=tuple(found[:TCP_LIMIT]),
        fingerprint=node.fingerprint,
        pid=pid,
        started=_started(pid) or 0.0,
        version=VERSION,
    )


def has_ended(theirs: Addresses) -> bool:
    """Return whether a process of this host is gone, and not only silent."""
    started = _started(theirs.pid)
    return started is None or (theirs.started > 0.0 and started != theirs.started)


def _started(pid: int) -> float | None:
    """Return when a process was started; `None` if it has ended.

    The moment counts from when the host was booted, where that can be seen: the wall
    clock may be set while the process runs.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if sys.platform.startswith("linux"):
            return None
        return _started_elsewhere(pid)
    # The name before the last parenthesis may be anything.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks / os.sysconf("SC_CLK_TCK")


def _started_elsewhere(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return None if ended else process.create_time()
    except psutil.NoSuchProcess:
        return None
