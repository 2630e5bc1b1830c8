"""The pure parts of the benchmark: percentiles, medians, ratios, tables, machine."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from bench.__main__ import choose, parse
from bench.cases import CASES
from bench.interpreter import Interpreter, ProgramError
from bench.machine import cpu_model, this_machine
from bench.programs.load import drive, percentile
from bench.rows import Calls, Drain, Ratio, medians, ratios
from bench.table import tables


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)]
)
def test_percentile(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_percentile_of_one() -> None:
    assert percentile([7.0], 0.99) == 7.0


async def test_drive_keeps_so_many_calls_in_flight() -> None:
    running = peak = calls = 0

    async def call() -> None:
        nonlocal running, peak, calls
        running += 1
        peak = max(peak, running)
        calls += 1
        await asyncio.sleep(0)
        running -= 1

    figures = await drive(call, 5, 0.01)
    assert running == 0
    assert peak == figures["in_flight"] == 5
    assert 0 < figures["p50_us"] <= figures["p99_us"]
    assert figures["calls_per_s"] <= calls / 0.01


async def test_drive_ends_with_the_error_of_a_call() -> None:
    async def call() -> None:
        raise LookupError("no such agent")

    with pytest.raises(ExceptionGroup) as caught:
        await drive(call, 3, 60)
    assert {type(e) for e in caught.value.exceptions} == {LookupError}


def test_medians_merge_what_differs_in_floats_only() -> None:
    rows = [
        Calls("a", 1, 10.0, 30.0, 500.0),
        Calls("a", 16, 1.0, 1.0, 1.0),
        Calls("a", 1, 90.0, 20.0, 700.0),
        Calls("a", 1, 20.0, 10.0, 600.0),
    ]
    assert medians(rows) == [
        Calls("a", 1, 20.0, 20.0, 600.0),
        Calls("a", 16, 1.0, 1.0, 1.0),
    ]


def test_medians_do_not_hide_a_round_that_lost_the_order() -> None:
    rows = [Drain(9, ordered, 1.0, 1.0) for ordered in (True, False, True)]
    assert [row.in_order for row in medians(rows)] == [True, False]


def test_ratios_say_how_many_times_better_ours_is() -> None:
    rows = [
        Calls("ours", 1, 100.0, 200.0, 900.0),
        Calls("peer", 1, 300.0, 100.0, 300.0),
        Calls("peer", 64, 1.0, 1.0, 1.0),
        Drain(9, True, 1.0, 1.0),
    ]
    assert ratios(rows, "ours", "peer") == [Ratio("peer", 1, 3.0, 0.5, 3.0)]


def test_tables() -> None:
    rows = [Calls("a, b", 16, 1234.56, 99.94, 4.0), Calls("c", 1, 1.0, 2.0, 123456.0)]
    assert tables([*rows, Drain(9, False, 1.0, 10.0)]).splitlines() == [
        "No-op calls, so many in flight at a time.",
        "case  in flight  p50 us  p99 us  calls per s",
        "----  ---------  ------  ------  -----------",
        "a, b         16   1,235    99.9         4.00",
        "c             1    1.00    2.00      123,456",
        "",
        "Messages sent to an agent that is away, then taken by it.",
        "messages  in order  sent per s  taken per s",
        "--------  --------  ----------  -----------",
        "       9        NO        1.00         10.0",
    ]


def test_tables_of_nothing() -> None:
    assert tables([]) == ""


def test_cpu_model(tmp_path: pathlib.Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu_model(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Abacus 9\n\nprocessor\t: 1\n")
    assert cpu_model(cpuinfo) == "Abacus 9"


def test_machine_is_one_line() -> None:
    line = str(this_machine())
    assert " cores, " in line
    assert "\n" not in line


def test_choose_all_but_an_absent_peer() -> None:
    assert set(choose(None, None)) == set(CASES) - {"peer"}
    assert set(choose(None, Interpreter())) == set(CASES)


def test_choose_the_peer_with_what_it_is_compared_to() -> None:
    assert list(choose(["peer"], Interpreter())) == ["two-processes", "peer"]
    with pytest.raises(ProgramError, match="set ACADEMY_PEER_PYTHON"):
        choose(["peer"], None)


def test_parse(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--only", "drain", "--only", "worker", "--quick"])
    assert (options.only, options.quick, options.json) == (
        ["drain", "worker"],
        True,
        None,
    )
    with pytest.raises(SystemExit, match="2"):
        parse(["--only", "nothing"])
    assert "two-processes" in capsys.readouterr().err
