from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import replace

import pytest

from academy.exchange import audit as audit_module
from academy.exchange.engine import Engine
from academy.exchange.link_info import LinkInfo, ProcessInfo
from academy.exchange.links import Links
from academy.exchange.mailbox import REQUEST, make_entry
from academy.exchange.secret import NamespaceSecret
from academy.identifier import AgentId
from academy.link.peer import Peer
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    bind_agent,
    bind_user,
    connect,
    register,
    send,
    take,
    until,
)


def look(engine: Engine) -> ProcessInfo:
    info = engine.auditor.inspect()
    assert info is not None
    return info


def link(engine: Engine) -> LinkInfo:
    """Return the only link that a process tells of."""
    (found,) = look(engine).links
    return found


def links_of(engine: Engine) -> Links:
    assert engine.links is not None
    return engine.links


def peer_of(engine: Engine, other: Engine) -> Peer:
    return links_of(engine).node.peers[bytes.fromhex(other.process)]


async def test_a_process_without_links(new_engine: NewEngine) -> None:
    engine = await new_engine(direct=True)
    await bind_user(engine)
    assert look(engine) == ProcessInfo.here(engine.process)


async def test_a_direct_link(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    before = link(here).sent
    await send(here, user, agent.uid, *range(20))
    await take(agent, 20)
    await until(lambda: link(here).unacked == 0)
    ours, theirs = link(here), link(there)
    for info, other in ((ours, there), (theirs, here)):
        assert info.process == other.process
        assert (info.host, info.pid) == (platform.node(), os.getpid())
        assert (info.path, info.reason, info.queued) == ("uds", "", 0)
        assert info.rtt is not None
        assert 0 <= info.rtt < 5
        assert info.rate > 0
    assert (ours.sent, ours.received) == (before + 20, 0)
    assert (theirs.sent, theirs.received) == (0, before + 20)


async def test_a_consumer_that_does_not_take(new_engine: NewEngine) -> None:
    """What fits into the window is unconfirmed; the rest waits."""
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    numbers = range(1, 301)
    sending = [asyncio.create_task(send(here, user, agent.uid, n)) for n in numbers]
    await until(lambda: link(here).unacked == 256)
    assert link(here).queued == 44
    assert await take(agent, 300) == [*numbers]
    await asyncio.gather(*sending)
    await until(lambda: link(here).unacked == link(here).queued == 0)


async def test_a_silent_peer(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    connection = peer_of(here, there).connection
    assert connection is not None
    links_of(here).node.suspected(connection, True)
    assert (link(here).path, link(here).reason) == ("relay", "silent for 6 s")
    links_of(here).node.suspected(connection, False)
    assert (link(here).path, link(here).reason) == ("uds", "")


async def test_a_link_that_was_closed(new_engine: NewEngine) -> None:
    """It is told of as long as there is something to send to the other side."""
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    connection = peer_of(here, there).connection
    assert connection is not None
    connection.close("idle")
    info = link(here)
    assert (info.path, info.reason, info.rtt) == ("relay", "idle", None)
    assert (info.host, info.pid) == (platform.node(), os.getpid())
    await until(lambda: look(there).links == ())


async def test_a_process_that_cannot_be_reached(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    mine = links_of(there).mine
    links_of(there).node._listener.close()
    await send(here, user, agent.uid, 1)
    assert await take(agent) == [1]
    await until(lambda: link(here).process and "tcp://" in link(here).reason)
    info = link(here)
    assert info.path == "relay"
    assert f"unix://{mine.unix}" in info.reason
    assert (info.process, info.host, info.pid) == (
        there.process,
        platform.node(),
        os.getpid(),
    )
    assert (info.rtt, info.sent, info.rate, info.queued) == (None, 0, 0.0, 0)


async def test_an_agent_that_does_not_run(new_engine: NewEngine) -> None:
    engine = await new_engine(direct=True)
    user = await bind_user(engine)
    await send(engine, user, await register(engine), 1)
    info = link(engine)
    assert (info.process, info.host, info.pid) == ("", None, None)
    assert (info.path, info.queued) == ("relay", 0)
    assert info.reason == "it is not known which process has the mailbox"


async def test_a_mailbox_that_has_come_here(new_engine: NewEngine) -> None:
    engine = await new_engine(direct=True)
    user, uid = await bind_user(engine), await register(engine)
    await send(engine, user, uid, 1)
    agent = await bind_agent(engine, uid)
    assert await take(agent) == [1]
    assert look(engine).links == ()


async def test_an_exchange_without_links(new_engine: NewEngine) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    reason = "this process makes no direct links"
    assert look(here).links == (LinkInfo("", reason=reason),)


async def test_what_was_refused(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    path = links_of(there).mine.unix
    assert path is not None
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"\x00\x00\x00\x04what")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    here.keyring.secrets.insert(
        0, NamespaceSecret(b"another secret, not that of the namespace")
    )
    await here.queues.append(user, agent.uid, make_entry("s", 1, REQUEST, b"t", [b""]))
    taking = asyncio.create_task(agent.recv(None))
    await until(lambda: look(there).dead_letters)
    taking.cancel()
    info = look(there)
    assert (info.refused, info.dead_letters, info.settled) == (1, 1, 0)
    assert info.refusals == {"garbage": 1}
    assert info == ProcessInfo.model_validate_json(info.model_dump_json())


async def test_asking_another_process(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    ask = here.auditor.process_of
    own, seen = await ask(user.uid), look(here)
    assert own is not None
    rates = [[replace(known, rate=0.0) for known in i.links] for i in (own, seen)]
    assert rates[0] == rates[1]
    assert replace(own, links=()) == replace(seen, links=())
    with monkeypatch.context() as patch:
        # A process that is too busy to answer.
        patch.setattr(audit_module, "STATS_TIMEOUT", 0.2)
        assert await ask(agent.uid) is None
        assert await ask(AgentId.new()) is None
    waiting = asyncio.create_task(agent.recv(None))
    info = await ask(agent.uid)
    waiting.cancel()
    assert info is not None
    assert (info.process, info.pid) == (there.process, os.getpid())
    assert [(known.process, known.path) for known in info.links] == [
        (here.process, "uds")
    ]


async def test_control_messages_that_are_not_known(new_engine: NewEngine) -> None:
    """They change nothing: a newer version may send them."""
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await connect(here, user, agent)
    await until(lambda: peer_of(there, here).pid is not None)
    peer = peer_of(here, there)
    for data in (b"", b"\xc1", b"\x93\x01\x02\x03"):
        peer.session.tell(data)
    peer.flush()
    await send(here, user, agent.uid, 1)
    assert await take(agent) == [1]
    assert link(there).pid == os.getpid()
    assert link(there).path == "uds"
