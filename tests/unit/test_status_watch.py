from __future__ import annotations

import asyncio
from typing import Any

import pytest

from academy.exception import AgentInactiveError, AgentTerminatedError
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId
from academy.message import Message, PingRequest, SuccessResponse
from academy.status_watch import StatusWatch
from tests.unit.local_agents import eventually

AGENT = AgentId[Any].new(name="watched")


class Client:
    """A client whose answers the test gives."""

    def __init__(self) -> None:
        self.answer: Any = MailboxStatus.ACTIVE
        self.asked = 0
        self.responses: list[asyncio.Future[Any]] = []

    async def status(self, uid: Any) -> MailboxStatus:
        assert uid == AGENT
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        if isinstance(self.answer, asyncio.Event):
            await self.answer.wait()
        return self.answer  # type: ignore[no-any-return]

    async def request(self, message: Message[Any]) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.responses.append(future)
        return await future


def watch_of(client: Any, interval: float = 0.001) -> StatusWatch:
    return StatusWatch(client, AGENT, interval)


def call(watch: StatusWatch) -> asyncio.Task[Any]:
    message = Message.create(AGENT, AGENT, PingRequest())
    return asyncio.create_task(watch.request(message))


async def polls(client: Client, times: int) -> None:
    wanted = client.asked + times
    await eventually(lambda: client.asked >= wanted)


@pytest.fixture(autouse=True)
async def no_task_left() -> Any:
    yield
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


VERDICTS = [
    (MailboxStatus.INACTIVE, AgentInactiveError),
    (MailboxStatus.TERMINATED, AgentTerminatedError),
]


class TestCheck:
    @pytest.mark.parametrize(("status", "error"), VERDICTS)
    async def test_verdict(self, status: MailboxStatus, error: type[Exception]) -> None:
        client = Client()
        client.answer = status
        with pytest.raises(error, match="AgentId<watched>"):
            await watch_of(client).check()

    @pytest.mark.parametrize(
        "answer", [MailboxStatus.ACTIVE, MailboxStatus.MISSING, OSError("down")]
    )
    async def test_no_verdict(self, answer: Any) -> None:
        client = Client()
        client.answer = answer
        await watch_of(client).check()
        assert client.asked == 1

    async def test_a_status_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("academy.status_watch.STATUS_TIMEOUT", 0.01)
        client = Client()
        client.answer = asyncio.Event()
        await asyncio.wait_for(watch_of(client).check(), 5)


class TestRequest:
    @pytest.mark.parametrize(("status", "error"), VERDICTS)
    async def test_verdict_ends_all_calls(
        self, status: MailboxStatus, error: type[Exception]
    ) -> None:
        client = Client()
        watch = watch_of(client)
        calls = [call(watch), call(watch)]
        await polls(client, 2)
        assert not any(task.done() for task in calls)
        client.answer = status
        results = await asyncio.wait_for(
            asyncio.gather(*calls, return_exceptions=True), 5
        )
        assert [type(e) for e in results] == [error, error]
        assert results[0] is not results[1]

    async def test_answered(self) -> None:
        client = Client()
        watch = watch_of(client)
        for _ in range(2):
            task = call(watch)
            await polls(client, 1)
            response = Message.create(AGENT, AGENT, SuccessResponse())
            client.responses[-1].set_result(response)
            assert await task is response

    async def test_one_answer_does_not_end_the_watch_of_the_other(self) -> None:
        client = Client()
        watch = watch_of(client)
        one, other = call(watch), call(watch)
        await polls(client, 1)
        client.responses[0].set_result(None)
        await one
        client.answer = MailboxStatus.INACTIVE
        with pytest.raises(AgentInactiveError):
            await asyncio.wait_for(other, 5)

    async def test_works_again_after_a_verdict(self) -> None:
        client = Client()
        watch = watch_of(client)
        client.answer = MailboxStatus.INACTIVE
        with pytest.raises(AgentInactiveError):
            await call(watch)
        client.answer = MailboxStatus.ACTIVE
        task = call(watch)
        await polls(client, 2)
        client.responses[-1].set_result(None)
        await asyncio.wait_for(task, 5)

    async def test_failing_polls_neither_end_nor_hang_anything(self) -> None:
        client = Client()
        task = call(watch_of(client))
        client.answer = OSError("down")
        await polls(client, 3)
        assert not task.done()
        client.answer = MailboxStatus.INACTIVE
        with pytest.raises(AgentInactiveError):
            await asyncio.wait_for(task, 5)

    async def test_cancel(self) -> None:
        client = Client()
        task = call(watch_of(client))
        await polls(client, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize("error", [ValueError, TimeoutError])
    async def test_error_of_the_request(self, error: type[Exception]) -> None:
        client = Client()
        task = call(watch_of(client))
        await polls(client, 1)
        client.responses[0].set_exception(error("own"))
        with pytest.raises(error, match="own"):
            await task
