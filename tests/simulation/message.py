"""Messages, as bytes."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import NamedTuple

_HEAD = struct.Struct("!cQHHB")

REQUEST = "q"
RESPONSE = "r"
PROBE = "p"
REPORT = "a"

RESULT, LOST, TERMINATED_NO, TERMINATED_MAYBE = range(4)


def entity(index: int) -> uuid.UUID:
    """Return the identifier of an entity."""
    return uuid.UUID(int=index)


class Message(NamedTuple):
    """A message between two entities, given by their numbers."""

    kind: str
    tag: int
    src: uuid.UUID
    dest: uuid.UUID
    status: int = RESULT

    def encode(self, *rest: bytes) -> list[bytes]:
        head = _HEAD.pack(
            self.kind.encode(), self.tag, self.src.int, self.dest.int, self.status
        )
        return [head, *rest]

    def answer(self, status: int) -> Message:
        """Return the response to a request."""
        return Message(RESPONSE, self.tag, self.dest, self.src, status)


def decode(segments: Sequence[bytes | bytearray | memoryview]) -> Message:
    """Read what `Message.encode` gives."""
    kind, tag, src, dest, status = _HEAD.unpack(segments[0])
    return Message(kind.decode(), tag, entity(src), entity(dest), status)
