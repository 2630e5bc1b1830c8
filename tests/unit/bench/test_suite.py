from __future__ import annotations

from pathlib import Path

import pytest

from academy.bench import suite
from academy.bench.case import Bench, Case
from academy.bench.cases import CASES, NOT_QUICK, OURS
from academy.bench.interpreter import Interpreter
from academy.bench.machine import Machine
from academy.bench.rows import Drain, Echo, Failure
from academy.bench.suite import Results, choose, rounds, run
from academy.embedded import EmbeddedServer

MACHINE = Machine(2, "CPython 3", "Abacus", "Linux", 0.5)
ROWS = [
    Echo(OURS, "bytes", 1, 1.0, 10.0),
    Echo("peer", "bytes", 1, 2.0, 5.0),
    Drain(9, True, 1.0, 1.0),
]
RESULTS = Results(MACHINE, False, 61.7, ROWS)

PROGRAM = """
import json, sys
settings = json.load(sys.stdin)
assert settings["url"].startswith("redis://")
{}
print(json.dumps([settings["row"]]))
"""


def case(
    tmp_path: Path, row: dict[str, object], code: str = "", **more: object
) -> Case:
    path = tmp_path / f"program_{len(list(tmp_path.iterdir()))}.py"
    path.write_text(PROGRAM.format(code))
    return Case(Echo, path, {"row": row}, **more)  # type: ignore[arg-type]


def test_all_groups_but_those_that_take_long() -> None:
    assert choose(CASES, [], quick=False) == CASES
    assert set(choose(CASES, [], quick=True)) == set(CASES) - NOT_QUICK


def test_only_some_groups_in_their_order() -> None:
    found = choose(CASES, ["gigabyte", "calls"], quick=True)
    assert list(found) == ["calls", "gigabyte"]


def test_cases_are_run_in_turn(tmp_path: Path) -> None:
    a, b, c = (case(tmp_path, {}, rounds=number) for number in (2, 1, 3))
    groups = {"one": [a, b], "two": [c]}
    assert rounds(groups, quick=True) == [[a, b, c]]
    assert rounds(groups, quick=False) == [[a, b, c], [a, c], [c]]
    assert rounds({}, quick=False) == []


def test_every_case_has_a_program() -> None:
    for group in CASES.values():
        assert group
        for each in group:
            assert each.program.exists()


def test_run(tmp_path: Path) -> None:
    row = {"kind": "bytes", "size": 1, "p50_ms": 1.0, "mb_per_s": 2.0}
    good = case(tmp_path, row, name="good", rounds=2)
    bad = case(tmp_path, row, "sys.exit('no luck')", name="bad", rounds=2)
    said: list[str] = []
    results = run({"group": [good, bad]}, say=said.append)
    assert results.rows == [
        Echo("good", "bytes", 1, 1.0, 2.0),
        Failure("bad", "echo", "no luck", True),
    ]
    assert results.failed
    titles = [text for text in said if text.startswith("round")]
    assert titles == [
        "round 1: Echo, good",
        "round 1: Echo, bad",
        "round 2: Echo, good",
    ]


def test_no_round_begins_that_would_take_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "BUDGET", 0.0)
    row = {"kind": "bytes", "size": 1, "p50_ms": 1.0, "mb_per_s": 2.0}
    said: list[str] = []
    results = run({"group": [case(tmp_path, row, name="a", rounds=3)]}, say=said.append)
    assert said == ["round 1: Echo, a", "no round 2: it would take too long"]
    assert results.rows == [Echo("a", "bytes", 1, 1.0, 2.0)]


def test_a_peer_may_fail(tmp_path: Path) -> None:
    peer = Interpreter(import_path=tmp_path)
    bad = case(tmp_path, {}, "sys.exit('no luck')", name="bad", python=peer)
    results = run({"group": [bad]}, quick=True, say=lambda text: None)
    assert not results.failed
    assert "no luck" in results.plain()


def test_settings_of_a_quick_case(server: EmbeddedServer, tmp_path: Path) -> None:
    slow = {"kind": "bytes", "size": 2, "p50_ms": 1.0, "mb_per_s": 2.0}
    both = case(tmp_path, slow, name="a", quick={"row": {**slow, "size": 1}})
    assert [row.size for row in both.run(Bench(server))] == [2]
    assert [row.size for row in both.run(Bench(server, quick=True))] == [1]


def test_how_long_each_figure_is_measured(server: EmbeddedServer) -> None:
    assert Bench(server).settings()["seconds"] > 0.15
    assert Bench(server, quick=True).settings()["seconds"] == 0.15
    assert Bench(server, seconds=3).settings()["seconds"] == 3


def test_plain() -> None:
    lines = RESULTS.plain().splitlines()
    assert lines[0] == str(MACHINE)
    assert lines[-1] == "62 s"
    ratio = lines.index(
        "How many times better ours is. "
        "Values sent to another process and back; bytes of both ways added."
    )
    assert lines[ratio + 3].split() == ["peer", "bytes", "1", "2.00", "2.00"]


def test_json_there_and_back() -> None:
    assert Results.from_json(RESULTS.as_json()) == RESULTS


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_programs_of_this_package() -> None:
    """Each once, for a moment; large values are not for tests."""
    names = set(CASES) - {"gigabyte", "beside"}
    groups = choose(CASES, names, quick=True)
    results = run(groups, quick=True, seconds=0.01, say=lambda text: None)
    assert not results.failed, results.plain()
    assert {type(row) for row in results.rows} == {
        each.row for group in groups.values() for each in group
    }
