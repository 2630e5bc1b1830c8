from __future__ import annotations

import json
from typing import Any

import pytest

from academy.cli import output


class Thing:
    def __repr__(self) -> str:
        return "<thing>"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        ({"a": Thing()}, {"a": "<thing>"}),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (float("nan"), "nan"),
        (CYCLE, "[[...]]"),
    ],
)
def test_json(value: Any, read: Any, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(value)
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == read


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain [bold] text\n\t:smile:", "plain [bold] text\n\t:smile:\n"),
        ("red \x1b[31m", "'red \\x1b[31m'\n"),
        (None, "None\n"),
        ([1, "x"], "[1, 'x']\n"),
    ],
)
def test_value(value: Any, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_value(value)
    assert capsys.readouterr().out == text


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("[red]x[/red]", "5"), ("long " * 30, "10"), ("\x1b[2J", "1")]
    output.print_table(("NAME", "SIZE#"), rows)
    head, first, second, third = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "SIZE"]
    assert first.split() == ["[red]x[/red]", "5"]
    assert second.startswith(("long " * 30).strip())
    assert third.split() == ["\\x1b[2J", "1"]
    assert first.rstrip().endswith("   5")


def test_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("It is \x07 wrong.\nAnd more.")
    captured = capsys.readouterr()
    assert captured.err == "academy: It is \\x07 wrong.\nAnd more.\n"
    assert not captured.out
