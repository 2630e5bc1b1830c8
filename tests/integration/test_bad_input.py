"""What a program may get wrong: each is a named error, and all goes on after it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pickle
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from academy.agent import Agent, action
from academy.embedded import EmbeddedServer
from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExceptionSerializationError,
    MessageTooLargeError,
    SerializationError,
)
from academy.exchange.client import UserExchangeClient
from academy.exchange.hybrid import HybridExchangeFactory, base32_to_uuid
from academy.exchange.keys import Keys, entity_key
from academy.exchange.redis import RedisExchangeFactory
from academy.exchange.version import IncompatibleServerError
from academy.handle import Handle, ProxyHandle
from academy.identifier import AgentId
from academy.manager import Manager
from academy.message import Body, Header, Message, PingRequest, SuccessResponse
from academy.runtime import Runtime
from tests.contract.office import Elsewhere, elsewhere
from tests.fake_server import answering, hello, mute, without_hello
from tests.restricted import admin_kwargs

PASSWORD = "open-sesame"
LIMIT = 300_000


class Sealed(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Calculator(Agent):
    @action
    async def add(self, a: int, b: int) -> int:
        return a + b

    @action
    async def lock(self) -> Any:
        return threading.Lock()

    @action
    async def fail(self) -> None:
        raise Sealed("the vault is shut")

    @action
    async def bulk(self, size: int) -> bytes:
        return bytes(size)

    @action
    async def length(self, data: bytes) -> int:
        return len(data)


class NoAgent:
    """Has an action, and is no agent."""

    @action
    async def add(self, a: int, b: int) -> int:
        return a + b


class Damaged(Body):
    """Says that it is a request of some kind, and is not."""

    kind = "action-request"
    plain = ("surprise",)
    surprise: int = 5


class Unheard(Body):
    kind = "riddle-request"


class DamagedAnswer(Damaged):
    kind = "action-response"


class Lab:
    """A client, and an agent that runs on another engine."""

    client: UserExchangeClient[Any]
    handle: Handle[Calculator]

    def __init__(
        self, server: EmbeddedServer, namespace: str, place: Elsewhere, tmp_path: Path
    ) -> None:
        self.server = server
        self.namespace = namespace
        self.place = place
        self.tmp_path = tmp_path
        self.keys = Keys(namespace)
        self.factory = self.new_factory()
        self.raw = redis.asyncio.Redis(
            host=server.host, port=server.port, **admin_kwargs(server)
        )

    def new_factory(self, **options: Any) -> HybridExchangeFactory:
        options = {"namespace": self.namespace} | options
        return HybridExchangeFactory.from_url(self.server.url, **options)

    async def check(self) -> None:
        """Assert that the client and the agent work."""
        async with asyncio.timeout(5):
            assert await self.handle.add(1, b=2) == 3
            assert await self.handle.ping() > 0
            assert await self.client.discover(Calculator) == (self.handle.agent_id,)

    async def raw_agent(
        self, answer: Callable[[Message[Any]], list[Message[Any]]]
    ) -> Any:
        """Return an agent client whose agent answers with whatever it likes."""
        registration = await self.client.register_agent(NoActions)

        async def handle(message: Message[Any]) -> None:
            for response in answer(message):
                await agent.send(response)

        agent: Any = await self.factory.create_agent_client(registration, handle)
        return agent


class NoActions(Agent):
    pass


@pytest.fixture
async def lab(
    server: EmbeddedServer,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Lab]:
    monkeypatch.delenv("ACADEMY_REDIS_URL", raising=False)
    monkeypatch.setattr("academy.exchange.router.MESSAGE_LIMIT", LIMIT)
    with elsewhere() as place:
        lab = Lab(server, namespace, place, tmp_path)
        async with await lab.factory.create_user_client(name="user") as client:
            registration = await client.register_agent(Calculator, name="calculator")
            runtime = Runtime(
                Calculator(), exchange_factory=lab.factory, registration=registration
            )
            running = asyncio.create_task(place.run(runtime.run_until_complete()))
            lab.client, lab.handle = client, Handle(registration.agent_id)
            await lab.check()
            yield lab
            await lab.handle.shutdown()
            await asyncio.wait_for(running, 10)
        await lab.raw.aclose()


@dataclasses.dataclass
class Row:
    """One fault, the error that it is to be, and what its text must say."""

    error: type[BaseException]
    message: str
    provoke: Callable[[Lab], Awaitable[Any]]
    within: float = 5.0


def row(error: type[BaseException], message: str, within: float = 5.0) -> Any:
    def enter(provoke: Callable[[Lab], Awaitable[Any]]) -> Any:
        name = provoke.__name__.replace("_", " ").strip()
        ROWS.append(pytest.param(Row(error, message, provoke, within), id=name))
        return provoke

    return enter


ROWS: list[Any] = []


def factory_at(port: int) -> HybridExchangeFactory:
    return HybridExchangeFactory("127.0.0.1", port, redis_kwargs={"password": PASSWORD})


@contextlib.contextmanager
def taken_port() -> Any:
    with socket.socket() as holder:
        holder.bind(("", 0))
        yield holder.getsockname()[1]


# The server


@row(redis.exceptions.ConnectionError, r"No Redis server answers at 127\.0\.0\.1:\d+")
async def unreachable_redis(lab: Lab) -> None:
    with taken_port() as port:
        await factory_at(port).create_user_client()


@row(redis.exceptions.ConnectionError, r"No Redis server answers at 127\.0\.0\.1:\d+")
async def a_port_that_never_answers(lab: Lab) -> None:
    async with answering(mute) as port:
        await factory_at(port).create_user_client()


@row(redis.exceptions.ConnectionError, "No Redis server answers at no-such-host")
async def unknown_host(lab: Lab) -> None:
    await HybridExchangeFactory("no-such-host.invalid", 6379).create_user_client()


@row(redis.exceptions.AuthenticationError, "refused the login .* check user name and")
async def wrong_password(lab: Lab) -> None:
    await factory_at(lab.server.port).create_user_client()


@row(redis.exceptions.AuthenticationError, "refused the login")
async def no_password(lab: Lab) -> None:
    await HybridExchangeFactory(lab.server.host, lab.server.port).create_user_client()


@row(IncompatibleServerError, r"runs version 6\.2\.14; the exchange needs Redis >= 7")
async def server_too_old(lab: Lab) -> None:
    async with answering(hello("6.2.14")) as port:
        await factory_at(port).create_user_client()


@row(IncompatibleServerError, "unknown command 'HELLO'.* Use Redis >= 7.0 or Valkey")
async def server_much_too_old(lab: Lab) -> None:
    async with answering(without_hello) as port:
        await factory_at(port).create_user_client()


@row(ValueError, "Not a Redis URL .*percent-encoded")
async def bad_url(lab: Lab) -> None:
    HybridExchangeFactory.from_url(f"redis://:{PASSWORD}/@host:port")


@row(ValueError, "Not a Redis URL .its scheme is 'http'")
async def url_of_something_else(lab: Lab) -> None:
    HybridExchangeFactory.from_url(f"http://:{PASSWORD}@host:80")


@row(ValueError, "No server is named.*ACADEMY_REDIS_URL")
async def no_url(lab: Lab) -> None:
    HybridExchangeFactory.from_url()


@row(ValueError, "Not a namespace: 'a b{}'. Use 1 to 128 letters, digits")
async def bad_namespace(lab: Lab) -> None:
    lab.new_factory(namespace="a b{}")


# The network of this host


@row(ValueError, "no-such-interface.*lo")
async def unknown_interface(lab: Lab) -> None:
    """The text names those that exist."""
    await lab.new_factory(interface="no-such-interface0").create_user_client()


@row(OSError, r"Port \d+ cannot be used.*give other ports")
async def port_in_use(lab: Lab) -> None:
    with taken_port() as port:
        await lab.new_factory(ports=[port]).create_user_client()


@row(ValueError, "Not a port: 0. Ports are integers from 1 to 65535")
async def port_0(lab: Lab) -> None:
    lab.new_factory(ports=[0])


@row(ValueError, "Not a port: 65536. Ports are integers from 1 to 65535")
async def port_65536(lab: Lab) -> None:
    lab.new_factory(ports=range(65535, 65537))


# Agents


@row(BadEntityIdError, "no mailbox of that identifier is registered here")
async def unregistered_agent(lab: Lab) -> None:
    await Handle(AgentId.new()).add(1, 2)


@row(BadEntityIdError, "no mailbox of that identifier is registered here")
async def running_an_unregistered_agent(lab: Lab) -> None:
    registration = await lab.client.register_agent(NoActions)
    stranger = type(registration)(AgentId.new())
    await Runtime(
        NoActions(), exchange_factory=lab.factory, registration=stranger
    ).run_until_complete()


@row(AgentTerminatedError, "terminated: the experiment is over")
async def terminated_agent(lab: Lab) -> None:
    uid = (await lab.client.register_agent(NoActions)).agent_id
    await lab.client.terminate(uid, reason="the experiment is over")
    await Handle(uid).add(1, 2)


@row(AgentTerminatedError, "terminated: the experiment is over")
async def running_a_terminated_agent(lab: Lab) -> None:
    registration = await lab.client.register_agent(NoActions)
    await lab.client.terminate(registration.agent_id, reason="the experiment is over")
    await Runtime(
        NoActions(), exchange_factory=lab.factory, registration=registration
    ).run_until_complete()


@row(AttributeError, "has no action 'lenght'. Did you mean 'length'")
async def unknown_action(lab: Lab) -> None:
    await lab.handle.lenght(b"x")


@row(AttributeError, "has no action 'zzz'. Its actions are .*'add'")
async def unknown_action_that_is_like_no_other(lab: Lab) -> None:
    await lab.handle.zzz()


@row(AttributeError, "has no action 'agent_on_startup'")
async def method_that_is_no_action(lab: Lab) -> None:
    await lab.handle.action("agent_on_startup")


@row(TypeError, "missing 1 required positional argument: 'b'")
async def too_few_arguments(lab: Lab) -> None:
    await lab.handle.add(1)


@row(TypeError, "unexpected keyword argument 'c'")
async def wrong_arguments(lab: Lab) -> None:
    await lab.handle.add(1, 2, c=3)


# What cannot travel


@row(SerializationError, "The arguments .int, lock. could not be serialized")
async def unpicklable_argument(lab: Lab) -> None:
    await lab.handle.add(1, threading.Lock())


@row(SerializationError, "The result .lock. could not be serialized with pickle")
async def unpicklable_result(lab: Lab) -> None:
    await lab.handle.lock()


@row(ExceptionSerializationError, "Sealed.*the vault is shut")
async def unpicklable_exception(lab: Lab) -> None:
    await lab.handle.fail()


@row(MessageTooLargeError, f"larger than the limit of {LIMIT} bytes. Send it in parts")
async def argument_too_large(lab: Lab) -> None:
    await lab.handle.length(bytes(LIMIT))


@row(MessageTooLargeError, f"larger than the limit of {LIMIT} bytes. Send it in parts")
async def result_too_large(lab: Lab) -> None:
    await lab.handle.bulk(LIMIT)


# Classes


@row(TypeError, "NoAgent.* is not an agent class: derive it from academy.agent.Agent")
async def registering_what_is_no_agent(lab: Lab) -> None:
    await lab.client.register_agent(NoAgent)  # type: ignore[type-var]


@row(TypeError, "NoAgent.* is not an agent class: derive it from academy.agent.Agent")
async def discovering_what_is_no_agent(lab: Lab) -> None:
    await lab.client.discover(NoAgent)


@row(TypeError, "NoAgent")
async def launching_what_is_no_agent(lab: Lab) -> None:
    async with await Manager.from_exchange_factory(lab.factory) as manager:
        await manager.launch(NoAgent)  # type: ignore[type-var]


@row(TypeError, "Only instances of Agent classes can run, not .*NoAgent")
async def running_what_is_no_agent(lab: Lab) -> None:
    registration = await lab.client.register_agent(NoActions)
    Runtime(NoAgent(), exchange_factory=lab.factory, registration=registration)  # type: ignore[type-var]


@row(TypeError, "ProxyHandle needs an Agent instance, not .*NoAgent")
async def a_proxy_of_what_is_no_agent(lab: Lab) -> None:
    ProxyHandle(NoAgent())


@row(TypeError, "add' is not a coroutine: declare it with `async def`")
async def sync_function_marked_as_action(lab: Lab) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    action(add)  # type: ignore[type-var]


# Damage


@row(ValueError, "Not the base32 form of a UUID.*'no base32 at all'")
async def malformed_base32(lab: Lab) -> None:
    base32_to_uuid("no base32 at all")


@row(Exception, "A message has a damaged action-request body")
async def malformed_request(lab: Lab) -> None:
    await ask_with_body(lab, Damaged())


@row(Exception, "unknown kind 'riddle-request'")
async def request_of_unknown_kind(lab: Lab) -> None:
    await ask_with_body(lab, Unheard())


@row(Exception, "A success-response was sent as a request")
async def response_sent_as_a_request(lab: Lab) -> None:
    await ask_with_body(lab, SuccessResponse())


@row(ValueError, "A message has a damaged action-response body")
async def malformed_response(lab: Lab) -> None:
    def answer(request: Message[Any]) -> list[Message[Any]]:
        return [request.create_response(DamagedAnswer())]

    async with await lab.raw_agent(answer) as agent:
        handle: Any = Handle(agent.client_id, exchange=lab.client, ignore_context=True)
        await handle.add(1, 2)


async def ask_with_body(lab: Lab, body: Body) -> None:
    """Send the agent a request with a body that is none, and raise its answer."""
    header = Header(
        src=lab.client.client_id,
        dest=lab.handle.agent_id,
        tag=uuid.uuid4(),
        kind="request",
    )
    response = await lab.client.request(Message(header=header, body=body))
    raise response.get_body().get_exception()


@pytest.mark.parametrize("row", ROWS)
async def test_bad_input(lab: Lab, row: Row) -> None:
    async with asyncio.timeout(row.within):
        with pytest.raises(row.error, match=f"(?s){row.message}") as caught:
            await row.provoke(lab)
    assert PASSWORD not in f"{caught.value!s}{caught.value!r}"
    await lab.check()
    if isinstance(caught.value, Exception):
        copy = pickle.loads(pickle.dumps(caught.value))
        assert str(copy) == str(caught.value)


async def test_ports_that_are_used_up(lab: Lab) -> None:
    """The call itself raises, not its `await`: a coroutine cannot."""
    with taken_port() as port:
        pass
    factory = lab.new_factory(ports=[port])
    registration = await lab.client.register_agent(NoActions)
    async with await factory.create_user_client():
        with pytest.raises(StopIteration):
            factory.create_user_client()
        with pytest.raises(StopIteration):
            factory.create_agent_client(registration, lab.check)  # type: ignore[arg-type]
    async with await factory.create_user_client():
        await lab.check()


# What nobody is to blame for who is there to be told


async def test_garbage_in_a_queue(lab: Lab) -> None:
    """It is dropped unread, whoever wrote it, and what waits behind it is taken."""
    marker = lab.tmp_path / "executed"
    bomb = pickle.dumps(Bomb(marker))
    queue = f"{lab.keys.prefix}q:{entity_key(lab.handle.agent_id)}"
    forged = {"s": "u:1:0", "q": "1", "k": "q", "g": b"t" * 16, "m": bomb, "b": b""}
    for fields in (
        {"x": "y"},
        {"s": "s", "q": "many"},
        {**forged, "h": b"\0" * 32},
        {**forged, "h": b""},
        {name: os.urandom(40) for name in "sqkgmbh"},
    ):
        for _ in range(20):
            await lab.raw.xadd(queue, fields)
        # This one has no direct link: its request stands behind the garbage.
        factory = RedisExchangeFactory(
            lab.server.host,
            lab.server.port,
            namespace=lab.namespace,
            **lab.server.redis_kwargs,
        )
        async with await factory.create_user_client() as client:
            handle: Handle[Calculator] = Handle(lab.handle.agent_id, exchange=client)
            assert await asyncio.wait_for(handle.add(1, b=2), 5) == 3
        await lab.check()
    assert not marker.exists()
    assert await lab.raw.xlen(queue) <= 1


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


async def test_garbage_in_the_directory(lab: Lab) -> None:
    prefix = lab.keys.prefix
    name = f"{Calculator.__module__}.{Calculator.__qualname__}"
    await lab.raw.sadd(f"{prefix}class:{name}", "no base32 at all", b"\xff", "A" * 26)
    await lab.raw.hset(f"{prefix}mb:no base32 at all", mapping={"mro": name})
    await lab.raw.hset(f"{prefix}tk:{entity_key(lab.handle.agent_id)}", "s", "junk")
    await lab.check()
    census = await lab.client.census()
    assert [info.agent_id for info in census] == [lab.handle.agent_id]


async def test_garbage_among_the_news(lab: Lab) -> None:
    wakes = [key async for key in lab.raw.scan_iter(f"{lab.keys.prefix}wake:*")]
    assert wakes
    for key in wakes:
        for kind in "mbcfg?":
            for entity in ("", "no base32 at all", "A" * 26):
                await lab.raw.xadd(key, {"t": kind, "e": entity, "i": "x", "r": "y"})
        await lab.raw.xadd(key, {"x": b"\xff"})
    await lab.check()


async def test_unknown_and_duplicate_response_tags(lab: Lab) -> None:
    """They are dropped: only the first answer to an open request counts."""

    def answer(request: Message[Any]) -> list[Message[Any]]:
        strays = [
            Message.create(request.src, request.dest, PingRequest()) for _ in range(50)
        ]
        asked = [*strays, *[request] * 50]
        return [message.create_response(SuccessResponse()) for message in asked]

    async with await lab.raw_agent(answer) as agent:
        handle: Any = Handle(agent.client_id)
        for _ in range(5):
            assert await handle.ping(timeout=5) > 0
            await lab.check()


async def test_garbage_leaves_nobody_waiting(lab: Lab) -> None:
    """A call whose entry was damaged in the queue ends with a named error."""
    registration = await lab.client.register_agent(NoActions)
    handle: Any = Handle(registration.agent_id)
    call = asyncio.create_task(handle.add(1, 2))
    queue = f"{lab.keys.prefix}q:{entity_key(registration.agent_id)}"
    while not await lab.raw.xlen(queue):  # noqa: ASYNC110 - it is on the server
        await asyncio.sleep(0.01)
    await lab.raw.delete(queue)
    async with asyncio.timeout(12):
        with pytest.raises(Exception, match="was lost: neither the queue nor"):
            await call
    await lab.check()
