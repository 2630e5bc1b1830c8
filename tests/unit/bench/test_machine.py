from __future__ import annotations

import pathlib

from academy.bench.machine import cpu_model, this_machine


def test_cpu_model(tmp_path: pathlib.Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu_model(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Abacus 9\n\nprocessor\t: 1\n")
    assert cpu_model(cpuinfo) == "Abacus 9"


def test_machine_is_one_line() -> None:
    line = str(this_machine())
    assert " cores, " in line
    assert "\n" not in line
