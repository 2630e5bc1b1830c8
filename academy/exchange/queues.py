"""The queues on the server: appending to a mailbox, taking from one, giving back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Literal

from academy.exception import (
    ExchangeError,
    FencedError,
    MailboxFullError,
    MailboxTerminatedError,
    PeerLostError,
    PeerUnreachableError,
)
from academy.exchange.bound import LARGEST_TAKE, BoundMailbox, Delivery
from academy.exchange.directory import check_reply
from academy.exchange.flight import OVERHEAD, QUEUE_LIMIT, Room
from academy.exchange.keys import entity_key
from academy.exchange.mailbox import (
    REQUEST,
    RESPONSE,
    Entry,
    make_entry,
    open_entry,
    open_head,
)
from academy.exchange.secret import NamespaceSecret
from academy.exchange.server import (
    Argument,
    Command,
    Server,
    ServerFullError,
    ServerUnavailableError,
)
from academy.identifier import EntityId
from academy.segment import Segment

logger = logging.getLogger(__name__)

QUEUE_CAPACITY = 10_000
"""Requests that may wait in one mailbox; beyond that, senders get an error."""
QUEUE_BYTES = 64 << 20
"""Bytes of requests that may wait in one mailbox; a larger one is let in alone."""
TAKE_BYTES = 4 << 20
"""Bytes in one take above which the next one asks for less."""
UNREACHABLE_TIMEOUT = 30.0
"""Seconds for which a message waits for a server that is away."""
TAKE_TIMEOUT = 30.0


class NotRegisteredError(ExchangeError):
    """The server does not know the sender's own mailbox: it has lost its data."""


class NoRoomError(MailboxFullError):
    """Its queue is full, but its owner lives, so that there may soon be room."""


class Queues:
    """Queue operations of one process.

    Args:
        server: Command connection.
        process: Identifier of this process.
        secrets: What entries are signed with: the first for new ones, any for those
            that are read.
        renew: Looks for new secrets, and tells whether there is one.
        encrypt: Whether to encrypt what new messages say. What others have encrypted
            is understood anyhow.
    """

    def __init__(
        self,
        server: Server,
        process: str,
        secrets: list[NamespaceSecret],
        renew: Callable[[], Awaitable[bool]],
        *,
        encrypt: bool = False,
    ) -> None:
        self._server = server
        self._process = process
        self._secrets = secrets
        self._renew = renew
        self._encrypt = encrypt
        self.dead_letters = 0
        """Entries that were refused undecoded."""

    @property
    def away(self) -> bool:
        """Whether the server does not answer at the moment."""
        return self._server.away

    async def append(
        self,
        source: BoundMailbox | None,
        dest: EntityId,
        entry: Entry,
        *,
        timeout: float = UNREACHABLE_TIMEOUT,
    ) -> None:
        """Append to the queue of a mailbox. Appending again changes nothing.

        Args:
            source: The sending mailbox; `None` for this process itself.
            dest: The mailbox.
            entry: What is appended.
            timeout: How long to wait for a server that is away, in seconds.

        Raises:
            ExchangeError: As `accepted` does.
        """
        await self.accepted(
            source, dest, self.post(source, dest, entry, timeout=timeout)
        )

    async def accepted(
        self,
        source: BoundMailbox | None,
        dest: EntityId,
        command: Command,
    ) -> int:
        """Wait until what `post` has put in line is in the queue of the mailbox.

        Returns:
            The incarnation that may have the message beside the queue; 0 if none.

        Raises:
            PeerLostError: It may have been executed by a process that is gone.
            BadEntityIdError: The destination is not registered.
            MailboxTerminatedError: It is closed for good, or the source is.
            MailboxFullError: Its queue is full, or the server is.
            NoRoomError: Its queue is full, but its owner lives.
            FencedError: The source has a newer owner.
            NotRegisteredError: The server has forgotten the source.
            PeerUnreachableError: The server was away for too long.
        """
        try:
            outcome = await command.future
        except ServerUnavailableError as e:
            executed: Literal["no", "maybe"] = "maybe" if e.attempted else "no"
            raise PeerUnreachableError(
                dest, executed, f"the Redis server is away ({e.detail})"
            ) from e
        except ServerFullError as e:
            detail = "the Redis server has no memory left, see its maxmemory"
            raise MailboxFullError(dest, "no", detail) from e
        if outcome[0] == b"sender":
            raise _sender_error(source, outcome)
        if outcome[0] == b"lost":
            detail = "the process that may have had it is gone"
            raise PeerLostError(dest, "maybe", detail)
        if outcome[0] == b"full":
            count, size = int(outcome[1]), int(outcome[2])
            detail = f"{count} requests with {size / 2**20:.1f} MiB wait in it"
            raise (NoRoomError if outcome[3] else MailboxFullError)(dest, "no", detail)
        check_reply(dest, outcome)
        return int(outcome[1])

    def post(
        self,
        source: BoundMailbox | None,
        dest: EntityId,
        entry: Entry,
        *,
        ahead: int = 0,
        timeout: float = UNREACHABLE_TIMEOUT,
    ) -> Command:
        """Put an append in line, behind all that was posted before.

        Args:
            source: The sending mailbox; `None` for this process itself.
            dest: The mailbox.
            entry: What is appended.
            ahead: Number of the message of the stream without which it must not be
                appended; 0 if there is none.
            timeout: How long to wait for a server that is away, in seconds.

        Returns:
            What `accepted` waits for.
        """
        key = entity_key(dest)
        sender: tuple[Argument, Argument] = ("", 0)
        if source is not None:
            sender = (source.key, source.inc)
        capacity = QUEUE_CAPACITY if entry.kind == REQUEST else 0
        stream, seq, *sealed = self._seal(entry, key)
        return self._server.submit(
            "send",
            key,
            *sender,
            stream,
            seq,
            capacity,
            self._process,
            *sealed,
            QUEUE_BYTES,
            ahead,
            timeout=timeout,
        )

    async def room(self, dest: EntityId) -> Room | None:
        """Return how much the queue of a mailbox takes.

        Returns:
            The room; `None` if it is not worth while to wait for some, since its owner
            does not live, or nobody can tell.
        """
        key = entity_key(dest)
        try:
            # As patient as `post`: what was put in line before is answered before.
            reply = await self._server.call("room", key, timeout=UNREACHABLE_TIMEOUT)
        except ExchangeError:
            return None
        live, waiting, size = map(int, reply)
        # The largest is let in alone.
        free = QUEUE_BYTES - size if size else QUEUE_LIMIT + OVERHEAD
        return Room(QUEUE_CAPACITY - waiting, free) if live else None

    async def take(self, box: BoundMailbox) -> list[Entry]:
        """Take what waits for a mailbox, at most `box.batch` messages.

        What the last take gave is removed from the queue: it has arrived.

        Raises:
            FencedError: A newer owner has the mailbox.
            MailboxTerminatedError: It is closed for good.
            NotRegisteredError: The server has forgotten it.
            ServerUnavailableError: The server is away; nothing is lost.
        """
        reply = await self._server.call(
            "take",
            box.key,
            box.inc,
            box.batch,
            box.after["r"],
            box.after["q"],
            timeout=TAKE_TIMEOUT,
        )
        if reply[0] != b"ok":
            raise _owner_error(box.uid, reply)
        now = int(reply[1])
        parts = list(zip(("r", "q"), reply[2:], strict=True))
        opened = [
            open_entry(fields, self._secrets, box.key)
            for _, raw in parts
            for _, fields in raw
        ]
        # Nothing is awaited once entries count as taken.
        again = None in opened and await self._renew()
        entries = []
        found = size = 0
        for part, raw in parts:
            for entry_id, fields in raw:
                entry = opened[found]
                found += 1
                size += sum(map(len, fields))
                box.after[part] = entry_id.decode()
                if entry is None and again:
                    entry = open_entry(fields, self._secrets, box.key)
                if entry is None:
                    self.refuse(box.uid)
                else:
                    since = int(entry_id.partition(b"-")[0])
                    entries.append(entry._replace(age=max(now - since, 0) / 1000))
        box.dirty = box.dirty or found > 0
        if size > TAKE_BYTES:
            box.batch = max(1, box.batch // 2)
        else:
            box.batch = min(LARGEST_TAKE, 2 * box.batch) if found >= box.batch else 1
        return entries

    def heads(
        self, uid: EntityId, waiting: Sequence[tuple[Sequence[bytes], bool]]
    ) -> Iterator[tuple[Segment, bool]]:
        """Yield the heads of what waited in a mailbox that was closed for good.

        Args:
            uid: Whose mailbox.
            waiting: Fields of the entries, each with something that is yielded, too.
        """
        for fields, note in waiting:
            head = open_head(fields, self._secrets, entity_key(uid))
            if head is None:
                self.refuse(uid)
            else:
                yield head, note

    def _seal(self, entry: Entry, key: str) -> list[Argument]:
        return entry.sealed(self._secrets[0], key, encrypt=self._encrypt)

    def refuse(self, uid: EntityId) -> None:
        """Count an entry that is damaged or not signed by a member."""
        self.dead_letters += 1
        if self.dead_letters.bit_count() == 1:
            # Powers of two: the log tells, and cannot be flooded.
            logger.warning(
                "%s: a queue entry was not from this namespace or damaged, and was "
                "dropped unread (%d so far in this process)",
                uid,
                self.dead_letters,
            )

    async def give_back(
        self, box: BoundMailbox, untaken: Sequence[Delivery], *, stall: float
    ) -> None:
        """Unbind a mailbox; what its consumer did not take goes back, first in line.

        Args:
            box: The mailbox.
            untaken: What its consumer did not take, in order.
            stall: Give up when the server has answered nobody for so many seconds.

        Raises:
            FencedError: A newer owner has the mailbox; nothing was given back.
            MailboxTerminatedError: It is closed for good.
            NotRegisteredError: The server has forgotten it.
            ServerUnavailableError: The server is away.
        """
        marks = box.received.given_back()
        arguments: list[Argument] = [box.key, box.inc, box.after["r"], box.after["q"]]
        arguments.append(len(marks))
        for stream, mark in marks:
            arguments += [stream, str(mark)]
        for delivery in untaken:
            if delivery.stream:
                arguments += self._seal(entry_of(delivery), box.key)
        reply = await self._server.call(
            "close", *arguments, timeout=TAKE_TIMEOUT, stall=stall
        )
        if reply[0] != b"ok":
            raise _owner_error(box.uid, reply)


def entry_of(delivery: Delivery) -> Entry:
    """Return the queue entry of a message that was not taken."""
    header = delivery.message.header
    kind = REQUEST if header.kind == "request" else RESPONSE
    return make_entry(
        delivery.stream,
        delivery.seq,
        kind,
        header.tag.bytes,
        delivery.segments,
        delivery.stamp,
    )


def _sender_error(source: BoundMailbox | None, reply: Sequence[Any]) -> ExchangeError:
    if source is None or reply[1] == b"missing":
        return NotRegisteredError("The server does not know the sender.")
    return _owner_error(source.uid, reply[1:])


def _owner_error(uid: EntityId, reply: Sequence[Any]) -> ExchangeError:
    if reply[0] == b"fenced":
        return FencedError(uid)
    if reply[0] == b"terminated":
        reason = reply[1].decode("utf-8", "replace") or None
        return MailboxTerminatedError(uid, reason, "no")
    return NotRegisteredError(f"The server does not know {uid}.")
