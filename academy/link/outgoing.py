"""The sending ends of the channels of one connection."""

from __future__ import annotations

from dataclasses import dataclass

from academy.link.channel import ChannelKey
from academy.link.frame import RemoteProtocolError


@dataclass(slots=True, eq=False)
class Outgoing:
    """The sending end of a channel.

    Attributes:
        number: Its number.
        key: What it carries.
        open: Whether the peer has accepted it.
    """

    number: int
    key: ChannelKey
    open: bool = False


class OutgoingChannels:
    """The channels that this side has opened, by key and by number."""

    def __init__(self) -> None:
        self._last = 0
        self._by_key: dict[ChannelKey, Outgoing] = {}
        self._by_number: dict[int, Outgoing] = {}
        self.get = self._by_key.get
        """Returns a channel that has not ended, by its key."""

    def __contains__(self, key: ChannelKey) -> bool:
        return key in self._by_key

    def add(self, key: ChannelKey) -> Outgoing:
        """Enter a channel, with the next number."""
        self._last += 1
        out = Outgoing(self._last, key)
        self._by_key[key] = self._by_number[out.number] = out
        return out

    def answered(self, number: int) -> Outgoing | None:
        """Return the channel that the peer speaks of; `None` if it has ended meanwhile.

        Raises:
            RemoteProtocolError: There was never one of that number.
        """
        if number > self._last:
            raise RemoteProtocolError(f"an answer to channel {number}, never opened")
        return self._by_number.get(number)

    def remove(self, out: Outgoing) -> None:
        """Forget a channel that has ended."""
        del self._by_key[out.key], self._by_number[out.number]
