"""Channels: what they carry, and what happens to them."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from academy.link.frame import Buffer

REQUESTS = 0
"""Lane of requests, which has a window."""
REPLIES = 1
"""Lane of replies, which are bounded by what the other side has asked for."""


class Reason(enum.IntEnum):
    """Why a channel is refused or ended by its receiver."""

    NOT_HERE = 0
    """The mailbox is not bound in that process (any more)."""
    TOO_MANY = 1
    """The process has too many channels."""
    FORBIDDEN = 2
    """The sending process does not have the mailbox that it sends from."""
    NO_MEMORY = 3
    """The process has no room for a message."""

    @classmethod
    def _missing_(cls, value: object) -> Reason:
        """Take a reason that a newer peer may have as the common one."""
        return cls.NOT_HERE


class ChannelKey(Struct, frozen=True, gc=False, cache_hash=True):
    """What a channel carries: from one incarnation of a sender to one mailbox.

    Attributes:
        src: The sending entity.
        src_inc: Its incarnation.
        dest: The mailbox.
        lane: Requests or replies.
    """

    src: uuid.UUID
    src_inc: int
    dest: uuid.UUID
    lane: int


class ChannelOffered(Struct, frozen=True, gc=False):
    """The peer opens a channel; answer with `accept` or `refuse`.

    Attributes:
        channel: Its number, never used again in this session.
        key: What it carries.
    """

    channel: int
    key: ChannelKey


class Accepted(Struct, frozen=True, gc=False):
    """The peer has accepted a channel.

    Attributes:
        key: The channel.
        inc: Incarnation of the mailbox.
        accepted: Highest number that has arrived there.
    """

    key: ChannelKey
    inc: int
    accepted: int


class Rejected(Struct, frozen=True, gc=False):
    """The peer has refused a channel, or ended it.

    Attributes:
        key: The channel.
        reason: Why.
    """

    key: ChannelKey
    reason: Reason


class Received(Struct, frozen=True, gc=False):
    """A message has arrived.

    Attributes:
        channel: Number of its channel.
        key: The channel.
        seq: Its number in the stream.
        segments: Its segments.
        note: What was given when the channel was accepted.
    """

    channel: int
    key: ChannelKey
    seq: int
    segments: Sequence[Buffer]
    note: Any = None


class Taken(Struct, frozen=True, gc=False):
    """The consumer has taken the messages of a channel up to a number.

    Attributes:
        key: The channel.
        seq: The number.
    """

    key: ChannelKey
    seq: int


class Told(Struct, frozen=True, gc=False):
    """The peer process has sent a control message.

    Attributes:
        data: What it said.
    """

    data: Buffer


Event: TypeAlias = ChannelOffered | Accepted | Rejected | Received | Taken | Told
