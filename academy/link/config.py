"""Limits and timeouts of links."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

SEGMENT_COST = 64
"""Bytes that a segment of a message counts for beside its content, since an empty one
takes memory, too."""
LARGEST_HANDSHAKE = 181
"""Bytes of the largest frame in a handshake."""


@dataclass(frozen=True)
class LinkConfig:
    """Every limit of a link. Times are in seconds, sizes in bytes.

    A peer that exceeds the limits of this side is disconnected, so the processes of a
    namespace need the same sizes.

    Attributes:
        handshake_timeout: Time in which a new connection must have proved itself.
        handshake_limit: Largest frame before that.
        frame_limit: Largest frame after that, without its length field.
        message_limit: Largest message, all its segments together. It also bounds their
            number, at 64 bytes each.
        chunk: Messages above this size are sent in parts, in turn with those of other
            channels. Also the largest control message.
        part: Largest part. What is sent beside it waits for one part at most.
        parts_limit: Bytes of messages in parts that may be on their way to a peer at a
            time; further ones wait. A single larger message is sent alone. They count
            as large as they say they are, before they have come.
        window_messages: Messages of a channel that may be sent and not taken.
        window_bytes: Bytes of a channel that may be sent and not taken; a single
            larger message is sent alone.
        ack_delay: Longest time that an acknowledgement waits for company.
        ack_messages: Taken messages after which it waits no longer.
        ack_bytes: Bytes of taken messages after which it waits no longer.
        ping_interval: Silence after which the peer is asked for a sign of life.
        suspect_after: Silence after which the peer is suspected.
        dead_after: Silence after which the connection is given up.
        idle_after: Time without messages after which a link is closed.
        channel_limit: Channels that a peer may open.

    Raises:
        ValueError: A value is not positive, or contradicts another.
    """

    handshake_timeout: float = 5.0
    handshake_limit: int = 512
    frame_limit: int = 1 << 20
    message_limit: int = 8 << 30
    chunk: int = 128 * 1024
    part: int = 512 * 1024
    parts_limit: int = 128 << 20
    window_messages: int = 256
    window_bytes: int = 4 << 20
    ack_delay: float = 0.02
    ack_messages: int = 32
    ack_bytes: int = 1 << 20
    ping_interval: float = 2.0
    suspect_after: float = 6.0
    dead_after: float = 15.0
    idle_after: float = 120.0
    channel_limit: int = 100_000

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if not getattr(self, item.name) > 0:
                raise ValueError(f"LinkConfig.{item.name} must be greater than 0.")
        for holds, text in self._rules():
            if not holds:
                raise ValueError(f"LinkConfig: {text} must hold.")

    def _rules(self) -> list[tuple[bool, str]]:
        return [
            (
                self.ping_interval < self.suspect_after < self.dead_after,
                "ping_interval < suspect_after < dead_after",
            ),
            (
                LARGEST_HANDSHAKE <= self.handshake_limit <= self.frame_limit,
                f"{LARGEST_HANDSHAKE} <= handshake_limit <= frame_limit",
            ),
            # A frame has room for the lengths of its segments, and counts them in
            # two bytes.
            (2 * self.chunk <= self.frame_limit, "2 * chunk <= frame_limit"),
            (self.chunk <= SEGMENT_COST << 15, f"chunk <= {SEGMENT_COST << 15}"),
            # A part has its channel and number before it.
            (self.part <= self.frame_limit - 32, "part <= frame_limit - 32"),
            (self.frame_limit < 1 << 30, "frame_limit < 2 ** 30"),
            (self.message_limit < 1 << 62, "message_limit < 2 ** 62"),
        ]
