"""The contract of exchanges: each test runs on all of them.

An `office` has agents in the event loop of the test, and then in another one, where
messages have to leave the engine. Messages between threads stand for those between
processes: engines share nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from academy.embedded import EmbeddedServer
from academy.exchange.factory import ExchangeFactory
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.redis import RedisExchangeFactory
from tests.contract.office import (
    Elsewhere,
    Here,
    Office,
    Place,
    elsewhere,
    lease_threads,
    office,
    tasks_left,
)

KINDS = ["local", "redis", "hybrid"]


def make_factory(
    kind: str, server: EmbeddedServer, namespace: str
) -> ExchangeFactory[Any]:
    if kind == "local":
        return LocalExchangeFactory()
    if kind == "redis":
        return RedisExchangeFactory(
            server.host, server.port, namespace=namespace, **server.redis_kwargs
        )
    return HybridExchangeFactory.from_url(server.url, namespace=namespace)


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task or a thread behind."""
    yield
    assert not tasks_left()
    assert not lease_threads()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def factory(kind: str, server: EmbeddedServer, namespace: str) -> ExchangeFactory[Any]:
    return make_factory(kind, server, namespace)


@pytest.fixture
def other() -> Iterator[Elsewhere]:
    """Another event loop, beside that of the test."""
    with elsewhere() as place:
        yield place


@pytest.fixture(params=["here", "elsewhere"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "here":
        yield Here()
        return
    with elsewhere() as other:
        yield other


@pytest.fixture
async def mail(factory: ExchangeFactory[Any], place: Place) -> AsyncIterator[Office]:
    """The office of the test."""
    async with office(factory, place) as made:
        yield made
