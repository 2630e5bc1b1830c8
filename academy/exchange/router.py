"""How messages of this process find their way."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
RECOVERY_PAUSE = 0.2
"""Seconds between two attempts meanwhile."""


def terminated(uid: EntityId, reason: str, executed: Executed) -> AcademyErrorResponse:
    """Return the answer for those who wait for a mailbox that is closed for good."""
    return AcademyErrorResponse(
        error_code=ErrorCode.MAILBOX_TERMINATED,
        mailbox_id=uid,
        executed=executed,
        detail=reason,
    )


@dataclass(slots=True)
class _Outgoing:
    """A message on its way.

    Attributes:
        box: The mailbox that sends it.
        stream: The stream that it belongs to.
        gate: Lock of the stream.
        message: The message.
        segments: The message, serialized.
        seq: Its number in the stream.
        before: The last number of the stream that went into the queue before it.
    """

    box: BoundMailbox
    stream: SendStream
    gate: asyncio.Lock
    message: Message[Any]
    segments: list[Segment]
    seq: int = 0
    before: int = 0


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
        outgoing = _Outgoing(box, stream, gate, message, segments)
        if gate.locked() or (target is not None and not target.has(stream)):
            async with gate:
                posted = await self._in_order(outgoing)
        else:
            posted = self._pass_on(outgoing, target)
        if posted is not None:
            await self._accepted(outgoing, posted)

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
        # Put in line now, so that what its sender sends next stays behind it. If the
        # sender is gone, this process sends it in its own name.
        source = self._boxes.get(delivery.message.src)
        reply = self._queues.post(source, dest, entry_of(delivery))
        self._tasks.spawn(
            self._resent(source, dest, delivery, reply), name=f"resend-{delivery.seq}"
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

    async def _in_order(self, outgoing: _Outgoing) -> asyncio.Future[Any] | None:
        """Send behind earlier messages of the stream that are still in the queue."""
        target = self._boxes.get(outgoing.message.dest)
        stream = outgoing.stream
        if target is not None and not await target.caught_up(stream, BARRIER_TIMEOUT):
            target = None
        outgoing.box.check_open()
        return self._pass_on(outgoing, target)

    def _pass_on(
        self, outgoing: _Outgoing, target: BoundMailbox | None
    ) -> asyncio.Future[Any] | None:
        """Number a message and send it: to a mailbox here, or else into the queue.

        Returns:
            The reply of the queue, if that is where it went.
        """
        outgoing.seq = outgoing.stream.next()
        header = outgoing.message.header
        outgoing.box.ledger.sending(header, since=_now(), seq=outgoing.seq)
        if target is None:
            return self._post(outgoing)
        # Handed over serialized, so isolated.
        copies = detach(outgoing.segments)
        name, seq = outgoing.stream.name, outgoing.seq
        target.received.offer(name, seq)
        target.accept(Delivery(decode(copies), name, seq, copies, local=True))
        return None

    def _post(self, outgoing: _Outgoing) -> asyncio.Future[Any]:
        message, stream = outgoing.message, outgoing.stream
        kind = REQUEST if message.is_request() else RESPONSE
        entry = make_entry(
            stream.name, outgoing.seq, kind, message.tag.bytes, outgoing.segments
        )
        # Counted before it is sent: it may get there although no answer comes.
        outgoing.before, stream.relayed = stream.relayed, outgoing.seq
        return self._queues.post(outgoing.box, message.dest, entry)

    async def _accepted(self, outgoing: _Outgoing, posted: asyncio.Future[Any]) -> None:
        """Wait until a message is in the queue; raises as `send` does."""
        box, stream, message = outgoing.box, outgoing.stream, outgoing.message
        try:
            try:
                await self._queues.accepted(box, message.dest, posted)
            except (NotRegisteredError, BadEntityIdError) as e:
                if not stream.known and isinstance(e, BadEntityIdError):
                    raise
                await self._recover(outgoing, e)
            stream.known = True
        except ExchangeError as e:
            box.ledger.forget(message.tag)
            arrived = isinstance(e, PeerUnreachableError) and e.executed == "maybe"
            if stream.relayed == outgoing.seq and not arrived:
                stream.relayed = outgoing.before
            raise

    async def _recover(self, outgoing: _Outgoing, error: ExchangeError) -> None:
        """Send again when the owners have restored what the server has lost.

        Later messages of the stream wait meanwhile. It gets a new number: one of them
        may have been numbered and accepted already.
        """
        box, dest = outgoing.box, outgoing.message.dest
        give_up = _now() + RECOVERY_TIMEOUT
        async with outgoing.gate:
            while _now() < give_up:
                self._restore()
                await asyncio.sleep(RECOVERY_PAUSE)
                outgoing.seq = outgoing.stream.next()
                awaited = box.ledger.awaited.get(outgoing.message.tag)
                if awaited is not None:
                    awaited.seq = outgoing.seq
                try:
                    await self._queues.accepted(box, dest, self._post(outgoing))
                    return
                except (NotRegisteredError, BadEntityIdError) as e:
                    error = e
        raise error

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

    async def _resent(
        self,
        source: BoundMailbox | None,
        dest: EntityId,
        delivery: Delivery,
        reply: asyncio.Future[Any],
    ) -> None:
        try:
            await self._queues.accepted(source, dest, reply)
        except MailboxTerminatedError as e:
            if delivery.message.is_request():
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
