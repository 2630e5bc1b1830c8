from __future__ import annotations

import asyncio
import pickle
import socket
import time
from collections.abc import Callable

import pytest
import redis.asyncio
from redis.exceptions import AuthenticationError, ConnectionError

from academy.embedded import EmbeddedServer
from academy.exception import ExchangeError
from academy.exchange.connection import RedisConnectionInfo, async_client
from academy.exchange.keys import Keys
from academy.exchange.server import (
    Server,
    ServerUnavailableError,
    backoff,
    script,
)
from academy.exchange.version import IncompatibleServerError
from tests.fake_server import (
    agreeing,
    answering,
    hello,
    mute,
    web_page,
    without_hello,
)
from tests.proxy import Proxy
from tests.restricted import admin_kwargs, make_user

PREFIX = "{x}:"


# Opening


def address(port: int) -> RedisConnectionInfo:
    return RedisConnectionInfo("127.0.0.1", port, {})


async def test_an_unreachable_server_is_named_in_time() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        server = Server(address(port), PREFIX)
        start = time.monotonic()
        with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}") as caught:
            await server.open()
    assert time.monotonic() - start < 5
    assert "academy server" in str(caught.value)
    await server.close()


async def test_a_mute_server_is_given_up_in_time() -> None:
    async with answering(mute) as port:
        server = Server(address(port), PREFIX)
        start = time.monotonic()
        with pytest.raises(
            ConnectionError, match=f"No Redis server answers at .*{port} .it accepts"
        ):
            await server.open()
        assert time.monotonic() - start < 5
        await server.close()


async def test_a_server_that_is_just_starting_is_waited_for(
    proxy: Proxy, proxied: RedisConnectionInfo
) -> None:
    await proxy.cut()
    server = Server(proxied, PREFIX)
    opening = asyncio.create_task(server.open())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(opening), 0.2)
    await proxy.mend()
    await asyncio.wait_for(opening, 4)
    await server.close()


@pytest.mark.parametrize("kwargs", [{"password": "wrong"}, {}])
async def test_a_refused_login_is_not_repeated(
    server: EmbeddedServer, kwargs: dict[str, str]
) -> None:
    refused = Server(RedisConnectionInfo(server.host, server.port, kwargs), PREFIX)
    start = time.monotonic()
    with pytest.raises(AuthenticationError, match="check user name and pass") as caught:
        await refused.open()
    assert time.monotonic() - start < 1
    assert str(server.port) in str(caught.value)
    assert "wrong" not in str(caught.value)
    await refused.close()


async def test_a_user_without_the_rights_is_told(
    server: EmbeddedServer, namespace: str, keys: Keys
) -> None:
    """One who may use a namespace may not name its connections."""
    user = make_user(server, namespace)
    login = {"username": user.name, "password": user.password, "client_name": "me"}
    refused = Server(RedisConnectionInfo(server.host, server.port, login), keys.prefix)
    with pytest.raises(AuthenticationError, match=r"setname.*academy server --acl"):
        await refused.open()
    await refused.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (without_hello, "unknown command 'HELLO'"),
        (web_page, "Protocol error"),
        (hello("6.2.14"), "runs version 6.2.14"),
        (hello("6"), "runs version 6"),
        (hello("unstable"), "does not answer as Redis 7 does"),
        (agreeing, "does not answer as Redis 7 does"),
    ],
)
async def test_servers_that_will_not_do(
    answer: Callable[[bytes], bytes], reason: str
) -> None:
    async with answering(answer) as port:
        server = Server(address(port), PREFIX)
        with pytest.raises(IncompatibleServerError, match=reason) as caught:
            await server.open()
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "Redis >= 7.0 or Valkey" in str(caught.value)
        await server.close()


@pytest.mark.parametrize("version", ["7.0.15", "8.0.0-rc1", "255.255.255"])
async def test_versions_that_will_do(version: str) -> None:
    async with answering(hello(version)) as port:
        server = Server(address(port), PREFIX)
        await server.open()
        await server.close()


# Scripts


def test_scripts_have_the_shared_part_in_front() -> None:
    prelude = script("beat").partition("-- ARGV: P eid\n")[0]
    assert "local function is_gone" in prelude
    assert script("bind").startswith(prelude)
    with pytest.raises(KeyError):
        script("no-such-script")


def test_the_pause_grows_to_a_limit() -> None:
    for attempt in range(1, 200):
        assert 0.02 < backoff(attempt) <= 0.5
    assert max(backoff(1) for _ in range(50)) <= 0.1


# Calls


async def test_calls_are_answered_in_order(commands: Server) -> None:
    done: list[int] = []

    async def renew(n: int) -> int:
        had = await commands.call("renew", "p", "10000", str(n), timeout=5)
        done.append(n)
        return had

    assert await asyncio.gather(*map(renew, range(600))) == [0] + 599 * [1]
    assert done == list(range(600))


async def test_calls_that_are_made_together_travel_together(commands: Server) -> None:
    before = commands.commands
    calls = [commands.call("secret", b"x" * 32, timeout=5) for _ in range(100)]
    start = time.perf_counter()
    await asyncio.gather(*calls)
    together = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(100):
        await commands.call("secret", b"x" * 32, timeout=5)
    assert time.perf_counter() - start > together
    assert commands.commands == before + 200


async def test_large_batches_are_divided(
    commands: Server, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    values = [bytes([n]) * 1_000_000 for n in range(20)]
    calls = [
        commands.call("renew", f"p{n}", "60000", memoryview(v), timeout=20)
        for n, v in enumerate(values)
    ]
    await asyncio.gather(*calls)
    for n, value in enumerate(values):
        assert await raw.get(keys.lease(f"p{n}")) == value


async def test_a_script_that_fails_is_a_named_error(commands: Server) -> None:
    fails, works = await asyncio.gather(
        commands.call("bind", timeout=5),
        commands.call("secret", b"x" * 32, timeout=5),
        return_exceptions=True,
    )
    assert isinstance(fails, ExchangeError)
    assert "The Redis server refused bind" in str(fails)
    assert works == [b"x" * 32, b""]


async def test_arguments_that_cannot_be_sent_fail_their_batch(
    commands: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fails = commands.call("secret", ["no text"], timeout=5)  # type: ignore[arg-type]
    with pytest.raises(ServerUnavailableError, match="DataError"):
        await fails
    assert "A batch of commands failed" in caplog.text
    assert await commands.call("secret", b"x" * 32, timeout=5) == [b"x" * 32, b""]


async def test_lost_scripts_are_loaded_again(
    commands: Server, raw: redis.asyncio.Redis
) -> None:
    await commands.call("secret", b"x" * 32, timeout=5)
    for _ in range(3):
        await raw.script_flush()
        results = await asyncio.gather(
            *(commands.call("renew", "p", "1000", b"v", timeout=5) for _ in range(5)),
            commands.call("secret", b"y" * 32, timeout=5),
        )
        assert results[-1] == [b"x" * 32, b""]


async def test_a_killed_connection_is_made_again(
    commands: Server, raw: redis.asyncio.Redis
) -> None:
    await commands.call("secret", b"x" * 32, timeout=5)
    for _ in range(5):
        await raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await commands.call("secret", b"y" * 32, timeout=5) == [b"x" * 32, b""]


async def test_what_waits_for_a_server_that_is_away_is_sent_when_it_is_back(
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="academy.exchange.server")
    server = Server(proxied, keys.prefix)
    await server.open()
    await proxy.cut()
    calls = [
        asyncio.create_task(server.call("renew", "p", "9000", str(n), timeout=20))
        for n in range(10)
    ]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(calls[0]), 0.3)
    await proxy.mend()
    assert await asyncio.gather(*calls) == [0] + 9 * [1]
    await server.close()
    assert caplog.text.count("Lost the Redis server") == 1
    assert caplog.text.count("The Redis server is back") == 1


async def test_a_call_fails_at_its_deadline(
    proxy: Proxy, proxied: RedisConnectionInfo
) -> None:
    server = Server(proxied, PREFIX)
    await server.open()
    await proxy.cut()
    short = asyncio.create_task(server.call("secret", b"x" * 32, timeout=0.3))
    long = asyncio.create_task(server.call("secret", b"x" * 32, timeout=30))
    with pytest.raises(ServerUnavailableError, match="Check that it runs"):
        await asyncio.wait_for(short, 3)
    assert not long.done()
    await server.close()
    with pytest.raises(ServerUnavailableError, match="the client was closed"):
        await long


async def test_a_stalled_server_is_given_up_early(
    proxy: Proxy, proxied: RedisConnectionInfo, keys: Keys
) -> None:
    server = Server(proxied, keys.prefix)
    await server.open()
    assert await server.call("secret", b"x" * 32, timeout=5, stall=0.5)
    proxy.hold()
    took = []
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="no answer for 1 s") as caught:
            await server.call("secret", b"x" * 32, timeout=30, stall=1)
        assert caught.value.attempted is (not took)  # the second one was never sent
        took.append(time.monotonic() - start)
    # The second one need not find out again what the first one has.
    assert 1 < took[0] < 2
    assert took[1] < 0.5
    await server.close()


async def test_a_slow_server_is_not_given_up(commands: Server) -> None:
    """As long as it answers somebody it is not stalled."""
    waited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(commands.while_answering(waited, 0.1))
    for _ in range(40):
        await commands.call("secret", b"x" * 32, timeout=5)
        await asyncio.sleep(0.01)
    assert not waiting.done()
    waited.set_result(1)
    await waiting


async def test_a_cancelled_call_is_not_sent(
    commands: Server, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    cancelled = asyncio.create_task(commands.call("renew", "a", "9999", b"", timeout=5))
    kept = asyncio.create_task(commands.call("renew", "b", "9999", b"", timeout=5))
    await asyncio.sleep(0)
    cancelled.cancel()
    await kept
    assert await raw.exists(keys.lease("b"))
    assert not await raw.exists(keys.lease("a"))


async def test_only_cancelled_calls_in_line(commands: Server) -> None:
    command = commands.submit("secret", b"x" * 32, timeout=5)
    command.future.cancel()
    await asyncio.sleep(0)
    assert await commands.call("secret", b"x" * 32, timeout=5) == [b"x" * 32, b""]


async def test_closing_fails_what_has_no_answer(
    proxy: Proxy, proxied: RedisConnectionInfo, keys: Keys
) -> None:
    server = Server(proxied, keys.prefix)
    await server.open()
    await server.call("secret", b"x" * 32, timeout=5)
    proxy.hold()
    sent = asyncio.create_task(server.call("secret", b"x" * 32, timeout=30))
    await asyncio.sleep(0.05)
    waits = asyncio.create_task(server.call("secret", b"x" * 32, timeout=30))
    await asyncio.sleep(0)
    await server.close()
    for call, attempted in ((sent, True), (waits, False)):
        with pytest.raises(ServerUnavailableError, match="was closed") as caught:
            await asyncio.wait_for(call, 1)
        assert caught.value.attempted is attempted


async def test_a_closed_connection_answers_nobody(
    info: RedisConnectionInfo,
) -> None:
    server = Server(info, PREFIX)
    await server.open()
    await server.close()
    await server.close()
    with pytest.raises(ServerUnavailableError, match="was closed"):
        await asyncio.wait_for(server.call("secret", b"x" * 32, timeout=30), 1)


async def test_a_repeated_command_gets_the_answer_of_its_second_run(
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    raw: redis.asyncio.Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command whose reply is lost runs again: scripts must not mind."""
    server = Server(proxied, keys.prefix)
    await server.open()
    await server.call("renew", "p", "9000", b"0", timeout=5)
    await raw.delete(keys.lease("p"))
    proxy.hold()
    call = asyncio.create_task(server.call("renew", "p", "9000", b"1", timeout=20))
    await asyncio.sleep(0.05)
    await proxy.drop()
    proxy.let_go()
    assert await call in (0, 1)
    assert await raw.get(keys.lease("p")) == b"1"
    await server.close()


def test_the_error_travels() -> None:
    error = ServerUnavailableError(True, "it rains")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.attempted, copy.detail, str(copy)) == (True, "it rains", str(error))
    assert "it rains" in str(error)
    assert "cannot be reached." in str(ServerUnavailableError())


async def test_a_server_that_is_read_only_for_a_while_is_waited_for(
    fresh_server: EmbeddedServer, keys: Keys
) -> None:
    """As a primary is that becomes a replica until clients find the new one."""
    info = RedisConnectionInfo(
        fresh_server.host, fresh_server.port, dict(fresh_server.redis_kwargs)
    )
    server = Server(info, keys.prefix)
    await server.open()
    login = RedisConnectionInfo(info.hostname, info.port, admin_kwargs(fresh_server))
    raw = async_client(login, timeout=5.0)
    await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
    call = asyncio.create_task(server.call("renew", "p", "9000", b"", timeout=20))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(call), 0.3)
    await raw.execute_command("REPLICAOF", "NO", "ONE")
    assert await asyncio.wait_for(call, 5) == 0
    await raw.aclose()
    await server.close()
