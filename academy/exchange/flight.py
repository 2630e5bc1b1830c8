"""Messages of one stream on their way into the queue on the server, and the room there.

They are put in line one behind the other, without waiting for answers. The server
refuses one that finds no room, and with it those right behind it, so that none is
overtaken. Where somebody lives who takes messages from the queue, they are put in line
again when there is room, and only as many as it has room for.

Pure: what the server has answered comes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from academy.exchange.parcel import Parcel
from academy.exchange.stream import SendStream

QUEUE_LIMIT = 64 << 20
"""Bytes of the largest message that goes through the queue on the server."""
OVERHEAD = 1024
"""Bytes that a message takes in the queue beside its segments, at most."""


class Room(NamedTuple):
    """How much a queue takes.

    Attributes:
        messages: How many messages.
        size: How many bytes.
    """

    messages: int
    size: int


NO_ROOM = Room(0, 0)


class Flight:
    """What was put in line and has no answer yet.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: SendStream) -> None:
        self._stream = stream
        self._parcels: dict[int, Parcel] = {}
        self._arrived = stream.relayed
        self._room: Room | None = None
        self.short = False
        """Whether there was no room for a message, as far as is known."""

    def __len__(self) -> int:
        return len(self._parcels)

    def __iter__(self) -> Iterator[Parcel]:
        return iter(self._parcels.values())

    def __contains__(self, parcel: Parcel) -> bool:
        return parcel.seq in self._parcels

    def takes(self, parcel: Parcel) -> bool:
        """Return whether there is room for a message, as far as is known."""
        room = self._room
        self.short = room is not None and (
            room.messages < 1 or parcel.size + OVERHEAD > room.size
        )
        return not self.short

    def add(self, parcel: Parcel) -> None:
        """Note that a message is put in line behind the others."""
        parcel.ahead = next(reversed(self._parcels), 0)
        self._parcels[parcel.seq] = parcel
        self._stream.relayed = parcel.seq
        if self._room is not None:
            messages, size = self._room
            self._room = Room(messages - 1, size - parcel.size - OVERHEAD)

    def remove(self, parcel: Parcel, *, arrived: bool) -> None:
        """Note the answer to a message.

        Args:
            parcel: The message.
            arrived: Whether it is in the queue, or may be.
        """
        self._parcels.pop(parcel.seq, None)
        if arrived:
            self._arrived = max(self._arrived, parcel.seq)
        # They are in order: the last one has the highest number.
        self._stream.relayed = max(self._arrived, next(reversed(self._parcels), 0))

    def returned(self, seq: int) -> None:
        """Note that a message goes there which was not put in line here."""
        self._arrived = max(self._arrived, seq)
        self._stream.relayed = max(self._stream.relayed, seq)

    def refused(self, parcel: Parcel) -> None:
        """Note that there was no room for a message: it is not in line any more."""
        self.remove(parcel, arrived=False)
        self._room, self.short = NO_ROOM, True

    def learn(self, room: Room | None) -> None:
        """Note how much room there is; `None` if that is of no interest."""
        self._room, self.short = room, False
