from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from academy.exception import AgentTerminatedError
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle
from academy.launch import LaunchSpec
from academy.manager import Manager
from academy.runtime import RuntimeConfig
from tests.launched_agents import Asker, Counter


@pytest.fixture
async def manager() -> AsyncIterator[Manager[Any]]:
    async with await Manager.from_exchange_factory(LocalExchangeFactory()) as manager:
        yield manager


def test_agent_type_of_a_spec() -> None:
    assert LaunchSpec(agent=Counter).agent_type is Counter
    assert LaunchSpec(agent=Counter()).agent_type is Counter


async def test_agents_of_a_batch_know_each_other(manager: Manager[Any]) -> None:
    async with manager.launch_batch() as batch:
        counter = await batch.queue(Counter, args=(5,), kwargs={"step": 2}, name="c")
        asker = await batch.queue(Asker, args=(counter,))
        with pytest.raises(RuntimeError, match="not bound to an agent yet"):
            _ = counter.agent_id
        assert manager.running() == set()
    assert counter.agent_id.name == "c"
    assert manager.running() == {counter.agent_id, asker.agent_id}
    assert await asker.ask() == 7


async def test_registers_all_in_one_go(
    manager: Manager[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = manager.exchange_client
    register = client.register_agents
    calls: list[Any] = []

    async def note(agents: list[Any]) -> Any:
        calls.append(agents)
        return await register(agents)

    monkeypatch.setattr(client, "register_agents", note)
    async with manager.launch_batch() as batch:
        await batch.queue(Counter, name="a")
        await batch.queue(Asker, args=(None,))
    assert calls == [[(Counter, "a"), (Asker, None)]]


async def test_options_reach_the_launch() -> None:
    executors = {"there": ThreadPoolExecutor(1, "there")}
    async with await Manager.from_exchange_factory(
        LocalExchangeFactory(), executors
    ) as manager:
        async with manager.launch_batch() as batch:
            counter = await batch.queue(
                Counter,
                executor="there",
                config=RuntimeConfig(terminate_on_success=False),
                submit_kwargs={"cores": 1},
            )
        assert (await counter.place())[1] == "there_0"
        await manager.shutdown(counter)
        assert await counter.agent_status() is MailboxStatus.INACTIVE


async def test_submitted_by_hand(manager: Manager[Any]) -> None:
    batch = manager.launch_batch()
    counter = await batch.queue(Counter)
    await batch.submit()
    assert await counter.add() == 1
    for use in (batch.queue(Counter), batch.submit()):
        with pytest.raises(RuntimeError, match="This batch is closed"):
            await use


async def test_submitted_within_the_block(manager: Manager[Any]) -> None:
    async with manager.launch_batch() as batch:
        counter = await batch.queue(Counter)
        await batch.submit()
    assert manager.running() == {counter.agent_id}


async def test_block_that_raises_launches_nothing(manager: Manager[Any]) -> None:
    batch = manager.launch_batch()

    async def use() -> None:
        async with batch:
            await batch.queue(Counter)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()
    assert manager.running() == set()
    assert await manager.exchange_client.discover(Counter) == ()
    with pytest.raises(RuntimeError, match="This batch is closed"):
        await batch.queue(Counter)


async def test_failed_launch_ends_those_that_come_after(manager: Manager[Any]) -> None:
    batch = manager.launch_batch()
    first = await batch.queue(Counter)
    failing = await batch.queue(Counter, executor="nope")
    last: Handle[Counter] = await batch.queue(Counter)
    with pytest.raises(ValueError, match='No executor named "nope"'):
        await batch.submit()
    assert await first.add() == 1
    for handle in (failing, last):
        with pytest.raises(
            AgentTerminatedError, match="its batch could not be launched: ValueError"
        ):
            await asyncio.wait_for(handle.add(), 10)


async def test_failed_registration(manager: Manager[Any]) -> None:
    batch = manager.launch_batch()
    good = await batch.queue(Counter)
    await batch.queue(dict)
    with pytest.raises(TypeError, match="not an agent class"):
        await batch.submit()
    with pytest.raises(RuntimeError, match="not bound"):
        _ = good.agent_id
