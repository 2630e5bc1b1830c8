"""The part of the benchmark that is not in the package: peers, reports, options."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from academy.bench.cases import CASES, OURS
from academy.bench.interpreter import Interpreter, ProgramError
from academy.bench.machine import Machine
from academy.bench.rows import Echo
from academy.bench.suite import Results
from bench.__main__ import main, parse
from bench.peers import ACADEMY_PY, Environment, Peers
from bench.report import BEGIN, END, ReportError, write_report

RESULTS = Results(
    Machine(2, "CPython 3", "Abacus", "Linux", 0.5),
    True,
    9.0,
    [Echo(OURS, "bytes", 1, 1.0, 10.0)],
)
HERE = Environment("A_PYTHON", Path("/nowhere/python"), "print('fine')", "fine")


def test_no_environment() -> None:
    assert HERE.find({}) is None


def test_an_environment_that_a_variable_names() -> None:
    found = HERE.find({"A_PYTHON": sys.executable})
    assert found is not None
    assert found.python == sys.executable


def test_the_usual_environment() -> None:
    usual = Environment("A_PYTHON", Path(sys.executable), "print('fine')", "fine")
    assert usual.find({}) is not None


@pytest.mark.parametrize(
    ("python", "code", "why"),
    [
        ("/nowhere/python", "", "No such file"),
        (sys.executable, "import no_such_peer", "no_such_peer"),
        (sys.executable, "print('1.1.0')", "1.1.0"),
    ],
)
def test_an_environment_that_lacks_the_peers(python: str, code: str, why: str) -> None:
    with pytest.raises(ProgramError, match=f"A_PYTHON means: .*{why}.*make peers"):
        Environment("A_PYTHON", Path("/"), code, "1.0.0").find({"A_PYTHON": python})


def test_groups_without_peers_are_ours() -> None:
    assert Peers(None, None, False, ()).groups() == CASES


def test_groups_with_peers_begin_with_ours() -> None:
    groups = Peers(Interpreter("a"), Interpreter("b"), True, ()).groups()
    assert list(groups) == list(CASES)
    for name, cases in groups.items():
        assert cases[: len(CASES[name])] == CASES[name]
    names = [case.name for case in groups["calls"]]
    assert names[-4:] == [ACADEMY_PY, "xoscar", "pyzmq, pickle", "NATS, pickle"]
    assert all(case.program.exists() for case in groups["calls"])


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\nrest\n")
    write_report(path, RESULTS)
    write_report(path, RESULTS)  # replaces what it wrote
    lines = path.read_text().splitlines()
    assert [lines[0], lines[2], lines[-2], lines[-1]] == ["# Title", BEGIN, END, "rest"]
    assert lines[4].startswith("A quick run of 9 s on 2 cores")
    assert lines.count(f"| {OURS} | bytes | 1 | 1.00 | 10.0 |") == 1
    assert "old" not in lines


def test_report_without_a_place(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"{END}\n{BEGIN}")
    with pytest.raises(ReportError, match="does not have the lines"):
        write_report(path, RESULTS)


def test_the_document_has_a_place_for_the_report() -> None:
    text = (Path(__file__).parents[3] / "docs" / "performance.md").read_text()
    assert text.index(BEGIN) < text.index(END)


def test_parse(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--only", "drain", "--only", "worker", "--quick"])
    assert options.only == ["drain", "worker"]
    assert options.quick
    assert options.json is options.load is options.report is options.plots is None
    with pytest.raises(SystemExit, match="2"):
        parse(["--only", "nothing"])
    assert "gigabyte" in capsys.readouterr().err


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peers, "find", lambda: Peers(None, None, False, ("None.",)))


@pytest.mark.usefixtures("no_peers")
def test_earlier_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    first.write_text(RESULTS.as_json())
    assert main(["--load", str(first), "--json", str(second)]) == 0
    assert second.read_text() == first.read_text()
    assert OURS in capsys.readouterr().out


@pytest.mark.usefixtures("no_peers")
@pytest.mark.parametrize(
    ("option", "why"),
    [("--report", "No such file"), ("--plots", "matplotlib draws the plots")],
)
def test_what_cannot_be_written(
    option: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(RESULTS.as_json())
    assert main(["--load", str(figures), option, str(tmp_path / "new")]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("no_peers")
def test_measuring_without_peers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    options = ["--quick", "--only", "discover", "--seconds", "0.01"]
    assert main([*options, "--json", str(figures)]) == 0
    assert [row.case for row in Results.from_json(figures.read_text()).rows] == [OURS]
    assert "None." in capsys.readouterr().err
