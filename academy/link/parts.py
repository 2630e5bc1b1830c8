"""Large messages in parts: cut, and joined.

The parts of a message, one after the other, are the table of its segments (see
`academy.segment`) and their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeAlias

from academy.link.config import SEGMENT_COST
from academy.link.frame import Frame, LocalProtocolError
from academy.segment import (
    COUNT,
    ENTRY,
    MEMORY,
    Segment,
    Slot,
    make_table,
    read_entry,
)


class Transfer(Protocol):
    """A segment on another way than in parts; see `sharing`."""

    size: int

    @property
    def done(self) -> bool:
        """Whether it can go."""
        ...

    def advance(self) -> int:
        """Do something for that; return what it is worth in bytes of parts."""
        ...

    def frame(self, channel: int, seq: int, last: bool) -> Frame:
        """Let it go; return what says so."""
        ...

    def end(self) -> None:
        """Give it up, if it has not gone."""
        ...


class Memory(Protocol):
    """Where else than in parts a segment may go."""

    def transfer(self, segment: memoryview, owned: bool) -> Transfer | None:
        """Return how a segment goes there, if it does; see `sharing`."""
        ...


Step: TypeAlias = Segment | Transfer
"""What is to be sent next of a message."""


def weigh(segments: Sequence[Segment]) -> int:
    """Return what a message counts for in limits of memory, in bytes."""
    return sum(map(len, segments)) + SEGMENT_COST * len(segments)


def check_size(segments: Sequence[Segment], limit: int) -> None:
    """Refuse a message that is too large, or has too many segments.

    Raises:
        LocalProtocolError: It is.
    """
    size = sum(map(len, segments))
    if max(size, weigh(segments) - size) > limit:
        raise LocalProtocolError(
            f"A message of {size} bytes in {len(segments)} segments is too large: "
            f"the limit is {limit}."
        )


def cut(
    segments: Sequence[Segment],
    size: int,
    transfer: Callable[[memoryview], Transfer | None] = lambda segment: None,
) -> Generator[Step, None, None]:
    """Cut a message into parts that are not larger than a size.

    Segments of that size and more are not copied; they begin with a part of their own.

    Args:
        segments: The segments.
        size: Size of a part.
        transfer: Returns how a segment of other memory goes, if not in parts. It is
            asked when its turn comes. Such a way comes twice: to be made ready, and to
            go. What is before it comes in between, to go together with it.
    """
    pieces: list[Segment] = []
    room = size
    for segment in (make_table(segments), *segments):
        way = transfer(segment) if type(segment) is memoryview else None
        if way is not None:
            try:
                yield way
                if pieces:
                    yield b"".join(pieces)
                    pieces, room = [], size
                yield way
            finally:
                way.end()
            continue
        view = memoryview(segment)
        if len(view) >= size and pieces:
            yield b"".join(pieces)
            pieces, room = [], size
        while len(view) >= room:
            yield b"".join([*pieces, view[:room]]) if pieces else view[:room]
            view = view[room:]
            pieces, room = [], size
        if len(view):
            pieces.append(view)
            room -= len(view)
    if pieces:
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Assembly:
    """A message whose parts come in.

    What its table says counts before memory is taken for it.

    Args:
        seq: Its number in the stream.
        limit: Bytes that its segments may have together.
        account: Called with its weight before and after it grows; may raise.
    """

    def __init__(
        self, seq: int, limit: int, account: Callable[[int, int], None]
    ) -> None:
        self.seq = seq
        self._account = account
        self.weight = 0
        """What it counts for, up to now; see `weigh`."""
        self._limit = limit
        self._table = bytearray()
        self._count: int | None = None
        self._segments: list[Segment] = []
        self._slot: Slot | None = None

    def add(self, data: Segment) -> None:
        """Append a piece of a part, of which a copy is kept.

        Raises:
            ValueError: It does not belong to a message within the limit.
            MemoryError: There is no room for it.
        """
        view = memoryview(data)
        while len(view):
            if self._table_missing():
                view = self._add_to_table(view)
                continue
            slot = self._open_slot()
            if slot is None:
                raise ValueError("its segments do not add up")
            piece = view[: slot.missing]
            slot.write(piece)
            view = view[len(piece) :]

    def add_whole(self, segment: memoryview) -> None:
        """Append a segment that is not copied.

        Raises:
            ValueError: It is not the next one, or amid another one.
        """
        if self._table_missing():
            raise ValueError("a segment before the table")
        kind, size = self._next_entry()
        if (kind, size) != (MEMORY, len(segment)):
            raise ValueError(f"{len(segment)} bytes for another segment")
        self._segments.append(segment)

    def room(self, most: int) -> memoryview | None:
        """Return where the next bytes of the message go, at most so many.

        All but the last byte of a segment: whoever reads into this may hold on to it
        until it reads again, and then the segment must not be finished.
        """
        slot = self._slot
        if slot is None or slot.missing < 2:
            return None
        return slot.room(min(most, slot.missing - 1))

    def advance(self, size: int) -> None:
        """Note that so many bytes were written to what `room` has returned.

        Raises:
            ValueError: There was no such room.
        """
        if self._slot is None or size >= self._slot.missing:
            raise ValueError("more than its memory")
        self._slot.advance(size)

    def finish(self) -> list[Segment]:
        """Return the segments.

        Raises:
            ValueError: Something is missing.
        """
        if self._table_missing():
            raise ValueError("its segments do not add up")
        slot = self._open_slot()
        if slot is not None:
            raise ValueError(f"{slot.missing} bytes of a segment are missing")
        return self._segments

    def _table_missing(self) -> int:
        entries = 0 if self._count is None else self._count
        return COUNT.size + entries * ENTRY.size - len(self._table)

    def _add_to_table(self, view: memoryview) -> memoryview:
        missing = self._table_missing()
        self._table += view[:missing]
        self._grow(min(missing, len(view)))
        if self._count is None and not self._table_missing():
            (self._count,) = COUNT.unpack_from(self._table)
            if self._count * SEGMENT_COST > self._limit:
                raise ValueError(f"{self._count} segments")
            self._grow(SEGMENT_COST * self._count)
        if not self._table_missing():
            self._declare()
        return view[missing:]

    def _declare(self) -> None:
        """Count what the table says before any memory is taken for it."""
        count = self._count or 0
        size = sum(read_entry(self._table, i)[1] for i in range(count))
        if size > self._limit:
            raise ValueError("it is larger than allowed")
        self._grow(size)

    def _grow(self, size: int) -> None:
        before, self.weight = self.weight, self.weight + size
        self._account(before, self.weight)

    def _next_entry(self) -> tuple[int, int]:
        """Return kind and length of the next segment that is not empty."""
        while True:
            slot, self._slot = self._slot, None
            if slot is not None:
                if slot.missing:
                    raise ValueError("a segment amid another one")
                self._segments.append(slot.finish())
            if len(self._segments) == self._count:
                raise ValueError("a segment too many")
            kind, size = read_entry(self._table, len(self._segments))
            if size:
                return kind, size
            self._slot = Slot(kind, 0)

    def _open_slot(self) -> Slot | None:
        """Return the slot of the next segment that is not complete, if there is one."""
        while self._slot is None or not self._slot.missing:
            if self._slot is not None:
                self._segments.append(self._slot.finish())
                self._slot = None
            if len(self._segments) == self._count:
                return None
            self._slot = Slot(*read_entry(self._table, len(self._segments)))
        return self._slot
