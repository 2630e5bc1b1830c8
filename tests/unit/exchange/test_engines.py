from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError

from academy.embedded import EmbeddedServer
from academy.exchange import engines
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.engine import Engine
from academy.exchange.engines import acquire, release
from academy.exchange.server import ServerUnavailableError
from tests.proxy import Proxy
from tests.restricted import allow


async def alive(engine: Engine) -> bool:
    try:
        await engine.server.call("secret", b"x" * 32, timeout=2)
    except ServerUnavailableError:
        return False
    return True


async def test_users_of_a_server_and_namespace_share_an_engine(
    info: RedisConnectionInfo, namespace: str
) -> None:
    same = RedisConnectionInfo(info.hostname, info.port, dict(info.kwargs))
    first, second = await acquire(info, namespace), await acquire(same, namespace)
    assert first is second
    await release(first)
    assert await alive(first)
    await release(second)
    assert not await alive(first)
    third = await acquire(info, namespace)
    assert third is not first
    assert await alive(third)
    await release(third)


async def test_others_have_engines_of_their_own(
    info: RedisConnectionInfo, namespace: str, server: EmbeddedServer
) -> None:
    allow(server, namespace + "x")
    other = RedisConnectionInfo(
        info.hostname, info.port, info.kwargs | {"socket_connect_timeout": 9}
    )
    made = [
        await acquire(info, namespace),
        await acquire(info, namespace + "x"),
        await acquire(other, namespace),
    ]
    assert len({e.process for e in made}) == 3
    for engine in made:
        await release(engine)


async def test_those_who_come_together_wait_for_one_engine(
    info: RedisConnectionInfo, namespace: str
) -> None:
    made = await asyncio.gather(*(acquire(info, namespace) for _ in range(20)))
    assert len(set(map(id, made))) == 1
    await asyncio.gather(*map(release, made))
    assert not await alive(made[0])


async def test_one_comes_while_the_last_one_leaves(
    info: RedisConnectionInfo, namespace: str
) -> None:
    first = await acquire(info, namespace)
    leaving = asyncio.create_task(release(first))
    await asyncio.sleep(0)
    second = await acquire(info, namespace)
    await leaving
    assert second is not first
    assert await alive(second)
    await release(second)


async def test_a_failure_to_open_does_not_stay(
    proxy: Proxy, proxied: RedisConnectionInfo, namespace: str
) -> None:
    await proxy.cut()
    with pytest.raises(ConnectionError):
        await acquire(proxied, namespace)
    await proxy.mend()
    engine = await acquire(proxied, namespace)
    assert await alive(engine)
    await release(engine)


async def test_a_cancelled_start_leaves_nothing(
    proxy: Proxy, proxied: RedisConnectionInfo, namespace: str
) -> None:
    proxy.hold()
    acquiring = asyncio.create_task(acquire(proxied, namespace))
    await asyncio.sleep(0.1)
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    proxy.let_go()
    engine = await acquire(proxied, namespace)
    assert await alive(engine)
    await release(engine)


async def test_giving_back_a_stranger_changes_nothing(
    info: RedisConnectionInfo, namespace: str
) -> None:
    engine = await acquire(info, namespace)
    await release(Engine(info, namespace))
    assert await alive(engine)
    await release(engine)


def test_each_event_loop_has_an_engine_of_its_own(
    info: RedisConnectionInfo, namespace: str
) -> None:
    processes = set()

    async def main() -> None:
        engine = await acquire(info, namespace)
        processes.add(engine.process)
        await release(engine)

    for _ in range(3):
        asyncio.run(main())
    assert len(processes) == 3


def test_a_namespace_that_cannot_be_used(info: RedisConnectionInfo) -> None:
    with pytest.raises(ValueError, match="Not a namespace"):
        asyncio.run(acquire(info, "a b"))


async def test_nothing_is_kept_of_those_who_left(
    info: RedisConnectionInfo, namespace: str, server: EmbeddedServer
) -> None:
    allow(server, *(f"{namespace}-{n}" for n in range(5)))
    slots = engines._slots.setdefault(asyncio.get_running_loop(), {})
    before = len(slots)
    for n in range(5):
        await release(await acquire(info, f"{namespace}-{n}"))
    assert len(slots) == before
