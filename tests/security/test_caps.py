"""What one sender can fill: a mailbox on the server, and not the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from academy.agent import Agent
from academy.embedded import EmbeddedServer
from academy.exception import BackpressureTimeout, MailboxFullError
from academy.exchange import courier as courier_module
from academy.exchange.hybrid import HybridExchangeFactory, HybridExchangeTransport
from academy.exchange.queues import QUEUE_BYTES
from academy.identifier import EntityId
from academy.message import ActionRequest, Message
from academy.serialize import SerializationStrategy
from tests.contract.office import elsewhere, within
from tests.restricted import admin_kwargs

MIB = 1 << 20
SIZE = 50_000
FITS = QUEUE_BYTES // SIZE
PICKLE = SerializationStrategy.PICKLE


class Slow(Agent):
    """Stands for an agent whose requests the tests take themselves."""


@pytest.fixture
async def admin(fresh_server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    login = admin_kwargs(fresh_server)
    host, port = fresh_server.host, fresh_server.port
    async with redis.asyncio.Redis(host=host, port=port, **login) as client:
        yield client


async def used(admin: redis.asyncio.Redis) -> int:
    return int((await admin.info("memory"))["used_memory"])


async def flood(user: Any, dest: EntityId, count: int) -> tuple[int, set[str]]:
    """Send requests of 50 kB at once; return how many were accepted, and errors."""

    async def one(n: int) -> None:
        body = ActionRequest(action=str(n), serialization=PICKLE, pargs=(bytes(SIZE),))
        await user.send(Message.create(user.client_id, dest, body))

    found = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
    errors = [e for e in found if e is not None]
    known = (MailboxFullError, BackpressureTimeout)
    assert all(isinstance(e, known) for e in errors), set(map(type, errors))
    assert {e.executed for e in errors} <= {"no"}  # type: ignore[union-attr]
    return count - len(errors), {str(e) for e in errors}


async def test_an_offline_mailbox_does_not_fill_the_server(
    fresh_server: EmbeddedServer, admin: redis.asyncio.Redis, namespace: str
) -> None:
    """10,000 requests of 50 kB to an agent that does not run."""
    factory = HybridExchangeFactory.from_url(fresh_server.url, namespace=namespace)
    async with await factory.create_user_client() as user, within(50):
        agent = (await user.register_agent(Slow)).agent_id
        other = (await user.register_agent(Slow)).agent_id
        before, accepted = await used(admin), 0
        for _ in range(10):
            accepted += (await flood(user, agent, 1000))[0]
        assert FITS * 0.98 < accepted <= FITS
        assert await used(admin) - before < QUEUE_BYTES + 10 * MIB
        # Nobody else is affected.
        assert await flood(user, other, 10) == (10, set())


async def test_a_slow_consumer_does_not_fill_the_server(
    fresh_server: EmbeddedServer,
    admin: redis.asyncio.Redis,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its stream begins in the queue; what it has taken makes room."""
    # While it lives its senders wait for room.
    monkeypatch.setattr(courier_module, "UNREACHABLE_TIMEOUT", 2.0)
    factory = HybridExchangeFactory.from_url(fresh_server.url, namespace=namespace)
    with elsewhere() as place:
        async with await factory.create_user_client() as user, within(50):
            agent = (await user.register_agent(Slow)).agent_id
            before = await used(admin)
            accepted, errors = await flood(user, agent, 2000)
            assert accepted < 2000
            assert all("MiB wait in it" in text for text in errors)
            consumer = await place.run(
                HybridExchangeTransport.new(
                    namespace=namespace, redis_info=factory.redis_info, mailbox_id=agent
                )
            )
            try:
                taken = [await place.run(consumer.recv(10)) for _ in range(100)]
                more, _ = await flood(user, agent, 2000)
                # At least as many as it has taken; some wait in its window.
                assert 50 <= more <= 400
                assert await used(admin) - before < QUEUE_BYTES + 20 * MIB
                rest = accepted + more - len(taken)
                taken += [await place.run(consumer.recv(10)) for _ in range(rest)]
            finally:
                await place.run(consumer.close())
    assert len(taken) == len({m.tag for m in taken}) == accepted + more


async def test_a_message_of_64_mib_fits_alone(
    fresh_server: EmbeddedServer, namespace: str
) -> None:
    factory = HybridExchangeFactory.from_url(
        fresh_server.url, namespace=namespace, direct=False
    )
    async with await factory.create_user_client() as user, within(50):
        agent = (await user.register_agent(Slow)).agent_id
        body = ActionRequest(
            action="a", serialization=PICKLE, pargs=(bytes(QUEUE_BYTES - 2000),)
        )
        await user.send(Message.create(user.client_id, agent, body))
        assert (await flood(user, agent, 5))[0] == 0
