"""The demo from beginning to end, and the ways to stop it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

COMMAND = [sys.executable, "-m", "academy", "demo", "--rounds", "3", "--sites", "3"]
PATIENCE = 45.0

pytestmark = pytest.mark.timeout(90)


def left_behind(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still live a moment later."""
    psutil.wait_procs(processes, timeout=5)
    return [process for process in processes if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_demo_recovers_from_the_accident() -> None:
    ended = subprocess.run(
        [*COMMAND, "--json"], capture_output=True, text=True, timeout=80
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["problems"] == []
    assert report["updates_applied"] == 9
    assert len(report["accuracies"]) == 3
    assert report["accuracies"][-1] > report["reference"] - 0.03
    assert report["reference"] > 0.95
    accident, calls = report["accident"], report["calls"]
    assert calls["unanswered"] == 0
    assert calls["answered"] + sum(calls["failed"].values()) == calls["made"]
    assert accident["round"] == 2
    assert accident["pid"] != accident["new_pid"]
    lines = ended.stderr
    assert f"Killed process {accident['pid']} with SIGKILL." in lines
    assert f"runs again, in process {accident['new_pid']}." in lines
    assert re.search(r"call to site-\d failed with \w+Error \(executed: maybe\)", lines)
    assert [path["way"] for path in report["paths"]] == ["uds", "uds", "relay"]
    assert [path["direct"] > 0 for path in report["paths"]] == [True, True, False]
    assert accident["site"] != 2
    assert "site-0 uds, site-1 uds, site-2 relay (blocked)." in lines
    pids = {int(pid) for pid in re.findall(r"process (\d+)", lines)}
    assert len(pids) == 1 + 1 + 3 + 1  # server, coordinator, sites, another site
    assert not any(map(psutil.pid_exists, pids - {accident["pid"]}))


class Terminal:
    """The demo in a terminal of its own."""

    def __init__(self) -> None:
        self.screen = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(COMMAND[0], COMMAND)

    def read_until(self, text: str) -> None:
        """Read what the demo prints until a text appears."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen[-2000:]
            ready, _, _ = select.select([self._fd], [], [], 1.0)
            if ready:
                self.screen += os.read(self._fd, 65536).decode(errors="replace")

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def exit_code(self) -> int:
        """Return the exit code of the demo; its output is read until then."""
        with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
            while part := os.read(self._fd, 65536):
                self.screen += part.decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Close the terminal, which ends the demo if that has not ended yet."""
        os.close(self._fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    try:
        yield terminal
    finally:
        terminal.close()


def test_live_screen_and_ctrl_c(terminal: Terminal) -> None:
    terminal.read_until("uds")
    terminal.read_until("relay")
    terminal.read_until("SIGKILL")
    processes = psutil.Process(terminal.pid).children(recursive=True)
    assert len(processes) > 4
    terminal.press("\x03")
    assert terminal.exit_code() == 130
    for shown in (
        "federated learning",
        "host:pid",
        "path",
        "coordinator",
        "round 3",
        "█",
    ):
        assert shown in terminal.screen
    assert "Traceback" not in terminal.screen
    assert left_behind(processes) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_by_a_signal(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--headless"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        lines = iter(process.stdout.readline, "")
        assert any("site-2 runs in process" in line for line in lines)
        processes = psutil.Process(process.pid).children(recursive=True)
        assert len(processes) > 4
        process.send_signal(number)
        process.stdout.read()
    code = -number if number is signal.SIGKILL else 128 + number
    assert process.returncode == code
    assert left_behind(processes) == []
