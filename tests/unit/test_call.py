from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable
from typing import Any

import pytest

from academy.answer import error_body
from academy.call import Call
from academy.exception import (
    AgentInactiveError,
    AgentTerminatedError,
    BackpressureTimeout,
    ExchangeError,
    MailboxFullError,
    PeerLostError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.identifier import AgentId, UserId
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    CancelRequest,
    ErrorCode,
    Message,
    Response,
)
from academy.serialize import SerializationStrategy
from academy.trace import traceparent

PICKLE = SerializationStrategy.PICKLE
AGENT = AgentId[Any].new(name="a")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DONE = ActionResponse(result="done", serialization=PICKLE)
Outcome = Response | Exception | None


def lost(code: ErrorCode, **fields: Any) -> AcademyErrorResponse:
    return AcademyErrorResponse(error_code=code, mailbox_id=AGENT, **fields)


def described(outcome: Outcome) -> str:
    """Return which outcome that is, the same in every run."""
    if isinstance(outcome, AcademyErrorResponse):
        return f"{outcome.error_code.name}, executed {outcome.executed}"
    return type(outcome).__name__


class Line:
    """A client on whose other end the test sits.

    Args:
        *outcomes: What becomes of one request after the other; `None` for nothing.
    """

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.client_id = UserId.new()
        self.sent: list[Message[Any]] = []
        self.sent_soon: list[Message[Any]] = []
        self.forgotten: list[uuid.UUID] = []

    async def send(self, message: Message[Any]) -> Message[Any]:
        self.sent.append(message)
        outcome = self.outcomes.pop(0)
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return message.create_response(outcome)

    def send_soon(self, message: Message[Any]) -> None:
        self.sent_soon.append(message)

    def forget(self, tag: uuid.UUID) -> None:
        self.forgotten.append(tag)

    def call(self, **options: Any) -> Awaitable[Response]:
        client: Any = self
        request = ActionRequest(action="act", serialization=PICKLE)
        return Call(client, AGENT, request, self.send).run(**options)

    def cancelled(self) -> list[Any]:
        return [message.get_body().target_tag for message in self.sent_soon]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time here."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def instantly(delay: float, result: Any = None) -> None:
        taken.append(delay)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", instantly)
    return taken


async def test_plain_call() -> None:
    line = Line(DONE)
    assert await line.call() is DONE
    [message] = line.sent
    assert (message.src, message.dest) == (line.client_id, AGENT)
    assert (message.header.deadline, message.header.traceparent) == (None, None)
    assert not line.sent_soon


async def test_trace_travels() -> None:
    line = Line(DONE)
    token = traceparent.set(PARENT)
    try:
        await line.call()
    finally:
        traceparent.reset(token)
    assert line.sent[0].header.traceparent == PARENT


class TestTimeout:
    async def test_ends_and_cancels(self) -> None:
        line = Line(None)
        with pytest.raises(TimeoutError, match=r"AgentId<a>.*'act' within 0.01 s"):
            await line.call(timeout=0.01)
        assert line.cancelled() == [line.sent[0].tag]
        assert isinstance(line.sent_soon[0].get_body(), CancelRequest)

    async def test_travels_as_what_is_left(self) -> None:
        line = Line(DONE)
        await line.call(timeout=100.0)
        assert 99.0 < (line.sent[0].header.deadline or 0) <= 100.0

    async def test_covers_the_check(self) -> None:
        line = Line()
        with pytest.raises(TimeoutError, match="within"):
            await line.call(timeout=0.01, check=asyncio.Event().wait)
        assert not line.sent
        assert not line.sent_soon

    async def test_timeouts_of_others_stay_what_they_are(self) -> None:
        line = Line(TimeoutError("mine"))
        with pytest.raises(TimeoutError, match="mine"):
            await line.call(timeout=100.0)

    async def test_zero(self) -> None:
        line = Line(None)
        with pytest.raises(TimeoutError):
            await line.call(timeout=0.0)

    async def test_cancelling_stays_cancelling(self) -> None:
        line = Line(None)
        task = asyncio.ensure_future(line.call(timeout=100.0))
        await asyncio.wait([task], timeout=0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert line.cancelled() == [line.sent[0].tag]


class TestRetry:
    @pytest.mark.parametrize(
        "outcome",
        [
            lost(ErrorCode.PEER_LOST),
            lost(ErrorCode.PEER_LOST, executed="no"),
            lost(ErrorCode.REQUEST_LOST),
            lost(ErrorCode.PEER_UNREACHABLE),
            PeerLostError(AGENT, "maybe"),
            PeerUnreachableError(AGENT, "no"),
            RequestLostError(AGENT),
            BackpressureTimeout(AGENT, "no"),
            MailboxFullError(AGENT, "no"),
        ],
        ids=described,
    )
    async def test_what_is_lost_is_sent_again(self, outcome: Outcome) -> None:
        line = Line(outcome, outcome, DONE)
        assert await line.call(retry=True) is DONE
        assert len({message.tag for message in line.sent}) == 3
        assert not line.sent_soon

    async def test_not_unless_asked_for(self) -> None:
        response = lost(ErrorCode.PEER_LOST)
        line = Line(response, PeerLostError(AGENT))
        assert await line.call() is response
        with pytest.raises(PeerLostError):
            await line.call()
        assert len(line.sent) == 2
        # Nobody waits for a response to the second one any more.
        assert line.forgotten == [line.sent[1].tag]

    @pytest.mark.parametrize(
        "outcome",
        [
            lost(ErrorCode.MAILBOX_TERMINATED),
            lost(ErrorCode.ACTION_CANCELLED),
            lost(ErrorCode.DEADLINE_PASSED),
        ],
        ids=lambda o: o.error_code.name,
    )
    async def test_answers_are_final(self, outcome: Response) -> None:
        line = Line(lost(ErrorCode.PEER_LOST), outcome)
        assert await line.call(retry=True) is outcome

    @pytest.mark.parametrize(
        "error", [AgentTerminatedError(AGENT), ExchangeError("closed"), OSError()]
    )
    async def test_other_errors_are_final(self, error: Exception) -> None:
        line = Line(PeerLostError(AGENT), error)
        with pytest.raises(type(error)):
            await line.call(retry=True)

    async def test_what_an_action_raised_is_an_answer(self) -> None:
        """Also when it lost a call of its own."""
        answer = error_body(PeerLostError(AGENT), PICKLE)
        line = Line(answer, DONE)
        assert await line.call(retry=True) is answer

    async def test_until_the_deadline(self) -> None:
        line = Line(*[PeerLostError(AGENT, "maybe", f"no. {n}") for n in range(3)])
        line.outcomes.append(None)
        with pytest.raises(TimeoutError) as caught:
            await line.call(retry=True, timeout=0.05)
        assert "no. 2" in str(caught.value.__cause__)
        deadlines = [message.header.deadline or 0 for message in line.sent]
        assert deadlines == sorted(deadlines, reverse=True)
        assert line.cancelled() == [line.sent[-1].tag]

    async def test_pauses_grow_and_differ(
        self, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(random, "uniform", lambda low, high: high)
        line = Line(*[PeerLostError(AGENT)] * 9, DONE)
        await line.call(retry=True)
        assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    async def test_cancelled_between_two_attempts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pausing = asyncio.Event()

        async def pause(delay: float) -> None:
            pausing.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio, "sleep", pause)
        line = Line(PeerLostError(AGENT))
        task = asyncio.ensure_future(line.call(retry=True))
        await pausing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not line.sent_soon


class TestCheck:
    async def test_is_asked_before_the_first_attempt_only(self) -> None:
        line = Line(PeerLostError(AGENT), DONE)
        asked: list[int] = []

        async def check() -> None:
            asked.append(len(line.sent))

        await line.call(retry=True, check=check)
        assert asked == [0]

    async def test_that_fails_sends_nothing(self) -> None:
        line = Line()

        async def check() -> None:
            raise AgentInactiveError(AGENT)

        with pytest.raises(AgentInactiveError):
            await line.call(retry=True, check=check)
        assert not line.sent
        assert not line.sent_soon

    async def test_agent_that_stops_meanwhile_must_not_run_it_later(self) -> None:
        line = Line(AgentInactiveError(AGENT))
        with pytest.raises(AgentInactiveError):
            await line.call(retry=True)
        assert line.cancelled() == [line.sent[0].tag]
