from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from academy.exception import ExchangeError
from academy.exchange.pending import Pending
from academy.identifier import AgentId, UserId
from academy.message import Message, PingRequest, SuccessResponse

USER = UserId.new()
AGENT: AgentId[Any] = AgentId.new("bob")


def ping(dest: Any = AGENT) -> Message[Any]:
    return Message.create(USER, dest, PingRequest())


def add(pending: Pending, request: Message[Any]) -> asyncio.Future[Message[Any]]:
    return pending.add(request, asyncio.get_running_loop())


async def test_response_reaches_its_request() -> None:
    pending = Pending()
    first, second = ping(), ping()
    answers = [add(pending, first), add(pending, second)]
    response = second.create_response(SuccessResponse())
    pending.resolve(response)
    assert await answers[1] is response
    assert not answers[0].done()
    assert len(pending) == 1
    pending.remove(second.tag)
    assert len(pending) == 1


async def test_stray_and_duplicate_responses_are_dropped() -> None:
    pending = Pending()
    request = ping()
    answer = add(pending, request)
    pending.resolve(ping().create_response(SuccessResponse()))
    assert not answer.done()
    for _ in range(2):
        pending.resolve(request.create_response(SuccessResponse()))
    assert (await answer).tag == request.tag
    pending.remove(request.tag)
    pending.resolve(request.create_response(SuccessResponse()))


async def test_one_request_per_tag() -> None:
    pending = Pending()
    request = ping()
    add(pending, request)
    with pytest.raises(ExchangeError, match=r"AgentId<bob> .* waits for its response"):
        add(pending, request)
    pending.remove(request.tag)
    add(pending, request)


async def test_fail_by_destination() -> None:
    pending = Pending()
    to_bob, to_other = ping(), ping(AgentId.new())
    bob, other = add(pending, to_bob), add(pending, to_other)
    pending.fail(ExchangeError("gone"), AGENT)
    with pytest.raises(ExchangeError, match="gone"):
        await bob
    assert not other.done()


async def test_fail_all_but_the_answered() -> None:
    pending = Pending()
    requests = [ping() for _ in range(3)]
    answers = [add(pending, r) for r in requests]
    pending.resolve(requests[0].create_response(SuccessResponse()))
    pending.fail(ExchangeError("closed"))
    assert (await answers[0]).is_response()
    for answer in answers[1:]:
        with pytest.raises(ExchangeError, match="closed"):
            await answer


@pytest.mark.parametrize("fate", ["waiting", "failed", "answered", "cancelled"])
async def test_remove_leaves_nothing_to_complain_of(fate: str) -> None:
    """asyncio reports errors of futures that nobody looked at."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
    pending = Pending()
    request = ping()
    answer = add(pending, request)
    if fate == "failed":
        pending.fail(ExchangeError("gone"))
    elif fate == "answered":
        pending.resolve(request.create_response(SuccessResponse()))
    elif fate == "cancelled":
        answer.cancel()
    pending.remove(request.tag)
    assert answer.cancelled() == (fate in ("waiting", "cancelled"))
    del answer
    gc.collect()
    assert not complaints
    assert len(pending) == 0
