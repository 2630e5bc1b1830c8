"""Frames: the units that two processes exchange on a connection."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

from msgspec import Struct

from academy.segment import Segment

Buffer: TypeAlias = Segment

LARGEST_NUMBER = 2**53 - 1
"""Largest number of a message, and largest incarnation: exact in every language."""


class RemoteProtocolError(Exception):
    """The peer sent something that the protocol does not allow.

    The text continues "The peer sent ...".
    """


class LocalProtocolError(Exception):
    """This process tried something that the protocol does not allow."""


class Open(Struct, frozen=True, gc=False):
    """Opens a channel: what one entity sends to another in one lane.

    Attributes:
        channel: Number that the sender chose, above those before.
        lane: 0 for requests, 1 for replies.
        src: The sending entity.
        src_inc: Its incarnation.
        dest: The mailbox.
    """

    type: ClassVar[int] = 1
    channel: int
    lane: int
    src: uuid.UUID
    src_inc: int
    dest: uuid.UUID


class Opened(Struct, frozen=True, gc=False):
    """Accepts a channel.

    Attributes:
        channel: Its number.
        inc: Incarnation of the mailbox.
        accepted: Highest number of the stream that has arrived there, on any path.
    """

    type: ClassVar[int] = 2
    channel: int
    inc: int
    accepted: int


class Refused(Struct, frozen=True, gc=False):
    """Refuses a channel, or ends one that was open.

    Attributes:
        channel: Its number.
        reason: Why; see `session.Reason`.
    """

    type: ClassVar[int] = 3
    channel: int
    reason: int


class Data(Struct, frozen=True, gc=False):
    """A whole message.

    Attributes:
        channel: Channel of the message.
        seq: Its number in the stream.
        segments: Its segments.
    """

    type: ClassVar[int] = 4
    channel: int
    seq: int
    segments: Sequence[Buffer]


class Part(Struct, frozen=True, gc=False):
    """A part of a message that is too large for one frame; see `parts`.

    Attributes:
        channel: Channel of the message.
        seq: Its number in the stream.
        last: Whether this is its last part.
        data: The part; in a received one a view, to be copied by whoever keeps it. A
            part may be received in pieces, of which only the last one is `last`.
    """

    type: ClassVar[int] = 5
    channel: int
    seq: int
    last: bool
    data: Buffer


class Ack(Struct, frozen=True, gc=False):
    """Says how far channels were taken by their consumers.

    Attributes:
        marks: Pairs of channel and highest number taken.
    """

    type: ClassVar[int] = 6
    marks: tuple[tuple[int, int], ...]


class Ping(Struct, frozen=True, gc=False):
    """Asks for a sign of life."""

    type: ClassVar[int] = 7


class Pong(Struct, frozen=True, gc=False):
    """A sign of life."""

    type: ClassVar[int] = 8


class Control(Struct, frozen=True, gc=False):
    """A message between the processes themselves, opaque here.

    Attributes:
        data: What one says to the other.
    """

    type: ClassVar[int] = 9
    data: Buffer


class Close(Struct, frozen=True, gc=False):
    """Ends a channel from the sender's side: nothing more will be sent on it.

    Attributes:
        channel: Its number.
    """

    type: ClassVar[int] = 10
    channel: int


class Bye(Struct, frozen=True, gc=False):
    """Ends the connection in good order."""

    type: ClassVar[int] = 11


class Abort(Struct, frozen=True, gc=False):
    """Takes back a message of which parts were sent.

    Attributes:
        channel: Channel of the message.
        seq: Its number in the stream.
    """

    type: ClassVar[int] = 12
    channel: int
    seq: int


class Offer(Struct, frozen=True, gc=False):
    """Offers a region of memory, in which messages of the sender may come.

    Attributes:
        region: Number that the sender chose, above those before.
        descriptor: The file descriptor by which the sender has it.
        size: Its size in bytes.
        inode: Number of its file.
    """

    type: ClassVar[int] = 13
    region: int
    descriptor: int
    size: int
    inode: int


class Mapped(Struct, frozen=True, gc=False):
    """Accepts a region that was offered.

    Attributes:
        region: Its number.
    """

    type: ClassVar[int] = 14
    region: int


class Unmapped(Struct, frozen=True, gc=False):
    """Refuses a region that was offered.

    Attributes:
        region: Its number.
    """

    type: ClassVar[int] = 15
    region: int


class Lent(Struct, frozen=True, gc=False):
    """The next segment of a message is at the beginning of a region of the sender.

    Attributes:
        channel: Channel of the message.
        seq: Its number in the stream.
        last: Whether nothing of the message follows.
        region: Number of the region.
        size: Bytes of the segment, all of it.
    """

    type: ClassVar[int] = 16
    channel: int
    seq: int
    last: bool
    region: int
    size: int


class Back(Struct, frozen=True, gc=False):
    """The next segment of a message is in a region that the receiver has lent.

    Attributes:
        channel: Channel of the message.
        seq: Its number in the stream.
        last: Whether nothing of the message follows.
        region: Number of the region, as the receiver says it.
        size: Bytes of the segment, all of it.
        offset: Where in the region they begin.
    """

    type: ClassVar[int] = 17
    channel: int
    seq: int
    last: bool
    region: int
    size: int
    offset: int


class Returned(Struct, frozen=True, gc=False):
    """Nobody refers to what was lent in a region any more.

    Attributes:
        region: Its number.
    """

    type: ClassVar[int] = 18
    region: int


class Dropped(Struct, frozen=True, gc=False):
    """A region will not be used any more.

    What is lent in it may be kept: then it is to be returned at once, unless that goes
    back.

    Attributes:
        region: Its number.
    """

    type: ClassVar[int] = 19
    region: int


class Filled(Struct, frozen=True, gc=False):
    """Says that a piece of a part has come into memory; it is not sent like this.

    Attributes:
        channel: Channel of the message.
        seq: Its number in the stream.
        size: Bytes of the piece.
    """

    channel: int
    seq: int
    size: int


Sharing: TypeAlias = Offer | Mapped | Unmapped | Lent | Back | Returned | Dropped
"""What is said about memory that both processes see."""
Frame: TypeAlias = (
    Open
    | Opened
    | Refused
    | Data
    | Part
    | Ack
    | Ping
    | Pong
    | Control
    | Close
    | Bye
    | Abort
    | Sharing
)
