from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
import redis.asyncio

from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeError,
    FencedError,
    ForbiddenError,
    MailboxFullError,
    MessageTooLargeError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.exchange import courier as courier_module
from academy.exchange import queues as queues_module
from academy.exchange import router as router_module
from academy.exchange.bound import Delivery
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.keys import Keys, entity_key
from academy.exchange.mailbox import PROBE, RESPONSE
from academy.exchange.stream import REQUESTS
from academy.identifier import AgentId, UserId
from academy.message import (
    ActionRequest,
    CancelRequest,
    Message,
    PingRequest,
    SuccessResponse,
    encode,
)
from academy.serialize import SerializationStrategy
from tests.proxy import Proxy
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    failure,
    numbered,
    post,
    register,
    send,
    take,
    until,
)

PICKLE = SerializationStrategy.PICKLE


async def test_messages_within_a_process_need_no_server(new_engine: NewEngine) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    before = engine.server.commands
    requests = await send(engine, user, agent.uid, *range(100))
    assert await take(agent, 100) == list(range(100))
    for request in requests:
        await agree(engine, agent, request)
    assert [(await answer(user)).tag for _ in requests] == [r.tag for r in requests]
    assert engine.server.commands - before <= 2  # the first waits found empty queues


async def test_messages_between_processes_go_through_the_queue(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    requests = await send(here, user, agent.uid, 1, 2, 3)
    assert await take(agent, 3) == [1, 2, 3]
    await agree(there, agent, requests[0])
    assert (await answer(user)).tag == requests[0].tag


async def test_an_array_within_a_process_is_a_copy_that_can_be_written(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    array = np.zeros(100_000)
    body = ActionRequest(action="a", serialization=PICKLE, pargs=(array,))
    await post(engine, user, Message.create(user.uid, agent.uid, body))
    array[:] = 1
    (got,) = (await agent.recv(5)).get_body().get_args()
    got[0] = 5
    assert (got[0], got[1], array[0]) == (5, 0, 1)


async def test_who_may_not_send(new_engine: NewEngine) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    with pytest.raises(ForbiddenError, match="cannot send in the name of"):
        await post(engine, user, numbered(agent, agent.uid, 1))
    user.fence()
    with pytest.raises(FencedError):
        await send(engine, user, agent.uid, 1)


async def test_messages_beyond_the_limit(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "MESSAGE_LIMIT", 1000)
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)

    def message(array: Any) -> Message[Any]:
        body = ActionRequest(action="a", serialization=PICKLE, pargs=(array,))
        return Message.create(user.uid, agent.uid, body)

    with pytest.raises(MessageTooLargeError) as caught:
        await post(engine, user, message(np.zeros((10, 10))))
    assert caught.value.size > 1000
    await post(engine, user, message(np.zeros((5, 5))))
    assert not user.ledger.awaiting(agent.uid)[1:]


async def test_a_message_that_was_refused_is_not_awaited(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await new_engine()
    user = await bind_user(engine)
    stranger: AgentId[Any] = AgentId.new()
    with pytest.raises(BadEntityIdError):
        await send(engine, user, stranger, 1)
    gone = await register(engine)
    await engine.terminate(gone, "enough")
    with pytest.raises(AgentTerminatedError, match="enough"):
        await send(engine, user, gone, 1)
    full = await register(engine)
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", 1)
    await send(engine, user, full, 1)
    stream = user.open_outlet(full, REQUESTS).stream
    with pytest.raises(MailboxFullError):
        await send(engine, user, full, 2)
    assert (stream.seq, stream.relayed) == (2, 1)
    assert [a.header.dest for a in user.ledger.awaited.values()] == [full]


async def test_cancels_are_not_held_up_by_a_full_queue(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are requests by kind, but answers by their number."""
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    (request,) = await send(engine, user, uid, 1)
    cancel = CancelRequest(target_tag=request.tag)
    await post(engine, user, Message.create(user.uid, uid, cancel))
    agent = await bind_agent(engine, uid)
    assert (await agent.recv(5)).tag == request.tag
    assert isinstance((await agent.recv(5)).get_body(), CancelRequest)
    assert user.open_outlet(uid, REQUESTS).stream.seq == 1


# Order across paths


async def test_what_is_in_the_queue_goes_first(new_engine: NewEngine) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, *range(20))
    agent = await bind_agent(engine, uid)
    sending = asyncio.create_task(send(engine, user, uid, *range(20, 40)))
    assert await take(agent, 40) == list(range(40))
    await sending
    before = engine.server.commands
    await send(engine, user, uid, 40)
    assert engine.server.commands == before
    assert await take(agent) == [40]


async def test_a_consumer_that_does_not_read_gets_all_in_order(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "BARRIER_TIMEOUT", 0.05)
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 0)
    agent = await bind_agent(engine, uid)
    await asyncio.gather(*(send(engine, user, uid, n) for n in range(1, 10)))
    assert await take(agent, 10) == list(range(10))


async def test_an_agent_that_moves_while_a_message_waits_for_its_turn(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    user, uid = await bind_user(here), await register(here)
    await send(here, user, uid, 0)
    await bind_agent(here, uid)
    sending = [asyncio.create_task(send(here, user, uid, n)) for n in (1, 2)]
    await asyncio.sleep(0.05)
    assert not sending[0].done()
    agent = await bind_agent(there, uid)
    await asyncio.wait_for(asyncio.gather(*sending), 1)
    assert await take(agent, 3) == [0, 1, 2]


async def test_a_sender_that_is_fenced_while_it_waits_for_its_turn(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 0)
    agent = await bind_agent(engine, uid)
    sending = asyncio.create_task(send(engine, user, uid, 1))
    await asyncio.sleep(0.05)
    user.fence()
    taking = asyncio.create_task(take(agent, 1))
    with pytest.raises(FencedError):
        await sending
    assert await taking == [0]


# A server that is away, or has lost its data


async def test_a_server_that_is_away_for_too_long(
    new_engine: NewEngine,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues_module.Queues.post, "__kwdefaults__", {"timeout": 0.3})
    engine = await new_engine(proxied)
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    await proxy.cut()
    with pytest.raises(PeerUnreachableError, match="Redis server is away") as caught:
        await send(engine, user, uid, 2)
    stream = user.open_outlet(uid, REQUESTS).stream
    # Whether it got there decides where the next one has to wait.
    assert stream.relayed == (2 if caught.value.executed == "maybe" else 1)
    await proxy.mend()
    await send(engine, user, uid, 3)
    agent = await bind_agent(engine, uid)
    assert await take(agent, 2) in ([1, 3], [1, 2])


async def test_a_message_outlives_the_loss_of_its_sender(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """The server has forgotten the sender, who restores himself."""
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await raw.delete(f"{keys.prefix}mb:{user.key}")
    await send(engine, user, uid, 1)
    agent = await bind_agent(engine, uid)
    assert await take(agent) == [1]


async def test_messages_outlive_the_loss_of_a_destination_that_lives(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    assert await take(agent) == [1]
    await raw.delete(f"{keys.prefix}mb:{agent.key}")
    sending = asyncio.create_task(send(here, user, agent.uid, 2))
    await asyncio.sleep(0.3)
    assert not sending.done()
    there._restore()
    await asyncio.wait_for(sending, 3)
    assert await take(agent) == [2]


async def test_a_destination_that_does_not_come_back(
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier_module, "RECOVERY_TIMEOUT", 0.4)
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    await raw.delete(f"{keys.prefix}mb:{entity_key(uid)}")
    results = await asyncio.wait_for(
        asyncio.gather(
            *(send(engine, user, uid, n) for n in range(10)), return_exceptions=True
        ),
        3,
    )
    assert {type(r) for r in results} == {BadEntityIdError}


async def test_order_holds_while_the_server_recovers(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """Nothing overtakes what has to be sent again, and nothing is lost silently."""
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await raw.delete(f"{keys.prefix}mb:{user.key}")
    first = [asyncio.create_task(send(engine, user, uid, n)) for n in range(3)]
    await until(lambda: user.open_outlet(uid, REQUESTS).waiting)
    await engine.directory.reassert(user.uid, (), engine.process, user.inc, [])
    await send(engine, user, uid, 3, 4)
    await asyncio.gather(*first)
    agent = await bind_agent(engine, uid)
    assert await take(agent, 5) == [0, 1, 2, 3, 4]


async def test_nothing_passes_what_waits_for_its_turn(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at the moment when one has had its turn, and the next one has not begun."""
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    outlet = user.open_outlet(uid, REQUESTS)
    submit = engine.courier.submit
    late: list[asyncio.Future[None]] = []

    def submit_and_another(*args: Any) -> Any:
        monkeypatch.setattr(engine.courier, "submit", submit)
        work = submit(*args)
        other = engine.router.submit(user, numbered(user, uid, 3))
        assert other is not None
        late.append(asyncio.ensure_future(other))
        return work

    monkeypatch.setattr(engine.courier, "submit", submit_and_another)
    async with outlet.turn():
        first = [asyncio.create_task(send(engine, user, uid, n)) for n in (1, 2)]
        await until(lambda: outlet.waiting == 3)
    await asyncio.gather(*first, *late)
    agent = await bind_agent(engine, uid)
    assert await take(agent, 3) == [1, 2, 3]


# What this process says itself


async def test_an_answer_in_the_name_of_a_mailbox(new_engine: NewEngine) -> None:
    here, there = await new_engine(), await new_engine()
    near, far = await bind_user(here), await bind_user(there)
    stranger: AgentId[Any] = AgentId.new()
    for asker in (near, far):
        request = numbered(asker, stranger, 1)
        asker.ledger.sending(request.header)
        here.router.respond_soon(
            request.header, router_module.terminated(stranger, "gone", "no")
        )
        found = await failure(asker)
        assert isinstance(found, AgentTerminatedError)
        assert (found.uid, found.reason, found.executed) == (stranger, "gone", "no")


async def test_an_answer_to_nobody(
    new_engine: NewEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="academy.exchange.router")
    engine = await new_engine()
    lost = Message.create(UserId.new(), AgentId.new(), PingRequest())
    body = router_module.terminated(lost.dest, "", "no")
    engine.router.respond_soon(lost.header, body)
    await engine.router.flush(5)
    assert "could not be answered" in caplog.text


async def test_control_messages(
    new_engine: NewEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="academy.exchange.router")
    engine = await new_engine()
    stranger: AgentId[Any] = AgentId.new()
    with pytest.raises(BadEntityIdError):
        await engine.router.control(stranger, PROBE, b"?")
    engine.router.control_soon(stranger, PROBE, b"?")
    await engine.router.flush(5)
    assert "could not be told" in caplog.text
    uid = await register(engine)
    engine.router.control_soon(uid, PROBE, b"?")
    await engine.router.flush(5)
    (record,) = await engine.directory.lookup([uid])
    assert record.waiting == 1


# What a mailbox of this process can no longer take


def handed_over(message: Message[Any], stream: str, seq: int) -> Delivery:
    return Delivery(message, stream, seq, encode(message), local=True)


async def test_what_is_queued_again_stays_before_what_comes_next(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    stream = user.open_outlet(uid, REQUESTS).stream
    for n in (1, 2):
        message = numbered(user, uid, n)
        delivery = handed_over(message, stream.name, stream.next())
        engine.router.resend_soon(uid, delivery)
    await send(engine, user, uid, 3)
    agent = await bind_agent(engine, uid)
    assert await take(agent, 3) == [1, 2, 3]


async def test_what_is_queued_again_outlives_its_sender(new_engine: NewEngine) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    delivery = handed_over(
        numbered(user, uid, 1), user.open_outlet(uid, REQUESTS).stream.name, 1
    )
    await engine.terminate(user.uid)
    await engine.unbind(user)
    engine.router.resend_soon(uid, delivery)
    agent = await bind_agent(engine, uid)
    assert await take(agent) == [1]


async def test_what_cannot_be_queued_again(
    new_engine: NewEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    request = numbered(user, uid, 1)
    user.ledger.sending(request.header)
    await engine.terminate(uid, "enough")
    response = Message.create(uid, user.uid, PingRequest()).create_response(
        SuccessResponse()
    )
    for message in (response, request):
        engine.router.resend_soon(uid, handed_over(message, "s", 1))
    found = await failure(user)
    assert isinstance(found, AgentTerminatedError)
    assert (found.executed, found.reason) == ("no", "enough")
    unknown = AgentId[Any].new()
    request = numbered(user, unknown, 1)
    user.ledger.sending(request.header)
    engine.router.resend_soon(unknown, handed_over(request, "s", 1))
    assert isinstance(await failure(user), RequestLostError)
    assert engine.auditor.settled == 0  # it was told at once
    assert "could not be queued" in caplog.text


# Forgetting


async def test_what_is_known_of_the_terminated_is_forgotten(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    assert user.destinations() == {uid.uid}
    await engine.terminate(uid)
    assert user.destinations() == set()
    assert engine.router._senders == {}


async def test_what_is_known_of_a_sender_is_forgotten(new_engine: NewEngine) -> None:
    engine = await new_engine()
    users = [await bind_user(engine) for _ in range(2)]
    uid = await register(engine)
    for user in users:
        await send(engine, user, uid, 1)
    for user in users:
        assert engine.router._senders
        await engine.unbind(user)
    assert engine.router._senders == {}


async def test_a_send_that_is_cancelled_leaves_the_stream_in_order(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    for n in range(30):
        sending = asyncio.create_task(send(engine, user, uid, n))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        if n % 3 == 1:
            sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await send(engine, user, uid, 99)
    agent = await bind_agent(engine, uid)
    got = []
    while not got or got[-1] != 99:
        got += await take(agent)
    assert got == sorted(set(got))
    assert set(got) >= {n for n in range(30) if n % 3 != 1}


async def test_responses_in_the_queue_have_their_kind(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    (request,) = await send(engine, user, agent.uid, 1)
    await engine.unbind(user)
    await agree(engine, agent, request)
    ((_, fields),) = await raw.xrange(f"{keys.prefix}q:{user.key}")
    assert fields[b"k"] == RESPONSE.encode()
    with pytest.raises(ExchangeError):
        await post(
            engine, agent, Message.create(agent.uid, AgentId.new(), PingRequest())
        )
