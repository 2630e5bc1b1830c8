from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.factory import ExchangeFactory
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId, EntityId
from academy.message import Message, PingRequest, SuccessResponse
from tests.unit.exchange.foreign import (
    Calc,
    ForeignExchange,
    ForeignFactory,
    ForeignRegistration,
    ForeignTransport,
)


class NumberedFactory(ForeignFactory):
    """Gives each client a number, as others give ports."""

    def __init__(self, numbers: Iterator[int]) -> None:
        super().__init__()
        self.numbers = numbers
        self.given: list[int] = []

    def _prepare(self) -> Callable[..., Coroutine[Any, Any, ForeignTransport]]:
        number = next(self.numbers)

        async def create(
            mailbox_id: EntityId | None = None, **kwargs: Any
        ) -> ForeignTransport:
            self.given.append(number)
            return await self._create_transport(mailbox_id, **kwargs)

        return create


class SettingsFactory(ExchangeFactory[ForeignTransport]):
    """Pickles its settings, as factories of real exchanges do."""

    async def _create_transport(self, *args: Any, **kwargs: Any) -> ForeignTransport:
        return await ForeignFactory(ForeignExchange())._create_transport()


async def ignore(request: Message[Any]) -> None:
    pass


@pytest.fixture(params=[LocalExchangeFactory, ForeignFactory])
def factory(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_abstract() -> None:
    with pytest.raises(TypeError, match="_create_transport"):
        ExchangeFactory()  # type: ignore[abstract]


def test_config() -> None:
    config = ExchangeClientConfig(heartbeat_interval=1)
    assert ForeignFactory(config=config).config is config
    assert ForeignFactory().config == ExchangeClientConfig()


def test_pickle() -> None:
    config = ExchangeClientConfig(heartbeat_interval=1)
    again = pickle.loads(pickle.dumps(SettingsFactory(config)))
    assert again.config == config


async def test_user_client(factory: ExchangeFactory[Any]) -> None:
    async with await factory.create_user_client(name="ann") as user:
        assert user.client_id.name == "ann"
        await user.update_heartbeat()
        assert await user.status(user.client_id) is MailboxStatus.ACTIVE


async def test_agent_client(factory: ExchangeFactory[Any]) -> None:
    async with await factory.create_user_client() as user:
        registration = await user.register_agent(Calc, name="bob")

        async def answer(request: Message[Any]) -> None:
            await agent.send(request.create_response(SuccessResponse()))

        agent = await factory.create_agent_client(registration, answer)
        async with agent:
            assert agent.client_id == registration.agent_id
            ping = Message.create(user.client_id, agent.client_id, PingRequest())
            assert (await user.request(ping)).is_response()


async def test_agent_that_is_not_registered(factory: ExchangeFactory[Any]) -> None:
    registration = ForeignRegistration(AgentId.new())
    with pytest.raises(BadEntityIdError):
        await factory.create_agent_client(registration, ignore)


async def test_agent_that_is_terminated(factory: ExchangeFactory[Any]) -> None:
    async with await factory.create_user_client() as user:
        registration = await user.register_agent(Calc)
        await user.terminate(registration.agent_id)
        with pytest.raises(MailboxTerminatedError):
            await factory.create_agent_client(registration, ignore)


async def test_failed_check_leaves_no_transport() -> None:
    factory = ForeignFactory()
    registration = ForeignRegistration(AgentId.new())
    with pytest.raises(BadEntityIdError):
        await factory.create_agent_client(registration, ignore)
    assert factory.exchange.closed == [registration.agent_id]


async def test_what_is_prepared_is_taken_by_the_call() -> None:
    """So that running out raises StopIteration, which a coroutine cannot."""
    factory = NumberedFactory(iter([1, 2]))
    user = factory.create_user_client()
    async with await factory.create_user_client() as other:
        assert factory.given == [2]
        registration = await other.register_agent(Calc)
        with pytest.raises(StopIteration):
            factory.create_user_client()
        with pytest.raises(StopIteration):
            factory.create_agent_client(registration, ignore)
    async with await user:
        assert factory.given == [2, 1]


async def test_clients_belong_to_their_loops(factory: ExchangeFactory[Any]) -> None:
    """One factory serves several threads, each with its own loop."""

    async def use() -> bool:
        async with await factory.create_user_client() as user:
            return bool(user.client_id)

    assert await use()
    assert await asyncio.to_thread(lambda: asyncio.run(use()))
