from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from academy.exception import BackpressureTimeout
from academy.exchange import courier as courier_module
from academy.exchange import links as links_module
from academy.exchange.bound import BoundMailbox
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.directory import Directory, Owner
from academy.exchange.engine import Engine
from academy.exchange.inlet import Inlet
from academy.exchange.line import Line
from academy.exchange.server import ServerUnavailableError
from academy.exchange.stream import REQUESTS
from academy.identifier import EntityId
from academy.link.channel import ChannelKey, Event, Reason, Rejected
from academy.link.connection import Connection
from academy.link.peer import Peer
from academy.message import ActionRequest, Message, encode
from academy.serialize import SerializationStrategy
from tests.proxy import Proxy
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    connect,
    failure,
    numbered,
    post,
    send,
    take,
    until,
)


async def pair(
    new_engine: NewEngine, *at: RedisConnectionInfo
) -> tuple[Engine, BoundMailbox, Engine, BoundMailbox, Line]:
    """Return a user and an agent in two processes that talk directly."""
    here, there = await new_engine(*at, direct=True), await new_engine(*at, direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    return here, user, there, agent, await connect(here, user, agent)


def peer_of(engine: Engine, other: Engine) -> Peer:
    assert engine.links is not None
    return engine.links.node.peers[bytes.fromhex(other.process)]


def connection_of(engine: Engine, other: Engine) -> Connection:
    connection = peer_of(engine, other).connection
    assert connection is not None
    return connection


def cut(engine: Engine, other: Engine) -> None:
    """Break the connection, as a network does it."""
    transport = connection_of(engine, other)._transport
    assert transport is not None
    transport.abort()


async def test_processes_of_a_host_talk_by_a_unix_socket(new_engine: NewEngine) -> None:
    here, _, there, _, _ = await pair(new_engine)
    assert peer_of(here, there).path == peer_of(there, here).path == "uds"


async def test_a_direct_call_needs_no_command_of_the_server(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, _ = await pair(new_engine)

    async def call(n: int) -> None:
        (request,) = await send(here, user, agent.uid, n)
        assert await take(agent) == [n]
        await agree(there, agent, request)
        assert (await answer(user)).tag == request.tag

    # The consumers look into their queues once more after the last that came that way.
    before = (-1, -1)
    async with asyncio.timeout(10):
        while before != (here.server.commands, there.server.commands):
            before = here.server.commands, there.server.commands
            await asyncio.gather(call(0), here.router.flush(1), asyncio.sleep(0.1))
    for n in range(100):
        await call(n)
    assert (here.server.commands, there.server.commands) == before


async def test_the_answer_finds_the_link_that_the_request_came_by(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, user, there, agent, _ = await pair(new_engine)

    async def locate(*_: Any) -> None:
        pytest.fail("It knows already.")

    monkeypatch.setattr(there.directory, "locate", locate)
    (request,) = await send(here, user, agent.uid, 1)
    await take(agent)
    await agree(there, agent, request)
    assert (await answer(user)).tag == request.tag


async def test_one_link_carries_all_mailboxes_of_two_processes(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    ours = [await bind_agent(here) for _ in range(6)]
    theirs = [await bind_agent(there) for _ in range(6)]
    pairs = [(a, b) for a in ours for b in theirs]
    await asyncio.gather(*(connect(here, a, b) for a, b in pairs))
    await asyncio.gather(*(connect(there, b, a) for a, b in pairs))
    assert here.links is not None
    assert there.links is not None
    assert len(here.links.node._connections) == 1
    assert len(there.links.node._connections) == 1


async def test_both_may_begin_at_once(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    left, right = await bind_agent(here), await bind_agent(there)
    await asyncio.gather(connect(here, left, right), connect(there, right, left))
    assert here.links is not None
    await until(lambda: len(here.links.node._connections) == 1)
    await send(here, left, right.uid, 1)
    await send(there, right, left.uid, 2)
    assert (await take(right), await take(left)) == ([1], [2])


async def test_order_is_kept_when_the_link_breaks(new_engine: NewEngine) -> None:
    here, user, there, agent, line = await pair(new_engine)
    taken: list[int] = []

    async def consume() -> None:
        while len(taken) < 400:
            taken.extend(await take(agent))
            await asyncio.sleep(0)

    consuming = asyncio.create_task(consume())
    for n in range(400):
        await send(here, user, agent.uid, n)
        if n % 100 == 50:
            await until(lambda: line.outbox.is_direct)
            cut(here, there)
    await asyncio.wait_for(consuming, 10)
    assert taken == list(range(400))


async def test_messages_wait_for_the_link_to_come_back(new_engine: NewEngine) -> None:
    here, user, there, agent, line = await pair(new_engine)
    before = here.server.commands
    await send(here, user, agent.uid, 1, 2)
    cut(here, there)
    await send(here, user, agent.uid, 3)
    assert await take(agent, 3) == [1, 2, 3]
    await until(lambda: line.outbox.is_direct and not len(line.outbox))
    assert here.server.commands == before


async def test_a_mailbox_that_moves_takes_its_messages_along(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, line = await pair(new_engine)
    requests = await send(here, user, agent.uid, *range(1, 11))
    assert await take(agent, 4) == [1, 2, 3, 4]
    for request in requests[:4]:
        await agree(there, agent, request)
    await there.unbind(agent)
    third = await new_engine(direct=True)
    again = await bind_agent(third, agent.uid)
    assert await take(again, 6) == [5, 6, 7, 8, 9, 10]
    await send(here, user, agent.uid, 11)
    assert await take(again) == [11]
    assert [(await answer(user)).tag for _ in range(4)] == [r.tag for r in requests[:4]]
    await until(lambda: not len(line.outbox))


async def test_a_newer_owner_gets_what_the_older_had_not_taken(
    new_engine: NewEngine,
) -> None:
    here, user, _there, agent, _ = await pair(new_engine)
    await send(here, user, agent.uid, 1, 2, 3)
    assert await take(agent) == [1]
    third = await new_engine(direct=True)
    newer = await bind_agent(third, agent.uid)
    await send(here, user, agent.uid, 4)
    assert await take(newer, 3) == [2, 3, 4]
    # Whoever took the first one is fenced: nobody will answer.
    assert (await failure(user)).executed == "maybe"


async def test_who_may_have_been_taken_over_sends_away_what_comes(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes by the queue, where only the owner gets it; then directly again."""
    here, user, there, agent, line = await pair(new_engine)
    assert there.links is not None
    monkeypatch.setattr(there.links, "_certain", lambda: False)
    await send(here, user, agent.uid, 1, 2)
    await until(lambda: not line.outbox.is_direct)
    assert await take(agent, 2) == [1, 2]
    monkeypatch.undo()
    await asyncio.sleep(links_module.SEEK_PAUSE)
    await connect(here, user, agent)


async def test_a_link_to_a_former_owner_is_left(new_engine: NewEngine) -> None:
    here, user, _, agent, line = await pair(new_engine)
    third = await new_engine(direct=True)
    newer = await bind_agent(third, agent.uid)
    await until(lambda: line.known == newer.inc)
    await connect(here, user, newer)
    assert line.outbox.incarnation == newer.inc
    assert line.process.hex() == third.process


async def test_a_former_owner_that_answers_late_is_not_used(
    new_engine: NewEngine,
) -> None:
    here, user, _there, agent, line = await pair(new_engine)
    here.courier.newer(agent.uid.uid, agent.inc + 1)
    await send(here, user, agent.uid, 1)
    assert line.outbox.incarnation == 0
    assert not here.courier.open(line, agent.inc, 0)
    assert line.peer is None
    assert await take(agent) == [1]


async def test_a_mailbox_that_is_gone_is_refused_by_name(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, line = await pair(new_engine)
    (_request,) = await send(here, user, agent.uid, 1)
    await there.terminate(agent.uid, "enough")
    error = await failure(user)
    assert (error.uid, error.executed) == (agent.uid, "no")
    await until(lambda: here.courier.lines.get(line.key) is None)


async def test_calls_go_on_while_the_server_is_away(
    new_engine: NewEngine, proxy: Proxy, proxied: RedisConnectionInfo
) -> None:
    here, user, there, agent, _line = await pair(new_engine, proxied)
    await proxy.cut()
    for n in range(50):
        (request,) = await send(here, user, agent.uid, n)
        assert await take(agent) == [n]
        await agree(there, agent, request)
        assert (await answer(user)).tag == request.tag
    cut(there, here)
    (request,) = await send(here, user, agent.uid, 99)
    assert await take(agent) == [99]
    await proxy.mend()


async def test_a_new_line_uses_the_addresses_it_knows_while_the_server_is_away(
    new_engine: NewEngine, proxy: Proxy, proxied: RedisConnectionInfo
) -> None:
    here, _, _, agent, _ = await pair(new_engine, proxied)
    other = await bind_user(here)
    await proxy.cut()
    await send(here, other, agent.uid, 1)
    assert await take(agent) == [1]
    await proxy.mend()


async def test_lines_go_with_an_idle_link_and_their_streams_go_on(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, line = await pair(new_engine)
    waiting = user.ledger.awaited.copy()
    user.ledger.awaited.clear()
    connection_of(here, there).close("idle")
    await until(lambda: not here.courier.lines.all())
    outlet = user.outlets[REQUESTS].get(agent.uid.uid.int)
    assert outlet is not None
    assert outlet.line is None
    user.ledger.awaited.update(waiting)
    (request,) = await send(here, user, agent.uid, 1)
    await send(here, user, agent.uid, 2)
    assert await take(agent, 2) == [1, 2]
    assert outlet.line not in (None, line)
    assert outlet.stream.seq == 3
    await agree(there, agent, request)
    assert (await answer(user)).tag == request.tag


async def test_a_line_stays_while_an_answer_is_awaited(new_engine: NewEngine) -> None:
    here, user, there, agent, line = await pair(new_engine)
    (request,) = await send(here, user, agent.uid, 1)
    await take(agent)
    connection_of(here, there).close("idle")
    await until(lambda: not line.outbox.incarnation)
    assert here.courier.lines.all() == [line]
    await agree(there, agent, request)
    assert (await answer(user)).tag == request.tag


async def test_a_slow_consumer_holds_its_sender_and_nobody_else(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "UNREACHABLE_TIMEOUT", 0.2)
    here, user, there, agent, _line = await pair(new_engine)
    window = 256
    await send(here, user, agent.uid, *range(window))
    with pytest.raises(BackpressureTimeout, match="does not keep up") as caught:
        await send(here, user, agent.uid, window)
    assert caught.value.executed == "no"
    other = await bind_agent(there)
    await connect(here, user, other)
    assert await take(agent, window) == list(range(window))
    await send(here, user, agent.uid, window + 1)
    assert await take(agent) == [window + 1]


async def test_a_large_message_delays_no_small_ones(new_engine: NewEngine) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    other = await bind_agent(there)
    await connect(here, user, other)
    array = np.random.default_rng(1).integers(0, 255, 20_000_000, dtype=np.uint8)
    body = ActionRequest(
        action="1", serialization=SerializationStrategy.PICKLE, pargs=(array,)
    )
    await post(here, user, Message.create(user.uid, agent.uid, body))
    await send(here, user, other.uid, 2)
    assert await take(other) == [2]
    assert not agent.inbox
    (got,) = (await agent.recv(10)).get_body().get_args()
    assert np.array_equal(got, array)


@pytest.mark.parametrize(
    ("damage", "counted"),
    [
        ("junk", None),
        ("other sender", "foreign_source"),
        ("other mailbox", "foreign_destination"),
    ],
)
async def test_what_is_not_in_order_is_counted_and_dropped(
    new_engine: NewEngine, damage: str, counted: str | None
) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    other = await bind_agent(there)
    assert there.links is not None
    key = ChannelKey(user.uid.uid, user.inc, agent.uid.uid, 0)
    message = numbered(user, agent.uid, 7)
    if damage == "other sender":
        message = numbered(other, agent.uid, 7)
    elif damage == "other mailbox":
        message = numbered(user, other.uid, 7)
    segments = [b"junk"] if damage == "junk" else encode(message)
    peer = peer_of(there, here)
    there.links.message(peer, Inlet(agent, key, peer, 1), 50, segments)
    assert there.queues.dead_letters == (counted is None)
    assert there.links.node.refusals == ({} if counted is None else {counted: 1})
    await send(here, user, agent.uid, 8)
    assert await take(agent) == [8]


def claim(
    engine: Engine, other: Engine, key: ChannelKey
) -> Callable[[], list[Rejected]]:
    """Open a channel in any name; return what gives the refusals."""
    assert engine.links is not None
    links, rejected = engine.links, []
    tell = links.session_event

    def noted(peer: Peer, event: Event) -> None:
        if isinstance(event, Rejected):
            rejected.append(event)
        tell(peer, event)

    peer = peer_of(engine, other)
    peer._on_event = noted
    peer.session.open(key)
    peer.flush_soon()
    return lambda: rejected


@pytest.mark.parametrize("where", ["elsewhere", "here"])
async def test_a_member_cannot_send_in_the_name_of_others(
    new_engine: NewEngine, where: str
) -> None:
    """Nor get what is for them."""
    evil, user, there, agent, _ = await pair(new_engine)
    victim = await bind_user(there if where == "here" else await new_engine())
    key = ChannelKey(victim.uid.uid, victim.inc, agent.uid.uid, 0)
    rejected = claim(evil, there, key)
    await until(rejected)
    assert rejected() == [Rejected(key, Reason.FORBIDDEN)]
    assert there.links is not None
    assert there.links.node.refusals == {"foreign_source": 1}
    assert victim.uid.uid not in there.links._where
    await send(evil, user, agent.uid, 8)
    assert await take(agent) == [8]


async def test_an_old_incarnation_cannot_send(new_engine: NewEngine) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    key = ChannelKey(user.uid.uid, user.inc - 1, agent.uid.uid, 0)
    rejected = claim(here, there, key)
    await until(rejected)
    assert rejected() == [Rejected(key, Reason.FORBIDDEN)]
    assert there.links is not None
    assert there.links.node.refusals == {"old_incarnation": 1}


async def test_a_directory_that_answers_late_is_heard_all_the_same(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil, _, there, agent, _ = await pair(new_engine)
    victim = await bind_user(await new_engine())
    late = asyncio.Event()
    owner = Directory.owner

    async def slow(self: Directory, *args: Any) -> Owner | None:
        await late.wait()
        return await owner(self, *args)

    monkeypatch.setattr(Directory, "owner", slow)
    key = ChannelKey(victim.uid.uid, victim.inc, agent.uid.uid, 0)
    rejected = claim(evil, there, key)
    await until(lambda: peer_of(evil, there).session.is_open(key))
    assert not rejected()
    late.set()
    await until(rejected)
    assert not peer_of(evil, there).session.is_open(key)
    assert there.links is not None
    assert victim.uid.uid not in there.links._where


async def test_control_messages_of_newer_peers_are_passed_over(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    peer_of(here, there).session.tell(b"something new")
    await send(here, user, agent.uid, 1)
    assert await take(agent) == [1]


async def test_where_a_mailbox_is_is_asked_once_in_a_while(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _user, _there, agent, line = await pair(new_engine)
    asked = 0

    async def locate(*_: Any) -> None:
        nonlocal asked
        asked += 1
        raise ServerUnavailableError

    monkeypatch.setattr(here.directory, "locate", locate)
    assert here.links is not None
    here.links.forget(agent.uid.uid)
    for _ in range(3):
        here.links.seek(line)
    await here.links._tasks.join(1.0)
    assert asked == 1
    monkeypatch.setattr(links_module, "SEEK_PAUSE", 0.0)
    here.links.forget(agent.uid.uid)
    for _ in range(3):
        here.links.seek(line)
    await here.links._tasks.join(1.0)
    assert asked == 4


async def test_a_process_without_a_network_uses_the_queue(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    assert there.links is not None
    there.links.node._listener.close()
    user, agent = await bind_user(here), await bind_agent(there)
    for n in range(3):
        await send(here, user, agent.uid, n)
        assert await take(agent) == [n]
    await until(lambda: peer_of(here, there).reason)
    assert peer_of(here, there).path == "relay"
    await send(here, user, agent.uid, 3)
    assert await take(agent) == [3]


async def test_links_end_with_their_process(new_engine: NewEngine) -> None:
    here, user, there, agent, _line = await pair(new_engine)
    await there.unbind(agent)
    await there.close()
    await until(lambda: peer_of(here, there).connection is None)
    with contextlib.suppress(KeyError):
        assert not here.boxes[agent.uid]
    await send(here, user, agent.uid, 1)
    third = await new_engine(direct=True)
    again = await bind_agent(third, agent.uid)
    assert await take(again) == [1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_a_further_port_is_published_before_the_others(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    agent, port = await bind_agent(there), free_port()
    await there.listen(port)
    found = await here.directory.locate(agent.uid, here.process)
    assert found is not None
    assert found.addresses.tcp[0].port == port
    with socket.create_connection(("127.0.0.1", port)):
        pass
    with pytest.raises(OSError, match=f"Port {port} cannot be used"):
        await here.listen(port)
    there.unlisten(port)
    await here.listen(port)


async def test_without_links_there_is_nothing_to_listen_on(
    new_engine: NewEngine,
) -> None:
    engine, port = await new_engine(), free_port()
    await engine.listen(port)
    engine.unlisten(port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_only_the_chosen_interface_is_published(
    info: RedisConnectionInfo, namespace: str
) -> None:
    engine = Engine(info, namespace, direct=True, interface="127.0.0.1")
    await engine.open()
    try:
        assert engine.links is not None
        assert {e.host for e in engine.links.mine.tcp} == {"127.0.0.1"}
    finally:
        await engine.close()
    unknown = Engine(info, namespace, direct=True, interface="nowhere0")
    with pytest.raises(ValueError, match="nowhere0"):
        await unknown.open()


async def test_the_destination_turns_up_in_this_process(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a way to another process is not overtaken, and not lost."""
    here = await new_engine(direct=True)
    assert here.links is not None

    async def never(dest: EntityId) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(here.links, "_locate", never)
    user, agent = await bind_user(here), await bind_agent(here)
    await here.unbind(agent)
    waiting = asyncio.create_task(send(here, user, agent.uid, 1))
    await until(lambda: any(len(line.outbox) for line in here.courier.lines.all()))
    again = await here.bind(agent.uid)
    await asyncio.gather(waiting, send(here, user, agent.uid, 2, 3))
    assert await take(again, 3) == [1, 2, 3]
