from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from academy.exception import (
    BadEntityIdError,
    ExchangeError,
    FencedError,
    ForbiddenError,
    MailboxTerminatedError,
    PeerLostError,
    RequestLostError,
)
from academy.exchange.client import (
    AgentExchangeClient,
    ExchangeClient,
    UserExchangeClient,
    exchange_context,
)
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId
from academy.message import (
    ActionRequest,
    ActionResponse,
    ErrorResponse,
    Message,
    PingRequest,
    SuccessResponse,
)
from academy.serialize import SerializationStrategy
from tests.unit.exchange.foreign import Calc, ForeignFactory

User = UserExchangeClient[Any]


class Service:
    """A running agent that answers pings, or holds them until `release`."""

    def __init__(self, registration: Any) -> None:
        self.registration = registration
        self.uid: AgentId[Any] = registration.agent_id
        self.client: AgentExchangeClient[Any, Any]
        self.seen: list[Message[Any]] = []
        self.arrived = asyncio.Event()
        self.hold = False
        self.fail: Exception | None = None
        self.ends: list[Exception] = []
        self.ended = asyncio.Event()

    async def handle(self, request: Message[Any]) -> None:
        self.seen.append(request)
        self.arrived.set()
        if self.fail is not None:
            raise self.fail
        if not self.hold:
            await self.answer(request)

    async def answer(self, request: Message[Any]) -> None:
        await self.client.send(request.create_response(SuccessResponse()))

    def end(self, error: Exception) -> None:
        self.ends.append(error)
        self.ended.set()


@asynccontextmanager
async def running(user: User, registration: Any = None) -> AsyncIterator[Service]:
    registration = registration or await user.register_agent(Calc, name="calc")
    service = Service(registration)
    service.client = await user.factory().create_agent_client(
        registration, service.handle, on_end=service.end
    )
    async with service.client:
        yield service


@pytest.fixture(params=[LocalExchangeFactory, ForeignFactory])
def factory(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
async def user(factory: Any) -> AsyncGenerator[User]:
    async with await factory.create_user_client(name="ann") as client:
        yield client


@pytest.fixture
async def local_user() -> AsyncGenerator[User]:
    async with await LocalExchangeFactory().create_user_client() as client:
        yield client


def ping(user: ExchangeClient[Any], uid: Any) -> Message[Any]:
    return Message.create(user.client_id, uid, PingRequest())


async def until(condition: Any) -> None:
    """Let the event loop run until something has happened."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


class TestRequest:
    async def test_response(self, user: User) -> None:
        async with running(user) as service:
            request = ping(user, service.uid)
            response = await user.request(request)
            assert isinstance(response.get_body(), SuccessResponse)
            assert response.tag == request.tag
        assert len(user._pending) == 0

    async def test_many_at_once_answered_in_reverse(self, user: User) -> None:
        async with running(user) as service:
            service.hold = True
            requests = [ping(user, service.uid) for _ in range(20)]
            waiting = [asyncio.ensure_future(user.request(r)) for r in requests]
            await until(lambda: len(service.seen) == 20)
            assert [m.tag for m in service.seen] == [r.tag for r in requests]
            for request in reversed(service.seen):
                await service.answer(request)
            responses = await asyncio.gather(*waiting)
            assert [r.tag for r in responses] == [r.tag for r in requests]

    async def test_between_agents_both_ways(self, user: User) -> None:
        async with running(user) as one, running(user) as two:
            for asks, answers in ((one, two), (two, one)):
                request = ping(asks.client, answers.uid)
                assert (await asks.client.request(request)).src == answers.uid

    async def test_what_waits_in_the_mailbox(self, user: User) -> None:
        """An agent that starts later answers what was sent before."""
        registration = await user.register_agent(Calc)
        waiting = asyncio.ensure_future(user.request(ping(user, registration.agent_id)))
        await asyncio.sleep(0)
        async with running(user, registration):
            assert (await waiting).is_response()

    async def test_unknown_or_terminated_destination(self, user: User) -> None:
        with pytest.raises(BadEntityIdError):
            await user.request(ping(user, AgentId.new()))
        uid = (await user.register_agent(Calc)).agent_id
        await user.terminate(uid)
        with pytest.raises(MailboxTerminatedError):
            await user.request(ping(user, uid))
        with pytest.raises(MailboxTerminatedError):
            await user.send(ping(user, uid))
        assert len(user._pending) == 0

    async def test_cancel_while_waiting(self, user: User) -> None:
        async with running(user) as service:
            service.hold = True
            waiting = asyncio.ensure_future(user.request(ping(user, service.uid)))
            await service.arrived.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert len(user._pending) == 0
            # The late response disturbs nobody.
            await service.answer(service.seen[0])
            service.hold = False
            assert (await user.request(ping(user, service.uid))).is_response()

    async def test_cancelled_request_is_forgotten(self, local_user: User) -> None:
        async with running(local_user) as service:
            service.hold = True
            request = ping(local_user, service.uid)
            waiting = asyncio.ensure_future(local_user.request(request))
            await service.arrived.wait()
            assert local_user._transport._ledger.awaiting(service.uid)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert not local_user._transport._ledger.awaiting(service.uid)

    async def test_same_request_twice(self, user: User) -> None:
        async with running(user) as service:
            service.hold = True
            request = ping(user, service.uid)
            waiting = asyncio.ensure_future(user.request(request))
            await service.arrived.wait()
            with pytest.raises(ExchangeError, match="waits for its response already"):
                await user.request(request)
            await service.answer(request)
            assert (await waiting).tag == request.tag

    async def test_fail_pending(self, user: User) -> None:
        async with running(user) as one, running(user) as two:
            one.hold = two.hold = True
            lost = asyncio.ensure_future(user.request(ping(user, one.uid)))
            kept = asyncio.ensure_future(user.request(ping(user, two.uid)))
            await asyncio.gather(one.arrived.wait(), two.arrived.wait())
            user.fail_pending(one.uid, RuntimeError("its process died"))
            with pytest.raises(RuntimeError, match="its process died"):
                await lost
            assert not kept.done()
            await two.answer(two.seen[0])
            assert (await kept).is_response()

    async def test_without_a_listener(self, factory: Any, user: User) -> None:
        async with (
            running(user) as service,
            await factory.create_user_client(start_listener=False) as mute,
        ):
            with pytest.raises(ExchangeError, match="start_listener=False"):
                await mute.request(ping(mute, service.uid))
            await mute.send(ping(mute, service.uid))
            await service.arrived.wait()
            assert service.seen[0].src == mute.client_id

    async def test_from_another_event_loop(self, user: User) -> None:
        request = ping(user, AgentId.new())

        def elsewhere() -> None:
            with pytest.raises(ExchangeError, match="belongs to another event loop"):
                asyncio.run(user.request(request))

        await asyncio.to_thread(elsewhere)
        assert len(user._pending) == 0


class TestTermination:
    async def test_of_what_waits_and_what_was_taken(
        self, local_user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("academy.exchange.local.TERMINATION_GRACE", 0.01)
        for start, executed in ((False, "no"), (True, "maybe")):
            registration = await local_user.register_agent(Calc)
            uid = registration.agent_id
            waiting = asyncio.ensure_future(local_user.request(ping(local_user, uid)))
            await asyncio.sleep(0)
            if start:
                service = Service(registration)
                service.hold = True
                service.client = await local_user.factory().create_agent_client(
                    registration, service.handle
                )
                await service.arrived.wait()
            await local_user.terminate(uid, reason="no longer needed")
            response: Any = await waiting
            error = response.get_body().get_exception()
            assert isinstance(error, MailboxTerminatedError)
            assert (error.reason, error.executed) == ("no longer needed", executed)
            if start:
                await service.client.close()

    async def test_tells_the_agent(self, user: User) -> None:
        async with running(user) as service:
            await user.terminate(service.uid)
            await service.ended.wait()
            [error] = service.ends
            assert isinstance(error, ExchangeError)
            with pytest.raises(type(error)):
                await service.client.send(ping(service.client, user.client_id))
        assert len(service.ends) == 1

    async def test_of_the_user_ends_its_requests(self, user: User) -> None:
        async with running(user) as service:
            service.hold = True
            waiting = asyncio.ensure_future(user.request(ping(user, service.uid)))
            await service.arrived.wait()
            await user.terminate(user.client_id)
            with pytest.raises(ExchangeError):
                await waiting
            with pytest.raises(ExchangeError):
                await user.request(ping(user, service.uid))


class TestTwoBindings:
    async def test_newest_has_it_all(self, local_user: User) -> None:
        async with running(local_user) as old:
            old.hold = True
            taken = asyncio.ensure_future(local_user.request(ping(local_user, old.uid)))
            await old.arrived.wait()
            async with running(local_user, old.registration) as new:
                await old.ended.wait()
                assert isinstance(old.ends[0], FencedError)
                # What the old one had taken is lost with it, and that is said.
                response: Any = await taken
                error = response.get_body().get_exception()
                assert isinstance(error, PeerLostError)
                assert error.executed == "maybe"
                await local_user.request(ping(local_user, old.uid))
                assert len(new.seen) == 1
                with pytest.raises(FencedError):
                    await old.client.send(ping(old.client, local_user.client_id))
                await old.client.close()
                assert await local_user.status(old.uid) is MailboxStatus.ACTIVE
                await local_user.request(ping(local_user, old.uid))
        assert not new.ends

    async def test_unread_messages_go_to_the_newest(self, local_user: User) -> None:
        registration = await local_user.register_agent(Calc)
        factory = local_user.factory()
        old = await factory._create_transport(registration.agent_id)
        waiting = [
            asyncio.ensure_future(
                local_user.request(ping(local_user, registration.agent_id))
            )
            for _ in range(3)
        ]
        await until(lambda: len(old.inbox) == 3)
        async with running(local_user, registration) as new:
            tags = [r.tag for r in await asyncio.gather(*waiting)]
            assert [m.tag for m in new.seen] == tags
        await old.close()

    async def test_fenced_user_leaves_the_mailbox_to_the_newer(
        self, local_user: User
    ) -> None:
        factory = local_user.factory()
        old = await factory.create_user_client()
        transport = await factory._create_transport(old.client_id)
        new = UserExchangeClient(old.client_id, transport)
        with pytest.raises(FencedError):
            await old.request(ping(old, (await new.register_agent(Calc)).agent_id))
        await old.close()
        async with running(local_user) as service:
            assert (await new.request(ping(new, service.uid))).is_response()
        await new.close()
        status = await local_user.status(new.client_id)
        assert status is MailboxStatus.TERMINATED


class TestClose:
    async def test_fails_what_waits(self, factory: Any, user: User) -> None:
        async with running(user) as service:
            service.hold = True
            other = await factory.create_user_client()
            waiting = asyncio.ensure_future(other.request(ping(other, service.uid)))
            await service.arrived.wait()
            await other.close()
            with pytest.raises(ExchangeError, match=r"UserExchangeClient.* was closed"):
                await waiting
            with pytest.raises(ExchangeError, match="was closed"):
                await other.request(ping(other, service.uid))
            with pytest.raises(ExchangeError, match="was closed"):
                await other.send(ping(other, service.uid))
            await other.close()

    async def test_user_mailbox_is_terminated(self, factory: Any, user: User) -> None:
        other = await factory.create_user_client()
        await other.close()
        await other.close()
        status = await user.status(other.client_id)
        assert status is MailboxStatus.TERMINATED

    async def test_agent_mailbox_stays_and_can_be_bound_again(self, user: User) -> None:
        async with running(user) as service:
            pass
        assert await user.status(service.uid) is not MailboxStatus.TERMINATED
        await service.client.close()
        assert not service.ends
        async with running(user, service.registration):
            assert (await user.request(ping(user, service.uid))).is_response()

    async def test_what_was_sent_in_the_background_gets_out(
        self, factory: Any, user: User
    ) -> None:
        async with running(user) as service:
            async with await factory.create_user_client() as other:
                other.send_soon(ping(other, service.uid))
            await service.arrived.wait()
            assert service.seen[0].src == other.client_id

    async def test_is_not_held_up_by_it(
        self, factory: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("academy.exchange.base_client.FLUSH_TIMEOUT", 0.01)
        other = await factory.create_user_client()

        async def never(message: Any) -> None:
            await asyncio.Event().wait()

        other._transport.send = never
        other.send_soon(ping(other, AgentId.new()))
        await other.close()
        assert len(other._sends) == 0

    async def test_cancelled_close_still_closes_the_transport(self) -> None:
        factory = ForeignFactory()
        other = await factory.create_user_client()
        reached = asyncio.Event()

        async def never(uid: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        other._transport.terminate = never  # type: ignore[method-assign]
        closing = asyncio.ensure_future(other.close())
        await reached.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert factory.exchange.closed == [other.client_id]
        assert len(other._tasks) == 0

    async def test_server_that_is_away(self, caplog: pytest.LogCaptureFixture) -> None:
        factory = ForeignFactory()
        other = await factory.create_user_client()

        async def fail(uid: Any) -> None:
            raise ExchangeError("no server")

        other._transport.terminate = fail  # type: ignore[method-assign]
        await other.close()
        assert factory.exchange.closed == [other.client_id]
        assert "could not terminate its mailbox: no server" in caplog.text

    async def test_from_the_request_handler(self, user: User) -> None:
        registration = await user.register_agent(Calc)
        closed = asyncio.Event()

        async def close(request: Message[Any]) -> None:
            await client.send(request.create_response(SuccessResponse()))
            await client.close()
            closed.set()

        client = await user.factory().create_agent_client(registration, close)
        await user.request(ping(user, client.client_id))
        await closed.wait()


class TestListener:
    async def test_users_refuse_requests(self, user: User) -> None:
        async with running(user) as service:
            request = ping(service.client, user.client_id)
            response: Any = await service.client.request(request)
            error = response.get_body().get_exception()
            assert isinstance(error, ForbiddenError)
            assert "is a user, and users do not answer requests" in str(error)

    async def test_failing_handler_is_an_answer(
        self, user: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running(user) as service:
            service.fail = KeyError("oops")
            response: Any = await user.request(ping(user, service.uid))
            body = response.get_body()
            assert isinstance(body, ErrorResponse)
            error: Any = body.get_exception()
            assert isinstance(error, RequestLostError)
            assert error.uid == service.uid
            assert "its request handler failed with KeyError: 'oops'" in str(error)
            assert "the request handler failed" in caplog.text
            service.fail = None
            assert (await user.request(ping(user, service.uid))).is_response()

    async def test_sending_in_the_background_only_logs(
        self, user: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        stranger: AgentId[Any] = AgentId.new("stranger")
        user.send_soon(ping(user, stranger))
        await until(lambda: len(user._sends) == 0)
        assert "could not send to AgentId<stranger>" in caplog.text

    @pytest.mark.parametrize("end", ["return", "raise"])
    async def test_transport_that_stops_listening(
        self, end: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing may wait for a client that receives no more."""
        factory = ForeignFactory()
        async with (
            await factory.create_user_client() as user,
            running(user) as service,
        ):
            service.hold = True
            asked: AgentId[Any] = (await user.register_agent(Calc)).agent_id
            waiting = asyncio.ensure_future(
                service.client.request(ping(service.client, asked))
            )
            await until(lambda: len(service.client._pending) == 1)
            garbage = None if end == "return" else b"garbage"
            factory.exchange.queues[service.uid].put_nowait(garbage)
            error: type[Exception] = ExchangeError if end == "return" else ValueError
            with pytest.raises(error):
                await waiting
            with pytest.raises(error):
                await service.client.request(ping(service.client, asked))
            await service.ended.wait()
            assert isinstance(service.ends[0], error)
        assert ("stopped receiving" in caplog.text) == (end == "raise")

    async def test_start_again_changes_nothing(self, user: User) -> None:
        tasks = len(user._tasks)
        user.start()
        assert len(user._tasks) == tasks

    async def test_agent_client_without_on_end(self, user: User) -> None:
        registration = await user.register_agent(Calc)
        client = await user.factory().create_agent_client(registration, print)
        await user.terminate(registration.agent_id)
        await until(lambda: client._ended is not None)
        await client.close()

    async def test_carries_arguments_and_results(self, user: User) -> None:
        registration = await user.register_agent(Calc)

        async def double(request: Message[ActionRequest]) -> None:
            [number] = request.get_body().get_args()
            result = ActionResponse(
                result=2 * number, serialization=SerializationStrategy.JSON
            )
            await client.send(request.create_response(result))

        client = await user.factory().create_agent_client(registration, double)
        async with client:
            body = ActionRequest(
                action="double", serialization=SerializationStrategy.PICKLE, pargs=(4,)
            )
            request = Message.create(user.client_id, client.client_id, body)
            response: Message[ActionResponse] = await user.request(request)
            assert response.get_body().get_result() == 8


class TestHeartbeat:
    async def test_first_one_at_once(self) -> None:
        factory = ForeignFactory()
        async with await factory.create_user_client() as user, running(user) as service:
            await until(lambda: service.uid in factory.exchange.beats)
            assert await user.status(service.uid) is MailboxStatus.ACTIVE

    async def test_goes_on_after_an_error(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        factory = ForeignFactory(config=ExchangeClientConfig(heartbeat_interval=0.001))
        factory.exchange.broken = ConnectionError("no server")
        async with await factory.create_user_client() as user:
            await until(lambda: caplog.text.count("no server") >= 2)
            assert "could not send a heartbeat: ConnectionError('no server')" in (
                caplog.text
            )
            factory.exchange.broken = None
            await until(lambda: user.client_id in factory.exchange.beats)

    async def test_none_where_processes_have_leases(self, local_user: User) -> None:
        assert len(local_user._tasks) == 1


class TestContext:
    async def test_in_the_block(self, user: User) -> None:
        assert exchange_context.get() is user
        async with await user.factory().create_user_client() as inner:
            assert exchange_context.get() is inner
        assert exchange_context.get() is user

    async def test_block_that_is_left_elsewhere(self) -> None:
        """As fixtures of test frameworks do."""
        client = await LocalExchangeFactory().create_user_client()
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        await loop.create_task(client.__aenter__(), context=context)
        for _ in range(2):
            await client.__aexit__(None, None, None)
        assert client._closed


def test_text() -> None:
    async def main() -> None:
        async with await LocalExchangeFactory().create_user_client(name="ann") as user:
            assert str(user) == "UserExchangeClient<UserId<ann>>"
            assert repr(user) == f"UserExchangeClient({user.client_id!r})"
            user.register_handle(object())
            async with running(user) as service:
                assert str(service.client) == "AgentExchangeClient<AgentId<calc>>"

    asyncio.run(main())
