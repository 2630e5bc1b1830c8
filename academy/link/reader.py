"""Finds the bodies of frames in a byte stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from academy.link.frame import LENGTH, Buffer, RemoteProtocolError

Body: TypeAlias = tuple[bytes, int, int]
"""Where the body of a frame is: the bytes from one index to another."""


class FrameReader:
    """Cuts a byte stream into frame bodies, in time proportional to its length.

    It keeps nothing but the beginning of a frame whose end has not come.

    Args:
        limit: Largest body in bytes; may be raised while bodies are taken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._partial = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._partial)

    def feed(self, data: Buffer) -> Iterator[Body]:
        """Yield the bodies that the next bytes of the stream complete.

        Take all of them before the next call: what is not taken is lost.

        Raises:
            RemoteProtocolError: A frame is larger than the limit, or empty.
        """
        # Slices of `bytes` are copies: nothing that is kept refers to the argument.
        data = bytes(data)
        start = 0
        if self._partial:
            start, complete = self._complete(data)
            if not complete:
                return
            body = bytes(self._partial)
            self._partial.clear()
            yield body, LENGTH.size, len(body)
        size = len(data)
        begin = start + LENGTH.size
        while begin <= size:
            (length,) = LENGTH.unpack_from(data, start)
            if not 0 < length <= self.limit:
                raise RemoteProtocolError(_wrong(length, self.limit))
            end = begin + length
            if end > size:
                break
            yield data, begin, end
            start, begin = end, end + LENGTH.size
        self._partial += memoryview(data)[start:]

    def _complete(self, data: bytes) -> tuple[int, bool]:
        """Append to the partial frame what belongs to it.

        Returns:
            How much that is, and whether the frame is complete.
        """
        partial = self._partial
        used = max(LENGTH.size - len(partial), 0)
        partial += data[:used]
        if len(partial) < LENGTH.size:
            return len(data), False
        size = LENGTH.size + self._length(partial, 0)
        end = used + size - len(partial)
        partial += memoryview(data)[used:end]
        return end, len(partial) == size

    def _length(self, data: Buffer, start: int) -> int:
        (length,) = LENGTH.unpack_from(data, start)
        if not 0 < length <= self.limit:
            raise RemoteProtocolError(_wrong(length, self.limit))
        return int(length)


def _wrong(length: int, limit: int) -> str:
    return f"a frame of {length} bytes, where 1 to {limit} are allowed"
