"""What arrives for the mailboxes of this process, from their queues or directly."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from academy.exception import IncompatibleNetworkProtocolError
from academy.exchange.audit import Auditor
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.keys import base32_to_uuid, uuid_to_base32
from academy.exchange.mailbox import PROBE, REPORT, REQUEST, Entry
from academy.exchange.queues import Queues
from academy.exchange.router import Router
from academy.exchange.stream import Offer, stream_name
from academy.link.channel import ChannelKey
from academy.link.refusal import Refusal
from academy.message import (
    AcademyErrorResponse,
    ErrorCode,
    Header,
    Message,
    decode,
)
from academy.serialize import Segment

logger = logging.getLogger(__name__)


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
        message = self._decode(box, segments)
        if message is None:
            return
        message.age(entry.age)
        if not self._consistent(box, entry, message.header):
            self._queues.refuse(box.uid)
            return
        self._take(
            box,
            Delivery(message, entry.stream, entry.seq, segments, stamp=entry.stamp),
        )

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
        self, box: BoundMailbox, key: ChannelKey, seq: int, segments: Sequence[Segment]
    ) -> Refusal | None:
        """Take a message that has come on a channel; an ended box takes none.

        Returns:
            Why it was refused, if it was not the sender of the channel that sent it,
            or not to its mailbox.
        """
        if box.inbox.error is not None:
            return None
        message = self._decode(box, segments)
        if message is None:
            return None
        header = message.header
        if header.src.uid.int != key.src.int:
            return Refusal.FOREIGN_SOURCE
        if header.dest.uid.int != key.dest.int:
            return Refusal.FOREIGN_DESTINATION
        self._take(box, Delivery(message, stream_of(key), seq, segments, False, 0))
        return None

    def _decode(
        self, box: BoundMailbox, segments: Sequence[Segment]
    ) -> Message[Any] | None:
        try:
            return decode(segments)
        except IncompatibleNetworkProtocolError as e:
            logger.warning("%s received a message it cannot read: %s", box.uid, e)
        except ValueError as e:
            logger.debug("%s received a damaged message: %s", box.uid, e)
        self._queues.refuse(box.uid)
        return None

    def _take(self, box: BoundMailbox, delivery: Delivery) -> None:
        offer = box.received.offer(delivery.stream, delivery.seq)
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
        lost = AcademyErrorResponse(
            error_code=ErrorCode.PEER_LOST,
            mailbox_id=box.uid,
            detail="the process that had taken the request is gone",
        )
        self._router.respond_soon(message.header, lost)


@functools.lru_cache(maxsize=4096)
def stream_of(key: ChannelKey) -> str:
    """Return the name of the stream that a channel carries."""
    return stream_name(uuid_to_base32(key.src), key.src_inc, key.lane)
