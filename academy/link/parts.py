"""Large messages in parts: cut, sent in turn with those of other channels, joined.

The parts of a message, one after the other, are the number of its segments (4 bytes),
their lengths (4 bytes each) and their bytes.
"""

from __future__ import annotations

import collections
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from academy.link.config import SEGMENT_COST
from academy.link.frame import Buffer, Part

_NUMBER = struct.Struct("!I")


def weigh(segments: Sequence[Buffer]) -> int:
    """Return what a message counts for in limits of memory, in bytes."""
    return sum(map(len, segments)) + SEGMENT_COST * len(segments)


def cut(segments: Sequence[Buffer], size: int) -> Iterator[Buffer]:
    """Cut a message into parts of a size; only the last may be smaller.

    Large segments are not copied.
    """
    count = len(segments)
    table = struct.pack(f"!{count + 1}I", count, *map(len, segments))
    pieces: list[Buffer] = []
    room = size
    for segment in itertools.chain((table,), segments):
        view = memoryview(segment)
        while len(view) >= room:
            yield _joined([*pieces, view[:room]])
            view = view[room:]
            pieces, room = [], size
        if len(view):
            pieces.append(view)
            room -= len(view)
    if pieces:
        yield _joined(pieces)


def _joined(pieces: Sequence[Buffer]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Assembly:
    """A message whose parts come in.

    Args:
        seq: Its number in the stream.
        limit: Bytes that its segments may have together.
    """

    def __init__(self, seq: int, limit: int) -> None:
        self.seq = seq
        self.weight = 0
        """What it counts for, up to now; see `weigh`."""
        self._limit = limit
        self._table = bytearray()
        self._count: int | None = None
        self._segments: list[bytes | bytearray] = []
        self._open = bytearray()
        self._missing = 0

    def add(self, data: Buffer) -> None:
        """Append a part, of which a copy is kept.

        Raises:
            ValueError: It does not belong to a message within the limit.
        """
        self.weight += len(data)
        view = memoryview(data)
        while len(view):
            if self._table_missing():
                view = self._add_to_table(view)
                continue
            while not self._missing:
                self._begin_segment()
            piece = view[: self._missing]
            self._open += piece
            self._missing -= len(piece)
            view = view[len(piece) :]

    def finish(self) -> list[bytes | bytearray]:
        """Return the segments: the first two as `bytes`, the others as `bytearray`.

        Raises:
            ValueError: Something is missing.
        """
        while self._count != len(self._segments) and not self._missing:
            self._begin_segment()
        if self._missing:
            raise ValueError(f"{self._missing} bytes of a segment are missing")
        segments = self._segments
        segments[:2] = map(bytes, segments[:2])
        return segments

    def _table_missing(self) -> int:
        entries = 1 if self._count is None else 1 + self._count
        return entries * _NUMBER.size - len(self._table)

    def _add_to_table(self, view: memoryview) -> memoryview:
        missing = self._table_missing()
        self._table += view[:missing]
        if self._count is None and not self._table_missing():
            (self._count,) = _NUMBER.unpack_from(self._table)
            self.weight += SEGMENT_COST * self._count
            if self._count * SEGMENT_COST > self._limit:
                raise ValueError(f"{self._count} segments")
        return view[missing:]

    def _begin_segment(self) -> None:
        index = len(self._segments)
        if self._table_missing() or index == self._count:
            raise ValueError("its segments do not add up")
        (self._missing,) = _NUMBER.unpack_from(self._table, (1 + index) * _NUMBER.size)
        self._limit -= self._missing
        if self._limit < 0:
            raise ValueError("it is larger than allowed")
        self._open = bytearray()
        self._segments.append(self._open)


@dataclass(slots=True, eq=False)
class _Message:
    """A message on its way out."""

    seq: int
    weight: int
    parts: Iterator[Buffer]
    left: int


class PartQueue:
    """Large messages on their way out.

    Those of a channel go one after the other, those of different channels in turn,
    part by part. So that the peer need not keep too much of unfinished messages, only
    so many are begun.

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

    def add(self, channel: int, seq: int, segments: Sequence[Buffer]) -> None:
        """Append a message of a channel."""
        left = sum(map(len, segments)) + _NUMBER.size * (1 + len(segments))
        weight = left + SEGMENT_COST * len(segments)
        message = _Message(seq, weight, cut(segments, self._size), left)
        queue = self.messages.get(channel)
        if queue is None:
            queue = self.messages[channel] = collections.deque()
            self._waiting[channel] = None
        queue.append(message)

    def take(self, budget: int) -> list[Part]:
        """Remove and return parts of so many bytes altogether, or up to one more."""
        parts = []
        self._begin()
        while self._turns and budget > 0:
            channel, message = next(iter(self._turns.items()))
            data = next(message.parts)
            budget -= len(data)
            message.left -= len(data)
            parts.append(Part(channel, message.seq, not message.left, data))
            if message.left:
                self._turns.move_to_end(channel)
            else:
                self._finish(channel)
        return parts

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
        queue = self.messages[channel]
        queue.popleft()
        if queue:
            self._waiting[channel] = None
        else:
            del self.messages[channel]
        self._begin()
