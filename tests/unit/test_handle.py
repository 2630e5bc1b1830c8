from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import pickle
import threading
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.exception import (
    AcademyRemoteError,
    AgentInactiveError,
    AgentTerminatedError,
    BadEntityIdError,
    DeserializationMethodProhibitedError,
    ExchangeClientNotFoundError,
    ExchangeError,
    SerializationError,
)
from academy.exchange.client import UserExchangeClient
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle, exchange_context
from academy.identifier import AgentId
from academy.message import Message, SuccessResponse
from academy.serialize import SerializationStrategy, allowing, default_serializer
from tests.unit.local_agents import Calculator, Marker, eventually, prepared, running

JSON, PICKLE = SerializationStrategy.JSON, SerializationStrategy.PICKLE


def strategies(options: dict[str, Any]) -> tuple[Any, ...]:
    handle: Handle[Any] = Handle(AgentId.new(), **options)
    return (
        handle.request_serializer,
        handle.result_serializer,
        handle.exception_serializer,
    )


class TestValue:
    def test_text(self) -> None:
        agent = AgentId[Any].new(name="a")
        handle: Handle[Any] = Handle(agent)
        assert repr(handle) == (
            f"Handle(agent_id={agent!r}, exchange=None, ignore_context=False)"
        )
        assert str(handle) == "Handle<agent: AgentId<a>>"
        assert str(Handle()) == "Handle<agent: None>"

    @pytest.mark.parametrize("name", ["_x", "_repr_html_", "__len__", "__setstate__"])
    def test_underscore_names_are_no_actions(self, name: str) -> None:
        with pytest.raises(AttributeError, match=r"Handle.*has no attribute"):
            getattr(Handle(AgentId.new()), name)

    def test_other_names_are_actions(self) -> None:
        assert inspect.iscoroutinefunction(Handle(AgentId.new()).anything)

    def test_ignore_context_needs_an_exchange(self) -> None:
        with pytest.raises(ValueError, match="pass exchange= too"):
            Handle(AgentId.new(), ignore_context=True)

    @pytest.mark.parametrize("interval", [0, -1, float("nan")])
    def test_polling_interval(self, interval: float) -> None:
        with pytest.raises(ValueError, match="polling_interval"):
            Handle(AgentId.new(), polling_interval=interval)

    def test_serializers(self) -> None:
        assert strategies({}) == (None, None, None)
        assert strategies({"request_serializer": "json"}) == (JSON, None, None)
        with pytest.raises(ValueError, match="yaml"):
            Handle(AgentId.new(), exception_serializer="yaml")  # type: ignore[arg-type]

    def test_bound_later(self) -> None:
        handle: Handle[Any] = Handle()
        with pytest.raises(RuntimeError, match="not bound to an agent yet"):
            _ = handle.agent_id
        agent = AgentId[Any].new()
        handle._bind(agent)
        assert handle.agent_id == agent

    async def test_an_unbound_handle_calls_nothing(self) -> None:
        async with prepared(Calculator()) as one, one.user:
            with pytest.raises(RuntimeError, match="not bound"):
                await Handle().add(1)

    async def test_copies_carry_no_exchange(self) -> None:
        async with prepared(Calculator()) as one:
            handle = one.new_handle(
                request_serializer=JSON,
                result_serializer=PICKLE,
                exception_serializer=JSON,
                polling_interval=3,
                reject_on_inactive=True,
            )
            for twin in (pickle.loads(pickle.dumps(handle)), copy.copy(handle)):
                assert twin.agent_id == handle.agent_id
                assert twin.request_serializer is JSON
                assert twin.result_serializer is PICKLE
                assert twin.exception_serializer is JSON
                assert twin.polling_interval == 3
                assert twin.reject_on_inactive
                assert not twin.ignore_context
                with pytest.raises(ExchangeClientNotFoundError):
                    _ = twin.exchange

    def test_unbound_handles_pickle(self) -> None:
        twin = pickle.loads(pickle.dumps(Handle()))
        with pytest.raises(RuntimeError):
            _ = twin.agent_id


async def test_which_exchange_is_used() -> None:
    factory = LocalExchangeFactory()
    own, other = [await factory.create_user_client() for _ in range(2)]
    agent = AgentId[Any].new()
    with pytest.raises(ExchangeClientNotFoundError, match=str(agent)):
        _ = Handle(agent).exchange
    assert Handle(agent, exchange=own).exchange is own

    def within() -> None:
        exchange_context.set(other)
        assert Handle(agent).exchange is other
        assert Handle(agent, exchange=own).exchange is other
        assert Handle(agent, exchange=own, ignore_context=True).exchange is own

    contextvars.copy_context().run(within)
    await own.close()
    await other.close()


class TestCall:
    async def test_styles(self) -> None:
        async with running(Calculator()) as one:
            assert await one.handle.add(1, 2) == 3
            assert await one.handle.add(1, b=2) == 3
            assert await one.handle.action("add", 1, b=2) == 3

    async def test_parameters_of_any_name(self) -> None:
        class Named(Agent):
            @action
            async def take(self, action: int, name: int) -> int:
                return action - name

        async with running(Named()) as one:
            assert await one.handle.take(action=3, name=1) == 2

    @pytest.mark.parametrize("request_serializer", [JSON, PICKLE])
    @pytest.mark.parametrize("result_serializer", [JSON, PICKLE, None])
    async def test_result_serializer(
        self, request_serializer: Any, result_serializer: Any
    ) -> None:
        async with running(Calculator(offset=(1,))) as one:  # type: ignore[arg-type]
            handle = one.new_handle(
                request_serializer=request_serializer,
                result_serializer=result_serializer,
            )
            result = await handle.give("offset")
        given = result_serializer or request_serializer
        assert result == ([1] if given is JSON else (1,))

    @pytest.mark.parametrize("result_serializer", [JSON, PICKLE])
    @pytest.mark.parametrize("exception_serializer", [JSON, PICKLE, None])
    async def test_exception_serializer(
        self, result_serializer: Any, exception_serializer: Any
    ) -> None:
        given = exception_serializer or result_serializer
        expected = AcademyRemoteError if given is JSON else ValueError
        async with running(Calculator()) as one:
            handle = one.new_handle(
                result_serializer=result_serializer,
                exception_serializer=exception_serializer,
            )
            with pytest.raises(expected, match="no"):
                await handle.fail()

    async def test_default_serializer_of_the_context(self) -> None:
        async with running(Calculator(offset=(1,))) as one:  # type: ignore[arg-type]
            token = default_serializer.set(JSON)
            try:
                assert await one.handle.give("offset") == [1]
            finally:
                default_serializer.reset(token)

    async def test_result_that_is_not_accepted_here(self) -> None:
        async with running(Calculator()) as one:
            with (
                allowing({JSON}),
                pytest.raises(DeserializationMethodProhibitedError, match="pickle"),
            ):
                await one.handle.add(1)

    async def test_what_a_handle_does_not_allow_stays_undecoded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Marker.read.clear()
        async with running(Calculator(offset=Marker())) as one:  # type: ignore[arg-type]
            handle = one.new_handle(allowed_deserializers={JSON})
            asked: list[Any] = []
            send = one.user.ask

            async def request(message: Any) -> Any:
                asked.append(message.body.result_serialization)
                # An agent that does not keep to what it was asked for.
                message.body.result_serialization = PICKLE
                return await send(message)

            monkeypatch.setattr(one.user, "ask", request)
            for call in (handle.give("offset"), handle.fail("no")):
                with pytest.raises(
                    DeserializationMethodProhibitedError, match="accepted: json"
                ):
                    await call
        assert asked == [JSON, JSON]
        assert Marker.read == []

    async def test_results_are_asked_for_in_what_the_handle_allows(self) -> None:
        async with running(Calculator(offset=(1,))) as one:  # type: ignore[arg-type]
            handle = one.new_handle(allowed_deserializers=["json"])
            assert await handle.give("offset") == [1]
            with pytest.raises(AcademyRemoteError, match="ValueError: no"):
                await handle.fail()
            assert await handle.ping(timeout=5) >= 0
            both = one.new_handle(allowed_deserializers={JSON, PICKLE})
            assert await both.give("offset") == (1,)

    async def test_a_handle_does_not_allow_more_than_its_context(self) -> None:
        async with running(Calculator()) as one:
            handle = one.new_handle(allowed_deserializers={PICKLE})
            with (
                allowing({JSON}),
                pytest.raises(DeserializationMethodProhibitedError, match="nothing"),
            ):
                await handle.add(1)

    async def test_what_is_allowed_travels_with_the_handle(self) -> None:
        async with running(Calculator()) as one:
            handle = one.new_handle(allowed_deserializers={JSON}).options(timeout=5)
            assert pickle.loads(pickle.dumps(handle)).allowed_deserializers == {JSON}

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"allowed_deserializers": []}, "nothing could be received"),
            ({"allowed_deserializers": ["yaml"]}, "yaml"),
            (
                {"allowed_deserializers": [JSON], "result_serializer": PICKLE},
                "asked for in pickle would be refused",
            ),
            (
                {"allowed_deserializers": [PICKLE], "exception_serializer": JSON},
                "asked for in json would be refused",
            ),
        ],
    )
    def test_what_cannot_be_allowed(self, options: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            Handle(AgentId.new(), **options)

    async def test_unserializable_argument_is_not_sent(self) -> None:
        async with running(Calculator()) as one:
            with pytest.raises(SerializationError, match=r"arguments .lock, b: int"):
                await one.handle.add(threading.Lock(), b=1)
            assert (await one.handle.agent_stats()).incoming == 0

    async def test_remote_exception_shows_where_it_was_raised(self) -> None:
        async with running(Calculator()) as one:
            with pytest.raises(ValueError, match="no") as caught:
                await one.handle.fail()
        [note] = caught.value.__notes__
        assert "Remote traceback" in note
        assert "in fail" in note
        assert "academy/dispatch" not in note

    async def test_unregistered_agent(self) -> None:
        async with prepared(Calculator()) as one:
            stranger: Handle[Any] = Handle(AgentId.new(), exchange=one.user)
            with pytest.raises(BadEntityIdError):
                await stranger.add(1)

    async def test_terminated_agent(self) -> None:
        async with prepared(Calculator()) as one:
            await one.user.terminate(one.handle.agent_id, reason="too old")
            for call in (one.handle.add(1), one.handle.ping(), one.handle.shutdown()):
                with pytest.raises(AgentTerminatedError, match="too old"):
                    await call

    async def test_answer_of_another_kind(self, monkeypatch: Any) -> None:
        async def request(self: Any, message: Message[Any]) -> Message[Any]:
            return message.create_response(SuccessResponse())

        monkeypatch.setattr(UserExchangeClient, "ask", request)
        async with prepared(Calculator()) as one:
            with pytest.raises(ExchangeError, match="answered with a SuccessResponse"):
                await one.handle.add(1)


class TestCancel:
    async def test_reaches_the_action(self) -> None:
        agent = Calculator()
        async with running(agent) as one:
            task = asyncio.create_task(one.handle.hold("mine"))
            other = asyncio.create_task(one.handle.hold("other"))
            await agent.entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: agent.cancelled == ["mine"])
            agent.release.set()
            assert await other == "other"

    async def test_timeout(self) -> None:
        agent = Calculator()
        async with running(agent) as one:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.handle.hold("slow"), 0.01)
            await eventually(lambda: agent.cancelled == ["slow"])

    async def test_does_not_await_the_network(self, monkeypatch: Any) -> None:
        black_hole = asyncio.Event()

        async def send(self: Any, message: Any) -> None:
            await black_hole.wait()

        async with prepared(Calculator()) as one:
            transport = type(one.user._transport)
            with monkeypatch.context() as patch:
                patch.setattr(transport, "send", send)
                task = asyncio.create_task(one.handle.add(1))
                await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=1)
                assert done
                assert task.cancelled()
                black_hole.set()

    async def test_ping(self) -> None:
        async with prepared(Calculator()) as one:
            with pytest.raises(TimeoutError):
                await one.handle.ping(timeout=0.01)
            stats = await one.handle.agent_stats()
            assert stats.queued == 1  # no cancel request


class TestControl:
    async def test_ping(self) -> None:
        async with running(Calculator()) as one:
            seconds = await one.handle.ping()
            assert type(seconds) is float
            assert 0 < seconds < 5

    async def test_status_and_stats(self) -> None:
        async with prepared(Calculator()) as one:
            assert await one.handle.agent_status() is MailboxStatus.INACTIVE
            async with one.runtime:
                assert await one.handle.agent_status() is MailboxStatus.ACTIVE
                await one.handle.add(1)
                stats = await one.handle.agent_stats()
                assert (stats.incoming, stats.completed) == (1, 1)
            assert await one.handle.agent_status() is MailboxStatus.TERMINATED

    @pytest.mark.parametrize("terminate", [True, False, None])
    async def test_shutdown(self, terminate: bool | None) -> None:
        async with prepared(Calculator()) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.ping()
            await one.handle.shutdown(terminate=terminate)
            assert not run.done()  # it does not wait
            await asyncio.wait_for(run, 5)
            gone = MailboxStatus.INACTIVE if terminate is False else None
            expected = gone or MailboxStatus.TERMINATED
            assert await one.handle.agent_status() is expected


class TestRejectOnInactive:
    @pytest.mark.parametrize("name", ["add", "ping"])
    async def test_before_sending(self, name: str) -> None:
        async with prepared(Calculator()) as one:
            handle = one.new_handle(reject_on_inactive=True)
            assert handle.reject_on_inactive
            with pytest.raises(AgentInactiveError):
                await getattr(handle, name)()
            assert (await one.handle.agent_stats()).queued == 0

    async def test_while_pending(self) -> None:
        agent = Calculator()
        async with prepared(agent) as one:
            factory, registration = one.factory, one.runtime.registration

            async def ignore(message: Any) -> None: ...

            client = await factory.create_agent_client(registration, ignore)
            handle = one.new_handle(reject_on_inactive=True, polling_interval=0.001)
            patient = asyncio.create_task(one.handle.add(1))
            task = asyncio.create_task(handle.add(1))
            mailbox = client._transport._state.mailboxes[handle.agent_id]
            await eventually(lambda: mailbox.ledger.incoming == 2)
            # It goes away without a word, as a killed process would.
            mailbox.owner = None
            with pytest.raises(AgentInactiveError):
                await asyncio.wait_for(task, 5)
            assert not patient.done()
            # What comes back later must not do what nobody waits for.
            assert (await handle.agent_stats()).queued == 1
            patient.cancel()
            await client.close()

    async def test_works_with_an_active_agent(self) -> None:
        async with running(Calculator()) as one:
            handle = one.new_handle(reject_on_inactive=True)
            assert await handle.add(1) == 1
            assert await handle.add(2) == 2
            assert await handle.ping() > 0
