"""The receiving end of a stream that comes on a channel of a direct link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from academy.exchange.keys import uuid_to_base32
from academy.exchange.stream import stream_name
from academy.link.channel import ChannelKey
from academy.link.peer import Peer

if TYPE_CHECKING:
    from academy.exchange.bound import BoundMailbox


class Inlet:
    """Where the messages of one stream to a mailbox come in.

    It lasts as long as its channel, which has it as its note.

    Args:
        box: The mailbox.
        key: What the channel carries.
        peer: The process it comes from.
        channel: Number of the channel there.
    """

    __slots__ = (
        "__weakref__",
        "box",
        "channel",
        "dest",
        "key",
        "peer",
        "src",
        "stream",
    )

    def __init__(
        self, box: BoundMailbox, key: ChannelKey, peer: Peer, channel: int
    ) -> None:
        self.box = box
        self.key = key
        self.peer = peer
        self.channel = channel
        self.src = key.src.int
        self.dest = key.dest.int
        self.stream = stream_name(uuid_to_base32(key.src), key.src_inc, key.lane)
        """Name of the stream."""

    def confirm(self, seq: int) -> None:
        """Tell the sender that the consumer has taken the messages up to a number."""
        self.peer.taken(self.channel, seq)
