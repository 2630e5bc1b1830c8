"""An exchange as somebody else would write it: only what the protocol asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.factory import ExchangeFactory
from academy.identifier import AgentId, EntityId, UserId
from academy.message import Message
from academy.stats import AgentStats


class Calc:
    """Stands for an agent class."""

    @classmethod
    def _agent_mro(cls) -> tuple[str, ...]:
        names = [c.__name__ for c in cls.__mro__ if c is not object]
        return *names, "academy.agent.Agent"


class BetterCalc(Calc):
    pass


@dataclass
class ForeignRegistration:
    agent_id: AgentId[Any]
    exchange_type: str = "foreign"


@dataclass
class ForeignExchange:
    queues: dict[EntityId, asyncio.Queue[bytes | None]] = field(default_factory=dict)
    names: dict[EntityId, tuple[str, ...]] = field(default_factory=dict)
    beats: dict[EntityId, float] = field(default_factory=dict)
    terminated: set[EntityId] = field(default_factory=set)
    closed: list[EntityId] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    broken: Exception | None = None
    """Raised by each heartbeat."""

    def check(self, uid: EntityId) -> None:
        if uid not in self.queues:
            raise BadEntityIdError(uid)
        if uid in self.terminated:
            raise MailboxTerminatedError(uid)


class ForeignTransport:
    def __init__(self, mailbox_id: EntityId, exchange: ForeignExchange) -> None:
        self.mailbox_id = mailbox_id
        self.exchange = exchange

    async def send(self, message: Message[Any]) -> None:
        self.exchange.check(message.dest)
        self.exchange.queues[message.dest].put_nowait(message.model_serialize())

    async def listen(
        self, timeout: float | None = None
    ) -> AsyncGenerator[Message[Any]]:
        queue = self.exchange.queues[self.mailbox_id]
        while (data := await asyncio.wait_for(queue.get(), timeout)) is not None:
            yield Message.model_deserialize(data)

    async def register_agent(
        self, agent: type[Any], *, name: str | None = None
    ) -> ForeignRegistration:
        uid: AgentId[Any] = AgentId.new(name)
        self.exchange.queues[uid] = asyncio.Queue()
        self.exchange.names[uid] = agent._agent_mro()
        return ForeignRegistration(uid)

    async def discover(
        self, agent: type[Any] | str, *, allow_subclasses: bool = True
    ) -> tuple[AgentId[Any], ...]:
        name = agent if isinstance(agent, str) else agent.__name__
        return tuple(
            uid
            for uid, names in self.exchange.names.items()
            if isinstance(uid, AgentId)
            and name in (names if allow_subclasses else names[:1])
        )

    async def terminate(self, uid: EntityId) -> None:
        self.exchange.terminated.add(uid)
        self.exchange.queues[uid].put_nowait(None)

    async def update_heartbeat(self) -> None:
        if self.exchange.broken is not None:
            raise self.exchange.broken
        self.exchange.beats[self.mailbox_id] = self.exchange.clock()

    async def heartbeat_status(self, uid: EntityId) -> float | None:
        self.exchange.check(uid)
        beat = self.exchange.beats.get(uid)
        return None if beat is None else self.exchange.clock() - beat

    async def agent_stats(self, uid: EntityId) -> AgentStats:
        return AgentStats(queued=self.exchange.queues[uid].qsize())

    def factory(self) -> ForeignFactory:
        return ForeignFactory(self.exchange)

    async def close(self) -> None:
        self.exchange.closed.append(self.mailbox_id)


class ForeignFactory(ExchangeFactory[ForeignTransport]):
    def __init__(
        self,
        exchange: ForeignExchange | None = None,
        config: ExchangeClientConfig | None = None,
    ) -> None:
        super().__init__(config)
        self.exchange = exchange or ForeignExchange()

    async def _create_transport(
        self,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        registration: ForeignRegistration | None = None,
    ) -> ForeignTransport:
        if mailbox_id is None:
            mailbox_id = UserId.new(name)
            self.exchange.queues[mailbox_id] = asyncio.Queue()
        return ForeignTransport(mailbox_id, self.exchange)
