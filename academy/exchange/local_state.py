"""The mailboxes of a local exchange, which all its clients share."""

from __future__ import annotations

import threading
import time
from typing import Protocol, TypeAlias

from academy.exception import BadEntityIdError, FencedError, MailboxTerminatedError
from academy.exchange.inbox import Inbox
from academy.exchange.ledger import Ledger
from academy.identifier import EntityId
from academy.message import Header, decode
from academy.segment import Segment
from academy.serialize import NoPickleMixin

Posted: TypeAlias = tuple[float, list[Segment]]
"""A message, and the time at which it was sent."""


class Owner(Protocol):
    """What a mailbox is bound to."""

    inbox: Inbox[Posted]

    @property
    def mailbox_id(self) -> EntityId:
        """Whose mailbox it is."""
        ...

    def expire(self, uid: EntityId, reason: str | None) -> None:
        """Answer, after a grace, what it still awaits from a mailbox that has ended."""
        ...


class Mailbox:
    """One mailbox: its queue, its owner, and how it ended."""

    def __init__(self, uid: EntityId, mro: tuple[str, ...] = ()) -> None:
        self.uid = uid
        self.mro = mro
        self.waiting: list[Posted] = []
        self.owner: Owner | None = None
        self.ledger = Ledger()
        self.last_alive: float | None = None
        self.terminated: MailboxTerminatedError | None = None


class LocalExchangeState(NoPickleMixin):
    """The mailboxes of one local exchange. Safe to use from any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.mailboxes: dict[EntityId, Mailbox] = {}
        self._sources: dict[EntityId, set[EntityId]] = {}

    def add(self, uid: EntityId, mro: tuple[str, ...] = ()) -> None:
        """Register a mailbox."""
        with self.lock:
            self.mailboxes[uid] = Mailbox(uid, mro)

    def get(self, uid: EntityId) -> Mailbox:
        """Return a mailbox that is open.

        Raises:
            BadEntityIdError: It was never registered.
            MailboxTerminatedError: It is closed for good.
        """
        mailbox = self.mailboxes.get(uid)
        if mailbox is None:
            raise BadEntityIdError(uid)
        if (e := mailbox.terminated) is not None:
            raise MailboxTerminatedError(e.uid, e.reason, "no")
        return mailbox

    def bind(self, transport: Owner) -> list[Header]:
        """Make a transport the owner of its mailbox; the former owner is fenced.

        Returns:
            The requests that the former owner took and has not answered.
        """
        with self.lock:
            mailbox = self.get(transport.mailbox_id)
            unanswered = []
            if mailbox.owner is not None:
                mailbox.owner.inbox.end(FencedError(mailbox.uid))
                unanswered = self.unbind(mailbox.owner)
            mailbox.owner = transport
            mailbox.last_alive = time.monotonic()
            for posted in mailbox.waiting:
                transport.inbox.put(posted)
            mailbox.waiting.clear()
            return unanswered

    def unbind(self, transport: Owner) -> list[Header]:
        """Give back what a transport did not take.

        Returns:
            The requests that it took and never answered.
        """
        with self.lock:
            mailbox = self.mailboxes[transport.mailbox_id]
            if mailbox.owner is not transport:
                return []
            mailbox.owner = None
            mailbox.last_alive = time.monotonic()
            mailbox.waiting[:0] = transport.inbox.drain()
            unanswered = list(mailbox.ledger.open.values())
            mailbox.ledger.open.clear()
            return unanswered

    def put(self, dest: EntityId, posted: Posted) -> None:
        """Append a message to a mailbox; raises as `get` does."""
        with self.lock:
            mailbox = self.get(dest)
            if mailbox.owner is None:
                mailbox.waiting.append(posted)
            else:
                mailbox.owner.inbox.put(posted)

    def terminate(self, uid: EntityId, reason: str | None) -> list[Header]:
        """Close a mailbox for good.

        Returns:
            The requests that waited in it.
        """
        with self.lock:
            mailbox = self.mailboxes.get(uid)
            if mailbox is None or mailbox.terminated is not None:
                return []
            mailbox.terminated = MailboxTerminatedError(uid, reason)
            waiting = mailbox.waiting
            if mailbox.owner is not None:
                mailbox.owner.inbox.end(MailboxTerminatedError(uid, reason))
                waiting = waiting + mailbox.owner.inbox.drain()
            mailbox.waiting = []
            headers = [decode(segments).header for _, segments in waiting]
            return [h for h in headers if h.kind == "request"]

    def senders(self, uid: EntityId) -> list[Owner]:
        """Return, once, the owners of mailboxes that have sent to a mailbox."""
        with self.lock:
            sources = self._sources.pop(uid, set())
            boxes = [self.mailboxes[source] for source in sources]
            return [m.owner for m in boxes if m.owner is not None]

    def note_sender(self, source: EntityId, dest: EntityId) -> None:
        """Remember who has sent to a mailbox."""
        self._sources.setdefault(dest, set()).add(source)
