from __future__ import annotations

from academy.bench.rows import Drain, Echo
from academy.bench.table import tables

ROWS = [
    Echo("a, b", "bytes", 1000, 1234.56, 99.94),
    Echo("c|d", "numpy", 16, None, None, "too large"),
]


def test_plain() -> None:
    assert [
        table.plain().splitlines()
        for table in tables([*ROWS, Drain(9, False, 1.0, 10.0)])
    ] == [
        [
            "Values sent to another process and back; bytes of both ways added.",
            "case  kind    size  p50 ms  mb per s  problem",
            "----  -----  -----  ------  --------  ---------",
            "a, b  bytes  1,000   1,235      99.9",
            "c|d   numpy     16       -         -  too large",
        ],
        [
            "Messages sent to an agent that is away, then taken by it.",
            "messages  in order  sent per s  taken per s",
            "--------  --------  ----------  -----------",
            "       9        NO        1.00         10.0",
        ],
    ]


def test_a_column_without_any_text_is_left_out() -> None:
    (table,) = tables(ROWS[:1])
    assert table.names == ["case", "kind", "size", "p50 ms", "mb per s"]


def test_markdown() -> None:
    (table,) = tables(ROWS)
    assert table.markdown().splitlines() == [
        "Values sent to another process and back; bytes of both ways added.",
        "",
        "| case | kind | size | p50 ms | mb per s | problem |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        "| a, b | bytes | 1,000 | 1,235 | 99.9 |  |",
        r"| c\|d | numpy | 16 | - | - | too large |",
    ]


def test_tables_of_nothing() -> None:
    assert tables([]) == []
