"""The cases: each runs once per round and returns rows."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from academy.embedded import EmbeddedServer
from bench.interpreter import Interpreter
from bench.rows import (
    Calls,
    Directory,
    Discover,
    Drain,
    Import,
    Launch,
    Link,
    Mailboxes,
    Many,
    ServerCost,
    Worker,
)

IN_FLIGHT = [1, 16, 64]
OURS = "hybrid, two processes"
PEERS = "academy-py 1.0.0, hybrid, two processes"
MODULES = ["academy", "academy.agent", "academy.exchange.hybrid"]


@dataclass(frozen=True)
class Bench:
    """What the cases measure with.

    Attributes:
        server: The server that all exchanges use.
        quick: Measure less, so that it takes a fraction of the time.
        peer: An interpreter that has academy-py 1.0.0.
        ours: The interpreter that has this package.
    """

    server: EmbeddedServer
    quick: bool
    peer: Interpreter | None = None
    ours: Interpreter = field(default_factory=Interpreter)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the settings of a program."""
        return {
            "host": self.server.host,
            "port": self.server.port,
            "password": self.server.password,
            "url": self.server.url,
            "in_flight": IN_FLIGHT,
            "seconds": 0.2 if self.quick else 0.5,
            **more,
        }


@dataclass(frozen=True)
class Case:
    """A case, and in how many rounds it is run."""

    run: Callable[[Bench], list[Any]]
    rounds: int = 5


def imports(bench: Bench) -> list[Import]:
    """Measure fresh interpreters, the plain one and each module in turn."""
    programs = {"(plain interpreter)": "pass"}
    programs |= {module: f"import {module}" for module in MODULES}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for code in programs.values():  # so that every module is compiled
        bench.ours.time(code)
    for _ in range(5 if bench.quick else 15):
        for name, code in programs.items():
            seconds[name].append(bench.ours.time(code))
    wall = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    plain = wall["(plain interpreter)"]
    return [Import(name, ms, ms - plain) for name, ms in wall.items()]


def calls(bench: Bench, *, case: str, exchange: str, processes: int) -> list[Calls]:
    """Measure no-op actions of an agent."""
    settings = bench.settings(exchange=exchange, processes=processes)
    return [Calls(case, **row) for row in bench.ours.run("calls", settings)]


def peer(bench: Bench) -> list[Calls]:
    """Measure no-op actions with the peer: same program, same server."""
    assert bench.peer is not None
    settings = bench.settings(exchange="hybrid", processes=2)
    return [Calls(PEERS, **row) for row in bench.peer.run("calls", settings)]


def floor(bench: Bench) -> list[Calls]:
    """Measure what asyncio itself needs, over TCP and over a Unix socket."""
    rows = []
    for family, name in (("tcp", "TCP"), ("unix", "Unix socket")):
        found = bench.ours.run("echo", bench.settings(family=family))
        rows += [Calls(f"bare echo of 200 bytes, {name}", **row) for row in found]
    return rows


def drain(bench: Bench) -> list[Drain]:
    """Measure how fast a queue is filled and emptied, and that it keeps order."""
    settings = bench.settings(messages=2_000 if bench.quick else 10_000)
    return [Drain(**row) for row in bench.ours.run("drain", settings)]


def launch(bench: Bench) -> list[Launch]:
    """Measure how fast many agents come up in one process."""
    settings = bench.settings(agents=200)
    return [Launch(**row) for row in bench.ours.run("launch", settings)]


def mailboxes(bench: Bench) -> list[Mailboxes]:
    """Measure what a thousand mailboxes cost one process."""
    settings = bench.settings(mailboxes=1_000)
    return [Mailboxes(**row) for row in bench.ours.run("mailboxes", settings)]


def many(bench: Bench) -> list[Many]:
    """Measure thousands of agents in one process, in both places they can be."""
    rows = []
    for apart, loop in ((False, "the manager's"), (True, "their own")):
        for agents in [1_000] if bench.quick else [1_000, 10_000]:
            settings = bench.settings(agents=agents, apart=apart)
            rows += [Many(loop, **row) for row in bench.ours.run("many", settings)]
    return rows


def discover(bench: Bench) -> list[Discover]:
    """Measure how long it takes to find a few agents among many."""
    settings = bench.settings(registered=_sizes(bench), matches=[1, 30], repeats=20)
    return [Discover(**row) for row in bench.ours.run("discover", settings)]


def directory(bench: Bench) -> list[Directory]:
    """Measure single operations when few or many mailboxes are registered."""
    settings = bench.settings(registered=_sizes(bench), repeats=100)
    return [Directory(**row) for row in bench.ours.run("directory_curve", settings)]


def server(bench: Bench) -> list[ServerCost]:
    """Measure what operations cost the server."""
    counts = (500, 50) if bench.quick else (2_000, 200)
    settings = bench.settings(mailboxes=counts[0], processes=counts[1])
    return [ServerCost(**row) for row in bench.ours.run("server_costs", settings)]


def _sizes(bench: Bench) -> list[int]:
    return [100, 1_000] if bench.quick else [100, 1_000, 10_000, 100_000]


def connect(bench: Bench) -> list[Link]:
    """Measure what it takes to link two processes, in clear and encrypted."""
    settings = bench.settings(links=30 if bench.quick else 200)
    return [Link(**row) for row in bench.ours.run("connect", settings)]


def worker(bench: Bench) -> list[Worker]:
    """Measure how long a new worker process takes until its agent answers."""
    settings = bench.settings(launches=3)
    found = bench.ours.run("worker", settings)
    return [Worker("SubprocessExecutor", **row) for row in found]


def _calls(case: str, exchange: str, processes: int) -> Case:
    return Case(
        functools.partial(calls, case=case, exchange=exchange, processes=processes)
    )


CASES: dict[str, Case] = {
    "import": Case(imports, rounds=1),  # has rounds of its own
    "floor": Case(floor),
    "local": _calls("local, one event loop", "local", 1),
    "hybrid": _calls("hybrid, one process", "hybrid", 1),
    "two-processes": _calls(OURS, "hybrid", 2),
    "redis": _calls("redis, two processes", "redis", 2),
    "peer": Case(peer),
    "drain": Case(drain, rounds=3),
    "launch": Case(launch, rounds=3),
    "mailboxes": Case(mailboxes, rounds=3),
    "many": Case(many, rounds=3),
    "discover": Case(discover, rounds=3),
    "directory": Case(directory, rounds=3),
    "server": Case(server, rounds=1),
    "connect": Case(connect, rounds=3),
    "worker": Case(worker, rounds=3),
}
