"""Private directories, and those of processes that were killed."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from academy.link.folder import PREFIX, private_folder, sweep


@pytest.fixture
def dead_pid() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def emptied(folder: pathlib.Path) -> list[str]:
    """Remove what is in a directory; return the names."""
    names = sorted(os.listdir(folder))
    for name in names:
        path = folder / name
        path.unlink() if path.is_symlink() else path.rmdir()
    return names


def test_nobody_else_can_enter(folder: pathlib.Path) -> None:
    made = private_folder()
    assert made.parent == folder
    assert made.name.startswith(f"{PREFIX}{os.getpid()}-")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    sweep()
    assert emptied(folder) == [made.name]


def found(folder: pathlib.Path) -> list[str]:
    sweep()
    return emptied(folder)


def test_dead_process(folder: pathlib.Path, dead_pid: int) -> None:
    left = folder / f"{PREFIX}{dead_pid}-abc"
    os.mkdir(left)
    (left / "link").write_bytes(b"")
    assert found(folder) == []


def test_living_process(folder: pathlib.Path) -> None:
    name = f"{PREFIX}{os.getppid()}-abc"
    os.mkdir(folder / name)
    assert found(folder) == [name]


def test_process_of_another_user(
    folder: pathlib.Path,
    dead_pid: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"{PREFIX}{dead_pid}-abc"
    os.mkdir(folder / name)
    uid = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: uid)
    assert found(folder) == [name]


def test_process_that_may_not_be_asked(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(pid: int, signal: int) -> None:
        raise PermissionError

    name = f"{PREFIX}1-abc"
    os.mkdir(folder / name)
    monkeypatch.setattr(os, "kill", denied)
    assert found(folder) == [name]


@pytest.mark.parametrize("pid", ["", "x", "-5", "0", "9" * 30])
def test_other_names(folder: pathlib.Path, pid: str) -> None:
    names = sorted([f"{PREFIX}{pid}-abc", f"{PREFIX}{pid}", "else"])
    for name in names:
        os.mkdir(folder / name)
    assert found(folder) == names


def test_link_to_a_directory(folder: pathlib.Path, dead_pid: int) -> None:
    """Other users can make one that points to a directory of this user."""
    os.mkdir(folder / "mine")
    name = f"{PREFIX}{dead_pid}-abc"
    os.symlink(folder / "mine", folder / name)
    assert found(folder) == [name, "mine"]
