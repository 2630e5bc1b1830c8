"""Lines: the streams from mailboxes of this process to mailboxes of others."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

from academy.exception import ExchangeError, MailboxTerminatedError
from academy.exchange.bound import BoundMailbox
from academy.exchange.delivery_failure import failure_body
from academy.exchange.ledger import Awaited
from academy.exchange.outbox import Outbox
from academy.exchange.outlet import Outlet
from academy.exchange.parcel import Parcel
from academy.exchange.stream import REPLIES, REQUESTS
from academy.identifier import EntityId
from academy.link.channel import ChannelKey
from academy.link.peer import Peer

logger = logging.getLogger(__name__)

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(slots=True, eq=False)
class Line:
    """A stream to another process: its outbox, and the channel it may go by.

    Attributes:
        box: The sending mailbox.
        outlet: Where its messages come from.
        key: Its channel.
        outbox: What is on the way.
        process: The process that has the destination, as far as is known; else empty.
        peer: The peer with which the channel is open, or being opened.
        known: Newest incarnation of the destination that was heard of.
        timer: Next look at the outbox.
        looks: Looks for room in the queue of the destination, while that is full.
        waits: Resolved when nothing is on the way any more; `None` if nobody waits.
    """

    box: BoundMailbox
    outlet: Outlet
    key: ChannelKey
    outbox: Outbox
    process: bytes = b""
    peer: Peer | None = None
    known: int = 0
    timer: asyncio.TimerHandle | None = None
    looks: asyncio.Task[None] | None = None
    waits: asyncio.Future[None] | None = None

    @property
    def dest(self) -> EntityId:
        """The mailbox it goes to."""
        return self.outlet.dest

    def drained(self) -> asyncio.Future[None]:
        """Return what is resolved when nothing is on the way any more."""
        if self.waits is None:
            self.waits = asyncio.get_running_loop().create_future()
        return self.waits

    def note_progress(self) -> None:
        """Resolve what `drained` gave, if nothing is on the way any more."""
        if self.waits is not None and not len(self.outbox):
            self.waits.set_result(None)
            self.waits = None

    def passed_on(self, parcel: Parcel) -> None:
        """Tell the sender of a parcel, if it waits, that it is on its way."""
        accepted = parcel.accepted
        if accepted is not None and not accepted.done():
            accepted.set_result(None)

    def failed(self, parcel: Parcel, error: Exception) -> bool:
        """Tell the sender of a parcel, if it waits; return whether it does."""
        accepted = parcel.accepted
        if accepted is None or accepted.done():
            return False
        accepted.set_exception(error)
        return True

    def fail(self, parcel: Parcel, error: ExchangeError) -> None:
        """Tell who waits: the sender of a parcel, or those who wait for the answer."""
        if self.failed(parcel, error):
            return
        if isinstance(error, MailboxTerminatedError) and not parcel.fresh:
            # Its owner knows better, and is about to say; if not, the audit settles it.
            return
        header = parcel.note
        awaited = self.box.ledger.awaited.get(header.tag.int)
        if awaited is None or awaited.parcel is not parcel:
            logger.debug("A message to %s was lost: %s", self.dest, error)
            return
        self.box.report(header, failure_body(self.dest, error))


async def drained(lines: list[Line], timeout: float) -> None:
    """Wait until nothing is on the way on any line, at most so many seconds."""
    now = asyncio.get_running_loop().time
    until = now() + timeout
    # Again, for more may have come meanwhile.
    while waits := [line.drained() for line in lines if len(line.outbox)]:
        left = until - now()
        if left <= 0:
            return
        await asyncio.wait(waits, timeout=left)


class Lines:
    """All lines of a process, by what one may ask for them."""

    def __init__(self) -> None:
        self._by_key: dict[ChannelKey, Line] = {}
        self._by_box: dict[BoundMailbox, set[Line]] = {}
        self._by_dest: dict[uuid.UUID, set[Line]] = {}
        self._by_process: dict[bytes, set[Line]] = {}
        self._newest: dict[uuid.UUID, int] = {}

    def add(self, line: Line) -> None:
        """Enter a line that no process is known for."""
        line.known = max(line.known, self._newest.get(line.dest.uid, 0))
        self._by_key[line.key] = line
        self._by_box.setdefault(line.box, set()).add(line)
        self._by_dest.setdefault(line.dest.uid, set()).add(line)

    def remove(self, line: Line) -> None:
        """Forget a line."""
        if self._by_key.get(line.key) is line:
            del self._by_key[line.key]
        _discard(self._by_box, line.box, line)
        _discard(self._by_dest, line.dest.uid, line)
        if line.dest.uid not in self._by_dest:
            self._newest.pop(line.dest.uid, None)
        _discard(self._by_process, line.process, line)

    def place(self, line: Line, process: bytes) -> None:
        """Note which process has the destination of a line; empty if none is known."""
        _discard(self._by_process, line.process, line)
        line.process = process
        if process:
            self._by_process.setdefault(process, set()).add(line)

    def get(self, key: ChannelKey) -> Line | None:
        """Return the line of a channel."""
        return self._by_key.get(key)

    def all(self) -> list[Line]:
        """Return all lines."""
        return list(self._by_key.values())

    def of(self, box: BoundMailbox) -> list[Line]:
        """Return the lines of a sending mailbox."""
        return list(self._by_box.get(box, ()))

    def to(self, dest: uuid.UUID) -> list[Line]:
        """Return the lines to a mailbox."""
        return list(self._by_dest.get(dest, ()))

    def outdated(self, dest: uuid.UUID, inc: int) -> list[Line]:
        """Return the lines to a mailbox if they have not heard of an incarnation yet.

        Every message tells an incarnation of its sender, to which thousands of
        mailboxes may have lines: they are looked through only for a new one.
        """
        if inc <= self._newest.get(dest, 0) or dest not in self._by_dest:
            return []
        self._newest[dest] = inc
        return self.to(dest)

    def at(self, process: bytes) -> list[Line]:
        """Return the lines to mailboxes that are in a process, as far as is known."""
        return list(self._by_process.get(process, ()))

    def processes(self) -> list[bytes]:
        """Return the processes that have destinations, as far as is known."""
        return list(self._by_process)

    def unplaced(self) -> list[Line]:
        """Return the lines to mailboxes of which no process is known."""
        return [line for line in self._by_key.values() if not line.process]

    def reaches(self, box: BoundMailbox, dest: EntityId, inc: int) -> bool:
        """Return whether a mailbox talks directly to an incarnation of another one.

        Args:
            box: The mailbox.
            dest: The other one.
            inc: The incarnation; 0 for any.
        """
        keys = (
            ChannelKey(box.uid.uid, box.inc, dest.uid, lane)
            for lane in (REQUESTS, REPLIES)
        )
        lines = [line for line in map(self._by_key.get, keys) if line is not None]
        linked = {line.outbox.incarnation for line in lines} - {0}
        return bool(linked) if inc == 0 else inc in linked

    def has_directly(self, box: BoundMailbox, awaited: Awaited) -> bool:
        """Return whether a request was sent on a channel that is still open."""
        line, parcel = self._carrier(box, awaited), awaited.parcel
        if line is None or parcel is None or not parcel.inc:
            return False
        return parcel.inc == line.outbox.incarnation

    def answering(self, box: BoundMailbox) -> set[uuid.UUID]:
        """Return the tags of the answers of a mailbox that are still on their way."""
        lines = [line for line in self.of(box) if line.key.lane == REPLIES]
        return {tag for line in lines for tag in line.outbox.tags()}

    def withdraw(self, box: BoundMailbox, awaited: Awaited) -> bool:
        """Give up a request; return whether it has not been sent anywhere."""
        line, parcel = self._carrier(box, awaited), awaited.parcel
        if line is None or parcel is None:
            return False
        unsent = line.outbox.withdraw(parcel)
        line.outbox.drop(parcel)
        return unsent

    def _carrier(self, box: BoundMailbox, awaited: Awaited) -> Line | None:
        dest = awaited.header.dest.uid
        return self.get(ChannelKey(box.uid.uid, box.inc, dest, awaited.lane))


def _discard(index: dict[KeyT, set[Line]], key: KeyT, line: Line) -> None:
    lines = index.get(key, set())
    lines.discard(line)
    if not lines:
        index.pop(key, None)
