"""Segments: the pieces of memory that a serialized message consists of.

A segment that arrives has the type of the one that was sent: `bytes` stay `bytes`, a
`bytearray` stays one, and other memory (that of an array) becomes memory that may be
written to. The table before the segments of a block says which is which.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Sequence
from typing import TypeAlias

from academy import pages

Segment: TypeAlias = bytes | bytearray | memoryview
"""One piece of a serialized object or message; a view must be one of single bytes."""

BYTES, BYTEARRAY, MEMORY = range(3)
"""Kinds of segments: immutable `bytes`, a `bytearray`, any other memory."""
KINDS: dict[type[Segment], int] = {
    bytes: BYTES,
    bytearray: BYTEARRAY,
    memoryview: MEMORY,
}
"""The kind of a segment by its type."""

COUNT = struct.Struct("!I")
"""How many segments a block has."""
ENTRY = struct.Struct("!Q")
"""Kind (2 bits) and length (62 bits) of each."""
_LENGTH_BITS = 62
_LENGTH = (1 << _LENGTH_BITS) - 1

ZEROED = 16 << 20
"""Bytes of the largest `bytearray` that is made at once: that fills it with zeros, a
millisecond for 4 MiB."""
STEP = 1 << 20
"""Bytes by which a larger one grows."""
MAPPED = 32 << 20
"""Bytes of `bytes` that certainly have pages of their own, taken from the system."""
_ZEROS = bytes(STEP)


def make_table(segments: Sequence[Segment]) -> bytes:
    """Return what comes before the segments of a block: their number, then entries."""
    count = len(segments)
    entries = [KINDS[type(s)] << _LENGTH_BITS | len(s) for s in segments]
    return struct.pack(f"!I{count}Q", count, *entries)


def read_entry(table: Segment, index: int) -> tuple[int, int]:
    """Return kind and length of a segment, given the table before it.

    Raises:
        ValueError: There is no such kind.
        struct.error: The table is too short.
    """
    (entry,) = ENTRY.unpack_from(table, COUNT.size + index * ENTRY.size)
    kind = entry >> _LENGTH_BITS
    if kind > MEMORY:
        raise ValueError(f"a segment of kind {kind}")
    return kind, entry & _LENGTH


def copied(data: Segment, kind: int) -> Segment:
    """Return a segment of a kind with these bytes, in memory of its own."""
    if kind == BYTES:
        return bytes(data)
    if kind == BYTEARRAY:
        return bytearray(data)
    if len(data) < pages.FROM:
        return memoryview(bytearray(data))
    copy = pages.take(len(data))
    copy[:] = data
    return copy


def detach(segments: Sequence[Segment]) -> list[Segment]:
    """Copy what is not immutable, so that the segments outlive the sender's objects."""
    return [s if type(s) is bytes else copied(s, KINDS[type(s)]) for s in segments]


class _Filling(io.BytesIO):
    """A buffer that may be dropped while it is being filled."""

    def close(self) -> None:
        """Close it, unless somebody can still write to it."""
        # The collector finalizes a buffer before its views where both are in a cycle.
        with contextlib.suppress(BufferError):
            super().close()


class Slot:
    """Memory for a segment whose bytes come one after the other.

    It is taken up page by page as it is filled, and not copied in the end.

    Args:
        kind: Kind of the segment.
        size: Its length in bytes.

    Raises:
        MemoryError: There is no room for it.
    """

    __slots__ = ("_array", "_buffer", "_filled", "_given", "_kind", "_view", "missing")

    def __init__(self, kind: int, size: int) -> None:
        self.missing = size
        """Bytes that have not come."""
        self._kind = kind
        self._filled = 0
        self._array = bytearray()
        self._buffer: io.BytesIO | None = None
        self._view = memoryview(b"")
        self._given: memoryview | None = None
        if kind == BYTES:
            # It lets its own `bytes` be filled, and gives out the same in the end.
            self._buffer = _Filling(bytes(size))
            self._view = self._buffer.getbuffer()
            if size >= MAPPED:
                pages.prefer_large(self._view)
        elif kind == MEMORY and size >= pages.FROM:
            self._view = pages.take(size)
        elif kind == MEMORY or size <= ZEROED:
            self._array = bytearray(size)
            self._view = memoryview(self._array)

    def room(self, most: int) -> memoryview:
        """Return where the next bytes go, at most so many; `advance` when they have.

        What was returned before is not to be used any more.
        """
        self._take_back()
        start, view = self._filled, self._view
        if not view:
            if start == len(self._array):
                self._grow()
            view = memoryview(self._array)
        self._given = view[start : start + min(most, self.missing)]
        return self._given

    def advance(self, size: int) -> None:
        """Note that so many bytes were written to what `room` has returned."""
        self._filled += size
        self.missing -= size

    def write(self, data: memoryview) -> None:
        """Append a copy of some bytes, at most those that are missing."""
        while data:
            room = self.room(len(data))
            size = len(room)
            room[:] = data[:size]
            self.advance(size)
            data = data[size:]

    def finish(self) -> Segment:
        """Return the segment, of which nothing must be missing."""
        self._take_back()
        if self._kind == MEMORY:
            return self._view
        self._view.release()
        return self._array if self._buffer is None else self._buffer.getvalue()

    def _take_back(self) -> None:
        """Release what was given, or the memory could not grow, nor be given out."""
        if self._given is not None:
            # An event loop that has not let go of it makes us copy, no more.
            with contextlib.suppress(BufferError):
                self._given.release()
            self._given = None

    def _grow(self) -> None:
        more = memoryview(_ZEROS)[: min(STEP, self.missing)]
        try:
            self._array += more
        except BufferError:
            self._array = self._array + more
