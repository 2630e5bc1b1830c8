from __future__ import annotations

import asyncio
import json
import os
import platform
from typing import Any

import pytest
import redis.asyncio

from academy import __version__
from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeError,
    UserTerminatedError,
)
from academy.exchange import directory as directory_module
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.directory import (
    Directory,
    check_reply,
    info,
    new_process_id,
    process_value,
)
from academy.exchange.keys import Keys, entity_key
from academy.exchange.server import Server, ServerUnavailableError
from academy.exchange.stream import Mark
from academy.exchange.transport import MailboxStatus
from academy.exchange.verdict import Books
from academy.identifier import AgentId, UserId
from tests.proxy import Proxy

AGENT = "academy.agent.Agent"


@pytest.fixture
def directory(commands: Server) -> Directory:
    return Directory(commands)


@pytest.fixture
def agent() -> AgentId[Any]:
    return AgentId.new(name="sensor")


async def live(commands: Server, process: str, value: bytes = b"{}") -> None:
    await commands.call("renew", process, "10000", value, timeout=5)


# Registering and looking up


async def test_a_mailbox_that_nobody_registered(
    directory: Directory, agent: AgentId[Any]
) -> None:
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.MISSING
    assert (record.live, record.age, record.waiting) == (False, None, 0)
    assert await directory.lookup([]) == []


async def test_a_registered_mailbox(directory: Directory, agent: AgentId[Any]) -> None:
    await directory.register([(agent, ("m.A", AGENT))])
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.INACTIVE
    assert (record.name, record.mro) == ("sensor", ("m.A", AGENT))
    assert (record.host, record.pid, record.age) == (None, None, None)


async def test_a_bound_mailbox(
    directory: Directory, commands: Server, agent: AgentId[Any]
) -> None:
    await directory.register([(agent, ("m.A", AGENT))])
    await live(commands, "p1", process_value())
    await directory.bind(agent, "p1")
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.ACTIVE
    assert (record.host, record.pid) == (platform.node(), os.getpid())
    assert record.age is not None
    assert 0 <= record.age < 5
    shown = info(AgentId(uid=agent.uid), record)
    assert shown.agent_id.name == "sensor"
    assert (shown.agent_class, shown.host, shown.pid) == ("m.A", *record[-2:])
    assert shown.status is MailboxStatus.ACTIVE


async def test_a_bound_mailbox_of_a_dead_process(
    directory: Directory, agent: AgentId[Any]
) -> None:
    await directory.register([(agent, ("m.A",))])
    await directory.bind(agent, "p1")
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.INACTIVE
    assert record.age is not None
    assert info(agent, record).status is MailboxStatus.INACTIVE


@pytest.mark.parametrize("value", [b"", b"junk", b"[1]", b"\xff", b'"text"'])
async def test_a_lease_that_says_nothing(
    directory: Directory, commands: Server, agent: AgentId[Any], value: bytes
) -> None:
    await directory.register([(agent, ("m.A",))])
    await live(commands, "p1", value)
    await directory.bind(agent, "p1")
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.ACTIVE
    assert (record.host, record.pid) == (None, None)


async def test_many_at_once(
    directory: Directory, commands: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "_BATCH", 7)
    agents: list[AgentId[Any]] = [AgentId.new(name=str(n)) for n in range(30)]
    await directory.register([(a, ("m.A", AGENT)) for a in agents])
    records = await directory.lookup([*agents, AgentId.new()])
    assert [r.name for r in records] == [*map(str, range(30)), None]
    assert len(await directory.discover("m.A", allow_subclasses=True)) == 30
    assert commands.commands == 5 + 5 + (1 + 5)
    assert commands.trips == 4


async def test_registering_again_changes_nothing_of_the_owner(
    directory: Directory, commands: Server, agent: AgentId[Any]
) -> None:
    await directory.register([(agent, ("m.A",))])
    await live(commands, "p1")
    await directory.bind(agent, "p1")
    await directory.register([(agent, ("m.A",))])
    (record,) = await directory.lookup([agent])
    assert record.live


async def test_beats(
    directory: Directory, agent: AgentId[Any], raw: redis.asyncio.Redis, keys: Keys
) -> None:
    await directory.beat(agent)
    assert not await raw.exists(f"{keys.prefix}mb:{entity_key(agent)}")
    await directory.register([(agent, ())])
    await directory.beat(agent)
    (record,) = await directory.lookup([agent])
    assert record.age is not None
    assert 0 <= record.age < 5


# Binding


async def test_incarnations_grow(directory: Directory, agent: AgentId[Any]) -> None:
    await directory.register([(agent, ("m.A", AGENT))])
    bindings = [await directory.bind(agent, "p1") for _ in range(20)]
    incs = [b.inc for b in bindings]
    assert incs == sorted(set(incs))
    assert incs[-1] < 2**53
    assert bindings[0].mro == ("m.A", AGENT)
    assert bindings[0].marks == {}


async def test_incarnations_grow_over_those_of_a_fast_clock(
    directory: Directory, agent: AgentId[Any], raw: redis.asyncio.Redis, keys: Keys
) -> None:
    await directory.register([(agent, ())])
    future = 2**52
    await raw.hset(f"{keys.prefix}mb:{entity_key(agent)}", "inc", future)
    assert (await directory.bind(agent, "p1")).inc == future + 1


async def test_binding_what_cannot_be_bound(
    directory: Directory, agent: AgentId[Any]
) -> None:
    with pytest.raises(BadEntityIdError) as caught:
        await directory.bind(agent, "p1")
    assert caught.value.uid == agent
    await directory.register([(agent, ())])
    await directory.terminate(agent, "enough")
    with pytest.raises(AgentTerminatedError, match="enough") as terminated:
        await directory.bind(agent, "p1")
    assert terminated.value.executed == "no"
    user = UserId.new()
    await directory.register([(user, ())])
    await directory.terminate(user, "")
    with pytest.raises(UserTerminatedError, match=r"terminated\."):
        await directory.bind(user, "p1")


async def news(raw: redis.asyncio.Redis, key: str) -> list[tuple[bytes, bytes]]:
    return [(f[b"t"], f[b"e"]) for _, f in await raw.xrange(key)]


async def test_a_takeover_tells_the_former_owner_and_those_with_an_interest(
    directory: Directory,
    commands: Server,
    agent: AgentId[Any],
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    key = entity_key(agent)
    await directory.register([(agent, ())])
    for process in ("p1", "p2", "p3"):
        await live(commands, process)
    await raw.sadd(f"{keys.prefix}watch:{key}", "p3", "dead")
    await directory.bind(agent, "p1")
    assert await news(raw, keys.wake("p1")) == []
    await directory.bind(agent, "p1")
    assert await news(raw, keys.wake("p1")) == []
    await directory.bind(agent, "p2")
    assert await news(raw, keys.wake("p1")) == [(b"f", key.encode())]
    assert await news(raw, keys.wake("p2")) == []
    assert await news(raw, keys.wake("p3")) == [(b"b", key.encode())] * 3
    assert await raw.smembers(f"{keys.prefix}watch:{key}") == {b"p3"}
    assert 0 < await raw.pttl(keys.wake("p3")) <= 60_000
    assert not await raw.exists(keys.wake("dead"))


async def test_a_dead_owner_is_not_told(
    directory: Directory, agent: AgentId[Any], raw: redis.asyncio.Redis, keys: Keys
) -> None:
    await directory.register([(agent, ())])
    await directory.bind(agent, "dead")
    await directory.bind(agent, "p2")
    assert not await raw.exists(keys.wake("dead"))


# Restoring


async def test_an_owner_restores_what_the_server_has_lost(
    directory: Directory, commands: Server, agent: AgentId[Any]
) -> None:
    await live(commands, "p1")
    marks = [("s", Mark(5, 77, 2)), ("t", Mark(1, 77, 0))]
    outcome = await directory.reassert(agent, ("m.A", AGENT), "p1", 77, marks)
    assert outcome == "ok"
    (record,) = await directory.lookup([agent])
    assert (record.name, record.mro) == ("sensor", ("m.A", AGENT))
    assert record.live
    assert await directory.discover(AGENT, allow_subclasses=True) == [agent]
    assert (await directory.audit(agent, "s")).taken == Mark(5, 77, 2)
    # What the server knows better stays.
    await directory.reassert(agent, (), "p1", 77, [("s", Mark(4, 77, 0))])
    assert (await directory.audit(agent, "s")).taken == Mark(5, 77, 2)
    await directory.reassert(agent, (), "p1", 77, [("s", Mark(6, 77, 2))])
    assert (await directory.audit(agent, "s")).taken == Mark(6, 77, 2)


async def test_restoring_yields_to_a_newer_owner(
    directory: Directory, agent: AgentId[Any]
) -> None:
    await directory.register([(agent, ())])
    old = (await directory.bind(agent, "p1")).inc
    await directory.bind(agent, "p2")
    assert await directory.reassert(agent, (), "p1", old, []) == "fenced"
    await directory.terminate(agent, "")
    assert await directory.reassert(agent, (), "p1", old, []) == "terminated"


async def test_a_closed_mailbox_is_not_reopened(
    directory: Directory, commands: Server, agent: AgentId[Any]
) -> None:
    await directory.register([(agent, ())])
    inc = (await directory.bind(agent, "p1")).inc
    for _ in range(2):
        reply = await commands.call(
            "close", entity_key(agent), inc, "0-0", "0-0", 0, timeout=5
        )
        assert reply == [b"ok"]
    assert await directory.reassert(agent, (), "p1", inc, []) == "closed"


# Terminating


async def test_a_terminated_mailbox_leaves_a_tombstone_only(
    directory: Directory,
    commands: Server,
    agent: AgentId[Any],
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    await directory.register([(agent, ("m.A", AGENT))])
    await live(commands, "p1")
    await live(commands, "p2")
    inc = (await directory.bind(agent, "p1")).inc
    await raw.sadd(f"{keys.prefix}watch:{entity_key(agent)}", "p2")
    assert await directory.terminate(agent, "x" * 1000) == []
    left = {key async for key in raw.scan_iter(f"{keys.prefix}*")}
    prefix = keys.prefix.encode()
    assert left == {
        prefix + name
        for name in (b"gone", b"why", b"ls:p1", b"ls:p2", b"wake:p1", b"wake:p2")
    }
    for process in ("p1", "p2"):
        ((_, fields),) = await raw.xrange(keys.wake(process))
        assert fields[b"t"] == b"g"
        assert fields[b"i"] == str(inc).encode()
        assert fields[b"r"] == b"x" * 500
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.TERMINATED
    assert await directory.discover(AGENT, allow_subclasses=True) == []
    # Nothing brings it back.
    await directory.register([(agent, ("m.A", AGENT))])
    assert await directory.terminate(agent, "again") == []
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.TERMINATED


async def test_terminating_nobody(directory: Directory, agent: AgentId[Any]) -> None:
    assert await directory.terminate(agent, "") == []
    (record,) = await directory.lookup([agent])
    assert record.status is MailboxStatus.MISSING


async def test_what_waits_comes_back_with_what_is_known_of_it(
    directory: Directory, agent: AgentId[Any], raw: redis.asyncio.Redis, keys: Keys
) -> None:
    key = entity_key(agent)
    await directory.register([(agent, ())])
    await raw.hset(f"{keys.prefix}tk:{key}", "s", "2:9:0")
    for queue, seq in (("r", 1), ("q", 2), ("q", 3)):
        fields = {"s": "s", "q": str(seq), "m": f"head{seq}", "b": "rest"}
        await raw.xadd(f"{keys.prefix}{queue}:{key}", fields)
    await raw.xadd(f"{keys.prefix}q:{key}", {"junk": "1"})
    await raw.xadd(f"{keys.prefix}q:{key}", {"q": "x", "m": "odd"})
    waiting = await directory.terminate(agent, "")
    assert waiting == [
        ([b"s", b"s", b"q", b"1", b"m", b"head1"], True),
        ([b"s", b"s", b"q", b"2", b"m", b"head2"], True),
        ([b"s", b"s", b"q", b"3", b"m", b"head3"], False),
        ([b"q", b"x", b"m", b"odd"], True),
    ]


async def test_tombstones_are_forgotten_after_a_day(
    directory: Directory, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    old: AgentId[Any] = AgentId.new()
    await directory.register([(old, ())])
    await directory.terminate(old, "why")
    await raw.zadd(f"{keys.prefix}gone", {entity_key(old): 1})
    young: AgentId[Any] = AgentId.new()
    await directory.register([(young, ())])
    await directory.terminate(young, "because")
    assert await raw.zrange(f"{keys.prefix}gone", 0, -1) == [entity_key(young).encode()]
    assert await raw.hgetall(f"{keys.prefix}why") == {
        entity_key(young).encode(): b"because"
    }


async def test_who_is_gone_does_not_watch_for_ever(
    directory: Directory,
    commands: Server,
    agent: AgentId[Any],
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    await directory.register([(agent, ())])
    await directory.bind(agent, "owner")
    for number in range(100):
        await directory.locate(agent, f"gone{number}")
    watchers = f"{keys.prefix}watch:{entity_key(agent)}"
    assert await raw.scard(watchers) < 64
    for number in range(100):
        await live(commands, f"p{number}")
        await directory.locate(agent, f"p{number}")
    found = await raw.smembers(watchers)
    assert {f"p{number}".encode() for number in range(100)} <= found


# Discovering


async def test_discovery_survives_damage(
    directory: Directory, agent: AgentId[Any], raw: redis.asyncio.Redis, keys: Keys
) -> None:
    await directory.register([(agent, ("m.A", AGENT))])
    stranger = entity_key(AgentId.new())
    await raw.sadd(f"{keys.prefix}class:m.A", "junk", stranger, b"\xffx")
    await raw.hset(f"{keys.prefix}mb:junk", mapping={"name": "n", "mro": "m.A"})
    found = await directory.discover("m.A", allow_subclasses=True)
    assert found == [agent]
    assert found[0].name == "sensor"
    assert await directory.discover("m.B", allow_subclasses=True) == []


async def test_discovery_by_the_class_itself(
    directory: Directory, agent: AgentId[Any]
) -> None:
    derived: AgentId[Any] = AgentId.new()
    await directory.register([(agent, ("m.A", AGENT)), (derived, ("m.B", "m.A"))])
    assert await directory.discover("m.A", allow_subclasses=False) == [agent]
    assert await directory.discover("m.B", allow_subclasses=False) == [derived]
    assert set(await directory.discover("m.A", allow_subclasses=True)) == {
        agent,
        derived,
    }


# Auditing


async def test_the_books(
    directory: Directory,
    commands: Server,
    agent: AgentId[Any],
    raw: redis.asyncio.Redis,
    keys: Keys,
) -> None:
    key = entity_key(agent)
    assert await directory.audit(agent, "s") == Books("missing", 0, False, 0, 0, Mark())
    await directory.register([(agent, ())])
    assert await directory.audit(agent, "s") == Books("open", 0, False, 0, 0, Mark())
    await live(commands, "p1")
    inc = (await directory.bind(agent, "p1")).inc
    for part in ("q", "q", "r"):
        await raw.xadd(f"{keys.prefix}{part}:{key}", {"x": "y"})
    await raw.hset(f"{keys.prefix}ap:{key}", "s", 4)
    await raw.hset(f"{keys.prefix}tk:{key}", "s", f"3:{inc}:1")
    assert await directory.audit(agent, "s") == Books(
        "open", inc, True, 3, 4, Mark(3, inc, 1)
    )
    await raw.delete(keys.lease("p1"))
    assert not (await directory.audit(agent, "s")).live
    await raw.hset(f"{keys.prefix}tk:{key}", "s", "junk")
    assert (await directory.audit(agent, "s")).taken == Mark()
    await directory.terminate(agent, "")
    assert (await directory.audit(agent, "s")).state == "terminated"


async def test_an_audit_does_not_wait_for_the_connection(
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    keys: Keys,
    agent: AgentId[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of the commands is given up after 5 s, and the next look would be late."""
    monkeypatch.setattr(directory_module, "AUDIT_TIMEOUT", 0.3)
    commands = Server(proxied, keys.prefix)
    await commands.open()
    directory = Directory(commands)
    assert (await directory.audit(agent, "s")).state == "missing"
    proxy.hold()
    async with asyncio.timeout(2):
        for _ in range(3):
            with pytest.raises(ServerUnavailableError, match=r"no answer for 0\.3 s"):
                await directory.audit(agent, "s")
    await commands.close()


# Errors


async def test_a_server_that_is_away(
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    agent: AgentId[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory_module, "DIRECTORY_TIMEOUT", 0.2)
    server = Server(proxied, "{x}:")
    await server.open()
    await proxy.cut()
    with pytest.raises(ServerUnavailableError):
        await Directory(server).lookup([agent])
    await server.close()


def test_an_answer_that_nobody_expects(agent: AgentId[Any]) -> None:
    check_reply(agent, [b"ok"])
    with pytest.raises(ExchangeError, match="refused AgentId<sensor>: b'what'"):
        check_reply(agent, [b"what"])


def test_processes_have_names_of_their_own() -> None:
    assert len({new_process_id() for _ in range(100)}) == 100
    assert json.loads(process_value()) == {
        "host": platform.node(),
        "pid": os.getpid(),
        "version": __version__,
    }
