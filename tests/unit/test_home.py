from __future__ import annotations

import pathlib

import pytest

from academy.home import get_academy_home


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("ACADEMY_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


@pytest.mark.parametrize(
    ("academy_home", "xdg", "expected"),
    [
        (None, None, "/home/someone/.local/share/academy"),
        ("", "", "/home/someone/.local/share/academy"),
        (None, "/data", "/data/academy"),
        (None, "relative", "/home/someone/.local/share/academy"),
        ("/mine", None, "/mine"),
        ("/mine", "/data", "/mine"),
        ("~/mine", "/data", "/home/someone/mine"),
    ],
)
def test_home(
    monkeypatch: pytest.MonkeyPatch,
    academy_home: str | None,
    xdg: str | None,
    expected: str,
) -> None:
    if academy_home is not None:
        monkeypatch.setenv("ACADEMY_HOME", academy_home)
    if xdg is not None:
        monkeypatch.setenv("XDG_DATA_HOME", xdg)
    assert get_academy_home() == pathlib.Path(expected)


def test_directory_is_not_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("ACADEMY_HOME", str(tmp_path / "home"))
    get_academy_home()
    assert not (tmp_path / "home").exists()


def test_user_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container with a user that is in no password file."""

    def no_home() -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", no_home)
    with pytest.raises(RuntimeError, match="Set ACADEMY_HOME"):
        get_academy_home()
    monkeypatch.setenv("ACADEMY_HOME", "/mine")
    assert get_academy_home() == pathlib.Path("/mine")
