"""Files in which a process leaves passwords for the processes that it works with.

A pickled exchange factory carries the path of such a file, not the password. The file
can be read by this user only, on all hosts that share the directory, and is removed
when the process ends. What a killed process has left, the next one removes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import secrets
import stat
import tempfile
import threading
from multiprocessing.util import Finalize
from pathlib import Path

from academy.home import get_academy_home
from academy.process_table import is_running

FOLDER = "credentials"

_lock = threading.Lock()
os.register_at_fork(
    before=_lock.acquire,
    after_in_parent=_lock.release,
    after_in_child=_lock.release,
)
_left: dict[tuple[Path, str], Path] = {}


def leave(text: str) -> Path:
    """Return a file of this user's with a text in it, which is there while we live.

    Raises:
        OSError: No directory can be written to, or others may enter it.
    """
    with _lock:
        directory = _directory()
        path = _left.get((directory, text))
        if path is None or not path.exists():
            _sweep(directory)
            path = _left[directory, text] = _write(directory, text)
        return path


def read_private(path: Path) -> str:
    """Return the text of a file that its owner alone may read, without line end.

    Raises:
        PermissionError: Others may read or write it, too.
        OSError: It cannot be read.
        ValueError: It is empty, or no text.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise PermissionError(f"others may read it; run: chmod 600 {path}")
        text = file.read().rstrip("\r\n")
    if not text:
        raise ValueError("it is empty")
    return text


def _directory() -> Path:
    """Return the directory for such files: below our home, else a temporary one."""
    with contextlib.suppress(OSError, RuntimeError):
        return _private(get_academy_home() / FOLDER)
    return _private(Path(tempfile.gettempdir()) / f"academy-{FOLDER}-{os.geteuid()}")


def _private(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Where everybody may write, somebody else may have been here first.
    status = directory.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or not os.access(directory, os.W_OK):
        raise PermissionError(f"{directory} is not a directory of this user's")
    if status.st_mode & 0o077:
        directory.chmod(0o700)
    return directory


def _write(directory: Path, text: str) -> Path:
    path = directory / f"{secrets.token_hex(16)}.{_place()}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    # Unlike atexit this also works in the children of multiprocessing; at the very
    # end, when they have been waited for.
    Finalize(None, _remove, args=(path,), exitpriority=-100)
    return path


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _sweep(directory: Path) -> None:
    """Remove what processes have left that are gone, as far as that shows here."""
    for path in directory.glob(f"*.{_place()}.*"):
        pid = path.suffix[1:]
        if pid.isdigit() and not is_running(int(pid)):
            _remove(path)


@functools.cache
def _place() -> str:
    """Return what is the same for processes that see each other's numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]
