"""Mailboxes that are closed, opened again, taken over, and terminated."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from academy.exception import (
    AgentTerminatedError,
    ExchangeError,
    FencedError,
    MailboxTerminatedError,
    PeerLostError,
    UserTerminatedError,
)
from academy.message import Message, PingRequest, SuccessResponse
from tests.contract.office import (
    FACTOR,
    Elsewhere,
    Here,
    Office,
    eventually,
    number,
    numbered,
    within,
)

TERMINATION = 1.5
"""Seconds in which everybody who waits for a terminated mailbox is answered."""
TAKEOVER = 3.5
"""Seconds in which a former owner learns that it is one."""


def error(response: Message[Any]) -> Exception:
    return response.get_body().get_exception()


# Closing


async def test_unread_messages_wait_for_the_next_owner(mail: Office) -> None:
    sender, box = await mail.sender(), await mail.box()
    await sender.post(box.uid, *range(100))
    await box.close()
    box = await mail.box(box.uid)
    assert await box.numbers(100) == list(range(100))


@pytest.mark.parametrize("read", [1, 2, 3, 50, 99, 100])
async def test_half_read_mailboxes_lose_nothing(mail: Office, read: int) -> None:
    sender, box = await mail.sender(), await mail.box()
    await sender.post(box.uid, *range(100))
    got = await box.numbers(read)
    await box.close()
    await sender.post(box.uid, *range(100, 150))
    box = await mail.box(box.uid)
    got += await box.numbers(150 - read)
    assert got == list(range(150))
    with pytest.raises(TimeoutError):
        await box.recv(timeout=0.05)


async def test_half_read_mailboxes_move(other: Elsewhere, mail: Office) -> None:
    """Each owner, here and there, reads some and leaves the rest to the next."""
    sender, registration = await mail.sender(), await mail.register()
    uid = registration.agent_id
    got: list[int] = []
    for turn, place in enumerate([mail.place, other, Here(), other, other, Here()]):
        await sender.post(uid, *range(20 * turn, 20 * turn + 10))
        box = await mail.box(uid, place=place)
        await sender.post(uid, *range(20 * turn + 10, 20 * turn + 20))
        got += await box.numbers(7)
        await box.close()
    box = await mail.box(uid)
    got += await box.numbers(120 - len(got))
    assert got == list(range(120))


async def test_interleaved_senders_lose_nothing(other: Elsewhere, mail: Office) -> None:
    uid = (await mail.register()).agent_id
    here, there = await mail.sender(), await mail.box(place=other)
    got: dict[Any, list[int]] = {here.uid: [], there.uid: []}

    async def read(count: int) -> None:
        box = await mail.box(uid)
        for _ in range(count):
            message = await box.recv()
            got[message.src].append(number(message))
        await box.close()

    for n in range(60):
        await here.post(uid, n)
        await there.post(uid, n)
        if n % 10 == 9:
            await read(13)
    await read(120 - 6 * 13)
    assert got == {here.uid: list(range(60)), there.uid: list(range(60))}


async def test_an_agent_that_restarts_all_the_time_loses_nothing(
    mail: Office,
) -> None:
    """20 restarts while messages come in."""
    sender, registration = await mail.sender(), await mail.register()
    uid = registration.agent_id
    total = 600
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < total:
            await sender.post(uid, sent)
            sent += 1
            await asyncio.sleep(0 if sent % 10 else 0.002)

    async def take_some() -> list[int]:
        transport = await mail.factory._create_transport(uid)
        try:
            return [number(await transport.recv(1.0)) for _ in range(25)]
        except TimeoutError:
            return []
        finally:
            await transport.close()

    sending = asyncio.create_task(send())
    got: list[int] = []
    async with within(30):
        while len(got) < total - 100:
            got += await mail.place.run(take_some())
    await sending
    box = await mail.box(uid)
    got += await box.numbers(total - len(got))
    assert got == list(range(total))


async def test_a_listening_agent_that_restarts_loses_nothing(mail: Office) -> None:
    """A client takes what comes, so each message is in some client's hands."""
    sender, registration = await mail.sender(), await mail.register()
    uid = registration.agent_id
    taken: list[int] = []

    async def send() -> None:
        for n in range(400):
            await sender.post(uid, n)
            if n % 5 == 0:
                await asyncio.sleep(0.001)

    sending = asyncio.create_task(send())
    while not sending.done():
        desk = await mail.desk(registration, lambda _: None)
        await asyncio.sleep(0.02)
        await desk.close()
        taken += map(number, desk.taken)
    await sending
    box = await mail.box(uid)
    taken += await box.numbers(400 - len(taken))
    assert taken == list(range(400))


async def test_closing_answers_what_was_taken(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 1)))
    await eventually(lambda: desk.taken)
    await desk.close()
    async with within(1.5):
        lost = error(await asking)
    assert isinstance(lost, PeerLostError)
    assert lost.executed == "maybe"
    assert lost.uid == desk.uid


async def test_answers_that_were_given_before_the_close_arrive(mail: Office) -> None:
    """20 rounds: the answer counts, not the end of the agent right after it."""
    user, registration = await mail.user(), await mail.register()
    for n in range(20):
        desk = await mail.desk(registration, lambda _: None)
        asking = asyncio.create_task(
            user.request(numbered(user.client_id, desk.uid, n))
        )
        await eventually(lambda desk=desk: desk.taken)
        await desk.reply(desk.taken[0], SuccessResponse())
        await desk.close()
        assert isinstance((await asking).get_body(), SuccessResponse)


async def test_an_unread_request_is_answered_by_the_next_owner(mail: Office) -> None:
    user, box = await mail.user(), await mail.box()
    registration = await mail.register()
    box = await mail.box(registration.agent_id)
    ping = Message.create(user.client_id, box.uid, PingRequest())
    asking = asyncio.create_task(user.request(ping))
    await asyncio.sleep(0.05)
    await box.close()
    assert not asking.done()
    await mail.desk(registration)
    async with within(5):
        assert isinstance((await asking).get_body(), SuccessResponse)


async def test_closing_fails_ones_own_requests(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 1)))
    await eventually(lambda: desk.taken)
    await user.close()
    with pytest.raises(ExchangeError, match="was closed"):
        await asking


async def test_closing_twice_changes_nothing(mail: Office) -> None:
    user, desk, box = await mail.user(), await mail.desk(), await mail.box()
    await asyncio.gather(desk.close(), desk.close())
    for opened in (user, desk, box):
        for _ in range(3):
            await opened.close()


async def test_closing_is_quick(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    await user.request(Message.create(user.client_id, desk.uid, PingRequest()))
    start = time.monotonic()
    await desk.close()
    await user.close()
    assert time.monotonic() - start < 1.0 * FACTOR


async def test_nothing_works_after_the_close(mail: Office) -> None:
    user, desk, box = await mail.user(), await mail.desk(), await mail.box()
    waiting = asyncio.create_task(box.recv(timeout=None))
    await asyncio.sleep(0.01)
    for opened in (user, box):
        await opened.close()
    ping = Message.create(user.client_id, desk.uid, PingRequest())
    for use in (user.send, user.request):
        with pytest.raises(ExchangeError, match="was closed"):
            await use(ping)
    for attempt in (waiting, box.recv(1.0)):
        with pytest.raises((ExchangeError, RuntimeError), match=r"closed|not open"):
            await attempt


# Terminating


async def test_what_waits_for_a_terminated_agent_is_answered(mail: Office) -> None:
    user, terminator = await mail.user(), await mail.user()
    offline = (await mail.register()).agent_id
    deaf = (await mail.box()).uid
    asking = [
        asyncio.create_task(user.request(numbered(user.client_id, uid, n)))
        for uid in (offline, deaf)
        for n in range(50)
    ]
    await asyncio.sleep(0.1)
    async with within(TERMINATION):
        for uid in (offline, deaf):
            await terminator.terminate(uid, reason="of a flood")
        errors = [error(r) for r in await asyncio.gather(*asking)]
    for found in errors:
        assert isinstance(found, AgentTerminatedError)
        assert found.executed == "no"
        assert "of a flood" in str(found)
    assert [e.uid for e in errors] == [offline] * 50 + [deaf] * 50


async def test_what_a_terminated_agent_has_taken_is_answered(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = [
        asyncio.create_task(user.request(numbered(user.client_id, desk.uid, n)))
        for n in range(50)
    ]
    await eventually(lambda: len(desk.taken) == 50)
    async with within(TERMINATION):
        await user.terminate(desk.uid)
        errors = [error(r) for r in await asyncio.gather(*asking)]
    assert all(isinstance(e, AgentTerminatedError) for e in errors)
    assert {e.executed for e in errors} == {"maybe"}
    assert [e.uid for e in errors] == [desk.uid] * 50


async def test_an_agent_may_terminate_itself(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 1)))
    await eventually(lambda: desk.taken)
    async with within(TERMINATION):
        await mail.place.run(desk.client.terminate(desk.uid))
        assert isinstance(error(await asking), AgentTerminatedError)
    await eventually(lambda: desk.ended)
    assert isinstance(desk.ended[0], AgentTerminatedError)


async def test_an_answer_that_was_given_before_the_termination_counts(
    mail: Office,
) -> None:
    user, desk = await mail.user(), await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(user.request(numbered(user.client_id, desk.uid, 1)))
    await eventually(lambda: desk.taken)
    await desk.reply(desk.taken[0], SuccessResponse())
    await user.terminate(desk.uid)
    assert isinstance((await asking).get_body(), SuccessResponse)


async def test_what_comes_after_the_termination_is_refused(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    await user.request(Message.create(user.client_id, desk.uid, PingRequest()))
    await user.terminate(desk.uid, reason="enough")
    for use in (user.send, user.request):
        with pytest.raises(AgentTerminatedError, match="enough") as caught:
            await use(Message.create(user.client_id, desk.uid, PingRequest()))
        assert caught.value.executed == "no"
    await eventually(lambda: desk.ended)
    with pytest.raises(MailboxTerminatedError):
        await desk.request(Message.create(desk.uid, user.client_id, PingRequest()))


async def test_sending_while_the_agent_is_terminated(mail: Office) -> None:
    """Each request is answered: by the agent, or with the termination."""
    user, desk = await mail.user(), await mail.desk()

    async def ask(n: int) -> str:
        try:
            response = await user.request(numbered(user.client_id, desk.uid, n))
        except AgentTerminatedError as e:
            return f"refused, {e.executed}"
        body = response.get_body()
        if isinstance(body, SuccessResponse):
            return "done"
        assert isinstance(body.get_exception(), AgentTerminatedError)
        return "answered"

    asking = [asyncio.create_task(ask(n)) for n in range(100)]
    await asyncio.sleep(0)
    terminating = asyncio.create_task(user.terminate(desk.uid))
    for n in range(100):
        asking.append(asyncio.create_task(ask(n)))
        await asyncio.sleep(0)
    await terminating
    asking += [asyncio.create_task(ask(n)) for n in range(100)]
    async with within(5):
        outcomes = await asyncio.gather(*asking)
    assert outcomes[-100:] == ["refused, no"] * 100
    assert "refused, maybe" not in outcomes


async def test_terminating_twice_or_nobody_changes_nothing(mail: Office) -> None:
    user, registration = await mail.user(), await mail.register()
    uid = registration.agent_id
    await user.terminate(type(uid).new())
    await user.terminate(uid, reason="first")
    await user.terminate(uid, reason="second")
    with pytest.raises(AgentTerminatedError, match="first"):
        await user.send(numbered(user.client_id, uid, 1))


async def test_a_listener_learns_of_the_termination(mail: Office) -> None:
    user, box = await mail.user(), await mail.box()
    waiting = asyncio.create_task(box.recv(timeout=None))
    await asyncio.sleep(0.02)
    await user.terminate(box.uid, reason="enough")
    async with within(1.5):
        with pytest.raises(AgentTerminatedError, match="enough"):
            await waiting
    with pytest.raises(AgentTerminatedError):
        await box.recv()


async def test_a_user_that_leaves_leaves_its_agent_alone(mail: Office) -> None:
    """The answer to somebody who is gone is refused by name, and nothing breaks."""
    leaver, stayer = await mail.user(), await mail.user()
    desk = await mail.desk(answer=lambda _: None)
    asking = asyncio.create_task(
        leaver.request(numbered(leaver.client_id, desk.uid, 1))
    )
    await eventually(lambda: desk.taken)
    await leaver.close()
    with pytest.raises(ExchangeError):
        await asking
    with pytest.raises(UserTerminatedError):
        await desk.reply(desk.taken[0], SuccessResponse())
    asking = asyncio.create_task(
        stayer.request(numbered(stayer.client_id, desk.uid, 2))
    )
    await eventually(lambda: len(desk.taken) == 2)
    await desk.reply(desk.taken[1], SuccessResponse())
    assert isinstance((await asking).get_body(), SuccessResponse)


# Taking over


@pytest.mark.parametrize("far", [False, True])
async def test_the_newest_owner_has_it_all(
    other: Elsewhere, mail: Office, far: bool
) -> None:
    sender, registration = await mail.sender(), await mail.register()
    old = await mail.desk(registration, lambda _: None)
    await sender.post(old.uid, *range(10))
    await eventually(lambda: len(old.taken) == 10)
    start = time.monotonic()
    new = await mail.desk(
        registration, lambda _: None, place=other if far else mail.place
    )
    # Until it is told, the old owner may be called directly by those who know it.
    await eventually(lambda: old.ended, TAKEOVER)
    await sender.post(old.uid, *range(10, 60))
    await eventually(lambda: len(new.taken) == 50)
    assert time.monotonic() - start < TAKEOVER * FACTOR
    assert isinstance(old.ended[0], FencedError)
    assert old.ended[0].uid == old.uid
    assert list(map(number, new.taken)) == list(range(10, 60))
    assert len(old.taken) == 10
    assert not new.ended


@pytest.mark.parametrize("far", [False, True])
async def test_an_old_owner_takes_nothing_more(
    other: Elsewhere, mail: Office, far: bool
) -> None:
    registration = await mail.register()
    old = await mail.box(registration.agent_id)
    waiting = asyncio.create_task(old.recv(timeout=None))
    await asyncio.sleep(0.02)
    new = await mail.box(old.uid, place=other if far else mail.place)
    async with within(TAKEOVER):
        with pytest.raises(FencedError, match="taken over by a newer client"):
            await waiting
    with pytest.raises(FencedError):
        await old.recv()
    await old.close()
    sender = await mail.sender()
    await sender.post(new.uid, 1, 2)
    assert await new.numbers(2) == [1, 2]


@pytest.mark.parametrize("far", [False, True])
async def test_an_old_owner_sends_nothing_more(
    other: Elsewhere, mail: Office, far: bool
) -> None:
    user, registration = await mail.user(), await mail.register()
    old = await mail.desk(registration)
    await mail.desk(registration, place=other if far else mail.place)
    await eventually(lambda: old.ended, TAKEOVER)
    for use in (old.client.send, old.client.request):
        with pytest.raises(FencedError):
            await mail.place.run(use(numbered(old.uid, user.client_id, 1)))


@pytest.mark.parametrize("far", [False, True])
async def test_a_new_owner_takes_each_message_once_or_its_caller_hears(
    other: Elsewhere, mail: Office, far: bool
) -> None:
    """A takeover while the old owner reads: nothing silent, nothing twice."""
    user, registration = await mail.user(), await mail.register()
    old = await mail.box(registration.agent_id)
    uid = old.uid
    asking = {
        n: asyncio.create_task(user.request(numbered(user.client_id, uid, n)))
        for n in range(60)
    }
    await asyncio.sleep(0.1)
    by_old = set(await old.numbers(7))
    new = await mail.desk(registration, place=other if far else mail.place)
    async with within(TAKEOVER):
        answers = dict(zip(asking, await asyncio.gather(*asking.values()), strict=True))
    by_new = set(map(number, new.taken))
    assert len(by_new) == len(new.taken)
    assert not by_old & by_new
    for n, answer in answers.items():
        if n in by_new:
            assert isinstance(answer.get_body(), SuccessResponse)
        else:
            assert isinstance(error(answer), PeerLostError)
    assert list(map(number, new.taken)) == sorted(by_new)
    assert len(by_new) > 40


async def test_takeovers_one_after_the_other(other: Elsewhere, mail: Office) -> None:
    sender, registration = await mail.sender(), await mail.register()
    desks = []
    for turn in range(10):
        place = [mail.place, other, Here()][turn % 3]
        desks.append(await mail.desk(registration, lambda _: None, place=place))
        await sender.post(registration.agent_id, turn)
        await eventually(lambda: desks[-1].taken)
    assert [list(map(number, d.taken)) for d in desks] == [[n] for n in range(10)]
    await eventually(lambda: all(d.ended for d in desks[:-1]), TAKEOVER)
    assert all(isinstance(d.ended[0], FencedError) for d in desks[:-1])
    assert not desks[-1].ended


async def test_concurrent_bindings_leave_one_owner(mail: Office) -> None:
    sender, registration = await mail.sender(), await mail.register()
    desks = await asyncio.gather(
        *(mail.desk(registration, lambda _: None) for _ in range(8))
    )
    await eventually(lambda: sum(bool(d.ended) for d in desks) == 7, TAKEOVER)
    (owner,) = [d for d in desks if not d.ended]
    await sender.post(owner.uid, *range(20))
    await eventually(lambda: len(owner.taken) == 20)
    assert [len(d.taken) for d in desks if d is not owner] == [0] * 7


async def test_a_taken_over_mailbox_can_be_left_and_bound_again(mail: Office) -> None:
    """What a newer owner of the same engine inherits, it can give back."""
    sender, old = await mail.sender(), await mail.box()
    await sender.post(old.uid, *range(20))
    assert await old.numbers(5) == list(range(5))
    new = await mail.box(old.uid)
    await new.close()
    last = await mail.box(old.uid)
    assert await last.numbers(15) == list(range(5, 20))
