"""Memory for one large segment, taken from the system and given back to it.

It comes in large pages (2 MiB) where Linux has them for who asks. With small ones, half
the time of a large message goes to the kernel, which is called for each page that is
written for the first time; and giving back a gigabyte of them takes 100 ms, in which
the event loop stands still.

The last memory that is not too large is kept, and used again when nobody refers to it
any more: its pages are there already.
"""

from __future__ import annotations

import mmap
import sys
import weakref
from collections.abc import Callable
from typing import Any

FROM = 4 << 20
"""Bytes from which memory is taken from the system. The allocator of the C library has
less than that ready, but Python fills it with zeros first, a millisecond for 4 MiB."""
KEEP = 16 << 20
"""Bytes of the largest memory that is kept."""

_PRIVATE: dict[str, Any] = {}
if sys.platform != "win32":
    _PRIVATE["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
# Where small pages have more than 4 KiB, large ones are much too large.
_LARGE = getattr(mmap, "MADV_HUGEPAGE", None) if mmap.PAGESIZE == 4096 else None

count_references: Callable[[Any], int] | None = getattr(sys, "getrefcount", None)
"""Counts the references to an object; `None` where that is no evidence, since threads
run at the same time."""
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    count_references = None


class Pages(mmap.mmap):
    """Memory of this process, taken from the system for one segment."""


_kept: list[Pages] = []  # the last one


def take(size: int) -> memoryview:
    """Return writable memory, which may have bytes of an earlier message in it.

    Args:
        size: How many bytes, at least one.

    Raises:
        MemoryError: The system has none.
    """
    if size > KEEP or count_references is None:
        return memoryview(_map(size))
    pages = _take_kept(size) or _map(size)
    view = memoryview(pages)
    _kept[:] = [pages]
    return view


def is_kept(pages: Pages) -> bool:
    """Return whether this module refers to it, too."""
    return pages in _kept


def prefer_large(view: memoryview) -> None:
    """Have writable memory, of which nothing was written yet, come in large pages."""
    if _LARGE is None:
        return
    try:
        import ctypes  # takes a while, and few messages are so large

        advise = ctypes.CDLL(None).madvise
    except (ImportError, OSError, AttributeError):
        return
    start = ctypes.addressof(ctypes.c_char.from_buffer(view))
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (start + len(view)) // mmap.PAGESIZE * mmap.PAGESIZE - first
    # It fails where the kernel has none.
    advise(ctypes.c_void_p(first), ctypes.c_size_t(size), _LARGE)


def _take_kept(size: int) -> Pages | None:
    """Take out what is kept, and return it if it has the size and no view."""
    assert count_references is not None
    try:
        # From here on no other thread finds it.
        kept = _kept.pop()
    except IndexError:
        return None
    if len(kept) != size or weakref.getweakrefcount(kept):
        return None
    return kept if count_references(kept) <= _ALONE else None


def _map(size: int) -> Pages:
    try:
        pages = Pages(-1, size, **_PRIVATE)
    except OSError as e:
        raise MemoryError(str(e)) from e
    prefer_large(memoryview(pages))
    return pages


def _count_alone() -> int:
    """Return how many references there are to what one variable refers to."""
    thing = object()
    return 0 if count_references is None else count_references(thing)


_ALONE = _count_alone()
