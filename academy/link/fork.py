"""A child that a process forks does not share the memory that the process shares.

Else it would see what others write there when its parent does not use it any more, and
its parent would see what the child writes. So the child gets a copy, at the same place,
of all shared memory that anything refers to. Until it has that, its parent waits, a
millisecond for some megabytes. Programs that are started, not forked, have none of it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os

from academy.loan import lent

_TO_THAT_PLACE = 1 | 2
"""`mremap` may move memory (1), and moves it to a given address (2)."""
_FAILED = ctypes.c_void_p(-1).value

_pipes: list[tuple[int, int]] = []
"""Of forks that are under way; their children hold the second end of the last one."""


@functools.cache
def prepare() -> None:
    """See to it from now on."""
    os.register_at_fork(
        before=_before, after_in_parent=_in_parent, after_in_child=_in_child
    )


def _before() -> None:
    if lent():
        try:
            _pipes.append(os.pipe())
        except OSError:
            return


def _in_parent() -> None:
    if not _pipes:
        return
    reading, writing = _pipes.pop()
    os.close(writing)
    # Nothing else happens in this process meanwhile: it keeps the interpreter's lock.
    # The end comes in any case: also when there is no child, or it dies.
    libc = ctypes.PyDLL(None, use_errno=True)
    nothing = ctypes.create_string_buffer(1)
    while libc.read(reading, nothing, 1) < 0 and ctypes.get_errno() == errno.EINTR:
        pass
    os.close(reading)


def _in_child() -> None:
    for start, size in lent():
        _copy(start, size)
    while _pipes:
        for end in _pipes.pop():
            os.close(end)


def _copy(start: int, size: int) -> None:
    """Replace memory by a copy, if there is room for that."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    access = mmap.PROT_READ | mmap.PROT_WRITE
    place = ctypes.c_void_p(start)
    length = ctypes.c_size_t(size)
    copy = libc.mmap(None, length, access, flags, -1, ctypes.c_long(0))
    if copy in (None, _FAILED):
        return
    ctypes.memmove(copy, start, size)
    libc.mremap(ctypes.c_void_p(copy), length, length, _TO_THAT_PLACE, place)
