from __future__ import annotations

import multiprocessing
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from academy.exchange import deposit
from academy.exchange.deposit import FOLDER, leave, read_private


@pytest.fixture
def text() -> str:
    return secrets.token_hex(8)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ACADEMY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from academy.exchange.deposit import *\n{code}"]
    return subprocess.run(command, text=True, capture_output=True, **options)


def test_what_is_left_is_private(text: str, home: Path) -> None:
    path = leave(text)
    assert path.parent == home / FOLDER
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_private(path) == text


def test_the_same_is_left_once(text: str) -> None:
    path = leave(text)
    assert leave(text) == path
    assert leave(text + "x") != path
    path.unlink()
    assert leave(text) != path


def test_a_folder_that_others_may_enter_is_closed(text: str, home: Path) -> None:
    (home / FOLDER).mkdir(parents=True)
    (home / FOLDER).chmod(0o755)
    leave(text)
    assert (home / FOLDER).stat().st_mode & 0o777 == 0o700


def test_without_a_home_it_is_a_temporary_directory(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ACADEMY_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(deposit.tempfile, "tempdir", str(tmp_path / "temporary"))
    path = leave(text)
    assert path.is_relative_to(tmp_path / "temporary")
    assert read_private(path) == text


def test_what_somebody_else_has_put_there_is_not_used(
    text: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deposit.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "trap").mkdir()
    home.mkdir()
    (home / FOLDER).symlink_to(tmp_path / "trap")
    assert leave(text).is_relative_to(tmp_path / "temporary")
    assert list((tmp_path / "trap").iterdir()) == []


def test_it_is_gone_with_the_process(home: Path) -> None:
    done = run("print(read_private(leave('canary')))")
    assert done.stdout.strip() == "canary"
    assert list((home / FOLDER).iterdir()) == []


def _leave_in_a_child(text: str) -> None:
    assert read_private(leave(text)) == text


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_is_gone_with_a_child_of_multiprocessing(
    text: str, home: Path, method: str
) -> None:
    context = multiprocessing.get_context(method)
    child = context.Process(target=_leave_in_a_child, args=(text,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert list((home / FOLDER).iterdir()) == []


def test_a_fork_uses_what_is_there_and_leaves_it(text: str) -> None:
    path = leave(text)
    child = multiprocessing.get_context("fork").Process(target=leave, args=(text,))
    child.start()
    child.join()
    assert read_private(path) == text
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(text: str, home: Path) -> None:
    done = run(f"import os; leave('x'); os.kill(os.getpid(), {signal.SIGKILL:d})")
    assert done.returncode == -signal.SIGKILL
    (left,) = (home / FOLDER).iterdir()
    path = leave(text)
    assert not left.exists()
    other = leave(text + "x")
    assert path.exists(), "its owner lives"
    assert other.exists()


def test_what_others_left_stays(text: str, home: Path) -> None:
    """Whether processes of other hosts live is not known here."""
    path = leave(text)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    elsewhere = path.with_name(f"0.0123456789ab.{gone.pid}")
    here = path.with_suffix(f".{gone.pid}")
    for file in (elsewhere, here):
        file.touch(mode=0o600)
    leave(text + "x")
    assert elsewhere.exists()
    assert not here.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "password"
    path.write_text("canary")
    path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600") as caught:
        read_private(path)
    assert "canary" not in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    with pytest.raises(ValueError, match="empty"):
        read_private(path)


def test_line_ends_are_no_part_of_a_password(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(" open sesame \r\n")
    assert read_private(path) == " open sesame "
