"""Program: how long a fresh interpreter needs to import a module.

Standard library only. Measures the interpreter that runs it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

PLAIN = "(plain interpreter)"


def seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    return time.perf_counter() - begin


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    programs = {PLAIN: "pass"}
    programs |= {module: f"import {module}" for module in settings["modules"]}
    found: dict[str, list[float]] = {name: [] for name in programs}
    for code in programs.values():  # so that every module is compiled
        seconds(code)
    for _ in range(settings["repeats"]):
        for name, code in programs.items():
            found[name].append(seconds(code))
    wall = {name: statistics.median(times) * 1000 for name, times in found.items()}
    return [
        {"module": name, "wall_ms": ms, "above_plain_ms": ms - wall[PLAIN]}
        for name, ms in wall.items()
        if name != PLAIN
    ]


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
