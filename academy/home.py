"""Where this user's files of ours live."""

from __future__ import annotations

import os
import pathlib


def get_academy_home() -> pathlib.Path:
    """Return the directory for logs and other files that outlive a process.

    It is ``$ACADEMY_HOME`` when that is set, else ``$XDG_DATA_HOME/academy``, else
    ``~/.local/share/academy``, on Linux and macOS alike. An empty variable counts
    as unset, and so does a relative ``XDG_DATA_HOME``, as its specification asks.
    The directory need not exist: whoever writes there creates it.

    Raises:
        RuntimeError: If neither variable is set and this user has no home
            directory, as in some containers.
    """
    if home := os.environ.get("ACADEMY_HOME"):
        return pathlib.Path(home).expanduser()
    data = pathlib.Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        data = _user_home() / ".local" / "share"
    return data / "academy"


def _user_home() -> pathlib.Path:
    try:
        return pathlib.Path.home()
    except RuntimeError as e:
        raise RuntimeError(
            f"User {os.getuid()} has no home directory. "
            "Set ACADEMY_HOME to a directory this user may write to."
        ) from e
