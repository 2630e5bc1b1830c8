"""With `encrypt_relay`, nothing that messages say can be read on the server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio

from academy.agent import Agent, action
from academy.embedded import EmbeddedServer
from academy.exception import AgentTerminatedError
from academy.exchange.client import UserExchangeClient
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.keys import Keys, entity_key
from academy.exchange.redis import RedisExchangeFactory
from academy.handle import Handle
from academy.identifier import EntityId
from academy.message import ActionRequest, Message
from academy.runtime import Runtime, RuntimeConfig
from academy.serialize import SerializationStrategy
from tests.contract.office import elsewhere, eventually
from tests.restricted import admin_kwargs

CANARY = "canary-in-the-mine-3141592653"
ACTION = "sing_the_canary_song"
SECRET = "a secret that the server does not know"
JSON = SerializationStrategy.JSON


class Bird(Agent):
    """Sings."""

    @action
    async def sing_the_canary_song(self, text: str) -> str:
        return text * 2

    @action
    async def fall(self, text: str) -> str:
        raise ValueError(text)


def spellings(text: str) -> list[bytes]:
    """Return a text as it may stand in other data: plain, or within base64."""
    found = [text.encode()]
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + text.encode())
        # What depends on its neighbours is cut off.
        found.append(coded[4 if shift else 0 : -4])
    return found


async def everything(raw: redis.asyncio.Redis, namespace: str) -> bytes:
    """Return all keys of a namespace with all that is in them."""
    parts: list[Any] = []
    async for key in raw.scan_iter(f"{{{namespace}}}:*"):
        kind = await raw.type(key)
        parts.append(key)
        if kind == b"string":
            parts.append(await raw.get(key))
        elif kind == b"hash":
            parts.append(await raw.hgetall(key))
        elif kind == b"set":
            parts.append(await raw.smembers(key))
        elif kind == b"zset":
            parts.append(await raw.zrange(key, 0, -1, withscores=True))
        else:
            assert kind == b"stream"
            parts.append(await raw.xrange(key))
    return b"\n".join(_flat(parts))


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        return [b for pair in value.items() for part in pair for b in _flat(part)]
    if isinstance(value, list | tuple | set):
        return [b for part in value for b in _flat(part)]
    return []


@pytest.fixture
async def raw(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """A client that sees all keys."""
    login = admin_kwargs(server)
    async with redis.asyncio.Redis(
        host=server.host, port=server.port, **login
    ) as client:
        yield client


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACADEMY_SECRET", SECRET)


NewFactory = Callable[[bool], Any]


@pytest.fixture(params=["hybrid", "redis"])
def new_factory(
    request: pytest.FixtureRequest, redis_url: str, namespace: str, secret: None
) -> NewFactory:
    def new(encrypt: bool) -> Any:
        # The other members are not to have it in their own process.
        hybrid = HybridExchangeFactory.from_url(
            redis_url, namespace=namespace, direct=False, encrypt_relay=encrypt
        )
        if request.param == "hybrid":
            return hybrid
        host, port, kwargs = hybrid.redis_info
        return RedisExchangeFactory(
            host, port, namespace=namespace, encrypt_relay=encrypt, **kwargs
        )

    return new


async def post(user: UserExchangeClient[Any], agent: Any, action: str) -> None:
    body = ActionRequest(action=action, pargs=(CANARY,), serialization=JSON)
    await user.send(Message.create(user.client_id, agent, body))


async def length(raw: redis.asyncio.Redis, namespace: str, uid: EntityId) -> int:
    """Return how many messages wait in a mailbox."""
    return int(await raw.xlen(f"{Keys(namespace).prefix}q:{entity_key(uid)}"))


@contextlib.asynccontextmanager
async def running(factory: Any, registration: Any) -> AsyncIterator[Runtime[Bird]]:
    """Run the agent on an engine of its own."""

    async def start() -> Runtime[Bird]:
        config = RuntimeConfig(terminate_on_success=False)
        runtime = Runtime(
            Bird(), exchange_factory=factory, registration=registration, config=config
        )
        return await runtime.__aenter__()

    with elsewhere() as place:
        runtime = await place.run(start())
        try:
            yield runtime
        finally:
            await place.run(runtime.__aexit__(None, None, None))


@pytest.mark.parametrize("encrypt", [True, False])
async def test_no_canary_on_the_server(
    new_factory: NewFactory, namespace: str, raw: redis.asyncio.Redis, encrypt: bool
) -> None:
    """Neither in requests nor in answers; without the option there is."""
    user = await new_factory(encrypt).create_user_client(start_listener=False)
    async with user:
        registration = await user.register_agent(Bird)
        await post(user, registration.agent_id, ACTION)
        await post(user, registration.agent_id, "fall")
        asked = await everything(raw, namespace)
        async with running(new_factory(encrypt), registration), asyncio.timeout(10):
            while await length(raw, namespace, user.client_id) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            answered = await everything(raw, namespace)
    for data, text in ((asked, ACTION), (asked, CANARY), (answered, CANARY)):
        assert any(word in data for word in spellings(text)) is not encrypt


@pytest.mark.parametrize("from_private", [True, False])
async def test_members_with_and_without_understand_each_other(
    new_factory: NewFactory, from_private: bool
) -> None:
    factory, other = new_factory(from_private), new_factory(not from_private)
    async with await factory.create_user_client() as user:
        registration = await user.register_agent(Bird)
        async with running(other, registration):
            handle: Handle[Any] = Handle(registration.agent_id, exchange=user)
            assert await handle.sing_the_canary_song("la") == "lala"
            with pytest.raises(ValueError, match="off the perch"):
                await handle.fall("off the perch")


async def test_forged_and_damaged_entries_are_dropped_undecoded(
    new_factory: NewFactory, namespace: str, raw: redis.asyncio.Redis
) -> None:
    factory = new_factory(True)
    async with await factory.create_user_client() as user:
        registration = await user.register_agent(Bird)
        agent = registration.agent_id
        queue = f"{Keys(namespace).prefix}q:{entity_key(agent)}"
        await post(user, agent, ACTION)
        ((_, good),) = await raw.xrange(queue)
        damaged = 0
        for name in [name for name in good if good[name] and name != b"x"]:
            value = bytearray(good[name])
            value[-1] ^= 1
            await raw.xadd(queue, good | {name: bytes(value)})
            damaged += 1
        async with running(new_factory(False), registration) as runtime:
            queues = runtime._client._transport.engine.queues  # type: ignore[union-attr]
            await eventually(lambda: queues.dead_letters == damaged)
    assert damaged >= 6


async def test_waiting_calls_of_a_terminated_agent_are_answered(
    new_factory: NewFactory, namespace: str, raw: redis.asyncio.Redis
) -> None:
    """Though their heads are encrypted, too."""
    factory = new_factory(True)
    async with (
        await factory.create_user_client() as user,
        await new_factory(False).create_user_client() as other,
    ):
        registration = await user.register_agent(Bird)
        agent = registration.agent_id
        await post(user, agent, ACTION)
        handle: Handle[Any] = Handle(agent, exchange=user, ignore_context=True)
        call = asyncio.create_task(handle.sing_the_canary_song("la"))
        async with asyncio.timeout(10):
            while await length(raw, namespace, agent) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await other.terminate(agent)
        with pytest.raises(AgentTerminatedError) as caught:
            await asyncio.wait_for(call, 5)
        assert caught.value.executed == "no"


async def test_it_needs_a_secret_that_the_server_does_not_know(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACADEMY_SECRET", "ACADEMY_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    factory = HybridExchangeFactory.from_url(
        redis_url, namespace=namespace, encrypt_relay=True
    )
    with pytest.raises(ValueError, match="set ACADEMY_SECRET_FILE"):
        await factory.create_user_client()


async def test_the_option_travels(new_factory: NewFactory) -> None:
    factory = new_factory(True)
    assert pickle.loads(pickle.dumps(factory)).encrypt_relay
    assert "encrypt_relay=True" in repr(factory)
    async with await factory.create_user_client() as user:
        assert user.factory().encrypt_relay
