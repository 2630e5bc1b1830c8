from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import redis.asyncio

from academy.exception import (
    AgentTerminatedError,
    PeerLostError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.exchange import audit, grace
from academy.exchange.bound import BoundMailbox
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.engine import Engine
from academy.exchange.keys import Keys, entity_key
from academy.exchange.mailbox import PROBE, REPORT, Entry, make_entry
from academy.identifier import AgentId
from academy.message import Message, PingRequest
from academy.stats import AgentStats
from tests.proxy import Proxy
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    connect,
    failure,
    post,
    register,
    send,
    take,
    until,
)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the audit look ten times as often."""
    monkeypatch.setattr(audit, "INTERVAL", 0.1)
    monkeypatch.setattr(audit, "PROBE_AGE", 0.3)
    monkeypatch.setattr(audit, "GRACE", 0.1)
    monkeypatch.setattr(grace, "GRACE", 0.1)
    monkeypatch.setattr(audit, "RECHECK", 0.03)
    monkeypatch.setattr(audit, "STATS_TIMEOUT", 0.5)


async def kill(engine: Engine, raw: redis.asyncio.Redis, keys: Keys) -> None:
    """Let an engine look as if its process had died."""
    await engine._tasks.cancel()
    await engine._lease.close()
    await raw.delete(keys.lease(engine.process))


async def nothing_is_settled(box: BoundMailbox, engine: Engine) -> None:
    """Wait for many audits, none of which finds anything."""
    with pytest.raises(TimeoutError):
        await box.recv(1.0)
    assert engine.auditor.settled == 0
    assert {a.strikes for a in box.ledger.awaited.values()} == {0}


# Requests that are all right


async def test_a_request_may_wait_in_the_queue_for_ever(new_engine: NewEngine) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1, 2)
    await nothing_is_settled(user, engine)
    agent = await bind_agent(engine, uid)
    assert await take(agent, 2) == [1, 2]


async def test_a_request_may_take_for_ever(new_engine: NewEngine) -> None:
    """Its owner is asked, and knows it."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    (request,) = await send(here, user, agent.uid, 1)
    await take(agent)
    waiting = asyncio.create_task(agent.recv(None))  # as clients always do
    await nothing_is_settled(user, here)
    assert here.auditor._number > 1
    await agree(there, agent, request)
    assert (await answer(user)).tag == request.tag
    waiting.cancel()


async def test_a_request_may_wait_in_a_process(new_engine: NewEngine) -> None:
    """The second one came along with a take, and the consumer is busy."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1, 2, 3)
    assert await take(agent, 2) == [1, 2]
    assert len(agent.inbox) == 1
    await nothing_is_settled(user, here)
    assert await take(agent) == [3]


async def test_a_stalled_owner_is_not_declared_dead(new_engine: NewEngine) -> None:
    """Its lease lives, and nobody answers for it."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    await nothing_is_settled(user, here)


@pytest.mark.parametrize("read", [True, False])
async def test_requests_within_a_process(new_engine: NewEngine, read: bool) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    await send(engine, user, agent.uid, 1)
    if read:
        await take(agent)
    await nothing_is_settled(user, engine)


async def test_requests_in_the_queue_of_an_owner_here(new_engine: NewEngine) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    await bind_agent(engine, uid)
    await nothing_is_settled(user, engine)


async def test_requests_that_are_just_being_taken_by_an_owner_here(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    agent = await bind_agent(engine, uid)
    arrive, asked = asyncio.Event(), engine.queues.take

    async def held_up(box: BoundMailbox) -> list[Entry]:
        await arrive.wait()
        return await asked(box)

    monkeypatch.setattr(engine.queues, "take", held_up)
    taking = asyncio.create_task(take(agent))
    await nothing_is_settled(user, engine)
    arrive.set()
    assert await taking == [1]


async def test_requests_of_which_an_owner_here_has_heard_nothing(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    agent = await bind_agent(engine, uid)
    agent.dirty = False  # as if it had been bound before that, and the news were late
    assert await take(agent) == [1]
    assert engine.auditor.settled == 0


async def test_the_books_are_not_asked_about_what_is_on_a_link(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PROBE_AGE", 60.0)
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    user.ledger.awaited.clear()  # that request went through the queue
    asked = 0
    look = here.directory.audit

    async def count(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await look(*arguments)

    monkeypatch.setattr(here.directory, "audit", count)
    await send(here, user, agent.uid, 1)
    await take(agent)
    with pytest.raises(TimeoutError):
        await user.recv(0.5)
    assert asked == 0
    monkeypatch.setattr(audit, "PROBE_AGE", 0.0)  # the request is old enough now
    await until(lambda: asked)
    monkeypatch.setattr(audit, "PROBE_AGE", 60.0)
    assert there.links is not None
    await there.links.close()
    asked = 0
    await until(lambda: asked)


# Requests that are lost


async def test_an_owner_that_dies(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    await kill(there, raw, keys)
    found = await failure(user, 3)
    assert isinstance(found, PeerLostError)
    assert (found.uid, found.executed) == (agent.uid, "maybe")
    assert here.auditor.settled == 1


async def test_leases_are_not_trusted_after_an_outage(
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "LEASE", 1.3)
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    here.auditor.distrust_leases()
    await kill(there, raw, keys)
    await nothing_is_settled(user, here)
    assert isinstance(await failure(user, 3), PeerLostError)


async def test_an_owner_that_dies_and_is_replaced(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there, other = [await new_engine() for _ in range(3)]
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    await kill(there, raw, keys)
    await bind_agent(other, agent.uid)
    assert isinstance(await failure(user, 3), PeerLostError)


async def test_an_owner_that_dies_and_is_replaced_here(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1, 2)
    assert await take(agent, 2) == [1, 2]
    await kill(there, raw, keys)
    second = await bind_agent(here, agent.uid)
    taking = asyncio.create_task(take(second))
    for _ in range(2):
        assert isinstance(await failure(user, 3), PeerLostError)
    await send(here, user, agent.uid, 3)
    assert await taking == [3]


async def test_an_owner_that_has_forgotten_a_request(new_engine: NewEngine) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1, 2)
    await take(agent, 2)
    waiting = asyncio.create_task(agent.recv(None))
    kept = list(agent.ledger.open)[1]
    agent.ledger.open = {kept: agent.ledger.open[kept]}
    found = await failure(user, 5)
    assert isinstance(found, RequestLostError)
    assert "neither the queue nor the agent" in str(found)
    assert list(user.ledger.awaited) == [kept]
    with pytest.raises(TimeoutError):
        await user.recv(0.5)
    waiting.cancel()


async def test_an_owner_here_that_has_forgotten_a_request(
    new_engine: NewEngine,
) -> None:
    engine = await new_engine()
    user, agent = await bind_user(engine), await bind_agent(engine)
    await send(engine, user, agent.uid, 1)
    await take(agent)
    waiting = asyncio.create_task(agent.recv(None))
    agent.ledger.open.clear()
    assert isinstance(await failure(user, 5), RequestLostError)
    waiting.cancel()


async def test_an_entry_that_vanishes_from_the_queue(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    queue = f"{keys.prefix}q:{entity_key(uid)}"
    ((entry, _),) = await raw.xrange(queue)
    await raw.xdel(queue, entry)
    found = await failure(user, 5)
    assert isinstance(found, RequestLostError)
    assert found.executed == "maybe"


async def test_a_queue_that_vanishes_with_all_that_was_known(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    engine = await new_engine()
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    found = [k async for k in raw.scan_iter(f"{keys.prefix}*{entity_key(uid)}")]
    await raw.delete(*found)
    assert isinstance(await failure(user, 5), RequestLostError)


async def test_a_termination_that_nobody_was_told_of(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    await raw.delete(f"{keys.prefix}watch:{agent.key}")
    await there.terminate(agent.uid)
    found = await failure(user, 5)
    assert isinstance(found, AgentTerminatedError)
    assert found.executed == "maybe"


async def test_a_termination_is_settled_after_a_grace(new_engine: NewEngine) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    idle = await bind_user(here)
    (first,) = await send(here, user, agent.uid, 1)
    await send(here, user, agent.uid, 2)
    await send(here, idle, await register(here), 1)
    await take(agent, 2)
    waiting = asyncio.create_task(agent.recv(None))
    await until(lambda: not agent.dirty)
    await agree(there, agent, first)
    await there.terminate(agent.uid, "enough")
    with pytest.raises(AgentTerminatedError):
        await waiting
    assert (await answer(user)).tag == first.tag
    found = await failure(user, 3)
    assert isinstance(found, AgentTerminatedError)
    assert (found.executed, found.reason) == ("maybe", "enough")
    assert here.auditor.settled == 1
    assert len(idle.ledger.awaited) == 1


# Urgent looks


async def test_a_look_that_cannot_wait(
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By itself the audit would first look after a minute."""
    monkeypatch.setattr(audit, "INTERVAL", 60.0)
    here, there = await new_engine(), await new_engine()
    user = await bind_user(here)
    agents = [await bind_agent(there) for _ in range(2)]
    for agent in agents:
        await send(here, user, agent.uid, 1)
        await take(agent)
    await kill(there, raw, keys)
    with pytest.raises(TimeoutError):
        await user.recv(0.3)
    here.auditor.look_at(agents[0].key)
    found = await failure(user, 2)
    assert isinstance(found, PeerLostError)
    assert found.uid == agents[0].uid
    here.auditor.look_at_all()
    assert (await failure(user, 2)).uid == agents[1].uid


async def test_news_do_not_hurry_a_suspicion(
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two looks are two only if an answer has had the time to arrive in between."""
    monkeypatch.setattr(audit, "RECHECK", 0.5)
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    await kill(there, raw, keys)
    (awaited,) = user.ledger.awaited.values()
    here.auditor.look_at(agent.key)
    await until(lambda: awaited.strikes)
    for _ in range(20):
        here.auditor.look_at(agent.key)
        here.auditor.look_at_all()
        await asyncio.sleep(0.01)
    assert awaited.strikes == 1
    assert isinstance(await failure(user, 3), PeerLostError)


async def test_an_audit_is_put_off_while_the_server_is_away(
    new_engine: NewEngine,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("academy.exchange.directory.AUDIT_TIMEOUT", 0.1)
    monkeypatch.setattr(audit, "LEASE", 0.1)
    here, there = await new_engine(proxied), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    await proxy.cut()
    await until(lambda: here.auditor._alone_since)
    await proxy.mend()
    await kill(there, raw, keys)
    assert isinstance(await failure(user, 5), PeerLostError)


@pytest.mark.parametrize("direct", [False, True])
async def test_nobody_waits_for_ever_while_neither_server_nor_peer_answers(
    new_engine: NewEngine,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
) -> None:
    monkeypatch.setattr("academy.exchange.directory.AUDIT_TIMEOUT", 0.1)
    monkeypatch.setattr(audit, "UNREACHABLE_TIMEOUT", 1.0)
    here = await new_engine(proxied, direct=direct)
    there = await new_engine(direct=direct)
    user, agent = await bind_user(here), await bind_agent(there)
    if direct:
        await connect(here, user, agent)
    (request,) = await send(here, user, agent.uid, 1)
    await take(agent)
    await proxy.cut()
    if direct:
        with pytest.raises(TimeoutError):
            await failure(user, 3)
        await agree(there, agent, request)
        assert (await answer(user)).tag == request.tag
    else:
        error = await failure(user)
        assert isinstance(error, PeerUnreachableError)
        assert error.executed == "maybe"


async def test_an_audit_that_fails_is_not_the_last(
    new_engine: NewEngine,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    await take(agent)
    with monkeypatch.context() as broken:
        broken.setattr(here.directory, "audit", None)
        await until(lambda: "An audit failed" in caplog.text)
    await kill(there, raw, keys)
    assert isinstance(await failure(user, 3), PeerLostError)


# Counts


async def test_counts(new_engine: NewEngine) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    requests = await send(here, user, agent.uid, 1, 2)
    await take(agent, 2)
    await agree(there, agent, requests[0])
    expected = AgentStats(incoming=2, outgoing=0, completed=1, in_progress=1, queued=0)
    assert await there.auditor.stats(agent.uid) == expected
    # An owner that is busy does not tell, and one that listens does.
    assert await here.auditor.stats(agent.uid) is None
    waiting = asyncio.create_task(agent.recv(None))
    assert await here.auditor.stats(agent.uid) == expected
    assert await here.auditor.stats(AgentId.new()) is None
    assert await (await new_engine()).auditor.stats(agent.uid) is None
    waiting.cancel()


async def test_control_messages_that_make_no_sense(
    new_engine: NewEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await new_engine()
    agent = await bind_agent(engine)

    def heard(kind: str, payload: Any) -> None:
        data = (
            payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload)
        )
        entry = make_entry("s", 1, kind, b"t" * 16, [data])
        engine.auditor.heard(agent, entry)

    for kind in (PROBE, REPORT):
        heard(kind, b"")
        heard(kind, b"junk")
        heard(kind, [1, 2, 3])
    heard(PROBE, [1, "no uuid", "agent", []])
    assert caplog.text.count("damaged control message") == 7
    heard(REPORT, [99, [], 1, [0, 0, 0, 0, 0]])  # nobody has asked
    heard(PROBE, [1, str(AgentId.new().uid), "user", [b"short"]])
    await engine.router.flush(5)
    assert caplog.text.count("damaged control message") == 7


async def test_a_report_counts_once(new_engine: NewEngine) -> None:
    engine = await new_engine()
    agent = await bind_agent(engine)
    future = asyncio.get_running_loop().create_future()
    report = msgspec.msgpack.encode([7, [], 1, [1, 2, 3, 4, 5]])
    entry = make_entry("s", 1, REPORT, b"t" * 16, [report])
    engine.auditor._reports[7] = future
    engine.auditor.heard(agent, entry)
    assert future.result().stats == (1, 2, 3, 4, 5)
    engine.auditor._reports[7] = future
    engine.auditor.heard(agent, entry)


async def test_an_answer_that_comes_in_time_ends_a_suspicion(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    ping = Message.create(user.uid, agent.uid, PingRequest())
    await post(here, user, ping)
    await agent.recv(5)
    (awaited,) = user.ledger.awaited.values()
    user.ledger.forget(ping.tag)
    here.auditor._suspect(user, awaited, audit.Verdict.PEER_LOST)
    assert awaited.strikes == 0
    assert here.auditor.settled == 0


async def test_who_is_heard_on_a_link_lives_without_a_lease(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    (request,) = await send(here, user, agent.uid, 1)
    await take(agent)
    there._lease._stop.set()
    await raw.delete(keys.lease(there.process))
    with pytest.raises(TimeoutError):
        await failure(user, 2)
    await agree(there, agent, request)
    assert (await answer(user)).tag == request.tag
