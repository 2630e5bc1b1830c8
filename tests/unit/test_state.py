from __future__ import annotations

import dbm
import pathlib
import pickle
from typing import Any

import pytest

from academy.state import FileState


def test_values_outlive_the_object(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state"
    state: FileState[Any] = FileState(path)
    state["a"] = {"x": [1, 2]}
    state["b"] = 2
    del state["b"]
    state.close()
    state.close()

    with FileState[Any](str(path)) as again:
        assert dict(again) == {"a": {"x": [1, 2]}}
        assert "b" not in again
    with pytest.raises(ValueError, match="closed shelf"):
        again["a"]


def test_directories_are_created(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "one" / "two" / "state"
    with FileState[int](path) as state:
        state["n"] = 1
    with FileState[int](path, flag="r") as state:
        assert state["n"] == 1


@pytest.mark.parametrize("flag", ["r", "w"])
def test_missing_file(tmp_path: pathlib.Path, flag: Any) -> None:
    path = tmp_path / "one" / "state"
    # dbm.error is a tuple of exception classes.
    with pytest.raises(dbm.error):
        FileState[int](path, flag=flag)
    assert not path.parent.exists()


def test_new_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state"
    with FileState[int](path) as state:
        state["n"] = 1
    with FileState[int](path, flag="n") as state:
        assert not state


def test_writeback(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state"
    with FileState[list[int]](path) as state:
        state["kept"] = []
        state["kept"].append(1)
        assert state["kept"] == []
    with FileState[list[int]](path, writeback=True, protocol=None) as state:
        state["kept"].append(1)
    with FileState[list[int]](path) as state:
        assert state["kept"] == [1]


def test_open_state_does_not_travel(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state"
    with FileState[int](path) as state:
        assert repr(state) == f"FileState({str(path)!r})"
        with pytest.raises(TypeError, match="open it in the agent's constructor"):
            pickle.dumps(state)
