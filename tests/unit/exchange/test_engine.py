from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError

from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    FencedError,
    MailboxTerminatedError,
    PeerLostError,
)
from academy.exchange import taker
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.engine import Engine
from academy.exchange.keys import Keys, entity_key
from academy.exchange.mailbox import PROBE, REQUEST, make_entry
from academy.exchange.secret import NamespaceSecret
from academy.exchange.transport import MailboxStatus
from academy.exchange.wake import News
from academy.identifier import AgentId, EntityId
from academy.message import encode
from tests.proxy import Proxy
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    AGENT,
    agree,
    answer,
    bind_agent,
    bind_user,
    failure,
    number,
    numbered,
    register,
    send,
    take,
    until,
)


async def status(engine: Engine, uid: EntityId) -> MailboxStatus:
    (record,) = await engine.directory.lookup([uid])
    return record.status


# Opening and closing


async def test_an_engine_shows_that_its_process_lives(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    engine = await new_engine()
    lease = keys.lease(engine.process)
    assert await raw.exists(lease)
    agent = await bind_agent(engine)
    assert await status(engine, agent.uid) is MailboxStatus.ACTIVE
    await raw.xadd(keys.wake(engine.process), {"t": "m"})
    await engine.close()
    assert not await raw.exists(lease, keys.wake(engine.process))


async def test_an_engine_that_cannot_be_opened_leaves_nothing(
    proxy: Proxy, proxied: RedisConnectionInfo, namespace: str
) -> None:
    await proxy.cut()
    engine = Engine(proxied, namespace)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="No Redis server answers"):
        await engine.open()
    assert time.monotonic() - start < 5


async def test_an_engine_closes_in_time_without_a_server(
    new_engine: NewEngine, proxy: Proxy, proxied: RedisConnectionInfo
) -> None:
    engine = await new_engine(proxied)
    user, agent = await bind_user(engine), await bind_agent(engine)
    await send(engine, user, agent.uid, 1)
    await proxy.cut()
    start = time.monotonic()
    await engine.unbind(agent)
    await engine.close()
    assert time.monotonic() - start < 3


async def test_what_was_not_taken_is_queued_when_the_server_is_back(
    new_engine: NewEngine, proxy: Proxy, proxied: RedisConnectionInfo
) -> None:
    """Its senders are in this process, and keep no copy."""
    engine = await new_engine(proxied)
    user, agent = await bind_user(engine), await bind_agent(engine)
    await send(engine, user, agent.uid, 1, 2)
    await proxy.cut()
    await engine.unbind(agent)
    sending = asyncio.create_task(send(engine, user, agent.uid, 3))
    await proxy.mend()
    await sending
    again = await bind_agent(engine, agent.uid)
    assert await take(again, 3) == [1, 2, 3]
    assert engine.auditor.settled == 0


async def test_members_of_a_namespace_agree_on_a_secret(
    environment: pytest.MonkeyPatch,
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    engines = await asyncio.gather(*(new_engine() for _ in range(4)))
    stored = await raw.get(keys.secret)
    assert len(stored) == 32
    assert all(e.keyring.secrets == [NamespaceSecret(stored)] for e in engines)


async def test_a_secret_of_ones_own_is_not_stored(
    environment: pytest.MonkeyPatch,
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    environment.setenv("ACADEMY_SECRET", "a secret of some length")
    member = await new_engine()
    assert not await raw.exists(keys.secret)
    environment.setenv("ACADEMY_SECRET", "a secret of a stranger")
    stranger = await new_engine()
    # A member looks there again before it refuses anything.
    environment.setenv("ACADEMY_SECRET", "a secret of some length")
    user, agent = await bind_user(stranger), await bind_agent(member)
    await send(stranger, user, agent.uid, 1)
    with pytest.raises(TimeoutError):
        await agent.recv(0.2)
    assert member.queues.dead_letters == 1


# Binding


async def test_who_cannot_be_bound(new_engine: NewEngine) -> None:
    engine = await new_engine()
    with pytest.raises(BadEntityIdError):
        await engine.bind(AgentId.new())
    uid = await register(engine)
    await engine.terminate(uid, "enough")
    with pytest.raises(AgentTerminatedError, match="enough"):
        await engine.bind(uid)
    assert engine.boxes == {}


@pytest.mark.parametrize("far", [False, True])
async def test_a_newer_owner_fences_the_older(new_engine: NewEngine, far: bool) -> None:
    here, there = await new_engine(), await new_engine()
    old = await bind_agent(here)
    new = await bind_agent(there if far else here, old.uid)
    await until(lambda: old.ended, 3.5)
    with pytest.raises(FencedError):
        old.check_open()
    assert new.inc > old.inc
    assert here.boxes == ({} if far else {old.uid: new})
    # What the old one does later is not heard.
    await here.unbind(old)
    new.check_open()


async def test_a_newer_owner_elsewhere_gets_what_was_handed_over(
    new_engine: NewEngine,
) -> None:
    """Messages within a process were never in the queue."""
    here, there = await new_engine(), await new_engine()
    user, old = await bind_user(here), await bind_agent(here)
    requests = await send(here, user, old.uid, *range(10))
    assert await take(old, 3) == [0, 1, 2]
    new = await bind_agent(there, old.uid)
    assert await take(new, 7) == list(range(3, 10))
    lost = [await failure(user) for _ in range(3)]
    assert all(isinstance(e, PeerLostError) for e in lost)
    for request in requests[3:]:
        await agree(there, new, request)
    assert {(await answer(user)).tag for _ in range(7)} == {r.tag for r in requests[3:]}


async def test_a_newer_owner_here_gets_what_was_not_taken(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    near, far, uid = await bind_user(here), await bind_user(there), await register(here)
    await send(there, far, uid, *range(10))
    old = await bind_agent(here, uid)
    assert await take(old, 4) == [0, 1, 2, 3]
    await send(here, near, uid, 100, 101)
    new = await bind_agent(here, uid)
    lost = [await failure(far) for _ in range(4)]
    assert all(isinstance(e, PeerLostError) for e in lost)
    assert "took its mailbox over" in str(lost[0])
    assert sorted(await take(new, 8)) == [4, 5, 6, 7, 8, 9, 100, 101]


async def test_concurrent_bindings_leave_one_owner(new_engine: NewEngine) -> None:
    engine = await new_engine()
    uid, user = await register(engine), await bind_user(engine)
    boxes = await asyncio.gather(*(engine.bind(uid) for _ in range(6)))
    (owner,) = [b for b in boxes if not b.ended]
    assert engine.boxes[uid] is owner
    assert owner.inc == max(b.inc for b in boxes)
    await send(engine, user, uid, 1)
    assert await take(owner) == [1]


async def test_a_process_that_was_not_told_finds_out_when_it_takes(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    old = await bind_agent(here)
    await raw.delete(keys.lease(here.process))  # so that nobody tells it
    await bind_agent(there, old.uid)
    with pytest.raises(FencedError):
        await old.recv(3)


# Closing a mailbox


async def test_a_queue_that_was_empty_is_looked_at_when_there_are_news(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    before = there.server.commands
    waiting = asyncio.create_task(agent.recv(5))
    await asyncio.sleep(0.05)
    assert there.server.commands == before
    await send(here, user, agent.uid, 1)
    assert number(await waiting) == 1


async def test_news_that_come_before_a_binding_is_known(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message was not yet there when the server answered."""
    here, there = await new_engine(), await new_engine()
    user, uid = await bind_user(here), await register(here)
    bind = there.directory.bind

    async def slowly(uid: Any, process: str) -> Any:
        binding = await bind(uid, process)
        assert not binding.waiting
        await send(here, user, uid, 1)
        await until(lambda: there._binding[entity_key(uid)])
        return binding

    monkeypatch.setattr(there.directory, "bind", slowly)
    agent = await bind_agent(there, uid)
    assert await take(agent) == [1]
    assert not there._binding


async def test_a_binding_that_fails_leaves_nothing(new_engine: NewEngine) -> None:
    engine = await new_engine()
    with pytest.raises(BadEntityIdError):
        await engine.bind(AgentId.new())
    assert not engine._binding
    assert not engine.boxes


async def test_closing_gives_back_what_a_take_under_way_brings(
    new_engine: NewEngine, raw: redis.asyncio.Redis
) -> None:
    """20 rounds in which messages arrive while the mailbox is closed."""
    here, there = await new_engine(), await new_engine()
    user, uid = await bind_user(there), await register(here)
    sent = 0
    got: list[int] = []
    for turn in range(20):
        agent = await bind_agent(here, uid)
        reading = asyncio.create_task(agent.recv(None))
        await asyncio.sleep(0)
        posting = asyncio.create_task(send(there, user, uid, sent, sent + 1))
        for _ in range(turn * 3):
            await asyncio.sleep(0)
        await here.unbind(agent)
        await posting
        sent += 2
        await asyncio.wait([reading])
        if reading.exception() is None:
            got.append(number(reading.result()))
    agent = await bind_agent(here, uid)
    got += await take(agent, sent - len(got))
    assert got == list(range(sent))
    with pytest.raises(TimeoutError):
        await agent.recv(0.05)


async def test_closing_a_mailbox_that_was_taken_over_meanwhile(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """What was handed over in this process goes to the new owner."""
    here, there = await new_engine(), await new_engine()
    user, old = await bind_user(here), await bind_agent(here)
    await send(here, user, old.uid, 1, 2)
    await raw.delete(keys.lease(here.process))  # so that nobody tells it
    new = await bind_agent(there, old.uid)
    await here.unbind(old)
    assert await take(new, 2) == [1, 2]


async def test_closing_a_mailbox_that_was_terminated_meanwhile(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, old = await bind_user(here), await bind_agent(here)
    await send(here, user, old.uid, 1)
    await raw.delete(f"{keys.prefix}watch:{old.key}", keys.lease(here.process))
    await there.terminate(old.uid, "enough")
    await here.unbind(old)
    found = await failure(user)
    assert isinstance(found, AgentTerminatedError)
    assert (found.executed, found.reason) == ("no", "enough")


async def test_closing_a_mailbox_that_the_server_has_forgotten(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    await send(engine, user, agent.uid, 1, 2)
    await raw.delete(f"{keys.prefix}mb:{agent.key}")
    await engine.unbind(agent)
    second = await bind_agent(engine, agent.uid)
    assert await take(second, 2) == [1, 2]
    assert await engine.directory.discover(AGENT, allow_subclasses=True) == [agent.uid]


# Taking


async def test_a_take_that_is_refused_is_repeated(
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(taker, "TAKE_AGAIN", 0.1)
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    taken = f"{keys.prefix}tk:{agent.key}"
    await raw.set(taken, "no hash")
    await send(there, user, agent.uid, 1)
    taking = asyncio.create_task(take(agent))
    await until(lambda: "could not take its messages" in caplog.text)
    await raw.delete(taken)
    assert await taking == [1]


async def test_a_take_outlives_a_server_that_is_away(
    new_engine: NewEngine,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("academy.exchange.queues.TAKE_TIMEOUT", 0.2)
    here, there = await new_engine(proxied), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    await proxy.cut()
    await send(there, user, agent.uid, 1)
    taking = asyncio.create_task(take(agent))
    await asyncio.sleep(0.5)
    await proxy.mend()
    assert await asyncio.wait_for(taking, 5) == [1]


async def test_a_take_outlives_a_server_that_has_lost_its_data(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    await raw.delete(f"{keys.prefix}mb:{agent.key}")
    agent.wake()
    taking = asyncio.create_task(take(agent))
    await until(lambda: here._restoring is not None)
    await here._restoring  # type: ignore[misc]
    await send(there, user, agent.uid, 1)
    assert await taking == [1]


async def append(
    engine: Engine, uid: EntityId, kind: str, *segments: bytes, stream: str = "s"
) -> None:
    """Append what a member of the namespace would not."""
    entry = make_entry(stream, 1, kind, b"t" * 16, list(segments))
    await engine.queues.append(None, uid, entry)


async def test_messages_that_cannot_be_read_are_dropped(
    new_engine: NewEngine, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    foreign = numbered(user, agent.uid, 1)
    foreign.header = type(foreign.header).model_validate(
        foreign.header.model_dump() | {"protocol_version": "99.0"}
    )
    head, *_ = encode(foreign)
    await append(there, agent.uid, REQUEST, b"junk", stream="a")
    await append(there, agent.uid, REQUEST, bytes(head), stream="b")
    await append(there, agent.uid, "?", b"", stream="c")
    await append(there, agent.uid, PROBE, b"junk", stream="d")
    await send(there, user, agent.uid, 2)
    assert await take(agent) == [2]
    assert here.queues.dead_letters == 3
    assert "protocol version 99.0" in caplog.text
    assert "damaged control message" in caplog.text


async def test_what_a_former_owner_has_taken_is_refused_by_name(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """The owner dies with messages in its hands: they are not executed again."""
    here, dying = await new_engine(), await new_engine()
    user, uid = await bind_user(here), await register(here)
    await send(here, user, uid, 1, 2, 3)
    old = await bind_agent(dying, uid)
    assert await take(old, 2) == [1, 2]  # the third one came along
    await dying._tasks.cancel()
    await raw.delete(keys.lease(dying.process))
    agent = await bind_agent(here, uid)
    taking = asyncio.create_task(take(agent))
    lost = [await failure(user) for _ in range(3)]
    assert all(isinstance(e, PeerLostError) for e in lost)
    # Two were still in the queue, so that only one had to be found by the audit.
    assert here.auditor.settled == 1
    await send(here, user, uid, 4)
    assert await taking == [4]


async def test_a_response_that_was_taken_by_a_former_owner_is_dropped(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    (request,) = await send(here, user, agent.uid, 1)
    await take(agent)
    await agree(there, agent, request)
    assert (await answer(user)).tag == request.tag
    second = await here.bind(user.uid)
    with pytest.raises(TimeoutError):
        await second.recv(0.1)


# Terminating


async def test_a_termination_answers_what_waits_anywhere(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    near, far, agent = await bind_user(here), await bind_user(there), None
    agent = await bind_agent(here)
    await send(here, near, agent.uid, 1)
    await send(there, far, agent.uid, 2)
    start = time.monotonic()
    await there.terminate(agent.uid, "enough")
    for user in (near, far):
        found = await failure(user)
        assert isinstance(found, AgentTerminatedError)
        assert (found.executed, found.reason) == ("no", "enough")
    assert time.monotonic() - start < 1
    with pytest.raises(MailboxTerminatedError, match="enough"):
        await agent.recv(1)
    assert here.boxes.keys() == {near.uid}


async def test_a_termination_skips_what_it_cannot_read(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await append(engine, uid, REQUEST, b"junk")
    await send(engine, user, uid, 1)
    await engine.terminate(uid)
    assert isinstance(await failure(user), AgentTerminatedError)


# News


async def test_damaged_news_do_not_make_a_process_deaf(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    taking = asyncio.create_task(take(agent))
    await asyncio.sleep(0.05)
    wake = keys.wake(here.process)
    for kind in ("m", "b", "c", "f", "g", "?", ""):
        for entity in ("junk", "", "A" * 26, "é"):
            fields = {"t": kind, "e": entity, "i": "many", "r": "x"}
            await raw.xadd(wake, fields)
    await raw.xadd(wake, {"x": "y"})
    await raw.xadd(wake, {"t": "f", "e": agent.key, "i": "1"})  # older than this
    await send(there, user, agent.uid, 1)
    assert await taking == [1]


async def test_an_owner_that_hears_of_its_fence(new_engine: NewEngine) -> None:
    engine = await new_engine()
    agent = await bind_agent(engine)
    engine._on_news(News("f", agent.key, agent.inc))
    assert not agent.ended
    engine._on_news(News("f", agent.key, agent.inc + 1))
    assert agent.ended


# Recovery


async def test_owners_are_back_after_a_flush(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """All keys of the namespace are gone, and nobody was told."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    closed = await bind_agent(here)
    await here.unbind(closed)
    found = [key async for key in raw.scan_iter(f"{keys.prefix}*")]
    await raw.delete(*found)
    start = time.monotonic()
    # Everybody hears of it by the wake stream, which is gone, or by the lease.
    while not await raw.exists(f"{keys.prefix}mb:{agent.key}"):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert time.monotonic() - start < 4
    assert await status(there, agent.uid) is MailboxStatus.ACTIVE
    assert await there.directory.discover(AGENT, allow_subclasses=True) == [agent.uid]
    assert await status(there, closed.uid) is MailboxStatus.MISSING
    (request,) = await send(there, user, agent.uid, 1)
    assert await take(agent) == [1]
    await agree(here, agent, request)
    assert (await answer(user)).tag == request.tag


async def test_a_flush_is_no_reason_to_execute_again(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """What was taken is on record again after the owner has restored it."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    await send(there, user, agent.uid, 1, 2)
    assert await take(agent, 2) == [1, 2]
    queue = await raw.xrange(f"{keys.prefix}q:{agent.key}")
    await raw.delete(f"{keys.prefix}tk:{agent.key}", f"{keys.prefix}mb:{agent.key}")
    here._restore()
    await here._restoring  # type: ignore[misc]
    for _, fields in queue:  # a failover brings entries back
        await raw.xadd(f"{keys.prefix}q:{agent.key}", fields)
    second = await bind_agent(there, agent.uid)
    with pytest.raises(TimeoutError):
        await second.recv(0.2)


async def test_a_restore_finds_out_what_has_happened_meanwhile(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    fenced, ended = await bind_agent(here), await bind_agent(here)
    await raw.delete(keys.lease(here.process))  # nobody tells this process
    await bind_agent(there, fenced.uid)
    await there.terminate(ended.uid)
    here._restore()
    await here._restoring  # type: ignore[misc]
    with pytest.raises(FencedError):
        fenced.check_open()
    with pytest.raises(AgentTerminatedError):
        ended.check_open()


async def test_a_restore_that_fails_is_logged(
    new_engine: NewEngine,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("academy.exchange.directory.DIRECTORY_TIMEOUT", 0.1)
    monkeypatch.setenv("ACADEMY_SECRET", "a secret of some length")
    caplog.set_level(logging.WARNING)
    engine = await new_engine(proxied)
    await bind_agent(engine)
    await proxy.cut()
    engine._restore()
    restoring = engine._restoring
    engine._restore()
    assert engine._restoring is restoring
    await asyncio.wait_for(restoring, 5)  # type: ignore[arg-type]
    assert "could not be restored" in caplog.text


async def test_lost_scripts_do_not_matter(
    new_engine: NewEngine, raw: redis.asyncio.Redis
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    for n in range(5):
        await raw.script_flush()
        (request,) = await send(there, user, agent.uid, n)
        assert await take(agent) == [n]
        await raw.script_flush()
        await agree(here, agent, request)
        assert (await answer(user)).tag == request.tag


async def test_a_new_secret_after_a_flush(
    environment: pytest.MonkeyPatch,
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    """The first to come back stores the secret that it has."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    stored = await raw.get(keys.secret)
    await raw.set(keys.secret, b"x" * 32)  # somebody else was first
    for engine in (here, there):
        engine._restore()
        await engine._restoring  # type: ignore[misc]
        assert engine.keyring.secrets == [
            NamespaceSecret(b"x" * 32),
            NamespaceSecret(stored),
        ]
    await send(there, user, agent.uid, 1)
    assert await take(agent) == [1]


async def test_nothing_is_left_of_a_user_that_leaves(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    agent = await bind_agent(here)
    for n in range(5):
        user = await bind_user(there)
        (request,) = await send(there, user, agent.uid, n)
        assert await take(agent) == [n]
        await agree(here, agent, request)
        await answer(user)
        await there.terminate(user.uid)
        await there.unbind(user)
    assert await raw.zcard(f"{keys.prefix}gone") == 5
    mailboxes = {k async for k in raw.scan_iter(f"{keys.prefix}mb:*")}
    assert mailboxes == {f"{keys.prefix}mb:{entity_key(agent.uid)}".encode()}
    assert there.boxes == {}
    leftover: Any = there.router._senders
    assert leftover == {}
