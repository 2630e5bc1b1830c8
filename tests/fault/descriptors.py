"""The open files of this process, and its direct links among them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat


def open_files() -> set[str]:
    """Return what this process has open, for messages."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def cut_links(server_port: int) -> int:
    """Break all direct links of this process, as a network would; return how many."""
    cut = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if _is_link(sock, server_port):
                    sock.shutdown(socket.SHUT_RDWR)
                    cut += 1
    return cut


def _is_link(sock: socket.socket, server_port: int) -> bool:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    here, there = sock.getsockname(), sock.getpeername()
    if sock.family == socket.AF_UNIX:
        return bool(here or there)  # asyncio has a pair without names
    return server_port not in (here[1], there[1])
