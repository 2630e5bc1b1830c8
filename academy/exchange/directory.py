"""The directory on the server: who exists, who owns which mailbox, and who is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import platform
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from academy import __version__
from academy.exception import BadEntityIdError, ExchangeError, MailboxTerminatedError
from academy.exchange.keys import base32_to_uuid, entity_key, uuid_to_base32
from academy.exchange.lease import LEASE
from academy.exchange.server import Argument, Server
from academy.exchange.stream import Mark, parse_marks
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.exchange.verdict import Books
from academy.identifier import AgentId, EntityId
from academy.link.address import Addresses

logger = logging.getLogger(__name__)

DIRECTORY_TIMEOUT = 30.0
"""Seconds for which directory operations wait for a server that is away."""

AUDIT_TIMEOUT = 3.0
"""Seconds for which an audit waits: it is repeated anyway."""

OWNER_TIMEOUT = 5.0
"""Seconds for which the owner of a mailbox is asked for."""

_BATCH = 500


class Record(NamedTuple):
    """What the directory knows about a mailbox.

    Attributes:
        state: `'open'`, `'terminated'`, or `'missing'`.
        live: Whether a live process has it bound.
        age: Seconds since it was last known alive, if it ever was.
        name: Name of the entity.
        mro: Class names of the agent, nearest first.
        waiting: Messages in its queue.
        host: Host of the owner.
        pid: Process of the owner.
    """

    state: str
    live: bool
    age: float | None
    name: str | None
    mro: tuple[str, ...]
    waiting: int
    host: str | None
    pid: int | None

    @property
    def status(self) -> MailboxStatus:
        """State of the mailbox, for users."""
        if self.state == "terminated":
            return MailboxStatus.TERMINATED
        if self.state == "missing":
            return MailboxStatus.MISSING
        return MailboxStatus.ACTIVE if self.live else MailboxStatus.INACTIVE


class Binding(NamedTuple):
    """What a process gets with a mailbox.

    Attributes:
        inc: The new incarnation.
        marks: How far the streams to the mailbox were taken.
        mro: Class names of the agent, nearest first.
        clean: The incarnations before it of which it is known what they took, for
            they closed cleanly, one after the other.
        waiting: Whether there are messages in its queue.
    """

    inc: int
    marks: dict[str, Mark]
    mro: tuple[str, ...]
    clean: range
    waiting: bool


class Location(NamedTuple):
    """Where a mailbox is.

    Attributes:
        inc: Its incarnation.
        addresses: Where its process can be reached.
    """

    inc: int
    addresses: Addresses


class Owner(NamedTuple):
    """Who has a mailbox.

    Attributes:
        inc: Incarnation of the mailbox.
        process: Identifier of the process, 16 bytes.
    """

    inc: int
    process: bytes


class Directory:
    """Directory operations of one namespace.

    All of them wait for a server that is away, up to 30 seconds, and then raise
    `ServerUnavailableError`.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    async def register(
        self, entities: Iterable[tuple[EntityId, Sequence[str]]]
    ) -> None:
        """Register new mailboxes, given with the class names of agents.

        When that is cancelled, they are closed again, for nobody knows them.
        """
        described = [identity(uid, mro) for uid, mro in entities]
        arguments = list(itertools.chain.from_iterable(described))
        size = 4 * _BATCH
        batches = [arguments[i : i + size] for i in range(0, len(arguments), size)]
        try:
            await asyncio.gather(*(self._call("register", *batch) for batch in batches))
        except asyncio.CancelledError:
            for key, *_ in described:
                self._withdraw(key)
            raise

    def withdraw(self, uid: EntityId) -> None:
        """Close a mailbox that nobody knows, without waiting for that."""
        self._withdraw(entity_key(uid))

    def _withdraw(self, key: str) -> None:
        closing = self._server.submit("terminate", key, "", timeout=DIRECTORY_TIMEOUT)
        closing.future.add_done_callback(lambda f: f.cancelled() or f.exception())

    async def bind(self, uid: EntityId, process: str) -> Binding:
        """Make a process the owner of a mailbox; a former owner is told.

        Raises:
            BadEntityIdError: The mailbox is not registered.
            MailboxTerminatedError: It is closed for good.
        """
        reply = await self._call("bind", entity_key(uid), process)
        check_reply(uid, reply)
        since, closed = int(reply[4]), int(reply[5])
        clean = range(since, closed + 1) if closed else range(0)
        marks, mro = parse_marks(reply[2]), _classes(reply[3])
        return Binding(int(reply[1]), marks, mro, clean, int(reply[6]) > 0)

    async def reassert(
        self,
        uid: EntityId,
        mro: Sequence[str],
        process: str,
        inc: int,
        marks: Iterable[tuple[str, Mark]],
    ) -> str:
        """Restore what the server may have lost about a mailbox of this process.

        Returns:
            `'ok'`, `'terminated'`, `'fenced'` or `'closed'`.
        """
        key, role, name, classes = identity(uid, mro)
        pairs: list[Argument] = []
        for stream, mark in marks:
            pairs += [stream, str(mark)]
        reply = await self._call(
            "reassert", key, process, inc, role, name, classes, *pairs
        )
        outcome: str = reply[0].decode()
        return outcome

    async def terminate(
        self, uid: EntityId, reason: str, *, stall: float | None = None
    ) -> list[tuple[list[bytes], bool]]:
        """Close a mailbox for good.

        Args:
            uid: Whose mailbox.
            reason: Text for those who wait for it.
            stall: Give up when the server has answered nobody for so many seconds.

        Returns:
            What waited in it, as fields of entries without their rest, each with
            whether it may have been executed.
        """
        reply = await self._server.call(
            "terminate",
            entity_key(uid),
            reason[:500],
            timeout=DIRECTORY_TIMEOUT,
            stall=stall,
        )
        if reply[0] != b"ok":
            return []
        return [(fields, executed == b"maybe") for fields, executed in reply[1]]

    async def lookup(self, uids: Sequence[EntityId]) -> list[Record]:
        """Return what is known about mailboxes, in the same order."""
        return [_record(r) for r in await self._read("resolve", map(entity_key, uids))]

    async def discover(
        self, class_name: str, *, allow_subclasses: bool
    ) -> list[AgentId[Any]]:
        """Return the agents of a class that are not terminated.

        What it costs is in proportion to these, however many others there are.
        """
        members = await self._call("members", class_name, int(not allow_subclasses))
        keys = [m.decode() for m in members if m.isascii()]
        found: list[AgentId[Any]] = []
        for key, name in zip(keys, await self._read("names", keys), strict=True):
            if name is not None:
                with contextlib.suppress(ValueError):
                    uid = base32_to_uuid(key)
                    found.append(AgentId(uid=uid, name=name.decode() or None))
        return found

    async def audit(self, uid: EntityId, stream: str) -> Books:
        """Return what is known about a destination and one stream to it."""
        reply = await self._server.call(
            "audit",
            entity_key(uid),
            stream,
            timeout=AUDIT_TIMEOUT,
            stall=AUDIT_TIMEOUT,
        )
        if reply[0] == b"terminated":
            return Books("terminated", 0, False, 0, 0, Mark())
        appended, seq, inc, base = reply[6]
        mark = Mark(int(seq), int(inc), int(base))
        return Books(
            state=reply[0].decode(),
            inc=int(reply[1]),
            live=bool(reply[2]),
            waiting=int(reply[3]),
            appended=int(appended),
            taken=mark,
            since=int(reply[4]),
            closed=int(reply[5]),
        )

    async def locate(self, uid: EntityId, process: str) -> Location | None:
        """Return where a mailbox is bound, if a live process has it.

        From now on, the process that asks is told when it moves.
        """
        inc, lease, _ = await self._call("locate", entity_key(uid), process)
        addresses = _process(lease).get("addresses")
        if addresses is None:
            return None
        try:
            return Location(int(inc), Addresses.from_dict(addresses))
        except ValueError as e:
            logger.warning("%s has published damaged addresses: %s", uid, e)
            return None

    async def owner(self, uid: uuid.UUID, process: str) -> Owner | None:
        """Return which live process has a mailbox bound; `None` if no one has.

        Gives up after a moment: whoever wants to know goes on without. From now on,
        the process that asks is told when the mailbox moves.
        """
        key = uuid_to_base32(uid)
        inc, lease, owner = await self._server.call(
            "locate", key, process, timeout=OWNER_TIMEOUT
        )
        if not (lease and owner):
            return None
        return Owner(int(inc), bytes.fromhex(owner.decode()))

    @property
    def away(self) -> bool:
        """Whether the server does not answer at the moment."""
        return self._server.away

    async def bury(self, process: str) -> None:
        """End the lease of a process that was seen to be gone."""
        await self._call("leave", process)

    async def challenge(self, process: str, seconds: float) -> None:
        """Shorten the lease of a process: if it lives, it renews it in that time."""
        await self._call("challenge", process, int(seconds * 1000))

    async def beat(self, uid: EntityId) -> None:
        """Note that a mailbox is alive now."""
        await self._call("beat", entity_key(uid))

    async def _read(self, name: str, keys: Iterable[str]) -> list[Any]:
        """Ask about many mailboxes: in scripts that are short, sent together."""
        rest = list(keys)
        batches = [rest[i : i + _BATCH] for i in range(0, len(rest), _BATCH)]
        replies = await asyncio.gather(*(self._call(name, *b) for b in batches))
        return [answer for reply in replies for answer in reply]

    async def _call(self, name: str, *arguments: Argument) -> Any:
        return await self._server.call(name, *arguments, timeout=DIRECTORY_TIMEOUT)


def identity(uid: EntityId, mro: Sequence[str]) -> tuple[str, str, str, str]:
    """Return how the directory describes an entity: key, role, name, classes."""
    return entity_key(uid), uid.role, uid.name or "", "\n".join(mro)


def info(uid: AgentId[Any], record: Record) -> AgentInfo:
    """Return what people want to see of an agent."""
    return AgentInfo(
        agent_id=AgentId(uid=uid.uid, name=uid.name or record.name),
        agent_class=record.mro[0] if record.mro else "",
        status=record.status,
        host=record.host,
        pid=record.pid,
        queued=record.waiting,
    )


def check_reply(uid: EntityId, reply: Sequence[Any]) -> None:
    """Raise what a script refused a mailbox operation for.

    Raises:
        BadEntityIdError: The mailbox is not registered.
        MailboxTerminatedError: It is closed for good.
    """
    outcome = reply[0]
    if outcome == b"missing":
        raise BadEntityIdError(uid)
    if outcome == b"terminated":
        reason = reply[1].decode("utf-8", "replace") or None
        raise MailboxTerminatedError(uid, reason, "no")
    if outcome != b"ok":
        raise ExchangeError(f"The directory refused {uid}: {outcome!r}.")


def process_value(addresses: Addresses | None = None) -> bytes:
    """Return what this process tells about itself in its lease."""
    value: dict[str, Any] = {
        "host": platform.node(),
        "pid": os.getpid(),
        "version": __version__,
    }
    if addresses is not None:
        value["addresses"] = addresses.to_dict()
    return json.dumps(value).encode()


def new_process_id() -> str:
    """Return 128 random bits that name this process, as hexadecimal text."""
    return uuid.uuid4().hex


def _record(fields: Sequence[Any]) -> Record:
    state, _, _, lease_left, beat_age, _, name, mro, waiting, lease = fields
    live = int(lease_left) > 0
    ages = [LEASE - int(lease_left) / 1000] if live else []
    if int(beat_age) >= 0:
        ages.append(int(beat_age) / 1e6)
    process = _process(lease)
    return Record(
        state=state.decode(),
        live=live,
        age=max(0.0, min(ages)) if ages else None,
        name=name.decode("utf-8", "replace") or None,
        mro=_classes(mro),
        waiting=int(waiting),
        host=process.get("host"),
        pid=process.get("pid"),
    )


def _process(lease: bytes) -> dict[str, Any]:
    try:
        value = json.loads(lease or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _classes(text: bytes) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "replace").split("\n")) if text else ()
