"""Messages in an outbox, and what an outbox has done with them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from academy.segment import Segment


class Parcel(Struct, eq=False):
    """A message in an outbox.

    Attributes:
        seq: Its number in the stream.
        kind: Kind of its queue entry.
        tag: Its tag.
        segments: The serialized message.
        size: Bytes of the segments.
        since: When it was submitted.
        inc: Incarnation that it was sent to directly and that may have it; 0 if none.
        fresh: Whether it was never sent directly. Else somebody may have it, or have
            given it back to the queue, so that it must not get another number.
        kept: Whether the outbox still has it: it is not known to be taken or queued.
            When it no longer is, its segments are gone, too.
        ahead: Number of the message right before it in line for the queue; 0 if that
            has its answer.
        patient: Whether it waits when there is no room in the queue.
        note: What the owner of the outbox keeps with it.
        accepted: Set when it is on its way; `None` if nobody waits for that.
        lent: What to call when its memory may change from now on; `None` if it is
            nobody else's.
    """

    seq: int
    kind: str
    tag: uuid.UUID
    segments: Sequence[Segment]
    size: int
    since: float = 0.0
    inc: int = 0
    fresh: bool = True
    kept: bool = True
    ahead: int = 0
    patient: bool = True
    note: Any = None
    accepted: Any = None
    lent: Callable[[Parcel], None] | None = None

    def release(self) -> None:
        """Note that the outbox does not have it any more."""
        self.kept = False
        self.segments = ()

    def end_loan(self) -> None:
        """Let go of memory that was lent, whatever becomes of the message."""
        lent, self.lent = self.lent, None
        if lent is not None:
            lent(self)

    def __repr__(self) -> str:
        return f"Parcel({self.seq}, inc={self.inc}, kept={self.kept})"


class SendDirect(Struct, frozen=True, gc=False):
    """Send a parcel on the channel.

    Attributes:
        parcel: The parcel.
    """

    parcel: Parcel


class Append(Struct, frozen=True, gc=False):
    """Append a parcel to the queue on the server.

    At the end `appended` is to be called, or `refused`.

    Attributes:
        parcel: The parcel.
        stamp: The incarnation that may have it already; 0 if none.
    """

    parcel: Parcel
    stamp: int


class GiveUp(Struct, frozen=True, gc=False):
    """Report that there was no way for a parcel; the outbox has dropped it.

    Attributes:
        parcel: The parcel. Unless it is fresh, it may have been executed.
    """

    parcel: Parcel


class Refuse(Struct, frozen=True, gc=False):
    """Report that a parcel is too large for the queue, and that there is no other way.

    Attributes:
        parcel: The parcel. If it has an incarnation, it may have been executed.
    """

    parcel: Parcel


Effect: TypeAlias = SendDirect | Append | GiveUp | Refuse
