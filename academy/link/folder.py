"""Private directories of this process for short-lived files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from academy.process_table import is_running

PREFIX = "academy-link-"


def private_folder() -> Path:
    """Return a new directory that only this user can enter; remove it after use."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def sweep() -> None:
    """Remove the directories of processes of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError, ValueError, OverflowError):
            if folder.stat().st_uid == os.getuid() and not is_running(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
