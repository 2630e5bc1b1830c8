from __future__ import annotations

from academy.bench.rows import Calls, Drain, Echo, medians, ratios


def calls(case: str, in_flight: int, figure: float, rate: float) -> Calls:
    return Calls(case, in_flight, figure, figure * 2, figure * 3, rate, figure / 2)


def test_medians_merge_what_differs_in_floats_only() -> None:
    rows = [
        calls("a", 1, 10.0, 500.0),
        calls("a", 16, 1.0, 1.0),
        calls("a", 1, 90.0, 700.0),
        calls("a", 1, 20.0, 600.0),
    ]
    assert medians(rows) == [calls("a", 1, 20.0, 600.0), calls("a", 16, 1.0, 1.0)]


def test_medians_do_not_hide_a_round_that_lost_the_order() -> None:
    rows = [Drain(9, ordered, 1.0, 1.0) for ordered in (True, False, True)]
    assert [row.in_order for row in medians(rows)] == [True, False]


def test_medians_do_not_hide_a_problem() -> None:
    fine, wrong = (
        Echo("a", "bytes", 1, 1.0, 1.0),
        Echo("a", "bytes", 1, None, None, "!"),
    )
    assert medians([fine, wrong, fine]) == [fine, wrong]


def test_ratios_say_how_many_times_better_ours_is() -> None:
    rows = [
        calls("ours", 1, 100.0, 900.0),
        calls("peer", 1, 300.0, 300.0),
        calls("peer", 64, 1.0, 1.0),
        Drain(9, True, 1.0, 1.0),
    ]
    assert ratios(rows, "ours") == [Calls("peer", 1, 3.0, 3.0, 3.0, 3.0, 3.0)]


def test_ratios_leave_out_what_has_no_figures() -> None:
    rows = [
        Echo("ours", "bytes", 1, 1.0, 10.0),
        Echo("peer", "bytes", 1, None, None, "too large"),
        Echo("ours", "bytes", 2, None, None, "too large"),
        Echo("peer", "bytes", 2, 1.0, 10.0),
        Echo("peer", "numpy", 1, 1.0, 10.0),
    ]
    assert ratios(rows, "ours") == []


def test_ratio_to_nothing() -> None:
    rows = [Echo("ours", "bytes", 1, 0.0, 2.0), Echo("peer", "bytes", 1, 1.0, 1.0)]
    assert ratios(rows, "ours") == [Echo("peer", "bytes", 1, None, 2.0)]
