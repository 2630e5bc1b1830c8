from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest

from academy import dispatch
from academy.dispatch import Dispatcher
from academy.exception import (
    AcademyRemoteError,
    ActionCancelledError,
    ActionInvalidStateError,
    AgentTerminatedError,
    ExchangeError,
    MessageTooLargeError,
    PingCancelledError,
)
from academy.identifier import AgentId, UserId
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    CancelRequest,
    ErrorCode,
    Message,
    PingRequest,
    ShutdownRequest,
    SuccessResponse,
)
from academy.serialize import SerializationStrategy
from tests.unit.local_agents import eventually

AGENT = AgentId[Any].new(name="a")
USER = UserId.new(name="u")


class Harness:
    """A dispatcher between requests of the test and a client that keeps answers."""

    def __init__(self) -> None:
        self.shutdown = asyncio.Event()
        self.told: list[Any] = []
        self.failures: list[Exception] = []
        self.answers: dict[uuid.UUID, list[Any]] = {}
        self.order: list[uuid.UUID] = []
        self.send_errors: list[Exception] = []
        self.actions: list[str] = []
        self.release = asyncio.Event()
        self.dispatcher = Dispatcher(
            "AgentId<a>",
            self.invoke,
            shutdown=self.shutdown,
            on_shutdown=self.told.append,
            on_failure=self.failures.append,
        )

    async def invoke(self, name: str, source: Any, args: Any, kwargs: Any) -> Any:
        self.actions.append(name)
        if name == "hold":
            await self.release.wait()
        elif name == "stubborn":
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.actions.append("stayed")
        elif name == "cancelled":
            raise asyncio.CancelledError
        elif name == "exit":
            raise SystemExit(*args)
        return name

    async def send(self, message: Message[Any]) -> None:
        if self.send_errors:
            raise self.send_errors.pop(0)
        self.answers.setdefault(message.tag, []).append(message.get_body())
        self.order.append(message.tag)

    def start(self, *, open: bool = True) -> Harness:
        client: Any = self
        self.dispatcher.bind(client)
        if open:
            self.dispatcher.open()
        return self

    async def request(self, body: Any, src: Any = USER, tag: Any = None) -> uuid.UUID:
        message = Message.create(src, AGENT, body, tag=tag)
        self.dispatcher.receive(message)
        return message.tag

    async def act(self, name: str, *args: Any, **options: Any) -> uuid.UUID:
        body = ActionRequest(
            action=name, serialization=SerializationStrategy.PICKLE, pargs=args
        )
        return await self.request(body, **options)

    async def answer(self, tag: uuid.UUID) -> Any:
        await eventually(lambda: tag in self.answers)
        [body] = self.answers[tag]
        return body

    async def error(self, tag: uuid.UUID) -> Exception:
        error: Exception = (await self.answer(tag)).get_exception()
        return error


@pytest.fixture
async def harness() -> Any:
    one = Harness()
    yield one
    one.release.set()
    await one.dispatcher.close()


class TestBeforeOpen:
    async def test_requests_wait_and_run_in_order(self, harness: Harness) -> None:
        tags = [await harness.act(name) for name in ("one", "two")]
        ping = await harness.request(PingRequest())
        harness.start(open=False)
        await asyncio.sleep(0)
        assert harness.actions == []
        harness.dispatcher.open()
        tags.append(await harness.act("three"))
        for tag, name in zip(tags, ("one", "two", "three"), strict=True):
            assert (await harness.answer(tag)).get_result() == name
        assert harness.actions == ["one", "two", "three"]
        assert isinstance(await harness.answer(ping), SuccessResponse)

    async def test_shutdown_is_told_at_once(self, harness: Harness) -> None:
        tag = await harness.request(ShutdownRequest(terminate=True))
        assert harness.told == [True]
        await asyncio.sleep(0)
        assert harness.answers == {}
        harness.start(open=False)
        assert isinstance(await harness.answer(tag), SuccessResponse)

    async def test_what_waits_can_be_cancelled(self, harness: Harness) -> None:
        waiting = await harness.act("one")
        cancel = await harness.request(CancelRequest(target_tag=waiting))
        harness.start()
        assert isinstance(await harness.error(waiting), ActionCancelledError)
        assert isinstance(await harness.answer(cancel), SuccessResponse)
        assert harness.actions == []

    async def test_pings_cannot_be_cancelled(self, harness: Harness) -> None:
        ping = await harness.request(PingRequest())
        cancel = await harness.request(CancelRequest(target_tag=ping))
        harness.start()
        assert isinstance(await harness.answer(ping), SuccessResponse)
        assert isinstance(await harness.error(cancel), ActionInvalidStateError)

    async def test_close_answers_what_waits(self, harness: Harness) -> None:
        action, ping = await harness.act("one"), await harness.request(PingRequest())
        harness.start(open=False).shutdown.set()
        await harness.dispatcher.close()
        assert isinstance(await harness.error(action), ActionCancelledError)
        assert isinstance(await harness.error(ping), PingCancelledError)

    async def test_close_without_a_client(self, harness: Harness) -> None:
        await harness.act("one")
        await asyncio.wait_for(harness.dispatcher.close(), 1)
        assert harness.answers == {}


class TestCancel:
    async def test_running_action(self, harness: Harness) -> None:
        harness.start()
        action = await harness.act("hold")
        await eventually(lambda: harness.actions == ["hold"])
        cancel = await harness.request(CancelRequest(target_tag=action))
        assert isinstance(await harness.answer(cancel), SuccessResponse)
        assert isinstance(await harness.error(action), ActionCancelledError)

    async def test_action_that_has_not_begun(self, harness: Harness) -> None:
        harness.start()
        action = await harness.act("hold")
        cancel = await harness.request(CancelRequest(target_tag=action))
        assert isinstance(await harness.error(action), ActionCancelledError)
        assert isinstance(await harness.answer(cancel), SuccessResponse)
        assert harness.actions == []

    async def test_twice(self, harness: Harness) -> None:
        harness.start()
        action = await harness.act("hold")
        await asyncio.sleep(0)
        cancels = [
            await harness.request(CancelRequest(target_tag=action)) for _ in range(2)
        ]
        for cancel in cancels:
            assert isinstance(await harness.answer(cancel), SuccessResponse)
        assert isinstance(await harness.error(action), ActionCancelledError)

    async def test_action_of_another_source(self, harness: Harness) -> None:
        harness.start()
        action = await harness.act("hold")
        cancel = await harness.request(
            CancelRequest(target_tag=action), src=UserId.new()
        )
        assert isinstance(await harness.error(cancel), ActionInvalidStateError)
        harness.release.set()
        assert (await harness.answer(action)).get_result() == "hold"

    async def test_action_that_has_ended(self, harness: Harness) -> None:
        harness.start()
        action = await harness.act("one")
        await harness.answer(action)
        cancel = await harness.request(CancelRequest(target_tag=action))
        assert isinstance(await harness.error(cancel), ActionInvalidStateError)

    async def test_action_that_cancels_itself(self, harness: Harness) -> None:
        action = await harness.start().act("cancelled")
        assert isinstance(await harness.error(action), ActionCancelledError)


class TestShutdown:
    async def test_requests_are_refused(self, harness: Harness) -> None:
        harness.start()
        harness.shutdown.set()
        action, ping = await harness.act("one"), await harness.request(PingRequest())
        shutdown = await harness.request(ShutdownRequest())
        assert isinstance(await harness.error(action), ActionCancelledError)
        assert isinstance(await harness.error(ping), PingCancelledError)
        assert isinstance(await harness.answer(shutdown), SuccessResponse)
        assert harness.actions == []

    async def test_refused_with_a_reason(self, harness: Harness) -> None:
        harness.start()
        harness.shutdown.set()
        harness.dispatcher.refuse_with(
            AcademyErrorResponse(
                error_code=ErrorCode.MAILBOX_TERMINATED,
                mailbox_id=AGENT,
                detail="no disk",
            )
        )
        error = await harness.error(await harness.act("one"))
        assert isinstance(error, AgentTerminatedError)
        assert error.reason == "no disk"

    async def test_close_cancels_and_answers(self, harness: Harness) -> None:
        harness.start()
        tags = [await harness.act("hold") for _ in range(3)]
        await eventually(lambda: len(harness.actions) == 3)
        tags.append(await harness.act("hold"))  # has not begun
        harness.shutdown.set()
        await harness.dispatcher.close()
        for tag in tags:
            assert isinstance(await harness.error(tag), ActionCancelledError)

    async def test_finish_actions_waits(self, harness: Harness) -> None:
        tag = await harness.start().act("hold")
        await asyncio.sleep(0)
        task = asyncio.create_task(harness.dispatcher.finish_actions())
        await asyncio.sleep(0)
        assert not task.done()
        harness.release.set()
        await asyncio.wait_for(task, 5)
        assert (await harness.answer(tag)).get_result() == "hold"

    async def test_action_that_ignores_its_cancellation(
        self,
        harness: Harness,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(dispatch, "ACTION_GRACE", 0.01)
        tag = await harness.start().act("stubborn")
        await asyncio.sleep(0)
        closing = asyncio.create_task(harness.dispatcher.close())
        assert isinstance(await harness.error(tag), ActionCancelledError)
        assert "action 'stubborn' ignores its cancellation" in caplog.text
        harness.release.set()
        await asyncio.wait_for(closing, 5)
        assert len(harness.answers[tag]) == 1

    async def test_close_is_idempotent(self, harness: Harness) -> None:
        await harness.start().dispatcher.close()
        await harness.dispatcher.close()


class TestFatal:
    async def test_caller_is_answered_and_owner_told(self, harness: Harness) -> None:
        tag = await harness.start().act("exit", 3)
        error = await harness.error(tag)
        assert isinstance(error, AcademyRemoteError)
        assert "Action 'exit' of AgentId<a> raised SystemExit: 3." in str(error)
        [failure] = harness.failures
        assert isinstance(failure, RuntimeError)
        assert isinstance(failure.__cause__, SystemExit)

    async def test_without_text(self, harness: Harness) -> None:
        error = await harness.error(await harness.start().act("exit"))
        assert str(error).endswith("raised SystemExit. The agent ends.")


class TestOddities:
    async def test_action_of_a_loop_that_is_closed(self, harness: Harness) -> None:
        request = ActionRequest(action="hold", serialization="pickle")  # type: ignore[arg-type]
        message = Message.create(USER, AGENT, request)
        response = harness.dispatcher._responder.respond(message, request)
        response.send(None)
        response.close()
        assert harness.failures == []

    async def test_duplicate_request(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        harness.start()
        tag = await harness.act("hold")
        assert await harness.act("hold", tag=tag) == tag
        assert "duplicate request" in caplog.text
        harness.release.set()
        assert (await harness.answer(tag)).get_result() == "hold"
        await harness.dispatcher.close()
        assert harness.actions == ["hold"]

    async def test_duplicate_before_open(self, harness: Harness) -> None:
        tag = await harness.act("one")
        await harness.act("one", tag=tag)
        harness.start()
        assert (await harness.answer(tag)).get_result() == "one"
        assert harness.actions == ["one"]

    async def test_response_as_a_request(self, harness: Harness) -> None:
        harness.start()
        message = Message.create(USER, AGENT, PingRequest())
        message.body = SuccessResponse()
        harness.dispatcher.receive(message)
        error = await harness.error(message.tag)
        assert "A success-response was sent as a request." in str(error)

    async def test_body_that_cannot_be_built(self, harness: Harness) -> None:
        class Broken:
            def get_body(self) -> Any:
                raise RecursionError("too deep")

            create_response = Message.create(USER, AGENT, PingRequest()).create_response

        harness.start()
        broken: Any = Broken()
        harness.dispatcher.receive(broken)
        await eventually(lambda: bool(harness.answers))
        [[body]] = harness.answers.values()
        assert "ValueError: A request is damaged: RecursionError: too deep" in str(
            body.get_exception()
        )


class TestSend:
    async def test_result_that_is_too_large(self, harness: Harness) -> None:
        harness.start().send_errors = [MessageTooLargeError(10, 5)]
        error = await harness.error(await harness.act("one"))
        assert isinstance(error, MessageTooLargeError)
        assert (error.size, error.limit) == (10, 5)

    async def test_ping_that_is_too_large(self, harness: Harness) -> None:
        harness.start().send_errors = [MessageTooLargeError(10, 5)]
        error = await harness.error(await harness.request(PingRequest()))
        assert isinstance(error, AcademyRemoteError)

    @pytest.mark.parametrize(
        ("errors", "level"),
        [
            ([ExchangeError("gone")], logging.INFO),
            ([MessageTooLargeError(1, 0), MessageTooLargeError(1, 0)], logging.INFO),
            ([OSError("down")], logging.WARNING),
        ],
    )
    async def test_failure_is_logged(
        self,
        harness: Harness,
        caplog: pytest.LogCaptureFixture,
        errors: list[Exception],
        level: int,
    ) -> None:
        caplog.set_level(logging.INFO)
        harness.start().send_errors = errors
        await harness.act("one", "a secret")
        await eventually(lambda: bool(caplog.records))
        [record] = caplog.records
        assert record.levelno == level
        assert "could not answer UserId<u>" in record.getMessage()
        assert "a secret" not in caplog.text
        harness.send_errors = []
        tag = await harness.act("two")
        assert isinstance(await harness.answer(tag), ActionResponse)
