"""The books of one mailbox: what it was asked and what it asked for."""

from __future__ import annotations

import uuid

from msgspec import Struct

from academy.exchange.parcel import Parcel
from academy.exchange.stream import REQUESTS
from academy.identifier import EntityId
from academy.message import Header
from academy.stats import AgentStats


class Awaited(Struct, eq=False):
    """A request whose answer has not come.

    Attributes:
        header: Header of the request.
        since: When it was sent, by a monotonic clock in seconds.
        lane: Lane of its stream.
        seq: Its number in the stream to its destination.
        parcel: The same in the sender's outbox; `None` for a destination in this
            process.
        strikes: How many audits in a row found nobody who knows it.
    """

    header: Header
    since: float = 0.0
    lane: int = REQUESTS
    seq: int = 0
    parcel: Parcel | None = None
    strikes: int = 0


class Ledger:
    """Open requests of one mailbox in both directions, and its counts.

    An *open* request was taken here and has not been answered yet; an *awaited* one
    was sent from here and its answer has not come yet.
    """

    def __init__(self) -> None:
        # By their tags, as numbers: those are hashed faster than UUIDs.
        self.open: dict[int, Header] = {}
        self.awaited: dict[int, Awaited] = {}
        self.incoming = 0
        self.outgoing = 0
        self.completed = 0

    def took(self, header: Header) -> bool:
        """Enter a message taken from the mailbox.

        Returns:
            Whether it is of use: a request, or a response that somebody awaits. A
            duplicate, late or stray response is of none, nor is one that is not from
            whom the request was for, or has another label.
        """
        tag = header.tag.int
        if header.kind == "response":
            awaited = self.awaited.get(tag)
            if awaited is None:
                return False
            asked = awaited.header
            if header.src.uid.int != asked.dest.uid.int or header.label != asked.label:
                return False
            del self.awaited[tag]
            parcel = awaited.parcel
            if parcel is not None and parcel.lent is not None:
                parcel.end_loan()
            return True
        self.incoming += 1
        self.open[tag] = header
        return True

    def sending(
        self,
        header: Header,
        since: float = 0.0,
        lane: int = REQUESTS,
        seq: int = 0,
        parcel: Parcel | None = None,
    ) -> None:
        """Enter a message that is about to be sent from here."""
        if header.kind == "request":
            self.outgoing += 1
            self.awaited[header.tag.int] = Awaited(header, since, lane, seq, parcel)
        elif self.open.pop(header.tag.int, None) is not None:
            self.completed += 1

    def forget(self, tag: uuid.UUID) -> None:
        """Note that nobody waits for the answer to a request any more."""
        awaited = self.awaited.pop(tag.int, None)
        if awaited is not None and awaited.parcel is not None:
            awaited.parcel.end_loan()

    def end_loans(self) -> None:
        """Let go of all memory that requests have lent: nobody waits any more."""
        for awaited in self.awaited.values():
            if awaited.parcel is not None:
                awaited.parcel.end_loan()

    def awaiting(self, uid: EntityId) -> list[Awaited]:
        """Return the requests to an entity whose answers have not come."""
        return [a for a in self.awaited.values() if a.header.dest == uid]

    def stats(self, queued: int) -> AgentStats:
        """Return the counts, given how many messages wait in the queue."""
        return AgentStats(
            incoming=self.incoming,
            outgoing=self.outgoing,
            completed=self.completed,
            in_progress=len(self.open),
            queued=queued,
        )
