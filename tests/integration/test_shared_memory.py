"""Arrays between real processes that share memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import psutil
import pytest

from academy.embedded import EmbeddedServer
from academy.exception import AgentTerminatedError, PeerLostError
from academy.exchange.hybrid import HybridExchangeFactory
from academy.executor import SubprocessExecutor
from academy.handle import Handle
from academy.link.lending import LEAST, MOST, SUM
from academy.manager import Manager
from academy.worker_process import WorkerProcessError
from tests.array_agents import Arrays, Middle, array, is_array, regions, shared
from tests.fault.descriptors import cut_links

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has such memory"
)
MB = 10**6
SIZE = 10 * MB
GROWTH = 24 << 20


class Scene:
    """An agent in another process, which shares memory with this one."""

    def __init__(self, manager: Manager[Any], agent: Handle[Arrays]) -> None:
        self.manager = manager
        self.agent = agent

    @property
    def client(self) -> Any:
        return self.manager.exchange_client

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - nothing tells this process
                await asyncio.sleep(0.01)


@pytest.fixture
def factory(server: EmbeddedServer, namespace: str) -> HybridExchangeFactory:
    return HybridExchangeFactory.from_url(server.url, namespace=namespace)


@pytest.fixture
async def scene(factory: HybridExchangeFactory) -> AsyncIterator[Scene]:
    async with await Manager.from_exchange_factory(
        factory, SubprocessExecutor()
    ) as manager:
        agent = await manager.launch(Arrays)
        scene = Scene(manager, agent)
        await linked(scene)
        yield scene


async def linked(scene: Scene) -> None:
    """Wait until calls go directly."""
    async with asyncio.timeout(20):
        while not shared(scene.client):
            await scene.agent.pid()


async def test_echoes_are_right_and_go_both_ways(scene: Scene) -> None:
    for seed in range(20):
        value = array(seed, SIZE)
        found = await scene.agent.echo(value)
        assert is_array(found, seed, SIZE)
        found[:] = 0
        assert is_array(value, seed, SIZE)
    ours, theirs = regions(scene.client)
    assert 1 <= ours <= 3
    # The first answer had nothing to go back in.
    assert theirs <= 1


async def test_sizes_around_the_limits(scene: Scene) -> None:
    chance = random.Random(5)
    ends = [LEAST, MOST, SUM, 2 * LEAST]
    for seed in range(60):
        size = chance.choice(ends) + chance.choice([-8, -1, 0, 1, 8])
        if chance.random() < 0.5:
            size = chance.randrange(1, MOST + LEAST)
        found = await scene.agent.echo(array(seed, size))
        assert is_array(found, seed, size), (seed, size)


async def test_who_receives_an_array_may_write_to_it(scene: Scene) -> None:
    value = array(1, SIZE)
    for _ in range(6):
        shouted = await scene.agent.shout(value)
        assert is_array(value, 1, SIZE)
        assert np.array_equal(shouted, value + 1)
        del shouted
    assert regions(scene.client)[0]


async def test_who_has_sent_an_array_may_change_it(scene: Scene) -> None:
    for index in range(6):
        value = array(index, SIZE)
        await scene.agent.keep(value)
        value[:] = 0
    for index in range(6):
        assert await scene.agent.right(index, index, SIZE)


async def test_ten_arrays_that_are_kept(scene: Scene) -> None:
    for index in range(10):
        assert await scene.agent.keep(array(index, SIZE)) == index + 1
    await scene.agent.change(3, 1)
    for seed in range(50, 60):
        assert is_array(await scene.agent.echo(array(seed, SIZE)), seed, SIZE)
        assert is_array(await scene.agent.echo(array(seed, 2 * MB)), seed, 2 * MB)
    await scene.agent.change(3, 255)
    for index in range(10):
        assert await scene.agent.right(index, index, SIZE)
    assert sum(r.region.size for r in owned(scene)) <= SUM
    await scene.agent.forget()
    for seed in range(5):
        assert is_array(await scene.agent.echo(array(seed, SIZE)), seed, SIZE)


def owned(scene: Scene) -> list[Any]:
    return [r for m in shared(scene.client) for r in m.lender.owned.values()]


async def test_a_result_that_its_agent_keeps(scene: Scene) -> None:
    for index in range(5):
        found = await scene.agent.keep_and_return(array(index, SIZE))
        assert is_array(found, index, SIZE)
        found[:] = 0
        assert await scene.agent.right(index, index, SIZE)
        await scene.agent.change(index, 1)
        assert not found.any()
    # Also those went by shared memory, in copies.
    assert regions(scene.client)[1]


async def test_results_that_are_made(scene: Scene) -> None:
    held = []
    for seed in range(6):
        held.append(await scene.agent.fresh(seed, SIZE))
        assert all(is_array(found, i, SIZE) for i, found in enumerate(held))
    assert regions(scene.client)[1]


async def test_what_came_back_is_kept_here(scene: Scene) -> None:
    held = []
    for seed in range(8):
        held.append(await scene.agent.echo(array(seed, SIZE)))
        assert all(is_array(found, i, SIZE) for i, found in enumerate(held))
    # Whether its memory came from here or not: it goes there, and comes back.
    for seed, value in enumerate(held):
        assert is_array(await scene.agent.echo(value), seed, SIZE)
        assert is_array(await scene.agent.shout(value) - 1, seed, SIZE)
        assert is_array(value, seed, SIZE)


async def test_a_part_of_what_was_lent(scene: Scene) -> None:
    for seed in range(6):
        value = array(seed, SIZE)
        found = await scene.agent.part(value, 1000, 3 * MB)
        assert np.array_equal(found, value[1000 : 3 * MB])


async def test_several_at_a_time(scene: Scene) -> None:
    async def call(seed: int) -> None:
        for turn in range(8):
            size = (1 + (seed + turn) % 5) * 2 * MB
            found = await scene.agent.echo(array(seed, size))
            assert is_array(found, seed, size)

    await asyncio.gather(*map(call, range(6)))


async def test_a_call_that_is_cancelled(scene: Scene) -> None:
    """Its array may be changed at once; what follows is right."""
    for seed in range(30):
        value = array(seed, SIZE)
        call = asyncio.create_task(scene.agent.keep(value))
        for _ in range(seed % 12):
            await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        value[:] = 255
        assert is_array(await scene.agent.echo(array(seed, SIZE)), seed, SIZE)


async def test_links_that_are_cut(scene: Scene, server: EmbeddedServer) -> None:
    held = []
    for seed in range(12):
        call = asyncio.create_task(scene.agent.keep_and_return(array(seed, SIZE)))
        for _ in range(seed):
            await asyncio.sleep(0.0005)
        assert cut_links(server.port) >= 0
        with contextlib.suppress(PeerLostError):
            held.append((seed, await call))
        await linked(scene)
    assert len(held) > 6
    for seed, value in held:
        assert is_array(value, seed, SIZE)


async def two_callers(scene: Scene) -> tuple[Handle[Middle], Handle[Middle]]:
    one = await scene.manager.launch(Middle, args=(scene.agent,))
    other = await scene.manager.launch(Middle, args=(scene.agent,))
    return one, other


@pytest.mark.timeout(120)
async def test_two_callers_in_processes_of_their_own(scene: Scene) -> None:
    callers = await two_callers(scene)

    async def call(caller: Handle[Middle], seed: int) -> None:
        for turn in range(10):
            found = await caller.echo(array(seed + turn, SIZE))
            assert is_array(found, seed + turn, SIZE)

    await asyncio.gather(*(call(c, 100 * i) for i, c in enumerate(callers)))


LOST = PeerLostError, AgentTerminatedError


@pytest.mark.timeout(120)
async def test_the_process_that_has_lent_is_killed(
    scene: Scene, factory: HybridExchangeFactory
) -> None:
    with pytest.raises(WorkerProcessError, match="SIGKILL"):
        await lend_and_be_killed(scene, factory)
    await scene.agent.change(2, 1)
    await scene.agent.change(2, 255)
    for index in range(5):
        assert await scene.agent.right(index, index, SIZE)


async def lend_and_be_killed(scene: Scene, factory: HybridExchangeFactory) -> None:
    executor = SubprocessExecutor()
    async with await Manager.from_exchange_factory(factory, executor) as manager:
        caller = await manager.launch(Middle, args=(scene.agent,))
        await caller.keep_there(list(range(5)), SIZE)
        os.kill(await caller.pid(), signal.SIGKILL)
        with pytest.raises(LOST):
            await caller.keep_there([9], SIZE)


@pytest.mark.timeout(120)
async def test_the_process_that_was_lent_to_is_killed(
    factory: HybridExchangeFactory,
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(WorkerProcessError, match="SIGKILL"):
        await see_it_killed(factory)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


async def see_it_killed(factory: HybridExchangeFactory) -> None:
    executor = SubprocessExecutor()
    async with await Manager.from_exchange_factory(factory, executor) as manager:
        await use_it_while_it_is_killed(Scene(manager, await manager.launch(Arrays)))


async def use_it_while_it_is_killed(scene: Scene) -> None:
    await linked(scene)
    echo = scene.agent.echo
    held = [await echo(array(seed, SIZE)) for seed in range(5)]
    pid = await scene.agent.pid()
    calls = [asyncio.create_task(echo(array(seed, SIZE))) for seed in range(9)]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    results = await asyncio.gather(*calls, return_exceptions=True)
    for seed, value in enumerate(results):
        assert isinstance(value, LOST) or is_array(value, seed, SIZE)
    await scene.until(lambda: not shared(scene.client))
    assert all(is_array(value, seed, SIZE) for seed, value in enumerate(held))


async def test_without_shared_memory(
    factory: HybridExchangeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACADEMY_SHARED_MEMORY", "0")
    async with await Manager.from_exchange_factory(
        factory, SubprocessExecutor()
    ) as manager:
        scene = Scene(manager, await manager.launch(Arrays))
        for seed in range(5):
            assert is_array(await scene.agent.echo(array(seed, SIZE)), seed, SIZE)
        assert regions(scene.client) == (0, 0)
        assert await scene.agent.regions() == (0, 0)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rounds", [150, pytest.param(1000, marks=pytest.mark.slow)])
async def test_memory_and_descriptors_stay_as_they_are(
    scene: Scene, rounds: int
) -> None:
    value = array(1, SIZE)
    here = psutil.Process()

    async def condition() -> tuple[int, int, int, int]:
        gc.collect()
        return (
            here.memory_info().rss,
            here.num_fds(),
            *await scene.agent.condition(),
        )

    for _ in range(50):
        await scene.agent.echo(value)
    before = await condition()
    for _ in range(rounds):
        await scene.agent.echo(value)
    after = await condition()
    grown = [now - then for now, then in zip(after, before, strict=True)]
    assert grown[0] < GROWTH
    assert grown[2] < GROWTH
    assert max(grown[1], grown[3]) <= 2
    assert is_array(await scene.agent.echo(value), 1, SIZE)
