"""Large messages in parts: cut, sent in turn with those of other channels, joined.

The parts of a message, one after the other, are the table of its segments (see
`academy.segment`) and their bytes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from academy.link.config import SEGMENT_COST
from academy.link.frame import LocalProtocolError, Part
from academy.segment import COUNT, ENTRY, Segment, Slot, make_table, read_entry

TAIL = 16 * 1024
"""Bytes of the last part of a message that may change while it is sent."""


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


def cut(segments: Sequence[Segment], size: int) -> Iterator[Segment]:
    """Cut a message into parts that are not larger than a size.

    Segments of that size and more are not copied; they begin with a part of their own.
    """
    pieces: list[Segment] = []
    room = size
    for segment in (make_table(segments), *segments):
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


@dataclass(slots=True, eq=False)
class _Message:
    """A message on its way out.

    Attributes:
        seq: Its number in the stream.
        weight: What it counts for.
        parts: What is to be sent of it.
        left: Bytes of that.
        lent: Whether its memory may change once its sender has given up.
    """

    seq: int
    weight: int
    parts: Iterator[Segment]
    left: int
    lent: bool
    begun: bool = False


class PartQueue:
    """Large messages on their way out.

    Those of a channel go one after the other, those of different channels in turn,
    part by part. So that the peer need not keep too much of unfinished messages, only
    so many are begun.

    A message in *lent* memory is not copied. Its last part goes when nothing of the
    others waits to be written any more, and is a copy: so a message that was not taken
    back before that is as it was when its sender let go of it.

    Args:
        size: Size of a part.
        limit: Weight of messages that may be unfinished; a heavier one goes alone.
    """

    def __init__(self, size: int, limit: int) -> None:
        self._size = size
        self._limit = limit
        self.messages: dict[int, collections.deque[_Message]] = {}
        """By channel, what waits; to look at."""
        self._waiting: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._turns: collections.OrderedDict[int, _Message] = collections.OrderedDict()
        self._begun = 0

    def add(
        self, channel: int, seq: int, segments: Sequence[Segment], *, lent: bool = False
    ) -> None:
        """Append a message of a channel."""
        left = COUNT.size + ENTRY.size * len(segments) + sum(map(len, segments))
        weight = left + SEGMENT_COST * len(segments)
        parts = cut(segments, self._size)
        if lent:
            parts = _with_tail(parts)
        message = _Message(seq, weight, parts, left, lent)
        queue = self.messages.get(channel)
        if queue is None:
            queue = self.messages[channel] = collections.deque()
            self._waiting[channel] = None
        queue.append(message)

    def take(self, budget: int, *, drained: bool = True) -> list[Part]:
        """Remove and return parts of so many bytes altogether, or up to one more.

        Args:
            budget: How many bytes.
            drained: Whether all parts that were taken before are written.
        """
        parts: list[Part] = []
        self._begin()
        while self._turns and budget > 0:
            if (parts or not drained) and self.waits_for_end:
                break
            channel, message = next(iter(self._turns.items()))
            data = next(message.parts)
            budget -= len(data)
            message.left -= len(data)
            message.begun = True
            parts.append(Part(channel, message.seq, not message.left, data))
            if message.left:
                self._turns.move_to_end(channel)
            else:
                self._finish(channel)
        return parts

    @property
    def waits_for_end(self) -> bool:
        """Whether the next part may only go when all before it are written."""
        message = next(iter(self._turns.values()), None)
        return message is not None and message.lent and message.left <= TAIL

    def take_back(self, channel: int, seq: int) -> bool | None:
        """Forget a message that is not complete.

        Returns:
            Whether parts of it were taken; `None` if it is complete, or not here.
        """
        queue = self.messages.get(channel)
        message = next((m for m in queue or () if m.seq == seq), None)
        if queue is None or message is None:
            return None
        if queue[0] is message:
            if channel in self._turns:
                self._finish(channel)
            else:
                self._next(channel)
        else:
            queue.remove(message)
        return message.begun

    def drop(self, channel: int) -> None:
        """Forget the messages of a channel."""
        self.messages.pop(channel, None)
        self._waiting.pop(channel, None)
        message = self._turns.pop(channel, None)
        if message is not None:
            self._begun -= message.weight

    def _begin(self) -> None:
        """Let messages take turns, in the order of their channels' waiting."""
        while self._waiting:
            channel = next(iter(self._waiting))
            message = self.messages[channel][0]
            if self._begun and self._begun + message.weight > self._limit:
                break
            del self._waiting[channel]
            self._turns[channel] = message
            self._begun += message.weight

    def _finish(self, channel: int) -> None:
        self._begun -= self._turns.pop(channel).weight
        self._waiting[channel] = None
        self._next(channel)
        self._begin()

    def _next(self, channel: int) -> None:
        """Forget the first message of a channel, which waits for its turn."""
        queue = self.messages[channel]
        queue.popleft()
        if not queue:
            del self.messages[channel], self._waiting[channel]


def _with_tail(parts: Iterator[Segment]) -> Iterator[Segment]:
    """Cut the last part in two, of which the second is a small copy."""
    last = next(parts)
    for part in parts:
        yield last
        last = part
    view = memoryview(last)
    if len(view) > TAIL:
        yield view[:-TAIL]
        view = view[-TAIL:]
    yield bytes(view)
