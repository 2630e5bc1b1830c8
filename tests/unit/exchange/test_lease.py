from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError

from academy.exchange import lease as lease_module
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.keys import Keys
from academy.exchange.lease import Lease
from tests.proxy import Proxy
from tests.unit.exchange.mail import until

Opened = Callable[..., Awaitable[Lease]]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEWAL", 0.05)
    monkeypatch.setattr(lease_module, "RETRY", 0.02)


@pytest.fixture
async def opened(info: RedisConnectionInfo, keys: Keys) -> AsyncIterator[Opened]:
    """Opens leases of the process `p`."""
    made: list[Lease] = []

    async def open_lease(
        on_lost: Callable[[], None] = lambda: None,
        at: RedisConnectionInfo = info,
        value: bytes = b"v",
    ) -> Lease:
        lease = Lease(at, keys.prefix, "p", on_lost)
        await lease.open(value)
        made.append(lease)
        return lease

    yield open_lease
    for lease in made:
        await lease.close()
    assert not [t for t in threading.enumerate() if t.name == "academy-lease"]


async def test_a_lease_is_renewed(
    raw: redis.asyncio.Redis, keys: Keys, opened: Opened
) -> None:
    await opened(value=b"who I am")
    assert await raw.get(keys.lease("p")) == b"who I am"
    await raw.pexpire(keys.lease("p"), 1000)
    await asyncio.sleep(0.3)
    assert 9000 < await raw.pttl(keys.lease("p")) <= 10_000


async def test_the_wake_stream_lives_with_the_lease(
    raw: redis.asyncio.Redis, keys: Keys, opened: Opened
) -> None:
    await raw.xadd(keys.wake("p"), {"t": "m"})
    await opened()
    assert 50_000 < await raw.pttl(keys.wake("p")) <= 60_000


async def test_a_lost_lease_is_taken_again_and_reported(
    raw: redis.asyncio.Redis, keys: Keys, opened: Opened
) -> None:
    lost = asyncio.Event()
    await opened(lost.set)
    await asyncio.sleep(0.2)
    assert not lost.is_set()
    await raw.delete(keys.lease("p"))
    await asyncio.wait_for(lost.wait(), 5)
    assert await raw.exists(keys.lease("p"))


async def test_a_blocked_event_loop_keeps_its_lease(
    info: RedisConnectionInfo, keys: Keys, opened: Opened
) -> None:
    await opened()
    with lease_module.sync_client(info, timeout=2.0) as client:
        client.pexpire(keys.lease("p"), 150)
        threading.Event().wait(0.5)
        assert client.exists(keys.lease("p"))


async def test_a_lease_outlives_a_server_that_is_away(
    raw: redis.asyncio.Redis,
    keys: Keys,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    opened: Opened,
) -> None:
    lost = asyncio.Event()
    await opened(lost.set, proxied)
    await proxy.cut()
    await raw.delete(keys.lease("p"))
    await asyncio.sleep(0.2)
    assert not await raw.exists(keys.lease("p"))
    await proxy.mend()
    await asyncio.wait_for(lost.wait(), 5)
    assert await raw.exists(keys.lease("p"))


async def test_a_process_is_certain_while_it_looks(
    monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    now = 100.0
    monkeypatch.setattr(lease_module, "_now", lambda: now)
    monkeypatch.setattr(lease_module, "RENEWAL", 60.0)
    lease = await opened()
    assert lease.certain()
    now += lease_module.LEASE + 0.1
    assert not lease.certain()
    lease.confirm()
    assert lease.certain()


@pytest.mark.parametrize("away", [False, True])
async def test_a_stopped_process_is_uncertain_until_it_has_looked(
    monkeypatch: pytest.MonkeyPatch,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    opened: Opened,
    away: bool,
) -> None:
    """A server that is away has given its mailboxes to nobody."""
    now = 100.0
    monkeypatch.setattr(lease_module, "_now", lambda: now)
    lease = await opened(at=proxied)
    if away:
        await proxy.cut()
    now += lease_module.LEASE + 0.1
    assert not lease.certain()
    await until(lease.certain)


async def test_a_process_that_lost_its_lease_is_uncertain(
    monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    """Until its mailboxes have been looked at."""
    now = 100.0
    monkeypatch.setattr(lease_module, "_now", lambda: now)
    lost = asyncio.Event()
    lease = await opened(lost.set)
    monkeypatch.setattr(lease, "_script", lambda keys, args: 0)
    await asyncio.wait_for(lost.wait(), 5)
    now += lease_module.LEASE + 0.1
    lost.clear()
    await asyncio.wait_for(lost.wait(), 5)
    assert not lease.certain()


async def test_a_closed_lease_is_not_renewed(
    raw: redis.asyncio.Redis, keys: Keys, opened: Opened
) -> None:
    lease = await opened()
    await lease.close()
    await lease.close()
    await raw.delete(keys.lease("p"))
    await asyncio.sleep(0.2)
    assert not await raw.exists(keys.lease("p"))


async def test_a_lease_that_was_never_taken_can_be_closed(
    proxied: RedisConnectionInfo, proxy: Proxy
) -> None:
    await proxy.cut()
    lease = Lease(proxied, "{x}:", "p", lambda: None)
    with pytest.raises(ConnectionError):
        await lease.open(b"")
    await lease.close()


def test_a_lease_ends_with_its_event_loop(
    info: RedisConnectionInfo, keys: Keys
) -> None:
    """Also when nobody has closed it."""

    async def main() -> None:
        await Lease(info, keys.prefix, "p", lambda: None).open(b"")

    asyncio.run(main())
    (thread,) = [t for t in threading.enumerate() if t.name == "academy-lease"]
    thread.join(5)
    assert not thread.is_alive()


def test_a_loss_that_nobody_can_be_told_of(
    info: RedisConnectionInfo, keys: Keys
) -> None:
    """The event loop closes while the lease is renewed."""
    leases = []

    async def main() -> None:
        lease = Lease(info, keys.prefix, "p", lambda: None)
        leases.append(lease)

    asyncio.run(main())
    leases[0]._report()
