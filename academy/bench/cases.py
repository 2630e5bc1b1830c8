"""The cases, in groups that belong side by side: ours, and the bare floor."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from academy.bench.case import Case
from academy.bench.interpreter import PROGRAMS
from academy.bench.rows import (
    Beside,
    Calls,
    Directory,
    Discover,
    Drain,
    Echo,
    Fan,
    Find,
    Import,
    Launch,
    Link,
    Mailboxes,
    Many,
    OneWay,
    ServerCost,
    Worker,
)

Groups = dict[str, list[Case]]

OURS = "academy, hybrid, two processes"
"""The case that others are compared with."""

CALLS = {"measure": "calls", "in_flight": [1, 16, 64, 256]}
SIZES = [1_000, 100_000, 10_000_000, 100_000_000]
ECHOES = {"measure": "echoes", "kinds": ["bytes", "bytearray", "numpy"], "sizes": SIZES}
QUICK_ECHOES = {"sizes": SIZES[:3]}
GIGABYTE = {"measure": "echoes", "kinds": ["bytes", "numpy"], "sizes": [1_000_000_000]}
ONE_WAY = GIGABYTE | {"measure": "one way", "repeats": 3}
BESIDE = {"measure": "beside", "size": 50_000_000, "seconds": 1.5}
QUICK_BESIDE = {"seconds": 0.5}
FAN = {"agents": 10, "exchange": "hybrid"}
FIND = {"agents": 100, "exchange": "hybrid"}
CROWD = {"registered": [100, 1_000, 10_000, 100_000]}
QUICK_CROWD = {"registered": [100, 1_000]}
SOUGHT = CROWD | {"matches": [1, 30], "repeats": 20}
CURVE = CROWD | {"repeats": 100}
COSTS = {
    "mailboxes": 2_000,
    "processes": 200,
    "settle_s": 5,
    "idle_s": 10,
    "long_s": 12,
}
QUICK_COSTS = {
    "mailboxes": 500,
    "processes": 50,
    "settle_s": 1,
    "idle_s": 1,
    "long_s": 3,
}
HYBRID = {"exchange": "hybrid", "workers": 1}
MODULES = ["academy", "academy.agent", "academy.exchange.hybrid"]

FLOORS = {
    "floor, blocking, Unix socket": {"way": "blocking", "family": "unix"},
    "floor, blocking, TCP": {"way": "blocking", "family": "tcp"},
    "floor, asyncio, Unix socket": {"way": "asyncio", "family": "unix"},
    "floor, asyncio, TCP": {"way": "asyncio", "family": "tcp"},
}


def agents(row: type[Any], name: str, settings: Any, **more: Any) -> Case:
    """Return a case of the program that calls one agent."""
    return Case(row, PROGRAMS / "agents.py", settings, name=name, **more)


def floors(
    row: type[Any],
    settings: dict[str, Any],
    ways: Collection[str] = ("blocking", "asyncio"),
    **more: Any,
) -> list[Case]:
    """Return a case for each floor; a blocking socket has one call in flight."""
    found = []
    for name, way in FLOORS.items():
        if way["way"] not in ways:
            continue
        own = {**settings, **way, "kinds": ["bytes"]}
        if way["way"] == "blocking":
            own["in_flight"] = [1]
        found.append(Case(row, PROGRAMS / "floor.py", own, name=name, **more))
    return found


def one_copy(settings: dict[str, Any], **more: Any) -> Case:
    """Return the case of values that are copied once each way, by nobody else."""
    name, program = "floor, one copy each way", PROGRAMS / "one_copy.py"
    return Case(Echo, program, settings | {"kinds": ["bytes"]}, name=name, **more)


def least_call(row: type[Any], settings: dict[str, Any], **more: Any) -> Case:
    """Return the case of calls that have a task, a future, a number and a pickle."""
    name, program = "floor, the least that a call takes", PROGRAMS / "least_call.py"
    return Case(row, program, settings, name=name, **more)


def imports(name: str, modules: list[str], **more: Any) -> Case:
    """Return a case that imports modules; it has rounds of its own."""
    settings = {"modules": modules, "repeats": 9}
    quick, program = {"repeats": 3}, PROGRAMS / "imports.py"
    return Case(Import, program, settings, quick, name, rounds=1, **more)


CASES: Groups = {
    "import": [imports(OURS, MODULES)],
    "calls": [
        agents(Calls, OURS, CALLS | HYBRID),
        agents(
            Calls,
            "academy, local, one event loop",
            CALLS | {"exchange": "local", "workers": 0},
        ),
        agents(
            Calls,
            "academy, hybrid, one process",
            CALLS | {"exchange": "hybrid", "workers": 0},
        ),
        agents(
            Calls,
            "academy, redis, two processes",
            CALLS | {"exchange": "redis", "workers": 1},
        ),
        *floors(Calls, CALLS),
        least_call(Calls, CALLS),
    ],
    "echo": [
        agents(Echo, OURS, ECHOES | HYBRID, quick=QUICK_ECHOES),
        *floors(Echo, ECHOES, quick=QUICK_ECHOES),
        one_copy(ECHOES, quick=QUICK_ECHOES),
    ],
    "gigabyte": [
        agents(Echo, OURS, GIGABYTE | HYBRID, rounds=1),
        *floors(Echo, GIGABYTE, rounds=1),
        agents(OneWay, OURS, ONE_WAY | HYBRID, rounds=1),
        *floors(OneWay, ONE_WAY, ways={"blocking"}, rounds=1),
    ],
    "beside": [agents(Beside, OURS, BESIDE | HYBRID, quick=QUICK_BESIDE)],
    "fan": [Case(Fan, PROGRAMS / "fan.py", FAN, name=OURS)],
    "discover": [Case(Find, PROGRAMS / "find.py", FIND, name=OURS)],
    "drain": [
        Case(Drain, PROGRAMS / "drain.py", {"messages": 10_000}, {"messages": 2_000})
    ],
    "launch": [Case(Launch, PROGRAMS / "launch.py", {"agents": 200})],
    "mailboxes": [Case(Mailboxes, PROGRAMS / "mailboxes.py", {"mailboxes": 1_000})],
    "many": [
        Case(Many, PROGRAMS / "many.py", {"agents": agents, "apart": apart}, rounds=1)
        for agents in (1_000, 10_000)
        for apart in (False, True)
    ],
    "directory": [
        Case(Discover, PROGRAMS / "discover.py", SOUGHT, QUICK_CROWD, rounds=1),
        Case(Directory, PROGRAMS / "directory_curve.py", CURVE, QUICK_CROWD, rounds=1),
    ],
    "server": [
        Case(ServerCost, PROGRAMS / "server_costs.py", COSTS, QUICK_COSTS, rounds=1)
    ],
    "connect": [Case(Link, PROGRAMS / "connect.py", {"links": 200}, {"links": 30})],
    "worker": [Case(Worker, PROGRAMS / "worker.py", {"launches": 3})],
}
"""Each group by the name that it has at the command line."""
NOT_QUICK = {"gigabyte", "many", "server"}
"""Groups that a quick run has only when they are asked for."""
