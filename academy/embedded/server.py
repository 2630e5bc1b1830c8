"""The embedded server as users see it: start, stop, and a URL."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import IO, NoReturn, Self, TypeVar
from urllib.parse import quote

from academy.embedded import port as ports
from academy.embedded.binary import locate
from academy.embedded.directory import (
    locked_log,
    log_tail,
    private_directory,
    read_private,
    write_private,
)
from academy.embedded.error import ServerStartError
from academy.embedded.process import ServerProcess

T = TypeVar("T")

_ATTEMPTS = 5
_SOCKET_NAME = "s.sock"


class EmbeddedServer:
    """A Valkey or Redis server as a child process of this one.

    Use it as a context manager, or call ``start`` and ``stop``. Both block (a start
    takes some 50 ms), so call them through ``asyncio.to_thread`` in a busy loop. The
    server ends with this process, however that ends. A forked child may use the URL
    but does not own the server: there, it counts as not started.

    Not thread-safe. Cannot be pickled; pass the ``url`` on instead.

    Args:
        binary: Server binary to run, see ``find_binary``.
        host: Name or address of this machine to listen on, beside the loopback
            address. ``0.0.0.0`` means all. Whoever can reach it needs the password.
        port: TCP port; ``None`` takes a free one between 20000 and 29999.
        persist: Directory to keep the data in. It is locked while in use. It also
            keeps the password and, while that is free, the port, so that the URL
            stays valid from one start to the next. ``None`` keeps nothing.
        password: Password to require; ``None`` makes a random one.
        timeout: Seconds that a start, and a stop, may take.

    Raises:
        ValueError: The port is outside 1-65535, or the password is empty.
    """

    def __init__(
        self,
        *,
        binary: str | Path | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        persist: str | Path | None = None,
        password: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"The server cannot listen on port {port}: use 1-65535.")
        if password == "":
            raise ValueError("An empty password would let everyone in: give another.")
        self.host = host
        self._wanted_binary = binary
        self._wanted_port = port
        self._wanted_password = password
        self._persist = None if persist is None else Path(persist).absolute()
        self._timeout = timeout
        self._located: tuple[Path, str] | None = None
        self._port: int | None = port
        self._password: str | None = password
        # These live from start to stop.
        self._directory: Path | None = None
        self._log: IO[bytes] | None = None  # carries the lock of the data directory
        self._process: ServerProcess | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"EmbeddedServer({self.host}, port {self._port or 'unknown'}, {state})"

    def __getstate__(self) -> NoReturn:
        raise TypeError("An EmbeddedServer cannot be pickled: pass its url instead.")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def binary(self) -> Path:
        """The binary that is run; raises ``ServerNotFoundError`` without one."""
        return self._locate()[0]

    @property
    def version(self) -> str:
        """Version of the binary; raises ``ServerNotFoundError`` without one."""
        return self._locate()[1]

    @property
    def port(self) -> int:
        """TCP port; raises ``RuntimeError`` before the start, unless it was given."""
        return _known(self._port, "port")

    @property
    def password(self) -> str:
        """Password; raises ``RuntimeError`` before the start, unless it was given."""
        return _known(self._password, "password")

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Process id of the server; raises ``RuntimeError`` unless it runs."""
        pid = self._process.pid if self._process and self.running else None
        return _known(pid, "process id")

    @property
    def unix_socket(self) -> Path:
        """Unix socket of the server; raises ``RuntimeError`` unless started."""
        return _known(self._directory, "Unix socket") / _SOCKET_NAME

    @property
    def url(self) -> str:
        """URL with the password in it; do not log it.

        When the host is a wildcard address the URL is for this machine only: put a
        name of the machine in its place for others.
        """
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
        return f"redis://:{quote(self.password, safe='')}@{host}:{self.port}/0"

    @property
    def redis_kwargs(self) -> dict[str, str]:
        """What a Redis client needs beside host and port."""
        return {"password": self.password}

    def start(self) -> None:
        """Start the server and wait until it answers.

        A free port that is lost to another process meanwhile is replaced by another.
        Nothing is left behind when this raises.

        Raises:
            ServerNotFoundError: There is no binary to run.
            ServerStartError: The server ended at once or was not ready in time, or
                another one uses the ``persist`` directory.
            OSError: The port is in use (``errno.EADDRINUSE``), the host is not an
                address of this machine, or a directory cannot be written.
            RuntimeError: The server was started before, and not stopped.
        """
        if self._directory is not None:
            raise RuntimeError(f"{self!r} was started before: stop or restart it.")
        self._locate()
        _started.add(self)
        try:
            self._directory = private_directory(_SOCKET_NAME)
            data = self._persist or self._directory
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._log = locked_log(data)
            self._password = (
                self._wanted_password
                or read_private(data / "password")
                or secrets.token_urlsafe(24)
            )
            write_private(data / "password", self._password)
            self._port = self._launch_on_free_port(data)
            write_private(data / "port", str(self._port))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, cleanly if it answers in time, and remove what is private.

        Idempotent. The data of a ``persist`` directory is complete afterwards.
        """
        try:
            self._end_process()
        finally:
            if self._log is not None:
                self._log.close()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
            self._log = self._directory = None
            _started.discard(self)

    def kill(self) -> None:
        """Kill the server with SIGKILL and wait until it is gone; for fault tests.

        Its data stays for ``restart``. Does nothing when the server is not running.
        """
        if self._process is not None:
            self._process.kill(self._timeout)

    def restart(self) -> None:
        """Start again on the same port and data, as after a crash.

        A server that still runs is stopped first. The append-only file is written
        before a reply is sent, so that a killed server has lost nothing it confirmed.
        After a failure the data is still there for another try, until ``stop``.

        Raises:
            OSError: The port was taken by another process meanwhile.
            ServerStartError: The server ended at once or was not ready in time.
            RuntimeError: The server is not started.
        """
        data = self._persist or _known(self._directory, "data")
        self._end_process()
        addresses = ports.listen_addresses(self.host)
        ports.check_port(addresses, self.port)
        self._launch(data, addresses, self.port)

    def _locate(self) -> tuple[Path, str]:
        if self._located is None:
            self._located = locate(self._wanted_binary)
        return self._located

    def _launch_on_free_port(self, data: Path) -> int:
        """Launch on the port asked for, or on free ones until one works."""
        addresses = ports.listen_addresses(self.host)
        if self._wanted_port is not None:
            ports.check_port(addresses, self._wanted_port)
            self._launch(data, addresses, self._wanted_port)
            return self._wanted_port
        last = read_private(data / "port")
        for _ in range(_ATTEMPTS):
            port = ports.free_port(addresses, int(last) if last else None)
            try:
                self._launch(data, addresses, port)
                return port
            except ServerStartError as error:
                if ports.is_free(addresses, port):
                    raise  # losing the port to another process was not the cause
                failure = error
        raise failure

    def _launch(self, data: Path, addresses: list[str], port: int) -> None:
        """Run the server and wait until it is ready, or leave no process."""
        directory = _known(self._directory, "directory")
        log = _known(self._log, "log")
        config = directory / "server.conf"
        write_private(config, self._config(data, addresses, port))
        self._process = ServerProcess([str(self.binary), str(config)], directory, log)
        try:
            failure = self._process.wait_ready(
                self.unix_socket, self.password, self._timeout
            )
        except BaseException:
            self._end_process()
            raise
        if failure is not None:
            self._end_process()
            raise ServerStartError(
                f"{self.binary} {failure}. Its log ends with:\n"
                f"{log_tail(log, self.password)}"
            )

    def _config(self, data: Path, addresses: list[str], port: int) -> str:
        lines = {
            "bind": " ".join(addresses),
            "port": str(port),
            "unixsocket": _quoted(str(self.unix_socket)),
            "unixsocketperm": "700",
            "requirepass": _quoted(self.password),  # here, never in argv
            "dir": _quoted(str(data)),
            "daemonize": "no",
            "hz": "100",  # at 10, a blocking read returns up to 100 ms late
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _end_process(self) -> None:
        """End the server and its watchdog; keep the directory and the lock."""
        process, self._process = self._process, None
        if process is not None:
            process.end(self._timeout)

    def _disown(self) -> None:
        """Forget the server, in a forked child: it belongs to the parent."""
        if self._process is not None:
            self._process.disown()
        if self._log is not None:
            self._log.close()  # this copy would keep the lock
        self._process = self._log = self._directory = None


_started: set[EmbeddedServer] = set()


def _disown_all() -> None:
    for server in _started:
        server._disown()
    _started.clear()


os.register_at_fork(after_in_child=_disown_all)


def _known(value: T | None, what: str) -> T:
    if value is None:
        raise RuntimeError(f"The server has no {what} now: start it first.")
    return value


def _quoted(text: str) -> str:
    """Quote a value for the configuration file, whatever characters it has."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'
