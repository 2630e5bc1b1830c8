"""Prints the table of faults at the end, and writes it to a file if asked to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.fault import report


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


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
