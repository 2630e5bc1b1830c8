"""A server process with a watchdog that ends it when the parent is gone.

The watchdog is a small shell between the parent and the server. The parent holds
the write end of a pipe whose end-of-file the watchdog waits for, so that the server
ends whenever the parent does, also by SIGKILL. This needs no signal handler and no
``atexit`` hook, and it works from any thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

_POLL_INTERVAL = 0.005  # seconds
_SHELL = "/bin/sh"

# Arguments: the directory to remove when the parent is gone, then the server command.
# Standard input is the pipe from the parent. A line on it means "stop, I clean up",
# its end that the parent is gone. The first reader ends the server, if it still runs,
# and the last one cleans up; the parent writes two lines, one for each of them.
# The readers let go of the log file because it carries the lock.
_WATCHDOG = r"""
exec 3<&0 </dev/null
directory=$1; shift
"$@" 3<&- & server=$!
(
    read -r line <&3
    kill -TERM $server; kill -CONT $server
    tick=0
    while [ $tick -lt 100 ]; do sleep 0.1; tick=$((tick + 1)); done
    kill -KILL $server
) >/dev/null 2>&1 & reader=$!
wait $server; status=$?
kill -KILL $reader
(read -r line <&3 || rm -rf "$directory") >/dev/null 2>&1 &
exit $status
"""

_READY = re.compile(rb"\+OK\r\n\+PONG\r\n.*\r\nprocess_id:(\d+)\r\n", re.DOTALL)
_REFUSED = re.compile(rb"^-(.*)\r", re.MULTILINE)


class ServerProcess:
    """A running server and its watchdog. Call ``end`` (or ``disown``) once.

    Args:
        command: What to run, with absolute paths.
        directory: Removed by the watchdog when the parent dies without ``end``.
        log: Standard output and error of the server, inherited with its lock.
    """

    def __init__(self, command: list[str], directory: Path, log: IO[bytes]) -> None:
        reading, self._pipe = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [_SHELL, "-c", _WATCHDOG, "academy-server", str(directory), *command],
                stdin=reading,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the parent alone
                umask=0o077,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)
        self.pid: int | None = None
        """Process id of the server, known once it is ready."""

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self._popen.poll() is None

    def wait_ready(self, path: Path, password: str, timeout: float) -> str | None:
        """Wait until the server answers at its Unix socket.

        The socket is in a private directory: who answers there is our server, and
        the password cannot reach a stranger that took the TCP port.

        Returns:
            ``None``, or what went wrong, to follow the name of the server.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.pid = _ask_pid(path, password)
                return None
            except OSError as error:
                reason = error
            if not self.running:
                return f"ended with status {self._popen.returncode}"
            if time.monotonic() > deadline:
                return f"was not ready after {timeout:g} s ({reason})"
            time.sleep(_POLL_INTERVAL)

    def kill(self, timeout: float) -> None:
        """Kill the server with SIGKILL and wait until it is gone."""
        if self.pid is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._popen.wait(timeout)

    def end(self, timeout: float) -> None:
        """End the server, by SIGKILL when it takes longer; keep the directory."""
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, b"stop\nstop\n")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout)
        finally:
            if self.running:
                os.killpg(self._popen.pid, signal.SIGKILL)
                self._popen.wait()
            os.close(self._pipe)

    def disown(self) -> None:
        """Let go of the server in a forked child: it belongs to the parent.

        The child's copy of the pipe would keep the server alive after the parent.
        """
        os.close(self._pipe)
        self._popen.returncode = 0  # no child of this process, so nothing to reap


def _ask_pid(path: Path, password: str) -> int:
    """Return the process id of the server at a Unix socket once it is ready.

    Raises:
        OSError: It does not listen yet, is silent, or refuses (still loading).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(
            _command("AUTH", password) + _command("PING") + _command("INFO", "server")
        )
        reply = b""
        while (ready := _READY.match(reply)) is None:
            chunk = connection.recv(65536)
            reply += chunk
            refused = _REFUSED.search(reply)
            if refused or not chunk:
                raise ConnectionError(refused[1].decode() if refused else "no answer")
        return int(ready[1])


def _command(*words: str) -> bytes:
    encoded = [os.fsencode(word) for word in words]
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))
