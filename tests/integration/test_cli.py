"""The command line, as people use it: real processes, a real server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from academy.agent import Agent, action
from academy.embedded import EmbeddedServer
from academy.exchange.hybrid import HybridExchangeFactory
from academy.identifier import AgentId
from academy.manager import Manager
from tests.launched_agents import Counter
from tests.restricted import allow

COMMAND = [sys.executable, "-m", "academy"]


class Desk(Agent):
    """Answers questions."""

    def __init__(self, asleep: asyncio.Event) -> None:
        self.asleep = asleep

    @action
    async def add(self, a: float, b: float = 1) -> float:
        """Return a sum."""
        return a + b

    @action
    async def echo(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [*args, kwargs]

    @action
    async def fail(self, text: str) -> None:
        raise ValueError(text)

    @action
    async def sleep(self) -> None:
        self.asleep.set()
        await asyncio.Event().wait()

    @action
    async def unnamed(self) -> Any:
        return {(1, 2): object}


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Office:
    """Agents that run in the process of the test, and commands about them."""

    def __init__(self, url: str, namespace: str, manager: Manager[Any]) -> None:
        self.url = url
        self.namespace = namespace
        self.manager = manager
        self.ids: dict[str, AgentId[Any]] = {}
        self.asleep = asyncio.Event()

    async def run(self, command: str, *arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            command,
            "--namespace",
            self.namespace,
            *arguments,
            env={**os.environ, "ACADEMY_REDIS_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        password = urllib.parse.urlsplit(self.url).password
        assert password
        assert password.encode() not in out + err
        return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def office(server: EmbeddedServer, namespace: str) -> AsyncIterator[Office]:
    """Two agents that run, `desk` and `twin`, and two others that do not."""
    factory = HybridExchangeFactory.from_url(server.url, namespace=namespace)
    async with await Manager.from_exchange_factory(factory) as manager:
        office = Office(server.url, namespace, manager)
        for name in ("desk", "twin"):
            handle = await manager.launch(Desk(office.asleep), name=name)
            await handle.ping()
            office.ids[name] = handle.agent_id
        for name in ("twin", "absent"):
            registration = await manager.register_agent(Desk, name=name)
            office.ids.setdefault(name, registration.agent_id)
        yield office


async def test_ps(office: Office) -> None:
    ended = await office.run("ps")
    assert (ended.code, ended.err) == (0, "")
    head, *rows = [line.split() for line in ended.out.splitlines()]
    assert head == ["AGENT", "ID", "CLASS", "STATE", "HOST:PID", "QUEUE"]
    assert [row[0] for row in rows] == ["absent", "desk", "twin", "twin"]
    absent, desk, *_ = rows
    assert absent[3:] == ["inactive", "-", "0"]
    assert desk[1] == str(office.ids["desk"].uid)[:8]
    assert desk[2].endswith(".Desk")
    assert desk[3] == "active"
    assert desk[4].endswith(f":{os.getpid()}")


async def test_ps_as_json(office: Office) -> None:
    found = {agent["id"]: agent for agent in (await office.run("ps", "--json")).json}
    assert len(found) == 4
    desk = found[str(office.ids["desk"].uid)]
    assert desk["name"] == "desk"
    assert desk["state"] == "ACTIVE"
    assert desk["pid"] == os.getpid()
    absent = found[str(office.ids["absent"].uid)]
    assert (absent["state"], absent["pid"], absent["queued"]) == ("INACTIVE", None, 0)


async def test_ps_where_there_is_nobody(office: Office, server: EmbeddedServer) -> None:
    office.namespace += "-other"
    allow(server, office.namespace)
    ended = await office.run("ps")
    assert ended.out == f"There are no agents in namespace '{office.namespace}'.\n"
    assert (await office.run("ps", "--json")).json == []


async def test_links(office: Office) -> None:
    """An agent in a process of its own talks directly; the table shows both ends."""
    pool = concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    )
    office.manager.add_executor("pool", pool)
    counter = await office.manager.launch(Counter, executor="pool", name="counter")
    paths = {"relay"}
    async with asyncio.timeout(20):
        while paths != {"uds"}:
            pid, _ = await counter.place()
            info = await office.manager.exchange_client.links()
            assert info is not None
            paths = {link.path for link in info.links}
    ended = await office.run("links")
    assert (ended.code, ended.err) == (0, "")
    head, *rows = [line.split() for line in ended.out.splitlines()]
    assert head[:5] == ["PROCESS", "AGENTS", "PEER", "PATH", "REASON"]
    here, there = f"{os.getpid()}", f"{pid}"
    peers = {(row[0].partition(":")[2], row[-8].partition(":")[2]) for row in rows}
    assert peers == {(here, there), (there, here)}
    assert all(row[-7:-5] == ["uds", "-"] for row in rows)


async def test_links_as_json(office: Office) -> None:
    only, *more = (await office.run("links", "desk", "--json")).json
    assert more == []
    assert (only["pid"], only["links"]) == (os.getpid(), [])
    assert [agent["name"] for agent in only["agents"]] == ["desk"]
    both = (await office.run("links", "desk", "--json", "--self")).json
    assert [len(process["agents"]) for process in both] == [1, 0]
    assert both[1]["pid"] != os.getpid()


async def test_links_of_agents_that_do_not_run(
    office: Office, server: EmbeddedServer
) -> None:
    ended = await office.run("links", "desk", "absent")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "academy: No process runs absent now.\n"
    assert (await office.run("links", "dask")).code == 2
    office.namespace += "-other"
    allow(server, office.namespace)
    ended = await office.run("links")
    assert ended.code == 0
    assert ended.out == f"No process runs agents in namespace '{office.namespace}'.\n"
    assert (await office.run("links", "--json")).json == []


async def test_nobody_reads_the_output(office: Office) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "ps", "-n", office.namespace, "--url", office.url),
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert await process.communicate() == (None, b"")
    assert process.returncode == 1


async def test_ping(office: Office) -> None:
    ended = await office.run("ping", "desk", "-c", "2")
    assert (ended.code, ended.err) == (0, "")
    first, second, summary = ended.out.splitlines()
    assert first.startswith("desk 1: ")
    assert second.startswith("desk 2: ")
    assert summary.startswith("2 sent, 2 answered, min/avg/max ")


async def test_ping_as_json(office: Office) -> None:
    prefix = str(office.ids["desk"].uid)[:12]
    answer = (await office.run("ping", prefix, "--json")).json
    assert answer["agent"] == str(office.ids["desk"].uid)
    assert answer["sent"] == answer["answered"] == len(answer["seconds"]) == 4
    assert all(0 < seconds < 5 for seconds in answer["seconds"])
    assert answer["errors"] == []


async def test_ping_without_an_answer(office: Office) -> None:
    ended = await office.run("ping", "absent", "-c", "1", "--timeout", "0.2")
    assert ended.code == 1
    assert ended.out.splitlines() == [
        "absent 1: no answer within 0.2 s; it is registered, but no process runs it "
        "now",
        "1 sent, 0 answered",
    ]


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (["add", "1"], 2),
        (["add", "1", "b=2.5"], 3.5),
        (["add", "-1", "b=-2"], -3),
        (["echo", "x", "[1]", "k=true", '"a=b"'], ["x", [1], "a=b", {"k": True}]),
        (["unnamed"], "{(1, 2): <class 'object'>}"),
    ],
)
async def test_call(office: Office, arguments: list[str], result: Any) -> None:
    as_json = await office.run("call", "desk", *arguments, "--json")
    assert (as_json.code, as_json.err) == (0, "")
    assert as_json.json == result
    for_people = await office.run("call", "desk", *arguments)
    assert for_people.out == f"{result}\n"


async def test_call_without_pickle(office: Office) -> None:
    added = await office.run("call", "desk", "add", "1", "--no-pickle", "--json")
    assert (added.code, added.json) == (0, 2)
    refused = await office.run("call", "desk", "unnamed", "--no-pickle")
    assert refused.code == 1
    assert "json" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["desk", "fail", "text=no"], 1, "fail of desk raised ValueError: no"),
        (["desk", "add"], 1, "add of desk raised TypeError: "),
        (["desk", "ad", "1"], 1, "ad of desk raised AttributeError: "),
        (["absent", "add", "1"], 1, "No process runs absent now, so it cannot "),
        (["desk", "sleep", "--timeout", "0.2"], 1, "desk did not answer sleep within"),
        (["twin", "add", "1"], 2, "'twin' stands for 2 agents: "),
        (["dask", "add", "1"], 2, "There is no agent 'dask' in this namespace. Did yo"),
    ],
)
async def test_call_that_fails(
    office: Office, arguments: list[str], code: int, sentence: str
) -> None:
    ended = await office.run("call", *arguments)
    assert ended.code == code
    assert ended.err.startswith(f"academy: {sentence}")
    assert ended.err.count("\n") == 1
    assert not ended.out


async def test_agent_that_has_been_terminated(office: Office) -> None:
    uid = office.ids["desk"]
    await office.manager.shutdown(uid)
    ended = await office.run("call", str(uid.uid), "add", "1")
    assert ended.code == 1
    assert ended.err == f"academy: Agent {uid.uid} has been terminated.\n"
    assert (await office.run("call", "desk", "add", "1")).code == 2


async def test_describe(office: Office) -> None:
    ended = await office.run("describe", "desk")
    assert (ended.code, ended.err) == (0, "")
    assert f"id        {office.ids['desk'].uid}\n" in ended.out
    assert "state     active\n" in ended.out
    assert "\nAnswers questions.\n" in ended.out
    assert "\nadd(a: float, b: float) -> float\n    Return a sum.\n" in ended.out


async def test_describe_as_json(office: Office) -> None:
    about = (await office.run("describe", "desk", "--json")).json
    assert about["id"] == str(office.ids["desk"].uid)
    assert about["stats"]["in_progress"] >= 0
    assert about["description"]["actions"]["add"]["doc"] == "Return a sum."


async def test_describe_an_agent_that_does_not_run(office: Office) -> None:
    ended = await office.run("describe", "absent")
    assert ended.code == 0
    assert "state     inactive\n" in ended.out
    assert "cannot be asked what it can do" in ended.out
    assert (await office.run("describe", "absent", "--json")).json[
        "description"
    ] is None


async def test_rotate_secret(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """While agents run, and once in a while only."""
    ended = await office.run("rotate-secret", "--json")
    assert ended.json == {"namespace": office.namespace, "overlap": 3600.0}
    assert (await office.run("ping", "desk", "-c", "1")).code == 0
    ended = await office.run("rotate-secret")
    assert ended.code == 1
    assert "the one before is still accepted" in ended.err
    monkeypatch.setenv("ACADEMY_SECRET", "a secret of some length")
    ended = await office.run("rotate-secret")
    assert ended.code == 2
    assert "first line of the file" in ended.err


async def test_interrupted_call(office: Office) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("call", "desk", "sleep", "-n", office.namespace, "--url", office.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    await office.asleep.wait()
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


async def test_server_that_is_not_there(office: Office) -> None:
    ended = await office.run("ps", "--url", "redis://:secret@127.0.0.1:1")
    assert ended.code == 1
    assert ended.err.startswith("academy: No Redis server answers at 127.0.0.1:1")
    assert "secret" not in ended.err


async def test_wrong_password(office: Office) -> None:
    parts = urllib.parse.urlsplit(office.url)
    url = parts._replace(netloc=f":wrongpw@127.0.0.1:{parts.port}").geturl()
    ended = await office.run("ps", "--url", url)
    assert ended.code == 1
    assert "password" in ended.err
    assert "wrongpw" not in ended.err
    assert "Traceback" not in ended.err


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def read_lines(process: subprocess.Popen[str], count: int) -> str:
    assert process.stdout is not None
    return "".join(process.stdout.readline() for _ in range(count))


def announced_url(process: subprocess.Popen[str]) -> str:
    announced = json.loads(read_lines(process, 1))
    assert announced["pid"] == process.pid
    return str(announced["url"])


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_server_runs_until_a_signal(number: signal.Signals) -> None:
    with running_server("--json") as process:
        with redis.Redis.from_url(announced_url(process)) as client:
            assert client.ping()
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0
    psutil.wait_procs(children, timeout=1)
    assert [child for child in children if is_alive(child)] == []


def test_server_tells_people_how_to_use_it() -> None:
    with running_server() as process:
        text = read_lines(process, 5)
    assert text.startswith("Server version ")
    assert "    export ACADEMY_REDIS_URL=redis://:" in text
    assert "--persist DIR keeps it" in text


def test_server_keeps_data_and_url(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        with running_server("--json", "--persist", str(tmp_path / "data")) as process:
            urls.append(announced_url(process))
            with redis.Redis.from_url(urls[-1]) as client:
                kept = client.get("key")
                client.set("key", "value")
    assert urls[0] == urls[1]
    assert kept == b"value"


def test_server_for_other_hosts_has_a_name() -> None:
    with running_server("--json", "--host", "0.0.0.0") as process:
        url = announced_url(process)
        assert urllib.parse.urlsplit(url).hostname not in {"0.0.0.0", "127.0.0.1"}
        with redis.Redis.from_url(url) as client:
            assert client.ping()


def test_server_that_is_killed() -> None:
    with running_server("--json") as process:
        url = announced_url(process)
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        psutil.Process(pid).kill()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
    assert err == "academy: The server has ended; somebody else stopped it.\n"


def test_port_in_use(server: EmbeddedServer) -> None:
    with running_server("--port", str(server.port)) as process:
        out, err = process.communicate(timeout=20)
        assert process.returncode == 1
    assert out == ""
    assert f"port {server.port}" in err
    assert "Traceback" not in err
