"""What Redis and hybrid transports share: one mailbox on the engine."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Self

from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.exchange import engines
from academy.exchange.bound import BoundMailbox
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.directory import info
from academy.exchange.engine import Engine
from academy.exchange.link_info import ProcessInfo
from academy.exchange.transport import (
    AGENT_CLASS,
    AgentInfo,
    ExchangeTransportMixin,
    MailboxStatus,
    agent_mro,
    class_name,
)
from academy.identifier import AgentId, EntityId
from academy.link.security import Security
from academy.message import Message
from academy.serialize import NoPickleMixin
from academy.stats import AgentStats


class RelayTransport(ExchangeTransportMixin, NoPickleMixin):
    """One mailbox, on the engine that it shares with the others of its process."""

    leased = True
    direct: bool
    """Whether to talk directly to other processes."""
    registration_type: ClassVar[Any]
    """Class of the registrations that this transport gives out."""

    def __init__(
        self, mailbox_id: EntityId, redis_info: RedisConnectionInfo, namespace: str
    ) -> None:
        self._mailbox_id = mailbox_id
        self._redis_info = redis_info
        self._namespace = namespace
        self._interface: str | None = None
        self.encrypt_relay = False
        """Whether to encrypt what goes into queues."""
        self._security = Security()
        self._port = 0
        self._engine: Engine | None = None
        self._box: BoundMailbox | None = None

    async def __aenter__(self) -> Self:
        if self._engine is None:
            await self.open()
        return self

    @property
    def mailbox_id(self) -> EntityId:
        """Whose mailbox this is."""
        return self._mailbox_id

    @property
    def engine(self) -> Engine:
        """The engine; for statistics.

        Raises:
            RuntimeError: The transport is closed, or was not opened.
        """
        if self._engine is None:
            raise RuntimeError(f"{self} is not open.")
        return self._engine

    async def open(self, *, register: bool = False) -> None:
        """Bind the mailbox; `new` and `async with` do it.

        Args:
            register: Whether the mailbox is a new one.

        Raises:
            redis.exceptions.ConnectionError: The server cannot be reached.
            BadEntityIdError: The mailbox is not registered.
            MailboxTerminatedError: It is closed for good.
            ValueError: There is no such interface, or the certificate or the secret is
                not as it is needed.
            OSError: Another process has the port, or the certificate cannot be read.
        """
        engine = await engines.acquire(
            self._redis_info,
            self._namespace,
            direct=self.direct,
            interface=self._interface,
            encrypt_relay=self.encrypt_relay,
            security=self._security,
        )
        try:
            if self._port:
                await engine.listen(self._port)
            self._box = await self._bind(engine, register=register)
        except BaseException:
            if register:
                engine.directory.withdraw(self._mailbox_id)
            await self._release(engine)
            raise
        self._engine = engine

    async def _bind(self, engine: Engine, *, register: bool) -> BoundMailbox:
        while True:
            if register:
                await engine.directory.register([(self._mailbox_id, ())])
            try:
                return await engine.bind(self._mailbox_id)
            except BadEntityIdError:
                # If it was registered just now, the server was emptied in between.
                if not register:
                    raise

    async def send(self, message: Message[Any]) -> None:
        """Accept a message for delivery; see `ExchangeTransport.send`.

        Raises:
            Exception: As `submit`.
        """
        work = self.submit(message)
        if work is not None:
            await work

    def submit(self, message: Message[Any]) -> Awaitable[None] | None:
        """Accept a message for delivery; what it returns must be awaited.

        Returns:
            What ends when it is accepted; `None` if that is the case.

        Raises:
            BadEntityIdError: The destination was never registered.
            MailboxTerminatedError: The destination is closed for good.
            FencedError: This mailbox has a newer owner.
            ForbiddenError: The message is in somebody else's name.
            MessageTooLargeError: The message exceeds 8 GiB; or 64 MiB, and the
                destination is not reached directly.
            MailboxFullError: The destination's queue is full, and it is offline.
            BackpressureTimeout: The destination did not keep up for 30 seconds.
            PeerUnreachableError: The server was away for 30 seconds.
        """
        engine, box = self._engine, self._box
        if engine is None or box is None:
            raise RuntimeError(f"{self} is not open.")
        return engine.router.submit(box, message)

    def submit_lent(self, message: Message[Any]) -> Awaitable[None] | None:
        """Accept a request as `submit` does, without copying what it carries.

        That must not change before the response is there, or `forget` is called.
        """
        engine, box = self._engine, self._box
        if engine is None or box is None:
            raise RuntimeError(f"{self} is not open.")
        return engine.router.submit(box, message, True)

    async def _recv(self, timeout: float | None = None) -> Message[Any]:
        return await self._bound().recv(timeout)

    async def register_agent(self, agent: type[Any], *, name: str | None = None) -> Any:
        """Register a new agent with a mailbox of its own."""
        (registration,) = await self.register_agents([(agent, name)])
        return registration

    async def register_agents(
        self, agents: Sequence[tuple[type[Any], str | None]]
    ) -> list[Any]:
        """Register several agents in one go, given as pairs of class and name."""
        entities: list[tuple[AgentId[Any], tuple[str, ...]]] = [
            (AgentId.new(name=name), agent_mro(agent)) for agent, name in agents
        ]
        await self.engine.directory.register(entities)
        return [self.registration_type(uid) for uid, _ in entities]

    async def discover(
        self, agent: type[Any] | str, *, allow_subclasses: bool = True
    ) -> tuple[AgentId[Any], ...]:
        """Return the agents of a class that are not terminated."""
        found = await self.engine.directory.discover(
            class_name(agent), allow_subclasses=allow_subclasses
        )
        return tuple(found)

    async def census(self) -> list[AgentInfo]:
        """Return all agents of the namespace that are not terminated."""
        found = await self.discover(AGENT_CLASS)
        records = await self.engine.directory.lookup(found)
        return [info(uid, r) for uid, r in zip(found, records, strict=True)]

    async def status(self, uid: EntityId) -> MailboxStatus:
        """Return the state of a mailbox."""
        (record,) = await self.engine.directory.lookup([uid])
        return record.status

    async def update_heartbeat(self) -> None:
        """Note that this mailbox is alive now; its process's lease says so anyway."""
        await self.engine.directory.beat(self._mailbox_id)

    async def heartbeat_status(self, uid: EntityId) -> float | None:
        """Return the seconds since a mailbox was last known alive, if it ever was."""
        (record,) = await self.engine.directory.lookup([uid])
        if record.state == "missing":
            raise BadEntityIdError(uid)
        if record.state == "terminated":
            raise MailboxTerminatedError(uid)
        return record.age

    async def agent_stats(self, uid: EntityId) -> AgentStats:
        """Return the message counts of an agent, as its process tells them.

        Of an agent that no live process runs, or whose process is too busy to answer
        within 5 seconds, only the queue is known.
        """
        (record,) = await self.engine.directory.lookup([uid])
        if record.state == "missing":
            raise BadEntityIdError(uid)
        stats = await self.engine.auditor.stats(uid) if record.live else None
        if stats is None:
            return AgentStats(queued=record.waiting)
        return stats

    async def links(self, uid: EntityId | None = None) -> ProcessInfo | None:
        """Return how a process talks to others, as it tells itself.

        Args:
            uid: A mailbox that the process has; `None` for this process.

        Returns:
            What it tells; `None` if no live process has the mailbox, or it is too busy
            to answer within 5 seconds.

        Raises:
            BadEntityIdError: The mailbox was never registered.
        """
        auditor = self.engine.auditor
        if uid is None:
            return auditor.inspect()
        (record,) = await self.engine.directory.lookup([uid])
        if record.state == "missing":
            raise BadEntityIdError(uid)
        return await auditor.process_of(uid) if record.live else None

    async def terminate(self, uid: EntityId) -> None:
        """Close a mailbox for good; waiting requests are answered. Idempotent."""
        await self.engine.terminate(uid)

    async def fail(self, uid: EntityId, reason: str) -> None:
        """Terminate a mailbox and tell those who wait for it why."""
        await self.engine.terminate(uid, reason)

    def forget(self, tag: uuid.UUID) -> None:
        """Note that nobody waits for the answer to a request any more."""
        if self._box is not None:
            self._box.ledger.forget(tag)

    def consume(
        self,
        take: Callable[[Message[Any]], None],
        on_end: Callable[[Exception], None],
    ) -> None:
        """Have messages handed over as they arrive; `recv` and `listen` end with that.

        Args:
            take: Called with each message, in order. It must not raise.
            on_end: Called when the mailbox was fenced or terminated.
        """
        self._bound().consume(take, on_end)

    def hold_requests(self) -> None:
        """Leave the requests that come from now on to the next owner."""
        if self._box is not None:
            self._box.hold_requests()

    async def close(self) -> None:
        """Stop receiving; unread messages stay in the mailbox. Idempotent.

        Returns within seconds also when the server is away.
        """
        engine, box = self._engine, self._box
        self._engine = self._box = None
        if engine is None:
            return
        try:
            if box is not None:
                box.ledger.end_loans()
                await engine.unbind(box)
        finally:
            await self._release(engine)

    async def _release(self, engine: Engine) -> None:
        if self._port:
            engine.unlisten(self._port)
        await engines.release(engine)

    def _bound(self) -> BoundMailbox:
        if self._box is None:
            raise RuntimeError(f"{self} is not open.")
        return self._box
