"""The server ends with its parent, however that ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from academy.embedded import EmbeddedServer, process

PARENT = """
import json, os, signal, sys
from academy.embedded import EmbeddedServer

server = EmbeddedServer(persist=sys.argv[2] or None)
server.start()
child = 0
if "fork" in sys.argv[1]:
    child = os.fork()
    if child == 0:
        signal.pause()
if "stopped" in sys.argv[1]:
    os.kill(server.pid, signal.SIGSTOP)
if "dead" in sys.argv[1]:
    server.kill()
facts = {
    "server": 0 if "dead" in sys.argv[1] else server.pid,
    "child": child,
    "directory": str(server.unix_socket.parent),
}
print(json.dumps(facts), flush=True)
if "returns" not in sys.argv[1]:
    signal.pause()
"""


class Parent:
    """A Python process that owns a server."""

    def __init__(self, how: str = "", persist: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, how, persist],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        facts = json.loads(self.process.stdout.readline())
        self.server: int = facts["server"]
        self.child: int = facts["child"]
        self.directory = Path(facts["directory"])

    def die(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        if self.child:
            os.kill(self.child, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def parent() -> Iterator[Callable[..., Parent]]:
    started: list[Parent] = []

    def start(*args: str) -> Parent:
        started.append(Parent(*args))
        return started[-1]

    yield start
    for one in started:
        one.close()


def gone(pid: int) -> bool:
    """Whether a process has ended, be it still to be reaped by init."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["", "fork", "stopped"])
def test_server_ends_with_its_parent(
    parent: Callable[..., Parent], how: str, number: int
) -> None:
    owner = parent(how)
    assert psutil.pid_exists(owner.server)
    assert owner.directory.is_dir()
    owner.die(number)
    assert eventually(lambda: gone(owner.server))
    assert eventually(lambda: not owner.directory.exists())
    assert not owner.child or psutil.pid_exists(owner.child)


def test_parent_that_returns_without_stop(parent: Callable[..., Parent]) -> None:
    owner = parent("returns")
    assert owner.process.wait(10) == 0
    assert eventually(lambda: gone(owner.server))
    assert eventually(lambda: not owner.directory.exists())


def test_directory_goes_when_the_parent_dies_after_the_server(
    parent: Callable[..., Parent],
) -> None:
    owner = parent("dead")
    assert owner.directory.is_dir()
    owner.die(signal.SIGKILL)
    assert eventually(lambda: not owner.directory.exists())


@pytest.mark.parametrize("how", ["", "fork"])
def test_data_stays_and_is_unlocked_when_the_parent_dies(
    parent: Callable[..., Parent], tmp_path: Path, how: str
) -> None:
    owner = parent(how, str(tmp_path))
    owner.die(signal.SIGKILL)
    with EmbeddedServer(persist=tmp_path) as again:  # at once: its lock waits a bit
        assert again.running
    assert (tmp_path / "appendonlydir").is_dir()


def test_ctrl_c_does_not_reach_the_server(fresh_server: EmbeddedServer) -> None:
    assert os.getsid(fresh_server.pid) != os.getsid(0)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_watchdog_in_both_common_shells(
    monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    if not os.path.exists(shell):
        pytest.skip(f"no {shell}")
    monkeypatch.setattr(process, "_SHELL", shell)
    with EmbeddedServer() as server:
        group = server.pid, os.getsid(server.pid)
        directory = server.unix_socket.parent
        server.kill()
        assert directory.is_dir()
        server.restart()
        again = server.pid, os.getsid(server.pid)
    assert not directory.exists()
    assert eventually(lambda: all(map(gone, group + again)))


def test_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    binary = tmp_path / "stubborn"
    binary.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && { echo v=9.0.0; exit; }\n'
        f"trap '' TERM; echo $$ >{pid_file}; while :; do sleep 0.05; done\n"
    )
    binary.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"not ready after 0\.3 s"):
        EmbeddedServer(binary=binary, timeout=0.3).start()
    pid = int(pid_file.read_text())
    assert eventually(lambda: gone(pid))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[bytes]]:
    with open(tmp_path / "log", "a+b") as file:
        yield file


def test_refusal_is_told(
    server: EmbeddedServer, log: IO[bytes], tmp_path: Path
) -> None:
    other = process.ServerProcess([shutil.which("sleep") or "", "60"], tmp_path, log)
    try:
        failure = other.wait_ready(server.unix_socket, "wrong", 0.1)
    finally:
        other.end(5)
    assert failure is not None
    assert "not ready after 0.1 s (WRONGPASS" in failure


def test_no_shell(
    monkeypatch: pytest.MonkeyPatch, log: IO[bytes], tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_SHELL", str(tmp_path / "no-shell"))
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError, match="no-shell"):
        process.ServerProcess(["true"], tmp_path, log)
    assert psutil.Process().num_fds() == before
