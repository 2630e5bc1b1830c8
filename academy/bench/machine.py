"""The machine that the figures are of."""

from __future__ import annotations

import os
import pathlib
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What the speed of a run depends on, and how busy the machine was before it."""

    cores: int
    python: str
    cpu: str
    system: str
    load: float

    def __str__(self) -> str:
        return (
            f"{self.cores} cores, {self.cpu}, {self.system}, {self.python}, "
            f"load {self.load:.1f}"
        )


def this_machine() -> Machine:
    """Return what is known of this machine now."""
    return Machine(
        cores=os.cpu_count() or 1,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu=cpu_model(pathlib.Path("/proc/cpuinfo")),
        system=f"{platform.system()} {platform.machine()}",
        load=os.getloadavg()[0],
    )


def cpu_model(cpuinfo: pathlib.Path) -> str:
    """Return the model of the CPU, as the kernel or else as Python names it."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or "unknown CPU"
