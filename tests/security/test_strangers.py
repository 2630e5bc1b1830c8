from __future__ import annotations

import sys

import pytest

from tests.security.strangers import SAYINGS, main


def test_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they cost is tested in `tests/unit/link/test_gate.py`."""
    few = ["--strangers", "9", "--seconds", "0.2", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["strangers", *few])
    main()
    first, *table = capsys.readouterr().out.split("\n")
    assert first == "9 strangers at once, who have 0.2 s"
    rows = [line.split(" | ") for line in table[3:] if line]
    assert [row[0] for row in rows] == [f"| {name}" for name in SAYINGS]
    assert [row[-1] for row in rows] == ["9 late |", "9 late |", "9 clear_text |"]
