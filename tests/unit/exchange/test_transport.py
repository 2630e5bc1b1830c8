from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from academy.exception import BadEntityIdError
from academy.exchange.mailbox_status import MailboxStatus as PublicStatus
from academy.exchange.transport import (
    AGENT_CLASS,
    AgentRegistration,
    ExchangeTransport,
    ExchangeTransportMixin,
    MailboxStatus,
    agent_mro,
    class_name,
    derive_status,
)
from academy.identifier import AgentId, UserId
from academy.message import Message, PingRequest
from tests.unit.exchange.foreign import (
    BetterCalc,
    Calc,
    ForeignExchange,
    ForeignRegistration,
    ForeignTransport,
)

USER = UserId.new("ann")


class Parrot(ExchangeTransportMixin):
    """Says the same as often as it is asked."""

    def __init__(self) -> None:
        self.mailbox_id = USER
        self.waits: list[float | None] = []
        self.closed = 0

    async def _recv(self, timeout: float | None = None) -> Message[Any]:
        self.waits.append(timeout)
        return Message.create(USER, USER, PingRequest())

    async def close(self) -> None:
        self.closed += 1


class TestMixin:
    async def test_block_closes(self) -> None:
        parrot = Parrot()
        async with parrot as entered:
            assert entered is parrot
            assert parrot.closed == 0
        assert parrot.closed == 1
        with pytest.raises(KeyError):
            async with parrot:
                raise KeyError
        assert parrot.closed == 2

    def test_text(self) -> None:
        assert str(Parrot()) == "Parrot<UserId<ann>>"
        assert repr(Parrot()) == f"Parrot({USER!r})"

    async def test_listen_and_recv(self) -> None:
        parrot = Parrot()
        assert (await parrot.recv(2)).is_request()
        messages: AsyncGenerator[Message[Any]] = parrot.listen(timeout=3)
        assert (await anext(messages)).is_request()
        assert (await anext(messages)).is_request()
        await messages.aclose()
        assert parrot.waits == [2, 3, 3]


class TestDerivedStatus:
    @pytest.fixture
    async def transport(self) -> ForeignTransport:
        exchange = ForeignExchange(clock=lambda: self.now)
        exchange.queues[USER] = asyncio.Queue()
        return ForeignTransport(USER, exchange)

    now = 0.0

    async def test_life_of_a_mailbox(self, transport: ForeignTransport) -> None:
        uid = (await transport.register_agent(Calc)).agent_id
        agent = ForeignTransport(uid, transport.exchange)

        async def status() -> MailboxStatus:
            return await derive_status(transport, uid, stale=10)

        assert await status() is MailboxStatus.INACTIVE
        await agent.update_heartbeat()
        assert await status() is MailboxStatus.ACTIVE
        self.now = 9.9
        assert await status() is MailboxStatus.ACTIVE
        self.now = 10.0
        assert await status() is MailboxStatus.INACTIVE
        await agent.update_heartbeat()
        assert await status() is MailboxStatus.ACTIVE
        await transport.terminate(uid)
        assert await status() is MailboxStatus.TERMINATED

    async def test_missing(self, transport: ForeignTransport) -> None:
        uid: AgentId[Any] = AgentId.new()
        assert await derive_status(transport, uid, stale=1) is MailboxStatus.MISSING

    async def test_other_errors_pass(self, transport: ForeignTransport) -> None:
        async def fail(uid: Any) -> float:
            raise ConnectionError("no server")

        transport.heartbeat_status = fail  # type: ignore[method-assign]
        with pytest.raises(ConnectionError, match="no server"):
            await derive_status(transport, USER, stale=1)


class TestClassNames:
    def test_of_a_class(self) -> None:
        assert agent_mro(BetterCalc) == ("BetterCalc", "Calc", AGENT_CLASS)
        assert class_name(BetterCalc) == "BetterCalc"

    def test_of_a_name(self) -> None:
        assert class_name("package.Calc") == "package.Calc"

    @pytest.mark.parametrize("thing", [int, 7, None, Calc()])
    def test_no_agent_class(self, thing: Any) -> None:
        with pytest.raises(TypeError, match=r"derive it from academy.agent.Agent"):
            agent_mro(thing)
        with pytest.raises(TypeError, match="is not an agent class"):
            class_name(thing)


def test_protocols_at_run_time() -> None:
    assert isinstance(ForeignTransport(USER, ForeignExchange()), ExchangeTransport)
    assert not isinstance(Parrot(), ExchangeTransport)
    registration = ForeignRegistration(AgentId.new())
    assert isinstance(registration, AgentRegistration)
    assert not isinstance(USER, AgentRegistration)
    # Programs write these in annotations that are evaluated.
    assert AgentRegistration[Calc]
    assert ExchangeTransport[ForeignRegistration]


def test_status_values() -> None:
    names = ["MISSING", "ACTIVE", "INACTIVE", "TERMINATED"]
    assert [s.value for s in MailboxStatus] == names
    assert MailboxStatus("ACTIVE") is MailboxStatus.ACTIVE
    assert PublicStatus is MailboxStatus


def test_unknown_mailbox_is_an_error_of_the_exchange() -> None:
    with pytest.raises(BadEntityIdError):
        ForeignExchange().check(USER)
