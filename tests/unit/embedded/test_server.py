from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from redis.exceptions import AuthenticationError

from academy.embedded import EmbeddedServer, ServerStartError
from academy.embedded import port as ports


@pytest.fixture(autouse=True)
def no_directory_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Tests here see a directory of their own as /tmp, and must leave it empty."""
    base = Path(tempfile.mkdtemp(prefix="t"))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    yield
    left = os.listdir(base)
    shutil.rmtree(base)
    assert not left


def connect(server: EmbeddedServer, url: str | None = None) -> closing[Any]:
    return closing(redis.Redis.from_url(url or server.url, socket_timeout=5))


def fake_server(path: Path, script: str) -> Path:
    """A binary that tells a good version and otherwise runs the script."""
    answer = '[ "$1" = --version ] && { echo v=9.0.0; exit; }'
    path.write_text(f"#!/bin/sh\n{answer}\n{script}\n")
    path.chmod(0o755)
    return path


def test_it_is_ready_when_started_and_gone_when_stopped() -> None:
    with EmbeddedServer() as server:
        with connect(server) as client:
            assert client.ping()
            info = client.info("server")
        assert server.running
        assert info["process_id"] == server.pid
        assert server.version in (info.get("valkey_version"), info["redis_version"])
        assert server.port in ports.PORTS
        pid, watchdog = server.pid, psutil.Process(server.pid).ppid()
        directory = server.unix_socket.parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not server.running
    assert not psutil.pid_exists(pid)
    assert not psutil.pid_exists(watchdog)
    assert not directory.exists()
    server.stop()  # again: nothing to do


def test_unix_socket_and_kwargs(fresh_server: EmbeddedServer) -> None:
    kwargs = fresh_server.redis_kwargs
    path = str(fresh_server.unix_socket)
    with closing(redis.Redis(unix_socket_path=path, **kwargs)) as client:
        assert client.ping()
    port = fresh_server.port
    with closing(redis.Redis(fresh_server.host, port, **kwargs)) as client:
        assert client.ping()


def test_configuration(fresh_server: EmbeddedServer) -> None:
    with connect(fresh_server) as client:
        settings = client.config_get()
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["save"] == ""
    assert settings["hz"] == "100"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


def test_password_is_needed(fresh_server: EmbeddedServer) -> None:
    port = fresh_server.port
    with (
        connect(fresh_server, f"redis://127.0.0.1:{port}/0") as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()
    with (
        connect(fresh_server, f"redis://:wrong@127.0.0.1:{port}/0") as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()


def test_password_shows_nowhere(fresh_server: EmbeddedServer) -> None:
    password = fresh_server.password
    assert len(password) >= 32
    assert password not in repr(fresh_server)
    process = psutil.Process(fresh_server.pid)
    for one in (process, process.parent()):
        assert password not in " ".join(one.cmdline())
        assert password not in " ".join(one.environ().values())
    for path in fresh_server.unix_socket.parent.iterdir():
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_cannot_be_pickled(fresh_server: EmbeddedServer) -> None:
    with pytest.raises(TypeError, match="pass its url"):
        pickle.dumps(fresh_server)


def test_any_password_works_as_given() -> None:
    password = "p\"w\\ 'x'\n#é:/@%"
    with EmbeddedServer(password=password) as server, connect(server) as client:
        assert server.password == password
        assert client.ping()


def test_bad_arguments() -> None:
    for port in (0, -1, 65536):
        with pytest.raises(ValueError, match=f"port {port}: use 1-65535"):
            EmbeddedServer(port=port)
    with pytest.raises(ValueError, match="empty password"):
        EmbeddedServer(password="")


def test_before_the_start() -> None:
    server = EmbeddedServer(port=20_001)
    assert server.port == 20_001
    assert not server.running
    assert "not running" in repr(server)
    for name in ("password", "pid", "unix_socket", "url", "redis_kwargs"):
        with pytest.raises(RuntimeError, match="start it first"):
            getattr(server, name)
    with pytest.raises(RuntimeError, match="start it first"):
        server.restart()
    server.kill()
    server.stop()


def test_starting_twice(fresh_server: EmbeddedServer) -> None:
    with pytest.raises(RuntimeError, match="was started before"):
        fresh_server.start()
    assert fresh_server.running


def test_stop_and_start_makes_a_new_one() -> None:
    server = EmbeddedServer()
    with server, connect(server) as client:
        client.set("key", "value")
        password = server.password
    with server, connect(server) as client:
        assert client.get("key") is None
        assert server.password != password


def test_kill_and_restart_keep_data_port_and_password() -> None:
    with EmbeddedServer() as server:
        url, pid = server.url, server.pid
        with connect(server) as client:
            client.set("key", "value")
        server.kill()
        assert not server.running
        assert not psutil.pid_exists(pid)
        with pytest.raises(RuntimeError, match="no process id"):
            _ = server.pid
        server.kill()  # again: nothing to do
        server.restart()
        assert server.url == url
        assert server.pid != pid
        with connect(server) as client:
            assert client.get("key") == b"value"


def test_restart_of_a_running_server(fresh_server: EmbeddedServer) -> None:
    pid = fresh_server.pid
    with connect(fresh_server) as client:
        client.set("key", "value")
    fresh_server.restart()
    assert not psutil.pid_exists(pid)
    with connect(fresh_server) as client:
        assert client.get("key") == b"value"


def test_restart_when_the_port_was_taken(fresh_server: EmbeddedServer) -> None:
    with connect(fresh_server) as client:
        client.set("key", "value")
    fresh_server.kill()
    with (
        socket.create_server(("127.0.0.1", fresh_server.port)),
        pytest.raises(OSError, match=f"port {fresh_server.port}") as caught,
    ):
        fresh_server.restart()
    assert caught.value.errno == errno.EADDRINUSE
    fresh_server.restart()
    with connect(fresh_server) as client:
        assert client.get("key") == b"value"


def test_stop_of_a_frozen_server() -> None:
    with EmbeddedServer() as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not psutil.pid_exists(pid)


def test_persistent_directory_keeps_data_and_url(tmp_path: Path) -> None:
    data = tmp_path / "some where" / "data"
    with EmbeddedServer(persist=data) as server, connect(server) as client:
        url = server.url
        client.set("key", "value")
    with EmbeddedServer(persist=data) as server, connect(server) as client:
        assert server.url == url
        assert client.get("key") == b"value"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "password").stat().st_mode) == 0o600
    for path in (data / "appendonlydir").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_persistent_directory_survives_a_kill(tmp_path: Path) -> None:
    with EmbeddedServer(persist=tmp_path) as server:
        with connect(server) as client:
            client.set("key", "value")
        server.kill()
    with EmbeddedServer(persist=tmp_path) as server, connect(server) as client:
        assert client.get("key") == b"value"


def test_persistent_port_and_password_give_way(tmp_path: Path) -> None:
    with EmbeddedServer(persist=tmp_path) as server:
        port = server.port
    with (
        socket.create_server(("127.0.0.1", port)),
        EmbeddedServer(persist=tmp_path, password="other") as server,
    ):
        assert server.port != port
        assert server.password == "other"
    with EmbeddedServer(persist=tmp_path) as server:
        assert server.password == "other"


def test_persistent_directory_is_locked(tmp_path: Path) -> None:
    with EmbeddedServer(persist=tmp_path) as first:
        with pytest.raises(ServerStartError, match=f"Another server uses {tmp_path}"):
            EmbeddedServer(persist=tmp_path).start()
        assert first.running
        with connect(first) as client:
            assert client.ping()


def test_persistent_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        EmbeddedServer(persist=tmp_path / "file").start()


def test_explicit_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1") as caught:
            EmbeddedServer(port=port).start()
    assert caught.value.errno == errno.EADDRINUSE
    with EmbeddedServer(port=port) as server:
        assert server.port == port


def test_port_lost_to_a_mute_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        chosen = iter([taken, taken, ports.free_port(["127.0.0.1"])])
        monkeypatch.setattr(ports, "free_port", lambda *args: next(chosen))
        with EmbeddedServer() as server, connect(server) as client:
            assert server.port != taken
            assert client.ping()


def test_port_lost_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(ports, "free_port", lambda *args: taken)
        with pytest.raises(ServerStartError, match="Address already in use"):
            EmbeddedServer().start()


def test_all_addresses() -> None:
    with EmbeddedServer(host="0.0.0.0") as server, connect(server) as client:
        assert "@127.0.0.1:" in server.url
        assert client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8")
def test_another_address_beside_the_loopback_one() -> None:
    with EmbeddedServer(host="127.0.0.9") as server, connect(server) as client:
        assert f"@127.0.0.9:{server.port}/" in server.url
        assert client.ping()
        with connect(server, server.url.replace("127.0.0.9", "127.0.0.1")) as local:
            assert local.ping()


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_address(host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with EmbeddedServer(host=host) as server, connect(server) as client:
        assert "@[::1]:" in server.url
        assert client.ping()


def test_server_that_ends_at_once(tmp_path: Path) -> None:
    """Its log is shown, without the password that it prints."""
    binary = fake_server(tmp_path / "server", 'cat "$1"; echo the reason; exit 3')
    server = EmbeddedServer(binary=binary, password="the-secret")
    with pytest.raises(ServerStartError, match="ended with status 3") as caught:
        server.start()
    message = str(caught.value)
    assert str(binary) in message
    assert message.endswith("the reason")
    assert "requirepass" not in message
    assert "the-secret" not in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_server_that_never_answers(tmp_path: Path) -> None:
    binary = fake_server(tmp_path / "server", f"echo $$ >{tmp_path}/pid; exec sleep 60")
    server = EmbeddedServer(binary=binary, timeout=0.3)
    with pytest.raises(ServerStartError, match=r"not ready after 0\.3 s"):
        server.start()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    binary = fake_server(tmp_path / "server", f"echo $$ >{tmp_path}/pid; exec sleep 60")
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            EmbeddedServer(binary=binary).start()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_long_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket has a short path, whatever TMPDIR is."""
    with tempfile.TemporaryDirectory() as base:
        deep = Path(base, "d" * 100)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with EmbeddedServer() as server:
            assert server.unix_socket.parent.parent == Path("/tmp")
            assert server.running
        assert not os.listdir(deep)


def test_forked_child_does_not_own_it(fresh_server: EmbeddedServer) -> None:
    """It may use the URL, but ``stop`` there leaves the server alone."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fresh_server.stop()
            with connect(fresh_server) as client:
                client.set("child", "was here")
            status = 0 if not fresh_server.running else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fresh_server.running
    with connect(fresh_server) as client:
        assert client.get("child") == b"was here"


def test_many_starts_leave_no_descriptor() -> None:
    with EmbeddedServer():
        pass
    before = psutil.Process().num_fds()
    for _ in range(5):
        with EmbeddedServer():
            pass
    assert psutil.Process().num_fds() == before
