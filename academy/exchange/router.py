"""How messages of this process find their way."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from academy.exception import (
    BadEntityIdError,
    ExchangeError,
    Executed,
    ForbiddenError,
    MailboxTerminatedError,
    MessageTooLargeError,
    PeerUnreachableError,
)
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.mailbox import REQUEST, RESPONSE, make_entry
from academy.exchange.queues import NotRegisteredError, Queues, entry_of
from academy.exchange.stream import REPLIES, REQUESTS, SendStream
from academy.identifier import EntityId
from academy.message import (
    AcademyErrorResponse,
    CancelRequest,
    ErrorCode,
    Header,
    Message,
    decode,
    encode,
)
from academy.serialize import Segment, detach
from academy.task import Tasks

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 64 << 20
"""Bytes of the largest message, serialized."""
BARRIER_TIMEOUT = 0.5
"""Seconds that a message waits for those before it to leave the queue, before it is
queued behind them."""
RECOVERY_TIMEOUT = 5.0
"""Seconds that a sender waits for a destination that a server has forgotten."""


def terminated(uid: EntityId, reason: str, executed: Executed) -> AcademyErrorResponse:
    """Return the answer for those who wait for a mailbox that is closed for good."""
    return AcademyErrorResponse(
        error_code=ErrorCode.MAILBOX_TERMINATED,
        mailbox_id=uid,
        executed=executed,
        detail=reason,
    )


class Router:
    """Sends messages: within the process, or through the queue on the server.

    Args:
        process: Identifier of this process.
        queues: The queues on the server.
        boxes: The mailboxes bound in this process.
        restore: Called when the server has forgotten a mailbox of this process.
    """

    def __init__(
        self,
        process: str,
        queues: Queues,
        boxes: Mapping[EntityId, BoundMailbox],
        restore: Callable[[], None],
    ) -> None:
        self._queues = queues
        self._boxes = boxes
        self._restore = restore
        self._own_stream = SendStream(f"p{process}", 0, REPLIES)
        self._senders: dict[uuid.UUID, set[BoundMailbox]] = {}
        self._tasks = Tasks("exchange-responses")

    async def send(self, box: BoundMailbox, message: Message[Any]) -> None:
        """Accept a message of a bound mailbox.

        Raises:
            ForbiddenError: The message is in somebody else's name.
            MessageTooLargeError: It exceeds 64 MiB.
            FencedError: The mailbox has a newer owner.
            MailboxTerminatedError: The destination, or the sender, is closed for good.
            BadEntityIdError: The destination is not registered.
            MailboxFullError: The queue of the destination is full.
            PeerUnreachableError: The server was away for too long.
        """
        self._check_sender(box, message)
        segments = encode(message)
        size = sum(len(memoryview(s).cast("B")) for s in segments)
        if size > MESSAGE_LIMIT:
            raise MessageTooLargeError(size, MESSAGE_LIMIT)
        request = message.is_request() and not isinstance(message.body, CancelRequest)
        lane = REQUESTS if request else REPLIES
        gate = box.gate(message.dest, lane)
        stream = box.stream(message.dest, lane)
        self._senders.setdefault(message.dest.uid, set()).add(box)
        target = self._boxes.get(message.dest)
        if gate.locked() or (target is not None and not target.has(stream)):
            async with gate:
                await self._in_order(box, stream, message, segments)
        elif target is not None:
            self._deliver(box, target, stream, message, segments)
        else:
            await self._enqueue(box, stream, message, segments)

    def forget_dest(self, dest: uuid.UUID) -> None:
        """Drop what is kept about a mailbox that is closed for good."""
        for box in self._senders.pop(dest, ()):
            box.forget_streams(dest)

    def forget_source(self, box: BoundMailbox) -> None:
        """Drop what is kept about a mailbox that is no longer bound here."""
        for dest in box.destinations():
            senders = self._senders.get(dest, set())
            senders.discard(box)
            if not senders:
                self._senders.pop(dest, None)

    def respond_soon(self, header: Header, body: AcademyErrorResponse) -> None:
        """Answer a request in the name of the mailbox it was for, in the background."""
        message: Message[Any] = Message(
            header=header.create_response_header(), body=body
        )
        self._tasks.spawn(self._respond(message), name=f"respond-{header.tag}")

    def resend_soon(self, dest: EntityId, delivery: Delivery) -> None:
        """Queue a message that a mailbox of this process can no longer take."""
        source = self._boxes.get(delivery.message.src)
        if source is not None:
            self._tasks.spawn(
                self._resend(source, dest, delivery), name=f"resend-{delivery.seq}"
            )

    async def control(self, dest: EntityId, kind: str, payload: bytes) -> None:
        """Send a control message of this process itself; raises as `Queues.append`."""
        stream = self._own_stream
        tag = uuid.uuid4().bytes
        entry = make_entry(stream.name, stream.next(), kind, tag, [payload])
        await self._queues.append(None, dest, entry, timeout=5.0)

    def control_soon(self, dest: EntityId, kind: str, payload: bytes) -> None:
        """Send a control message in the background."""
        self._tasks.spawn(self._control(dest, kind, payload), name=f"control-{kind}")

    async def flush(self, timeout: float) -> None:
        """Wait until the background work so far is done, at most so many seconds."""
        await self._tasks.join(timeout)

    async def close(self) -> None:
        """Stop the background work."""
        await self._tasks.cancel()

    def _check_sender(self, box: BoundMailbox, message: Message[Any]) -> None:
        if message.src != box.uid:
            raise ForbiddenError(
                f"The transport of {box.uid} cannot send in the name of {message.src}."
            )
        box.check_open()

    async def _in_order(
        self,
        box: BoundMailbox,
        stream: SendStream,
        message: Message[Any],
        segments: list[Segment],
    ) -> None:
        """Send behind earlier messages of the stream that are still in the queue."""
        target = self._boxes.get(message.dest)
        if target is not None and await target.caught_up(stream, BARRIER_TIMEOUT):
            self._deliver(box, target, stream, message, segments)
        else:
            await self._enqueue(box, stream, message, segments)

    def _deliver(
        self,
        box: BoundMailbox,
        target: BoundMailbox,
        stream: SendStream,
        message: Message[Any],
        segments: list[Segment],
    ) -> None:
        """Hand a message to a mailbox of this process: serialized, so isolated."""
        seq = stream.next()
        box.ledger.sending(message.header, since=_now(), seq=seq)
        copies = detach(segments)
        received = decode(copies)
        target.received.offer(stream.name, seq)
        target.accept(Delivery(received, stream.name, seq, copies, local=True))

    async def _enqueue(
        self,
        box: BoundMailbox,
        stream: SendStream,
        message: Message[Any],
        segments: list[Segment],
    ) -> None:
        seq = stream.next()
        kind = REQUEST if message.is_request() else RESPONSE
        entry = make_entry(stream.name, seq, kind, message.tag.bytes, segments)
        box.ledger.sending(message.header, since=_now(), seq=seq)
        # Counted before it is sent: it may get there although no answer comes.
        before, stream.relayed = stream.relayed, seq
        give_up = _now() + RECOVERY_TIMEOUT
        try:
            while True:
                try:
                    await self._queues.append(box, message.dest, entry)
                    stream.known = True
                    return
                except (NotRegisteredError, BadEntityIdError) as e:
                    known = stream.known or isinstance(e, NotRegisteredError)
                    if not known or _now() > give_up:
                        raise
                    # The server was emptied; the owners are about to come back.
                    self._restore()
                    await asyncio.sleep(0.2)
        except ExchangeError as e:
            box.ledger.forget(message.tag)
            arrived = isinstance(e, PeerUnreachableError) and e.executed == "maybe"
            if stream.relayed == seq and not arrived:
                stream.relayed = before
            raise

    async def _respond(self, message: Message[Any]) -> None:
        target = self._boxes.get(message.dest)
        if target is not None:
            target.accept(Delivery(message))
            return
        stream = self._own_stream
        entry = make_entry(
            stream.name, stream.next(), RESPONSE, message.tag.bytes, encode(message)
        )
        try:
            await self._queues.append(None, message.dest, entry)
        except ExchangeError as e:
            logger.debug("%s could not be answered: %s", message.dest, e)

    async def _resend(
        self, source: BoundMailbox, dest: EntityId, delivery: Delivery
    ) -> None:
        try:
            await self._queues.append(source, dest, entry_of(delivery))
        except MailboxTerminatedError as e:
            body = terminated(e.uid, e.reason or "", "no")
            self.respond_soon(delivery.message.header, body)
        except ExchangeError as e:
            logger.warning("A message to %s could not be queued: %s", dest, e)

    async def _control(self, dest: EntityId, kind: str, payload: bytes) -> None:
        try:
            await self.control(dest, kind, payload)
        except ExchangeError as e:
            logger.debug("%s could not be told: %s", dest, e)


def _now() -> float:
    return asyncio.get_running_loop().time()
