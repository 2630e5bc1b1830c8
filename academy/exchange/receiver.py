"""What arrives for the mailboxes of this process, from their queues or directly."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from academy.exception import IncompatibleNetworkProtocolError
from academy.exchange.audit import Auditor
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.inlet import Inlet
from academy.exchange.keys import base32_to_uuid
from academy.exchange.mailbox import PROBE, REPORT, REQUEST, Entry
from academy.exchange.queues import Queues
from academy.exchange.router import Router, lost
from academy.exchange.stream import Offer
from academy.link.refusal import Refusal
from academy.message import (
    Header,
    Message,
    decode,
)
from academy.segment import Segment

logger = logging.getLogger(__name__)

_NEW = Offer.NEW  # to look it up on the class takes longer
_UNREADABLE = (ValueError, IncompatibleNetworkProtocolError)


class Receiver:
    """Decodes what has arrived and gives each message once to its mailbox.

    Args:
        queues: Counts what is refused.
        router: Answers what cannot be executed.
        auditor: Takes control messages.
        newer: Called with a mailbox and its incarnation when one has sent something.
    """

    def __init__(
        self,
        queues: Queues,
        router: Router,
        auditor: Auditor,
        newer: Callable[[uuid.UUID, int], None],
    ) -> None:
        self._queues = queues
        self._router = router
        self._auditor = auditor
        self._newer = newer

    def queued(self, box: BoundMailbox, entry: Entry) -> None:
        """Take an entry of the queue of a mailbox."""
        if entry.kind in (PROBE, REPORT):
            if box.received.offer(entry.stream, entry.seq) is Offer.NEW:
                box.received.consumed(entry.stream, entry.seq)
                self._auditor.heard(box, entry)
            return
        try:
            segments = entry.segments()
        except ValueError:
            self._queues.refuse(box.uid)
            return
        try:
            message = decode(segments)
        except _UNREADABLE as e:
            self._undecoded(box, e)
            return
        message.age(entry.age)
        if not self._consistent(box, entry, message.header):
            self._queues.refuse(box.uid)
            return
        offer = box.received.offer(entry.stream, entry.seq)
        parts = message, entry.stream, entry.seq, segments
        self._take(box, Delivery(*parts, stamp=entry.stamp), offer)

    def _consistent(self, box: BoundMailbox, entry: Entry, header: Header) -> bool:
        """Return whether a message is what its entry says.

        A process may answer in the name of any mailbox that it has terminated, but ask
        in nobody's.
        """
        asks = header.kind == "request"
        if header.dest.uid != box.uid.uid or asks is not (entry.kind == REQUEST):
            return False
        if entry.stream.startswith("p"):
            return not asks
        name, _, rest = entry.stream.partition(":")
        try:
            sender, inc = base32_to_uuid(name), int(rest.partition(":")[0])
        except ValueError:
            return False
        if sender != header.src.uid:
            return False
        self._newer(sender, inc)
        return True

    def direct(
        self, inlet: Inlet, seq: int, segments: Sequence[Segment]
    ) -> Refusal | None:
        """Take a message that has come on a channel; an ended box takes none.

        Returns:
            Why it was refused, if it was not the sender of the channel that sent it,
            or not to its mailbox.
        """
        box = inlet.box
        if box.inbox.error is not None:
            return None
        try:
            message = decode(segments)
        except _UNREADABLE as e:
            self._undecoded(box, e)
            return None
        header = message.header
        if header.src.uid.int != inlet.src:
            return Refusal.FOREIGN_SOURCE
        if header.dest.uid.int != inlet.dest:
            return Refusal.FOREIGN_DESTINATION
        offer = box.received.offer(inlet.stream, seq)
        if offer is not _NEW or not box.pass_on(inlet, seq, message):
            delivery = Delivery(message, inlet.stream, seq, segments, False, 0)
            self._take(box, delivery, offer)
        return None

    def _undecoded(self, box: BoundMailbox, error: Exception) -> None:
        if isinstance(error, IncompatibleNetworkProtocolError):
            logger.warning("%s received a message it cannot read: %s", box.uid, error)
        else:
            logger.debug("%s received a damaged message: %s", box.uid, error)
        self._queues.refuse(box.uid)

    def _take(self, box: BoundMailbox, delivery: Delivery, offer: Offer) -> None:
        if offer is Offer.NEW:
            box.accept(delivery)
        elif offer is Offer.DUPLICATE:
            # Its sender has not heard that it was taken.
            box.confirm(delivery.stream)
        elif delivery.message.is_request() and delivery.stamp not in box.clean:
            # A former incarnation took it. One that closed cleanly has answered all.
            self.bounce(box, delivery.message)

    def bounce(self, box: BoundMailbox, message: Message[Any]) -> None:
        """Answer a request that a former incarnation may have executed."""
        gone = lost(box.uid, "the process that had taken the request is gone")
        self._router.respond_soon(message.header, gone)
