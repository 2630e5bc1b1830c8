"""Mailboxes for tests: here, or in another event loop and so on another engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Protocol, Self, TypeVar

from academy.agent import Agent
from academy.exchange.client import AgentExchangeClient, UserExchangeClient
from academy.exchange.factory import ExchangeFactory
from academy.identifier import AgentId, EntityId
from academy.message import ActionRequest, Message, Response, SuccessResponse

ResultT = TypeVar("ResultT")

FACTOR = float(os.environ.get("ACADEMY_TEST_TIMEOUT_FACTOR", "1"))
"""Stretches all bounds, for machines that are busy with something else."""


class Sensor(Agent):
    """An agent class to register."""


class Camera(Sensor):
    """A class derived from it."""


class Clock(Agent):
    """A class that has nothing to do with it."""


def within(seconds: float) -> asyncio.Timeout:
    """Fail with `TimeoutError` when a block takes longer."""
    return asyncio.timeout(seconds * FACTOR)


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with within(seconds):
        while not condition():  # noqa: ASYNC110 - it may change in another thread
            await asyncio.sleep(0.005)


def numbered(src: EntityId, dest: EntityId, n: int) -> Message[ActionRequest]:
    """Return a request that carries a number."""
    return Message.create(src, dest, ActionRequest(action=str(n), serialization="json"))


def number(message: Message[Any]) -> int:
    """Return the number that a request carries."""
    return int(message.get_body().action)


class Place(Protocol):
    """Where coroutines run."""

    async def run(self, coro: Coroutine[Any, Any, ResultT]) -> ResultT: ...


class Here:
    """The event loop of the test."""

    async def run(self, coro: Coroutine[Any, Any, ResultT]) -> ResultT:
        return await coro


class Elsewhere:
    """An event loop in another thread."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="elsewhere")
        self.left: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    async def run(self, coro: Coroutine[Any, Any, ResultT]) -> ResultT:
        future = asyncio.run_coroutine_threadsafe(coro, self.loop)
        return await asyncio.wrap_future(future)

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ready.set()
        await self._done.wait()
        self.left = tasks_left()


def tasks_left() -> set[str]:
    """Return the names of the other tasks of this event loop."""
    return {t.get_name() for t in asyncio.all_tasks() - {asyncio.current_task()}}


class Desk:
    """An agent that keeps the requests it gets, and answers them as it is told.

    Args:
        answer: Returns the answer to a request; `None` leaves it unanswered.
    """

    client: AgentExchangeClient[Any, Any]

    def __init__(
        self, place: Place, answer: Callable[[Message[Any]], Response | None]
    ) -> None:
        self._place = place
        self._answer = answer
        self.taken: list[Message[Any]] = []
        self.ended: list[Exception] = []

    @property
    def uid(self) -> AgentId[Any]:
        return self.client.client_id

    async def open(self, factory: ExchangeFactory[Any], registration: Any) -> None:
        await self._place.run(self._open(factory, registration))

    async def reply(self, message: Message[Any], body: Response) -> None:
        """Answer a request that was left unanswered."""
        await self._place.run(self.client.send(message.create_response(body)))

    async def request(self, message: Message[Any]) -> Message[Any]:
        return await self._place.run(self.client.request(message))

    async def close(self) -> None:
        await self._place.run(self.client.close())

    async def _open(self, factory: ExchangeFactory[Any], registration: Any) -> None:
        self.client = await factory.create_agent_client(
            registration, self._handle, on_end=self.ended.append
        )

    async def _handle(self, message: Message[Any]) -> None:
        self.taken.append(message)
        body = self._answer(message)
        if body is not None:
            await self.client.send(message.create_response(body))


class Box:
    """A transport, used from the test wherever it lives."""

    def __init__(self, place: Place, transport: Any) -> None:
        self._place = place
        self.transport = transport

    @property
    def uid(self) -> Any:
        return self.transport.mailbox_id

    async def send(self, message: Message[Any]) -> None:
        await self._place.run(self.transport.send(message))

    async def post(self, dest: EntityId, *numbers: int) -> None:
        """Send a request with each number."""
        for n in numbers:
            await self.send(numbered(self.uid, dest, n))

    async def recv(self, timeout: float | None = 5.0) -> Message[Any]:
        return await self._place.run(self.transport.recv(timeout))

    async def numbers(self, count: int) -> list[int]:
        """Take so many requests and return their numbers."""
        return [number(await self.recv()) for _ in range(count)]

    async def close(self) -> None:
        await self._place.run(self.transport.close())


class Office:
    """Makes mailboxes of one exchange, and closes them at the end of the test.

    Users are where the test is. Agents are where `place` is.
    """

    def __init__(self, factory: ExchangeFactory[Any], place: Place) -> None:
        self.factory = factory
        self.place = place
        self._opened: list[Any] = []

    async def user(self, name: str | None = None) -> UserExchangeClient[Any]:
        client = await self.factory.create_user_client(name=name)
        self._opened.append(client)
        return client

    async def register(self, kind: type[Agent] = Sensor, name: str = "sensor") -> Any:
        """Return a registration, made by a user that does nothing else."""
        client = await self.factory.create_user_client(start_listener=False)
        registration = await client.register_agent(kind, name=name)
        await client.close()
        return registration

    async def desk(
        self,
        registration: Any = None,
        answer: Callable[[Message[Any]], Response | None] | None = None,
        *,
        place: Place | None = None,
    ) -> Desk:
        """Return a running agent; without an answer given, it agrees to all."""
        desk = Desk(place or self.place, answer or (lambda _: SuccessResponse()))
        await desk.open(self.factory, registration or await self.register())
        self._opened.append(desk)
        return desk

    async def box(
        self, uid: EntityId | None = None, *, place: Place | None = None
    ) -> Box:
        """Return a transport of the mailbox, or of that of a new agent."""
        if uid is None:
            uid = (await self.register()).agent_id
        place = place or self.place
        box = Box(place, await place.run(self.factory._create_transport(uid)))
        self._opened.append(box)
        return box

    async def sender(self) -> Box:
        """Return a transport of a new user, here."""
        box = Box(Here(), await self.factory._create_transport())
        self._opened.append(box)
        return box

    async def close(self) -> None:
        for opened in reversed(self._opened):
            await opened.close()


@contextlib.asynccontextmanager
async def office(factory: ExchangeFactory[Any], place: Place) -> AsyncIterator[Office]:
    """Return an office that is closed at the end of the block."""
    made = Office(factory, place)
    try:
        yield made
    finally:
        await made.close()


@contextlib.contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Return another event loop, and check that it leaves nothing behind."""
    with Elsewhere() as place:
        yield place
    assert not place.left, place.left


def lease_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "academy-lease"]
