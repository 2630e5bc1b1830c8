"""Fixtures for all tests: a real server, namespaces, and no process left behind.

At the end the table of faults is printed, and written to a file if asked to.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from academy.embedded import EmbeddedServer
from tests.fault import report
from tests.restricted import RESTRICTED, RestrictedServer, Server

# How long one example takes says nothing on a machine that does other things, too.
hypothesis.settings.register_profile("academy", deadline=None)
hypothesis.settings.load_profile("academy")

# A run in the background of a shell ignores Ctrl-C, and so would the programs that the
# tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the run when a child process outlives the tests and their fixtures."""
    yield
    # Python's own trackers of shared resources end with this process.
    children = [
        child
        for child in psutil.Process().children(recursive=True)
        if not any("_tracker" in word or "forkserver" in word for word in _argv(child))
    ]
    _, alive = psutil.wait_procs(children, timeout=5)
    left = [f"{child.pid}: {' '.join(_argv(child))}" for child in alive]
    for child in alive:
        child.kill()
    assert not left, "processes left behind:\n" + "\n".join(left)


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """The server of this run; tests keep apart by their namespaces."""
    with Server() as running:
        yield running


@pytest.fixture
def redis_url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def fresh_server(
    request: pytest.FixtureRequest, namespace: str
) -> Iterator[EmbeddedServer]:
    """A server of one's own, for tests that kill or stop it."""
    with Server() as running:
        _restrict(running, request, namespace)
        yield running


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that break the server, or are about the server itself, do so.

    The programs of the former are users of one namespace nevertheless.
    """
    for item in items:
        if {"fault", "network", "embedded"} & set(item.path.parts):
            item.add_marker("admin")


@pytest.fixture(autouse=RESTRICTED)
def restricted(
    request: pytest.FixtureRequest, server: EmbeddedServer, namespace: str
) -> None:
    """Run each test as a user of its namespace; see `tests.restricted`."""
    _restrict(server, request, namespace)


def _restrict(
    server: EmbeddedServer, request: pytest.FixtureRequest, namespace: str
) -> None:
    if isinstance(server, RestrictedServer):
        admin = request.node.get_closest_marker("admin")
        server.restrict(None if admin else namespace)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass on the faults that were met here, if this process tests for another one."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = [dataclasses.asdict(row) for row in report.rows()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the faults that another process has met."""
    for row in getattr(node, "workeroutput", {}).get("faults", []):
        report.add(report.Row(**row))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = report.rows()
    if not rows:
        return
    table = report.table(rows)
    terminalreporter.section(f"faults: {report.title()}")
    terminalreporter.write(table)
    path = os.environ.get("ACADEMY_FAULT_REPORT")
    if path:
        Path(path).write_text(f"{report.title()}\n\n{table}")
