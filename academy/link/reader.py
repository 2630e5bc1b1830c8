"""Finds the bodies of frames in a byte stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from academy.link.codec import LENGTH, PART_HEAD
from academy.link.frame import Buffer, Part, RemoteProtocolError

Body: TypeAlias = tuple[Any, int, int]
"""Where the body of a frame is: the bytes from one index to another. They are in an
object of type `bytes`; only pieces of parts may be elsewhere."""


class FrameReader:
    """Cuts a byte stream into frame bodies, in time proportional to its length.

    It keeps nothing but the beginning of a frame whose end has not come. A part of a
    large message is not kept: its beginning is given out as soon as its head is there,
    then what else comes of it, piece by piece.

    Args:
        limit: Largest body in bytes; may be raised while bodies are taken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.gives_pieces = False
        """Whether parts are given out in pieces; may be set while bodies are taken."""
        self.rest = 0
        """Bytes that have not come of a part whose beginning was given out. They may
        be read elsewhere, and counted off here."""
        self._partial = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that are kept of a frame that is not complete."""
        return len(self._partial)

    def feed(self, data: Buffer) -> Iterator[Body]:
        """Yield the bodies that the next bytes of the stream complete.

        After each, `rest` tells whether it was the beginning of a part; the next one
        is the next piece of that, then. Take all of them before the next call: what is
        not taken is lost.

        Raises:
            RemoteProtocolError: A frame is larger than the limit, or empty.
        """
        start = 0
        if self.rest:
            start = self._go_on(len(data))
            yield data, 0, start
            if start == len(data):
                return
        # Slices of `bytes` are copies: nothing that is kept refers to the argument.
        data = bytes(data)
        if self._partial:
            start, complete = self._complete(data, start)
            if not complete:
                return
            body = bytes(self._partial)
            self._partial.clear()
            self.rest = LENGTH.size + LENGTH.unpack_from(body)[0] - len(body)
            yield body, LENGTH.size, len(body)
            if self.rest and start < len(data):
                begin, start = start, start + self._go_on(len(data) - start)
                yield data, begin, start
        size = len(data)
        begin = start + LENGTH.size
        while begin <= size:
            (length,) = LENGTH.unpack_from(data, start)
            if not 0 < length <= self.limit:
                raise RemoteProtocolError(_wrong(length, self.limit))
            end = begin + length
            if end > size:
                if size - begin >= PART_HEAD and self._is_part(data[begin]):
                    self.rest = end - size
                    yield data, begin, size
                    return
                break
            yield data, begin, end
            start, begin = end, end + LENGTH.size
        self._partial += memoryview(data)[start:]

    def _go_on(self, size: int) -> int:
        """Count off what has come of a part, and return it."""
        piece = min(self.rest, size)
        self.rest -= piece
        return piece

    def _is_part(self, kind: int) -> bool:
        return self.gives_pieces and kind == Part.type

    def _complete(self, data: bytes, start: int) -> tuple[int, bool]:
        """Append to the partial frame what belongs to it, of a part only its head.

        Returns:
            Up to where that is, and whether the frame, or head, is complete.
        """
        partial = self._partial
        start = self._keep(data, start, LENGTH.size)
        if len(partial) < LENGTH.size:
            return start, False
        size = LENGTH.size + self._length(partial)
        start = self._keep(data, start, LENGTH.size + 1)
        if len(partial) > LENGTH.size and self._is_part(partial[LENGTH.size]):
            size = min(size, LENGTH.size + PART_HEAD)
        start = self._keep(data, start, size)
        return start, len(partial) == size

    def _keep(self, data: bytes, start: int, size: int) -> int:
        """Let the partial frame grow to a size; return up to where it took the data."""
        end = min(start + max(size - len(self._partial), 0), len(data))
        self._partial += memoryview(data)[start:end]
        return end

    def _length(self, data: Buffer) -> int:
        (length,) = LENGTH.unpack_from(data)
        if not 0 < length <= self.limit:
            raise RemoteProtocolError(_wrong(length, self.limit))
        return int(length)


def _wrong(length: int, limit: int) -> str:
    return f"a frame of {length} bytes, where 1 to {limit} are allowed"
