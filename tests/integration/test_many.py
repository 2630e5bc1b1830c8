"""Many agents in one process: they share what costs time and descriptors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Any

import psutil
import pytest
import redis.asyncio

from academy.agent import Agent, action
from academy.embedded import EmbeddedServer
from academy.exception import AgentTerminatedError
from academy.exchange import HybridExchangeFactory
from academy.exchange.connection import RedisConnectionInfo, async_client
from academy.exchange.keys import Keys
from academy.executor import EventLoopExecutor
from academy.handle import Handle
from academy.manager import Manager
from tests.proxy import Proxy
from tests.restricted import admin_kwargs

MANY = 300


class Echo(Agent):
    """Answers, unless it is to fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    async def agent_on_startup(self) -> None:
        if self.fails:
            raise ValueError("no")

    @action
    async def echo(self, value: int) -> int:
        return value


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as made:
        yield made


@pytest.fixture
def factory(
    proxy: Proxy, server: EmbeddedServer, namespace: str
) -> HybridExchangeFactory:
    return HybridExchangeFactory(
        "127.0.0.1",
        proxy.port,
        redis_kwargs=dict(server.redis_kwargs),
        namespace=namespace,
    )


@pytest.fixture
async def raw(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    info = RedisConnectionInfo(server.host, server.port, admin_kwargs(server))
    client = async_client(info, timeout=5.0)
    yield client
    await client.aclose()


async def keys_of(raw: redis.asyncio.Redis, namespace: str) -> set[str]:
    prefix = Keys(namespace).prefix
    found = raw.scan_iter(f"{prefix}*", count=1000)
    return {key.decode().removeprefix(prefix) async for key in found}


def engine_of(manager: Manager[Any]) -> Any:
    return manager.exchange_client._transport.engine


async def launch_batch(manager: Manager[Any], count: int) -> list[Handle[Echo]]:
    async with manager.launch_batch() as batch:
        return [await batch.queue(Echo) for _ in range(count)]


async def all_answer(handles: list[Handle[Echo]]) -> None:
    calls = (handle.echo(number) for number, handle in enumerate(handles))
    assert await asyncio.gather(*calls) == list(range(len(handles)))


@pytest.mark.parametrize("executor", [None, EventLoopExecutor])
async def test_they_share_descriptors_and_leave_nothing(
    executor: type[Executor] | None,
    factory: HybridExchangeFactory,
    raw: redis.asyncio.Redis,
    namespace: str,
) -> None:
    async with await Manager.from_exchange_factory(
        factory, executor and executor()
    ) as manager:
        await all_answer(await launch_batch(manager, 2))
        before = psutil.Process().num_fds()
        handles = await launch_batch(manager, MANY)
        await all_answer(handles)
        assert psutil.Process().num_fds() <= before + 3
        found = await manager.exchange_client.discover(Echo, allow_subclasses=False)
        assert len(found) == MANY + 2
    assert await keys_of(raw, namespace) == {"gone", "secret"}


async def test_launches_share_round_trips(factory: HybridExchangeFactory) -> None:
    async with await Manager.from_exchange_factory(factory) as manager:
        server = engine_of(manager).server
        commands, trips = server.commands, server.trips
        handles = await asyncio.gather(*(manager.launch(Echo) for _ in range(MANY)))
        await all_answer(handles)
        commands, trips = server.commands - commands, server.trips - trips
        # To register and to bind; calls that come before an agent wait in its queue.
        assert commands <= 6 * MANY
        assert trips <= commands / 20
        commands, trips = server.commands, server.trips
        await asyncio.gather(*(manager.shutdown(handle) for handle in handles))
        commands, trips = server.commands - commands, server.trips - trips
        assert commands <= 2 * MANY
        assert trips <= commands / 20


async def test_a_batch_is_registered_together(factory: HybridExchangeFactory) -> None:
    async with await Manager.from_exchange_factory(factory) as manager:
        server = engine_of(manager).server
        commands = server.commands
        await manager.register_agents([(Echo, None)] * MANY)
        assert server.commands - commands == 1


async def test_one_that_fails_does_not_hurt_the_others(
    factory: HybridExchangeFactory,
) -> None:
    manager = await Manager.from_exchange_factory(factory, EventLoopExecutor())
    async with manager.launch_batch() as batch:
        failing = await batch.queue(Echo, kwargs={"fails": True})
        handles = [await batch.queue(Echo) for _ in range(20)]
    await all_answer(handles)
    with pytest.raises(AgentTerminatedError):
        await failing.echo(1)
    assert manager.running() == {h.agent_id for h in handles}
    with pytest.raises(ValueError, match="no"):
        await manager.close()


@pytest.mark.parametrize("sent", [False, True])
async def test_a_batch_that_is_cancelled_leaves_nothing(
    sent: bool,
    factory: HybridExchangeFactory,
    proxy: Proxy,
    raw: redis.asyncio.Redis,
    namespace: str,
) -> None:
    async with await Manager.from_exchange_factory(factory) as manager:
        proxy.hold()
        launching = asyncio.create_task(launch_batch(manager, MANY))
        for _ in range(20 if sent else 1):
            await asyncio.sleep(0)
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        proxy.let_go()
        assert await manager.exchange_client.discover(Echo) == ()
        assert manager.running() == set()
    assert await keys_of(raw, namespace) <= {"gone", "secret"}


async def test_a_batch_outlives_a_server_that_goes_away_meanwhile(
    factory: HybridExchangeFactory, proxy: Proxy
) -> None:
    async with await Manager.from_exchange_factory(factory) as manager:
        server = engine_of(manager).server
        commands = server.commands
        launching = asyncio.create_task(launch_batch(manager, MANY))
        async with asyncio.timeout(10):
            while server.commands < commands + 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await proxy.cut()
        await proxy.mend()
        await all_answer(await launching)


async def test_a_user_whose_binding_is_cancelled_leaves_nothing(
    factory: HybridExchangeFactory,
    proxy: Proxy,
    raw: redis.asyncio.Redis,
    namespace: str,
) -> None:
    async with await factory.create_user_client() as first:
        proxy.hold()
        joining = asyncio.create_task(factory.create_user_client())
        for _ in range(50):
            await asyncio.sleep(0)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        proxy.let_go()
        assert await first.discover(Echo) == ()
        boxes = [k for k in await keys_of(raw, namespace) if k.startswith("mb:")]
        assert len(boxes) == 1
