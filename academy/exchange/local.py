"""The exchange within one process, for tests and for agents in threads.

It has the semantics of the others (messages are serialized, the newest binding of a
mailbox owns it, what waits is answered when a mailbox is terminated) without a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

from academy.exception import (
    BadEntityIdError,
    ExchangeError,
    ForbiddenError,
    MailboxTerminatedError,
)
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.factory import ExchangeFactory
from academy.exchange.inbox import Inbox
from academy.exchange.ledger import Ledger
from academy.exchange.link_info import ProcessInfo
from academy.exchange.local_state import LocalExchangeState, Posted
from academy.exchange.transport import (
    ExchangeTransportMixin,
    MailboxStatus,
    agent_mro,
    class_name,
)
from academy.identifier import AgentId, AgentT, EntityId, UserId
from academy.message import (
    AcademyErrorResponse,
    ErrorCode,
    Header,
    Message,
    decode,
    encode,
)
from academy.segment import detach
from academy.serialize import NoPickleMixin
from academy.stats import AgentStats
from academy.value import Value

TERMINATION_GRACE = 1.0
"""Seconds that a terminated agent has to answer what it had taken already."""


@dataclass
class LocalAgentRegistration(Value, Generic[AgentT]):
    """Registration of an agent with a local exchange.

    Attributes:
        agent_id: Identifier of the agent.
        exchange_type: Always `'local'`.
    """

    agent_id: AgentId[AgentT]
    exchange_type: Literal["local"] = field(default="local", repr=False)


class LocalExchangeTransport(ExchangeTransportMixin, NoPickleMixin):
    """Transport of one mailbox of a local exchange.

    Args:
        mailbox_id: The mailbox, which must be registered.
        state: The exchange.

    Raises:
        BadEntityIdError: The mailbox is not registered.
        MailboxTerminatedError: It is closed for good.
    """

    leased = True

    def __init__(self, mailbox_id: EntityId, state: LocalExchangeState) -> None:
        self._mailbox_id = mailbox_id
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.inbox: Inbox[Posted] = Inbox()
        self._fail(state.bind(self), "another client took its mailbox over")

    @classmethod
    def new(
        cls,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        state: LocalExchangeState,
    ) -> LocalExchangeTransport:
        """Return a transport bound to a mailbox, or to that of a new user."""
        if mailbox_id is None:
            mailbox_id = UserId.new(name=name)
            state.add(mailbox_id)
        return cls(mailbox_id, state)

    @property
    def mailbox_id(self) -> EntityId:
        """Whose mailbox this is."""
        return self._mailbox_id

    @property
    def _ledger(self) -> Ledger:
        return self._state.mailboxes[self._mailbox_id].ledger

    def factory(self) -> LocalExchangeFactory:
        """Return a factory that makes clients of the same exchange."""
        return LocalExchangeFactory(_state=self._state)

    async def send(self, message: Message[Any]) -> None:
        """Put a message into the mailbox it is for."""
        if message.src != self._mailbox_id:
            raise ForbiddenError(
                f"{self} sends in the name of {self._mailbox_id}, not of {message.src}."
            )
        posted = time.monotonic(), detach(encode(message))
        with self._state.lock:
            self._state.get(message.dest)
            self._ledger.sending(message.header)
            self._state.note_sender(self._mailbox_id, message.dest)
            self._state.put(message.dest, posted)

    async def _recv(self, timeout: float | None = None) -> Message[Any]:
        while True:
            since, segments = await self.inbox.get(timeout)
            message = decode(segments)
            message.age(time.monotonic() - since)
            if self._ledger.took(message.header):
                return message

    async def register_agent(
        self, agent: type[Any], *, name: str | None = None
    ) -> LocalAgentRegistration[Any]:
        """Register a new agent with a mailbox of its own."""
        agent_id: AgentId[Any] = AgentId.new(name=name)
        self._state.add(agent_id, agent_mro(agent))
        return LocalAgentRegistration(agent_id)

    async def discover(
        self, agent: type[Any] | str, *, allow_subclasses: bool = True
    ) -> tuple[AgentId[Any], ...]:
        """Return the agents of a class that are not terminated."""
        wanted = class_name(agent)
        with self._state.lock:
            return tuple(
                m.uid
                for m in self._state.mailboxes.values()
                if isinstance(m.uid, AgentId)
                and m.terminated is None
                and wanted in (m.mro if allow_subclasses else m.mro[:1])
            )

    async def status(self, uid: EntityId) -> MailboxStatus:
        """Return the state of a mailbox."""
        mailbox = self._state.mailboxes.get(uid)
        if mailbox is None:
            return MailboxStatus.MISSING
        if mailbox.terminated is not None:
            return MailboxStatus.TERMINATED
        live = mailbox.owner is not None
        return MailboxStatus.ACTIVE if live else MailboxStatus.INACTIVE

    async def update_heartbeat(self) -> None:
        """Note that this mailbox is alive now."""
        self._state.get(self._mailbox_id).last_alive = time.monotonic()

    async def heartbeat_status(self, uid: EntityId) -> float | None:
        """Return the seconds since a mailbox was last known alive, if it ever was."""
        mailbox = self._state.get(uid)
        if mailbox.owner is not None:
            return 0.0
        if mailbox.last_alive is None:
            return None
        return time.monotonic() - mailbox.last_alive

    async def agent_stats(self, uid: EntityId) -> AgentStats:
        """Return the message counts of an agent."""
        mailbox = self._state.mailboxes.get(uid)
        if mailbox is None:
            raise BadEntityIdError(uid)
        arrived = 0 if mailbox.owner is None else len(mailbox.owner.inbox)
        return mailbox.ledger.stats(len(mailbox.waiting) + arrived)

    async def links(self, uid: EntityId | None = None) -> ProcessInfo | None:
        """Return this process, which has no links; `None` where nobody runs."""
        if uid is not None and uid not in self._state.mailboxes:
            raise BadEntityIdError(uid)
        running = uid is None or await self.status(uid) is MailboxStatus.ACTIVE
        return ProcessInfo.here("") if running else None

    async def terminate(self, uid: EntityId) -> None:
        """Close a mailbox for good; waiting requests are answered. Idempotent."""
        self._terminate(uid, None)

    async def fail(self, uid: EntityId, reason: str) -> None:
        """Terminate a mailbox and tell those who wait for it why."""
        self._terminate(uid, reason)

    def forget(self, tag: uuid.UUID) -> None:
        """Note that nobody waits for the answer to a request any more."""
        self._ledger.forget(tag)

    async def close(self) -> None:
        """Stop receiving; unread messages stay in the mailbox. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._fail(self._state.unbind(self), "it stopped before it answered")
        self.inbox.end(ExchangeError(f"{self} is closed."))

    def _fail(self, unanswered: list[Header], detail: str) -> None:
        lost = AcademyErrorResponse(
            error_code=ErrorCode.PEER_LOST, mailbox_id=self._mailbox_id, detail=detail
        )
        for header in unanswered:
            self._respond(header, lost)

    def _terminate(self, uid: EntityId, reason: str | None) -> None:
        for header in self._state.terminate(uid, reason):
            self._respond(header, _terminated(uid, reason, executed="no"))
        # What the agent had taken it may still answer; after that nobody will.
        for transport in self._state.senders(uid):
            transport.expire(uid, reason)

    def expire(self, uid: EntityId, reason: str | None) -> None:
        """Answer, after the grace, what this mailbox still awaits from a dead one."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(
                self._loop.call_later,
                TERMINATION_GRACE,
                functools.partial(self._expire, uid, reason),
            )

    def _expire(self, uid: EntityId, reason: str | None) -> None:
        for awaited in self._ledger.awaiting(uid):
            self._respond(awaited.header, _terminated(uid, reason, executed="maybe"))

    def _respond(self, header: Header, body: AcademyErrorResponse) -> None:
        """Answer a request in the name of the mailbox it was for."""
        response: Message[AcademyErrorResponse] = Message(
            header=header.create_response_header(), body=body
        )
        with contextlib.suppress(BadEntityIdError, MailboxTerminatedError):
            self._state.put(header.src, (time.monotonic(), encode(response)))


def _terminated(
    uid: EntityId, reason: str | None, executed: Literal["no", "maybe"]
) -> AcademyErrorResponse:
    return AcademyErrorResponse(
        error_code=ErrorCode.MAILBOX_TERMINATED,
        mailbox_id=uid,
        executed=executed,
        detail=reason or "",
    )


class LocalExchangeFactory(ExchangeFactory[LocalExchangeTransport], NoPickleMixin):
    """Makes clients of an exchange within this process.

    Clients of one factory reach each other, also across threads. The factory cannot be
    pickled: for other processes, use a Redis or hybrid exchange.
    """

    def __init__(
        self,
        *,
        _state: LocalExchangeState | None = None,
        config: ExchangeClientConfig | None = None,
    ) -> None:
        super().__init__(config)
        self._state = _state or LocalExchangeState()

    async def _create_transport(
        self,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        registration: LocalAgentRegistration[Any] | None = None,
    ) -> LocalExchangeTransport:
        return LocalExchangeTransport.new(mailbox_id, name=name, state=self._state)
