"""Messages of one stream that were sent on a channel and are not known to be taken.

Pure: what is sent and what is confirmed comes in.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator

from academy.exchange.parcel import Parcel


class Unconfirmed:
    """What was sent, in order, and the window that bounds it.

    Args:
        messages: How many there may be; 0 for any number.
        size: Bytes of these; a single larger message is sent alone.
    """

    def __init__(self, messages: int, size: int) -> None:
        self._messages = messages
        self._size = size
        self._parcels: collections.deque[Parcel] = collections.deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._parcels)

    def __iter__(self) -> Iterator[Parcel]:
        return iter(self._parcels)

    def has_room(self, size: int) -> bool:
        """Return whether the window has room for a message of so many bytes."""
        limit, ahead = self._messages, len(self._parcels)
        if not limit or not ahead:
            return True
        return ahead < limit and self._bytes + size <= self._size

    def add(self, parcel: Parcel, inc: int) -> None:
        """Note that a message is sent to an incarnation."""
        parcel.inc = inc
        parcel.fresh = False
        self._parcels.append(parcel)
        self._bytes += parcel.size

    def confirmed(self, seq: int) -> list[Parcel]:
        """Remove and return what is confirmed up to a number."""
        found, parcels = [], self._parcels
        while parcels and parcels[0].seq <= seq:
            parcel = parcels.popleft()
            self._bytes -= parcel.size
            found.append(parcel)
        return found

    def remove(self, parcel: Parcel) -> None:
        """Note that the channel does not carry a message after all."""
        self._parcels.remove(parcel)
        self._bytes -= parcel.size

    def clear(self) -> list[Parcel]:
        """Note that the channel has ended; return what was not confirmed."""
        found = list(self._parcels)
        self._parcels.clear()
        self._bytes = 0
        return found
