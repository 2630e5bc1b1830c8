"""What becomes of a message."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from typing import Any

import numpy as np
import pytest

from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ForbiddenError,
    MessageTooLargeError,
    UserTerminatedError,
)
from academy.exchange.factory import ExchangeFactory
from academy.identifier import AgentId
from academy.message import (
    ActionRequest,
    ActionResponse,
    CancelRequest,
    Message,
    PingRequest,
    SuccessResponse,
    UserErrorResponse,
)
from academy.serialize import SerializationStrategy
from tests.contract.office import (
    Elsewhere,
    Here,
    Office,
    eventually,
    number,
    numbered,
    office,
    within,
)

PICKLE = SerializationStrategy.PICKLE


async def test_a_message_arrives_as_it_was_sent(mail: Office) -> None:
    sender, box = await mail.sender(), await mail.box()
    body = ActionRequest(
        action="add", serialization=PICKLE, pargs=(1, {"a": b"x"}), kargs={"k": None}
    )
    sent = Message.create(sender.uid, box.uid, body, label=uuid.uuid4())
    await sender.send(sent)
    got = await box.recv()
    assert got == sent
    assert got.header == sent.header
    assert got.src.name == sender.uid.name
    assert (got.get_body().get_args(), got.get_body().get_kwargs()) == (
        (1, {"a": b"x"}),
        {"k": None},
    )


async def test_a_message_is_a_copy(mail: Office) -> None:
    """Isolation holds also within a process."""
    sender, box = await mail.sender(), await mail.box()
    data: dict[str, Any] = {"list": [1], "array": np.zeros(1000)}
    body = ActionRequest(action="a", serialization=PICKLE, pargs=(data,))
    await sender.send(Message.create(sender.uid, box.uid, body))
    data["list"].append(2)
    data["array"][:] = 7
    (got,) = (await box.recv()).get_body().get_args()
    assert got["list"] == [1]
    assert not got["array"].any()


async def test_listen_yields_and_times_out(mail: Office) -> None:
    sender, box = await mail.sender(), await mail.box()
    await sender.post(box.uid, 1, 2)

    got: list[int] = []

    async def listen() -> None:
        async with contextlib.aclosing(box.transport.listen(timeout=0.2)) as messages:
            async for message in messages:
                got.append(number(message))  # noqa: PERF401 - it ends by an error

    with pytest.raises(TimeoutError):
        await mail.place.run(listen())
    assert got == [1, 2]


async def test_an_empty_mailbox_times_out_in_time(mail: Office) -> None:
    box = await mail.box()
    async with within(2):
        with pytest.raises(TimeoutError):
            await box.recv(timeout=0.1)
        with pytest.raises(TimeoutError):
            await box.recv(timeout=0)


async def test_a_wait_for_a_message_ends_when_it_comes(mail: Office) -> None:
    sender, box = await mail.sender(), await mail.box()
    waiting = asyncio.create_task(box.recv(timeout=None))
    await asyncio.sleep(0)
    await sender.post(box.uid, 1)
    async with within(5):
        assert number(await waiting) == 1


async def test_a_cancelled_wait_loses_nothing(mail: Office) -> None:
    sender, box = await mail.sender(), await mail.box()

    async def take() -> list[int]:
        got: list[int] = []
        for turn in itertools.count():
            waiting = asyncio.create_task(box.transport.recv(timeout=None))
            await asyncio.sleep(0 if turn % 2 else 0.0005 * (turn % 5))
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got.append(number(await waiting))
            if len(got) == 100:
                break
        return got

    taking = asyncio.create_task(mail.place.run(take()))
    await sender.post(box.uid, *range(100))
    async with within(20):
        assert await taking == list(range(100))


async def test_request_and_response(mail: Office) -> None:
    def double(message: Message[Any]) -> ActionResponse:
        (n,) = message.get_body().get_args()
        return ActionResponse(result=2 * n, serialization=PICKLE)

    user, desk = await mail.user(), await mail.desk(answer=double)

    async def ask(n: int) -> int:
        body = ActionRequest(action="double", serialization=PICKLE, pargs=(n,))
        request = Message.create(user.client_id, desk.uid, body)
        response = await user.request(request)
        assert response.tag == request.tag
        assert response.src == desk.uid
        return response.get_body().get_result()

    assert await asyncio.gather(*map(ask, range(50))) == [2 * n for n in range(50)]


async def test_ping(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    ping = Message.create(user.client_id, desk.uid, PingRequest())
    response = await user.request(ping)
    assert isinstance(response.get_body(), SuccessResponse)


async def test_a_request_waits_for_an_agent_that_starts_later(mail: Office) -> None:
    user, registration = await mail.user(), await mail.register()
    ping = Message.create(user.client_id, registration.agent_id, PingRequest())
    waiting = asyncio.create_task(user.request(ping))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    await mail.desk(registration)
    async with within(5):
        assert isinstance((await waiting).get_body(), SuccessResponse)


async def test_agents_call_each_other(mail: Office) -> None:
    here, there = await mail.desk(place=Here()), await mail.desk()
    for asker, asked in ((here, there), (there, here)):
        ping = Message.create(asker.uid, asked.uid, PingRequest())
        response = await asker.request(ping)
        assert isinstance(response.get_body(), SuccessResponse)


async def test_an_agent_may_call_itself(mail: Office) -> None:
    desk = await mail.desk()
    ping = Message.create(desk.uid, desk.uid, PingRequest())
    assert isinstance((await desk.request(ping)).get_body(), SuccessResponse)


async def test_an_error_comes_back_as_it_is(mail: Office) -> None:
    error = ZeroDivisionError("by zero")
    user, desk = (
        await mail.user(),
        await mail.desk(
            answer=lambda _: UserErrorResponse(exception=error, serialization=PICKLE)
        ),
    )
    response = await user.request(numbered(user.client_id, desk.uid, 1))
    found = response.get_body().get_exception()
    assert isinstance(found, ZeroDivisionError)
    assert str(found) == "by zero"


async def test_a_handler_that_fails_answers_and_lives(mail: Office) -> None:
    def answer(message: Message[Any]) -> SuccessResponse:
        if number(message) == 1:
            raise LookupError("no such thing")
        return SuccessResponse()

    user, desk = await mail.user(), await mail.desk(answer=answer)
    response = await user.request(numbered(user.client_id, desk.uid, 1))
    assert "LookupError: no such thing" in str(response.get_body().get_exception())
    response = await user.request(numbered(user.client_id, desk.uid, 2))
    assert isinstance(response.get_body(), SuccessResponse)


async def test_users_do_not_answer_requests(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    response = await desk.request(
        Message.create(desk.uid, user.client_id, PingRequest())
    )
    error = response.get_body().get_exception()
    assert isinstance(error, ForbiddenError)
    assert "users do not answer" in str(error)


async def test_a_cancelled_request_is_over(mail: Office) -> None:
    """Cancelling returns at once, and the late response is dropped."""
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 1)))
    await eventually(lambda: desk.taken)
    asking.cancel()
    async with within(0.5):
        with pytest.raises(asyncio.CancelledError):
            await asking
    await desk.reply(desk.taken[0], SuccessResponse())
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 2)))
    await eventually(lambda: len(desk.taken) == 2)
    await desk.reply(desk.taken[1], SuccessResponse())
    response = await asking
    assert response.tag == desk.taken[1].tag
    assert len(user._pending) == 0


async def test_a_cancel_request_reaches_a_busy_agent(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 1)))
    await eventually(lambda: desk.taken)
    cancel = CancelRequest(target_tag=desk.taken[0].tag)
    user.send_soon(Message.create(user.client_id, desk.uid, cancel))
    await eventually(lambda: len(desk.taken) == 2)
    assert desk.taken[1].get_body().target_tag == desk.taken[0].tag
    await desk.reply(desk.taken[0], SuccessResponse())
    await asking


async def test_stray_and_repeated_responses_are_dropped(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    answered = Message.create(user.client_id, desk.uid, PingRequest())
    await user.request(answered)
    for _ in range(20):
        stray = Message.create(user.client_id, desk.uid, PingRequest())
        for message in (stray, answered):
            await desk.reply(message, SuccessResponse())
    ping = Message.create(user.client_id, desk.uid, PingRequest())
    assert (await user.request(ping)).tag == ping.tag


async def test_nobody_sends_in_anothers_name(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    forged = Message.create(desk.uid, desk.uid, PingRequest())
    with pytest.raises(ForbiddenError, match="in the name of"):
        await user.send(forged)
    assert not desk.taken


async def test_messages_to_nobody_are_refused(mail: Office) -> None:
    user, leaver = await mail.user(), await mail.user()
    stranger: AgentId[Any] = AgentId.new()
    with pytest.raises(BadEntityIdError) as unknown:
        await user.request(numbered(user.client_id, stranger, 1))
    assert unknown.value.uid == stranger
    gone = (await mail.register()).agent_id
    await user.terminate(gone, reason="it was old")
    with pytest.raises(AgentTerminatedError, match="it was old") as terminated:
        await user.request(numbered(user.client_id, gone, 1))
    assert terminated.value.executed == "no"
    await leaver.close()
    with pytest.raises(UserTerminatedError):
        await user.send(numbered(user.client_id, leaver.client_id, 1))
    assert len(user._pending) == 0


@pytest.mark.parametrize("online", [True, False])
async def test_a_large_array_travels_whole(mail: Office, online: bool) -> None:
    user, registration = await mail.user(), await mail.register()
    array = np.arange(5_000_000 // 8, dtype=np.int64)

    def answer(message: Message[Any]) -> ActionResponse:
        (got,) = message.get_body().get_args()
        got += 1  # what arrives can be written to
        return ActionResponse(result=got, serialization=PICKLE)

    body = ActionRequest(action="add", serialization=PICKLE, pargs=(array,))
    ask = user.request(Message.create(user.client_id, registration.agent_id, body))
    asking = asyncio.create_task(ask)
    if not online:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.2)
    await mail.desk(registration, answer)
    async with within(10):
        result = (await asking).get_body().get_result()
    result[0] = 5
    assert np.array_equal(result[1:], array[1:] + 1)
    assert array[0] == 0


@pytest.mark.parametrize("kind", ["redis", "hybrid"])
async def test_a_message_beyond_the_limit_is_refused(
    mail: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("academy.exchange.router.MESSAGE_LIMIT", 100_000)
    user, desk = await mail.user(), await mail.desk()

    def message(size: int) -> Message[Any]:
        body = ActionRequest(action="a", serialization=PICKLE, pargs=(b"x" * size,))
        return Message.create(user.client_id, desk.uid, body)

    with pytest.raises(MessageTooLargeError, match="larger than the limit") as caught:
        await user.request(message(100_000))
    assert caught.value.limit == 100_000
    assert caught.value.size > 100_000
    await user.request(message(99_000))
    assert len(desk.taken) == 1


@pytest.mark.parametrize("kind", ["redis", "hybrid"])
async def test_a_burst_waits_for_room(
    factory: ExchangeFactory[Any], other: Elsewhere
) -> None:
    """200 MiB at once, of which the queue of the agent takes 64, arrive in order."""
    async with office(factory, other) as mail, within(50):
        box, sender = await mail.box(), await mail.sender()

        def request(n: int) -> Message[ActionRequest]:
            body = ActionRequest(action=str(n), serialization=PICKLE, pargs=(payload,))
            return Message.create(sender.uid, box.uid, body)

        payload = bytes(1 << 20)
        sending = asyncio.gather(*(sender.send(request(n)) for n in range(200)))
        assert await box.numbers(200) == list(range(200))
        await sending


async def test_order_holds_while_the_agent_comes(mail: Office) -> None:
    """1,000 messages of one sender, the first ones to an agent that is offline."""
    sender, registration = await mail.sender(), await mail.register()
    uid = registration.agent_id
    await sender.post(uid, *range(500))
    sending = asyncio.create_task(sender.post(uid, *range(500, 1000)))
    box = await mail.box(uid)
    got = await mail.place.run(_take(box.transport, 1000))
    await sending
    assert got == list(range(1000))


async def test_order_holds_among_concurrent_sends(mail: Office) -> None:
    sender, registration = await mail.sender(), await mail.register()
    uid = registration.agent_id
    sends = [asyncio.create_task(sender.post(uid, n)) for n in range(200)]
    await asyncio.sleep(0)
    box = await mail.box(uid)
    sends += [asyncio.create_task(sender.post(uid, n)) for n in range(200, 400)]
    got = await mail.place.run(_take(box.transport, 400))
    await asyncio.gather(*sends)
    assert got == list(range(400))


async def test_many_senders_keep_their_own_order(mail: Office) -> None:
    senders = [await mail.sender() for _ in range(5)]
    box = await mail.box()
    for n in range(40):
        await asyncio.gather(*(s.post(box.uid, n) for s in senders))
    got: dict[Any, list[int]] = {s.uid: [] for s in senders}
    for _ in range(200):
        message = await box.recv()
        got[message.src].append(number(message))
    assert all(numbers == list(range(40)) for numbers in got.values())


async def test_both_directions_at_once(mail: Office) -> None:
    here, there = await mail.desk(place=Here()), await mail.desk()

    async def ask(asker: Any, asked: Any) -> list[Any]:
        ping = PingRequest()
        pings = [Message.create(asker.uid, asked.uid, ping) for _ in range(200)]
        return await asyncio.gather(*map(asker.request, pings))

    async with within(20):
        answers = await asyncio.gather(ask(here, there), ask(there, here))
    assert all(isinstance(r.get_body(), SuccessResponse) for a in answers for r in a)
    for desk in (here, there):
        assert len({m.tag for m in desk.taken}) == len(desk.taken) == 200


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("soon", [True, False])
async def test_messages_outlive_a_short_lived_client(
    mail: Office, online: bool, soon: bool
) -> None:
    registration = await mail.register()
    uid = registration.agent_id
    box = await mail.box(uid) if online else None
    async with await mail.factory.create_user_client() as user:
        for n in range(100):
            if soon:
                user.send_soon(numbered(user.client_id, uid, n))
            else:
                await user.send(numbered(user.client_id, uid, n))
    box = box or await mail.box(uid)
    assert await mail.place.run(_take(box.transport, 100)) == list(range(100))


async def test_an_agent_moves_between_engines(other: Elsewhere, mail: Office) -> None:
    """Messages go within the engine, through the server, and within it again."""
    sender, registration = await mail.sender(), await mail.register()
    uid = registration.agent_id
    for start, place in enumerate([Here(), mail.place, other, Here(), other]):
        box = await mail.box(uid, place=place)
        first = 10 * start
        await sender.post(uid, *range(first, first + 10))
        assert await box.numbers(10) == list(range(first, first + 10))
        await box.close()


async def _take(transport: Any, count: int) -> list[int]:
    async with within(20):
        return [number(await transport.recv()) for _ in range(count)]
