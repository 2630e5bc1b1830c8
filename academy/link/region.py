"""Regions: memory that two processes of one host see, and that has no name.

A region is made by one process, which tells the other where it is: through which of its
file descriptors. Nothing of it is in a file system, so it goes with the last of the two
processes, however they end. It cannot change its size: else who reads or writes it
might be killed for that.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

from academy.link.frame import Offer
from academy.loan import Lendable

if sys.platform == "linux":
    import fcntl
    import socket

    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

VARIABLE = "ACADEMY_SHARED_MEMORY"
"""Set to `0`, this environment variable has nothing shared."""
NAME = "academy"
_LINK = f"/memfd:{NAME} (deleted)"
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of the other end of a Unix socket."""


class Region:
    """Memory that two processes see.

    Args:
        descriptor: Its file, which is closed.
        size: Its size in bytes.
        inode: Number of its file.

    Raises:
        OSError: It cannot be mapped.
        ImportError: There is no `ctypes`.
    """

    def __init__(self, descriptor: int, size: int, inode: int) -> None:
        self.descriptor = descriptor
        """The file, until `settle`; the mapping has another one."""
        self.size = size
        self.inode = inode
        try:
            from academy.link import fork  # it needs ctypes, which takes a while

            fork.prepare()
            memory = mmap.mmap(descriptor, size)
            self._lendable = Lendable(memory)
        except BaseException:
            self.settle()
            raise
        self.view = memoryview(memory)
        """All of it."""

    def settle(self) -> None:
        """Let go of the file, which the other process needs no more. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def lend(self, offset: int, size: int, ended: Callable[[], None]) -> memoryview:
        """Return a view of some bytes; see `academy.loan`."""
        return self._lendable.lend(offset, size, ended)

    def find(self, view: memoryview) -> int | None:
        """Return where in the region a view begins; `None` if it is not all in it."""
        return self._lendable.find(view)


class Regions:
    """Makes regions, and opens those of one other process.

    Args:
        pid: Number of that process.
        uid: Its user.
    """

    def __init__(self, pid: int, uid: int) -> None:
        self._pid = pid
        self._uid = uid

    def create(self, size: int) -> Region:
        """Make a region whose memory is there.

        Raises:
            OSError: There is no room for it, or the system does not have such.
        """
        descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            # What is missing would be noticed by whoever writes to it, and kill him.
            os.posix_fallocate(descriptor, 0, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            inode = os.fstat(descriptor).st_ino
        except BaseException:
            os.close(descriptor)
            raise
        return Region(descriptor, size, inode)

    def open(self, offer: Offer) -> Region | None:
        """Open what the other process offers, if it is a region of just that size."""
        path = f"/proc/{self._pid}/fd/{offer.descriptor}"
        try:
            if os.readlink(path) != _LINK:
                return None
            # Should it be something else by now, to open it must not wait for anybody.
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            if not self._is_sound(descriptor, offer):
                os.close(descriptor)
                return None
            region = Region(descriptor, offer.size, offer.inode)
        except (OSError, ValueError, OverflowError):
            return None
        region.settle()
        return region

    def _is_sound(self, descriptor: int, offer: Offer) -> bool:
        try:
            found = os.fstat(descriptor)
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:
            # What is no memory has no seals.
            return False
        return (
            stat.S_ISREG(found.st_mode)
            and (found.st_uid, found.st_ino) == (self._uid, offer.inode)
            and found.st_size == offer.size
            and seals & _SEALS == _SEALS
        )


def regions_with(sock: Any) -> Regions | None:
    """Return what makes and opens regions with the process behind a Unix socket.

    Returns:
        `None` where memory cannot be shared, or should not.
    """
    if sys.platform != "linux" or os.environ.get(VARIABLE) == "0":
        return None
    if not hasattr(os, "memfd_create"):
        return None
    try:
        import ctypes  # noqa: F401

        options = socket.SOL_SOCKET, socket.SO_PEERCRED
        found = sock.getsockopt(*options, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(found)
    except (ImportError, OSError, AttributeError, struct.error):
        return None
    # A process of another namespace of process numbers has none here.
    return Regions(pid, uid) if pid > 0 and uid == os.geteuid() else None
