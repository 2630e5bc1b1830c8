"""Files of a server that nobody else may read, and the lock on its data."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import IO

from academy.embedded.error import ServerStartError

_LOCK_INTERVAL = 0.01  # seconds
_LOCK_PATIENCE = 1.0  # seconds; the server of a parent just killed needs a moment
_LOG_TAIL_BYTES = 4096
_LOG_TAIL_LINES = 12
_SOCKET_PATH_LIMIT = 100  # bytes; macOS allows 103, Linux 107


def private_directory(socket_name: str) -> Path:
    """Make a directory only we can enter, short enough for a Unix socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="academy-"))
    if len(os.fsencode(directory / socket_name)) > _SOCKET_PATH_LIMIT:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="academy-", dir="/tmp"))
    return directory


def locked_log(data: Path) -> IO[bytes]:
    """Open the log of a data directory; its lock means that the directory is ours.

    The server inherits the open file, and with it the lock: it holds as long as the
    server lives, also when the parent is gone before it.

    Raises:
        ServerStartError: Another server holds the lock.
    """
    log = open(data / "server.log", "a+b", buffering=0, opener=_opener)  # noqa: SIM115
    try:
        _lock(log, data)
    except BaseException:
        log.close()
        raise
    return log


def log_tail(log: IO[bytes], password: str) -> str:
    """Return the end of a log, without anything that tells the password."""
    start = max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL_BYTES)
    text = os.pread(log.fileno(), _LOG_TAIL_BYTES, start).decode(errors="replace")
    lines = text.replace(password, "***").splitlines()
    shown = [line for line in lines if "requirepass" not in line]
    return "\n".join(shown[-_LOG_TAIL_LINES:])


def read_private(path: Path) -> str:
    """Return the text of a file, empty when there is no such file."""
    return path.read_text().strip() if path.exists() else ""


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read."""
    with open(path, "w", opener=_opener) as file:
        file.write(text)


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _lock(log: IO[bytes], data: Path) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"Another server uses {data}: stop it, or use another directory."
                ) from None
        time.sleep(_LOCK_INTERVAL)
