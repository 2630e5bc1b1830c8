"""Fixtures for the modules that talk to a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis.asyncio

from academy.embedded import EmbeddedServer
from academy.exchange.connection import RedisConnectionInfo, async_client
from academy.exchange.engine import Engine
from academy.exchange.keys import Keys
from academy.exchange.server import Server
from tests.proxy import Proxy
from tests.restricted import admin_kwargs


@pytest.fixture
def info(server: EmbeddedServer) -> RedisConnectionInfo:
    return RedisConnectionInfo(server.host, server.port, dict(server.redis_kwargs))


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


@pytest.fixture
async def raw(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """A client to look at keys with, and to damage them; it may do all."""
    info = RedisConnectionInfo(server.host, server.port, admin_kwargs(server))
    client = async_client(info, timeout=5.0)
    yield client
    await client.aclose()


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[Proxy]:
    """A wire to the server that can be cut."""
    async with Proxy(server.port) as made:
        yield made


@pytest.fixture
def proxied(proxy: Proxy, server: EmbeddedServer) -> RedisConnectionInfo:
    return RedisConnectionInfo("127.0.0.1", proxy.port, dict(server.redis_kwargs))


@pytest.fixture
async def commands(info: RedisConnectionInfo, keys: Keys) -> AsyncIterator[Server]:
    """An open command connection."""
    made = Server(info, keys.prefix)
    await made.open()
    yield made
    await made.close()


NewEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture
async def new_engine(
    info: RedisConnectionInfo, namespace: str
) -> AsyncIterator[NewEngine]:
    """Makes engines; each of them is like a process of its own."""
    made: list[Engine] = []

    async def new(at: RedisConnectionInfo = info, *, direct: bool = False) -> Engine:
        engine = Engine(at, namespace, direct=direct)
        await engine.open()
        made.append(engine)
        return engine

    yield new
    for engine in made:
        await engine.close()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment, without a secret for namespaces."""
    for name in ("ACADEMY_SECRET", "ACADEMY_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch
