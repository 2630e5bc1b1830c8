"""A user of one namespace: what a program needs, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from academy.embedded import EmbeddedServer
from academy.exception import AgentTerminatedError, ExchangeError
from academy.exchange.acl import OWN_COMMANDS, SCRIPT_COMMANDS, NamespaceUser
from academy.exchange.client import ExchangeClient
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.executor import SubprocessExecutor
from academy.handle import Handle
from academy.identifier import AgentId
from academy.manager import Manager
from tests.launched_agents import Counter
from tests.restricted import admin, make_user, url_for

COMMAND = [sys.executable, "-m", "academy"]


@pytest.fixture
def user(fresh_server: EmbeddedServer, namespace: str) -> NamespaceUser:
    return make_user(fresh_server, namespace)


@pytest.fixture
def url(fresh_server: EmbeddedServer, user: NamespaceUser) -> str:
    return url_for(fresh_server.url, user)


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, driver_info=None) as made:
        yield made


class Monitor:
    """Notes the commands that a server carries out."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._client = admin(server)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self.seen: set[str] = set()

    def __enter__(self) -> Monitor:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.echo("done")
        self._thread.join()
        self._client.close()

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._ready.set()
            for line in monitor.listen():
                words = line["command"].lower().split()
                if words[0] == "echo":
                    return
                self.seen.add("script|load" if words[0] == "script" else words[0])


def handle(agent_id: AgentId[Any], client: ExchangeClient[Any]) -> Handle[Any]:
    """Return a handle that uses this client, whichever was opened last."""
    return Handle(agent_id, exchange=client, ignore_context=True)


async def paths(client: ExchangeClient[Any], agent_id: AgentId[Any]) -> set[str]:
    """Return the ways from an agent to others."""
    seen = await client.links(agent_id)
    assert seen is not None
    return {link.path for link in seen.links}


async def run_program(url: str, namespace: str) -> None:
    """Register, launch, find, call both ways, look at links, and end."""
    factory = HybridExchangeFactory.from_url(url, namespace=namespace)
    relayed = HybridExchangeFactory.from_url(url, namespace=namespace, direct=False)
    executor = SubprocessExecutor()
    async with (
        await Manager.from_exchange_factory(factory, executors=executor) as manager,
        await relayed.create_user_client() as far,
        asyncio.timeout(30),
    ):
        agent_id = (await manager.launch(Counter, name="counter")).agent_id
        near = manager.exchange_client
        assert await handle(agent_id, near).add() == 1
        assert await handle(agent_id, far).add() == 2
        while "uds" not in await paths(near, agent_id):
            await handle(agent_id, near).ping()
        assert await far.discover(Counter) == (agent_id,)
        assert await far.status(agent_id) is MailboxStatus.ACTIVE
        absent = (await manager.register_agent(Counter)).agent_id
        call = asyncio.create_task(handle(absent, far).add())
        await far.terminate(absent)
        with pytest.raises(AgentTerminatedError):
            await call
        await manager.shutdown(agent_id, blocking=True)


async def test_a_whole_program(
    fresh_server: EmbeddedServer, user: NamespaceUser, url: str
) -> None:
    with Monitor(fresh_server) as monitor:
        await run_program(url, user.namespace)
    allowed = {*OWN_COMMANDS, *SCRIPT_COMMANDS}
    assert monitor.seen - {"hello", "auth", "client"} <= allowed
    # Only what is rare was not needed, such as repairs.
    assert len(monitor.seen & allowed) > 0.8 * len(allowed)
    with admin(fresh_server) as root:
        assert root.acl_log() == []


async def test_a_program_on_the_server_of_the_system(namespace: str) -> None:
    """It is older, as a rule, and knows fewer commands and subcommands."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server in PATH")
    with EmbeddedServer(binary=binary) as older:
        user = make_user(older, namespace)
        await run_program(url_for(older.url, user), namespace)


def test_the_command_line(url: str, namespace: str) -> None:
    for command in ("ps", "links"):
        done = subprocess.run(
            [*COMMAND, command, "--json", "--namespace", namespace],
            env={**os.environ, "ACADEMY_REDIS_URL": url},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, "")


async def test_another_namespace(url: str) -> None:
    factory = HybridExchangeFactory.from_url(url, namespace="other")
    with pytest.raises(ExchangeError, match=r"No permissions.*server --acl"):
        await factory.create_user_client()


@pytest.mark.parametrize(
    "command",
    [
        "GET {other}:secret",
        "SET {other}:secret x",
        "DEL {other}:secret",
        "XREAD STREAMS {other}:wake:1 0",
        "HGETALL {%s}x:mb:1",
        "GET %s:secret",
        "GET {%s}",
        "SCAN 0",
        "KEYS *",
        "RANDOMKEY",
        "DBSIZE",
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "SELECT 1",
        "RENAME {%s}:secret {other}:secret",
        "COPY {%s}:secret {other}:secret",
        "MOVE {%s}:secret 1",
        "CONFIG GET requirepass",
        "CONFIG SET dir /tmp",
        "ACL LIST",
        "ACL SETUSER eve on nopass +@all",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "MONITOR",
        "SHUTDOWN",
        "SAVE",
        "REPLICAOF 127.0.0.1 1",
        "FUNCTION LIST",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "SUBSCRIBE news",
        "PUBLISH news x",
        "INFO",
        "SLOWLOG GET",
    ],
)
def test_what_the_user_may_not(
    client: redis.Redis, namespace: str, command: str
) -> None:
    words = command.replace("%s", namespace).split()
    with pytest.raises(NoPermissionError):
        client.execute_command(*words)


@pytest.mark.parametrize(
    "script",
    [
        "return redis.call('GET', '{other}:secret')",
        "return redis.call('SET', '{other}:secret', 'x')",
        "return redis.call('KEYS', '*')",
        "return redis.call('FLUSHALL')",
        "return redis.call('CONFIG', 'GET', '*')",
    ],
)
def test_what_scripts_of_the_user_may_not(client: redis.Redis, script: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"permission|not allowed"):
        client.eval(script, 0)


def run_server_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "server", *arguments], capture_output=True, text=True, timeout=30
    )


async def test_the_printed_line_makes_the_user(
    fresh_server: EmbeddedServer, namespace: str
) -> None:
    done = run_server_command("--acl", namespace)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    with admin(fresh_server) as root:
        root.execute_command(*line.split())
    words = line.split()
    password = words[5].removeprefix(">")
    assert password not in done.stderr
    user = NamespaceUser(words[2], password, namespace)
    await run_program(url_for(fresh_server.url, user), namespace)


def test_the_line_for_programs(namespace: str) -> None:
    made: Any = json.loads(run_server_command("--acl", namespace, "--json").stdout)
    user = NamespaceUser(made["user"], made["password"], namespace)
    assert made["rule"] == user.rule
    again = json.loads(run_server_command("--acl", namespace, "--json").stdout)
    assert again["password"] != made["password"]


def test_a_line_for_what_is_no_namespace() -> None:
    done = run_server_command("--acl", "a b")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Not a namespace" in done.stderr
