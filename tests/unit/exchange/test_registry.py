from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.exchange.client import UserExchangeClient
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.factory import ExchangeFactory
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.identifier import AgentId
from academy.stats import AgentStats
from tests.unit.exchange.foreign import BetterCalc, Calc, ForeignFactory

Client = UserExchangeClient[Any]


@pytest.fixture(params=[LocalExchangeFactory, ForeignFactory])
def factory(request: pytest.FixtureRequest) -> Any:
    """An exchange with all that transports may have, and one with the least."""
    return request.param()


@pytest.fixture
async def client(factory: ExchangeFactory[Any]) -> AsyncGenerator[Client]:
    async with await factory.create_user_client() as client:
        yield client


async def test_register_and_discover(client: Client) -> None:
    calc = (await client.register_agent(Calc, name="c")).agent_id
    better = (await client.register_agent(BetterCalc)).agent_id
    assert calc.name == "c"
    assert set(await client.discover(Calc)) == {calc, better}
    assert await client.discover(Calc, allow_subclasses=False) == (calc,)
    assert await client.discover("BetterCalc") == (better,)
    assert await client.discover("nothing.Such") == ()


async def test_register_several(client: Client) -> None:
    registrations = await client.register_agents([(Calc, "c"), (BetterCalc, None)])
    ids = [r.agent_id for r in registrations]
    assert [i.name for i in ids] == ["c", None]
    assert set(await client.discover(Calc)) == set(ids)
    assert await client.register_agents([]) == []


async def test_register_in_one_go(client: Client) -> None:
    """Where the transport can."""
    batches = []

    async def register_agents(agents: Any) -> list[Any]:
        batches.append(agents)
        return ["registrations"]

    client._transport.register_agents = register_agents
    pairs = [(Calc, "c"), (BetterCalc, None)]
    assert await client.register_agents(pairs) == ["registrations"]
    assert batches == [pairs]


async def test_census(client: Client) -> None:
    """Whatever the exchange knows of the agents that are not terminated."""
    calc = (await client.register_agent(Calc)).agent_id
    better = (await client.register_agent(BetterCalc)).agent_id
    infos = {info.agent_id: info for info in await client.census()}
    assert set(infos) == {calc, better}
    assert all(i.status is MailboxStatus.INACTIVE for i in infos.values())
    assert all(i.pid is None for i in infos.values())


async def test_census_of_an_exchange_that_knows_more(client: Client) -> None:
    info = AgentInfo(AgentId.new(), MailboxStatus.ACTIVE, "m.Calc", "host", 7, 1)

    async def census() -> list[AgentInfo]:
        return [info]

    client._transport.census = census
    assert await client.census() == [info]


async def test_links_of_an_exchange_that_cannot_tell() -> None:
    async with await ForeignFactory().create_user_client() as client:
        assert await client.links() is None
        assert await client.links(AgentId.new()) is None


async def test_only_agent_classes(client: Client) -> None:
    with pytest.raises(TypeError, match="is not an agent class"):
        await client.register_agent(int)
    with pytest.raises(TypeError, match="is not an agent class"):
        await client.register_agents([(Calc, None), (int, None)])
    with pytest.raises(TypeError, match="is not an agent class"):
        await client.discover(int)
    assert await client.discover(Calc) == ()


async def test_status(client: Client) -> None:
    registration = await client.register_agent(Calc)
    uid = registration.agent_id
    assert await client.status(AgentId.new()) is MailboxStatus.MISSING
    assert await client.status(uid) is MailboxStatus.INACTIVE
    assert await client.heartbeat_status(uid) is None
    assert await client.agent_stats(uid) == AgentStats()
    await client.terminate(uid)
    assert await client.status(uid) is MailboxStatus.TERMINATED
    with pytest.raises(MailboxTerminatedError):
        await client.heartbeat_status(uid)
    with pytest.raises(BadEntityIdError):
        await client.heartbeat_status(AgentId.new())


async def test_heartbeat(client: Client) -> None:
    await client.update_heartbeat()
    age = await client.heartbeat_status(client.client_id)
    assert age is not None
    assert 0 <= age < 10
    assert await client.status(client.client_id) is MailboxStatus.ACTIVE


async def test_heartbeats_grow_stale_as_configured() -> None:
    config = ExchangeClientConfig(heartbeat_interval=10, stale_heartbeat_threshold=2)
    factory = ForeignFactory(config=config)
    exchange = factory.exchange
    now = 100.0
    exchange.clock = lambda: now
    async with await factory.create_user_client() as client:
        uid = (await client.register_agent(Calc)).agent_id
        exchange.beats[uid] = now
        now += 19
        assert await client.status(uid) is MailboxStatus.ACTIVE
        now += 1
        assert await client.status(uid) is MailboxStatus.INACTIVE


async def test_terminate_with_a_reason(client: Client) -> None:
    """Who asks later is told, where the exchange can."""
    uid = (await client.register_agent(Calc)).agent_id
    await client.terminate(uid, reason="out of memory")
    with pytest.raises(MailboxTerminatedError) as caught:
        await client.heartbeat_status(uid)
    told = isinstance(client.factory(), LocalExchangeFactory)
    assert caught.value.reason == ("out of memory" if told else None)


async def test_factory_makes_clients_of_the_same_exchange(client: Client) -> None:
    uid = (await client.register_agent(Calc)).agent_id
    async with await client.factory().create_user_client() as other:
        assert await other.discover(Calc) == (uid,)
