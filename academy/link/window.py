"""What has been received and not taken, and what has been taken and not confirmed."""

from __future__ import annotations

import collections
import math

from academy.link.frame import RemoteProtocolError

SLACK = 2
"""How many times its window a peer may exceed before it is disconnected."""
MANY = 8
"""Frames with which an acknowledgement always rides along."""


class ReceiveWindow:
    """The messages of one channel that have arrived and were not taken.

    Args:
        messages: How many the peer may send ahead; 0 for any number.
        size: Bytes that it may send ahead; a single larger message may come alone.
    """

    __slots__ = ("_bytes", "_messages", "_received", "_size", "_taken", "_untaken")

    def __init__(self, messages: int, size: int) -> None:
        self._messages = SLACK * messages
        self._size = SLACK * size
        self._received = 0
        self._taken = 0
        self._untaken: collections.deque[tuple[int, int]] = collections.deque()
        self._bytes = 0

    def receive(self, seq: int, size: int) -> None:
        """Note a message.

        Raises:
            RemoteProtocolError: It is out of order, or one too many.
        """
        if seq <= self._received:
            raise RemoteProtocolError(f"message {seq} after {self._received}")
        self._received = seq
        if seq <= self._taken:
            return
        self._untaken.append((seq, size))
        self._bytes += size
        if not self._messages:
            return
        ahead = len(self._untaken)
        if ahead > self._messages or (self._bytes > self._size and ahead > 1):
            raise RemoteProtocolError(
                f"{ahead} messages of {self._bytes} bytes ahead of its window"
            )

    def take(self, seq: int) -> tuple[int, int] | None:
        """Note that all messages up to a number have been taken, on any path.

        Returns:
            The messages and bytes that this frees, or `None` if nothing new was taken.
        """
        if seq <= self._taken:
            return None
        self._taken = seq
        messages = freed = 0
        untaken = self._untaken
        while untaken and untaken[0][0] <= seq:
            messages += 1
            freed += untaken.popleft()[1]
        self._bytes -= freed
        return messages, freed


class Confirmations:
    """What is to be acknowledged, and when.

    An acknowledgement rides along with many frames that are sent anyway, and now and
    then with few: handling one with each message would cost a tenth of a call. Else it
    waits until there is enough to confirm, or its time has come.

    Args:
        delay: Seconds that an acknowledgement may wait, and that lie between two that
            ride along.
        messages: Taken messages after which it waits no longer.
        size: Bytes of taken messages after which it waits no longer.
    """

    def __init__(self, delay: float, messages: int, size: int) -> None:
        self._delay = delay
        self._limits = (messages, size)
        self._marks: dict[int, int] = {}
        self._messages = 0
        self._bytes = 0
        self._began = -math.inf
        self.due: float | None = None
        """When they are to be sent at the latest."""
        self._next_rides = False

    def add(self, channel: int, seq: int, freed: tuple[int, int], now: float) -> bool:
        """Note that messages were taken; return whether to confirm that at once."""
        if self.due is None:
            self._next_rides = now >= self._began + self._delay
            self._began = now
            self.due = now + self._delay
        self._marks[channel] = seq
        self._messages += freed[0]
        self._bytes += freed[1]
        messages, limit = self._limits
        return self._messages >= messages or self._bytes >= limit

    def ride_with(self, frames: int) -> bool:
        """Return whether they are to be sent along with so many frames."""
        return self.due is not None and (self._next_rides or frames >= MANY)

    def discard(self, channel: int) -> None:
        """Forget a channel that has ended."""
        self._marks.pop(channel, None)
        if not self._marks:
            self.clear()

    def take(self) -> list[tuple[int, int]]:
        """Remove and return pairs of channel and highest number taken."""
        marks = list(self._marks.items())
        self.clear()
        return marks

    def clear(self) -> None:
        """Forget all."""
        self._marks = {}
        self._messages = 0
        self._bytes = 0
        self.due = None
        self._next_rides = False
