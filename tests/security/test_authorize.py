"""The hook in a process of its own, and the identity that it is told."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.exception import UnauthorizedActionError
from academy.exchange.hybrid import HybridExchangeFactory
from academy.handle import Handle
from academy.identifier import EntityId
from academy.manager import Manager
from academy.runtime import RuntimeConfig


class Ledger(Agent):
    """Keeps what is entered."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    @action
    async def read(self) -> list[str]:
        return self.entries

    @action
    async def enter(self, text: str) -> None:
        self.entries.append(text)


def readers(clerk: EntityId, action: str, source: EntityId) -> bool:
    """All may read; the clerk may do everything."""
    return action in {"read", "shutdown"} or source == clerk


@pytest.fixture
def executor() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        yield pool


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "relay"])
async def test_in_a_worker(
    redis_url: str, namespace: str, executor: ProcessPoolExecutor, direct: bool
) -> None:
    factory = HybridExchangeFactory.from_url(
        redis_url, namespace=namespace, direct=direct
    )
    async with (
        await Manager.from_exchange_factory(factory, executors=executor) as manager,
        await factory.create_user_client(name="clerk") as clerk,
        # Names are no proof of anything.
        await factory.create_user_client(name="clerk") as impostor,
    ):
        hook = functools.partial(readers, clerk.client_id)
        config = RuntimeConfig(authorize=hook)
        ledger = await manager.launch(Ledger, config=config)
        mine: Handle[Any] = Handle(ledger.agent_id, exchange=clerk, ignore_context=True)
        theirs: Handle[Any] = Handle(
            ledger.agent_id, exchange=impostor, ignore_context=True
        )
        for n in range(20):
            await mine.enter(str(n))
            with pytest.raises(UnauthorizedActionError, match="'enter'"):
                await theirs.enter("forged")
        assert await theirs.read() == [str(n) for n in range(20)]
