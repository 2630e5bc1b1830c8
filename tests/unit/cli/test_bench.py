from __future__ import annotations

import json

import pytest

from academy.bench.cases import OURS
from academy.cli import main

QUICKLY = ["bench", "--quick", "--seconds", "0.01", "--only", "discover"]


def test_figures_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(QUICKLY) == 0
    out, err = capsys.readouterr()
    assert OURS in out
    assert "registered per s" in out
    assert err == f"round 1: Find, {OURS}\n"


def test_figures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICKLY, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quick"]
    assert found["machine"]["cores"] >= 1
    assert [row["case"] for row in found["rows"]["Find"]] == [OURS]


def test_no_such_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--only", "weight"]) == 2
    assert "no 'weight'; there are: import, calls" in capsys.readouterr().err


def test_no_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from academy.embedded import ServerNotFoundError

    def find_none(self: object) -> None:
        raise ServerNotFoundError("There is no server here.")

    monkeypatch.setattr("academy.embedded.EmbeddedServer.__enter__", find_none)
    assert main(QUICKLY) == 2
    assert "There is no server here." in capsys.readouterr().err
