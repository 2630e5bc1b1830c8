from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from academy.demo import agents, model
from academy.demo.agents import Coordinator, Site, Update
from academy.demo.data import digits, shard
from academy.exception import PeerLostError
from academy.exchange.local import LocalExchangeFactory
from academy.handle import Handle
from academy.identifier import AgentId
from academy.manager import Manager

START = model.initial(0)
TRAINING, TESTS = digits()


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "EPOCHS", 2)
    monkeypatch.setattr(agents, "_PAUSE", 0.0)


@pytest.fixture
async def manager() -> AsyncIterator[Manager[Any]]:
    async with await Manager.from_exchange_factory(LocalExchangeFactory()) as manager:
        yield manager


def test_workers_load_nothing_of_the_terminal() -> None:
    code = (
        "import sys, academy.demo.agents; "
        "print(sorted({'rich', 'typer', 'sklearn'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "[]\n"


class FlakySite:
    """Stands for a handle whose agent is lost before some answers."""

    def __init__(self, index: int, failures: int) -> None:
        self.index = index
        self.failures = failures
        self.asked: list[int] = []

    async def train(self, round: int, weights: model.Weights) -> Update:
        self.asked.append(round)
        if self.failures:
            self.failures -= 1
            raise PeerLostError(AgentId.new(), "maybe")
        return Update(self.index, round, weights, images=10)


async def test_site_tells_where_it_is_and_what_it_has(
    manager: Manager[Any],
) -> None:
    site: Handle[Site] = await manager.launch(Site, args=(1, 3, 0))
    state = await site.state()
    assert state.where.pid == os.getpid()
    assert sum(state.digits) == len(shard(1, 3, 0))
    assert state.training is None


async def test_site_trains_with_its_own_images(
    manager: Manager[Any],
) -> None:
    site: Handle[Site] = await manager.launch(Site, args=(1, 3, 0))
    update = await site.train(4, START)
    expected = model.train(START, shard(1, 3, 0), 2, [0, 1, 4])
    assert (update.site, update.round, update.images) == (1, 4, len(shard(1, 3, 0)))
    assert all(map(np.allclose, update.weights, expected))


async def test_site_trains_once_for_a_round(
    manager: Manager[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def train(weights: model.Weights, *args: Any) -> model.Weights:
        trained.append(args[-1][-1])
        return weights

    monkeypatch.setattr(model, "train", train)
    site: Handle[Site] = await manager.launch(Site, args=(0, 3, 0))
    await asyncio.gather(*(site.train(1, START) for _ in range(5)))
    await site.train(1, START)
    await site.train(2, START)
    assert trained == [1, 2]


async def test_coordinator_averages_what_the_sites_send(
    manager: Manager[Any],
) -> None:
    sites: list[Handle[Site]] = [
        await manager.launch(Site, args=(i, 2, 0)) for i in range(2)
    ]
    coordinator: Handle[Coordinator] = await manager.launch(
        Coordinator, args=(sites, 0)
    )
    weights = START
    for number in (1, 2):
        result = await coordinator.run_round(number)
        shards = [shard(i, 2, 0) for i in range(2)]
        weights = model.average(
            [model.train(weights, s, 2, [0, i, number]) for i, s in enumerate(shards)],
            [len(s) for s in shards],
        )
        assert result.accuracy == pytest.approx(model.accuracy(weights, TESTS))
        assert result.round == number
        assert result.failures == ()
    assert await coordinator.applied() == {(s, r): 1 for s in (0, 1) for r in (1, 2)}
    assert [calls.answered for calls in await coordinator.calls()] == [2, 2]


async def test_coordinator_asks_again_when_a_process_is_lost(
    manager: Manager[Any],
) -> None:
    sites = [FlakySite(0, failures=0), FlakySite(1, failures=2)]
    coordinator: Handle[Coordinator] = await manager.launch(
        Coordinator(sites, seed=0)  # type: ignore[arg-type]
    )
    result = await coordinator.run_round(1)
    assert [(f.site, f.error, f.executed) for f in result.failures] == [
        (1, "PeerLostError", "maybe")
    ] * 2
    assert [site.asked for site in sites] == [[1], [1, 1, 1]]
    assert await coordinator.applied() == {(0, 1): 1, (1, 1): 1}
    calls = await coordinator.calls()
    assert calls[1].failed == {"PeerLostError": 2}
    assert calls[1].unanswered == 0


async def test_coordinator_gives_up_on_a_site_that_is_lost_for_good(
    manager: Manager[Any],
) -> None:
    coordinator: Handle[Coordinator] = await manager.launch(
        Coordinator([FlakySite(0, failures=1000)], seed=0)  # type: ignore[list-item]
    )
    with pytest.raises(RuntimeError, match="Site 0 failed 20 times in round 1, last"):
        await coordinator.run_round(1)
    assert await coordinator.applied() == {}


async def test_reference_is_trained_with_all_images(
    manager: Manager[Any],
) -> None:
    coordinator: Handle[Coordinator] = await manager.launch(Coordinator, args=([], 0))
    trained = model.train(START, TRAINING, 4, [0])
    expected = pytest.approx(model.accuracy(trained, TESTS))
    assert await coordinator.reference(2) == expected
    assert (await coordinator.where()).pid == os.getpid()
