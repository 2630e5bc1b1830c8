"""Program: draws figures as PNG, with matplotlib."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before the next import looks for a screen

import matplotlib.pyplot as plt

Row = dict[str, Any]


def lines(rows: list[Row], x: str, y: str, titles: tuple[str, str]) -> Any:
    """Draw a line for each case, both axes logarithmic."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    cases = dict.fromkeys(row["case"] for row in rows)
    for case in cases:
        points = [(r[x], r[y]) for r in rows if r["case"] == case and r[y] is not None]
        if points:
            style = "--" if case.startswith("floor") else "-"
            axes.plot(*zip(*sorted(points), strict=True), style, marker="o", label=case)
    axes.set(xscale="log", yscale="log", xlabel=titles[0], ylabel=titles[1])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def bars(rows: list[Row], names: dict[str, str], title: str) -> Any:
    """Draw a group of bars for each case, on a logarithmic axis."""
    figure, axes = plt.subplots(
        figsize=(9, 0.6 + 0.5 * len(rows)), layout="constrained"
    )
    height = 0.8 / len(names)
    for number, (name, label) in enumerate(names.items()):
        places = [i + number * height for i in range(len(rows))]
        axes.barh(places, [row[name] for row in rows], height, label=label)
    middle = 0.4 - height / 2
    axes.set_yticks([i + middle for i in range(len(rows))], [r["case"] for r in rows])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel=title)
    axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def latency(rows: list[Row]) -> Any:
    single = [row for row in rows if row["in_flight"] == 1]
    names = {"p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9"}
    return bars(single, names, "no-op call, one at a time, us")


def rate(rows: list[Row]) -> Any:
    return lines(rows, "in_flight", "calls_per_s", ("calls in flight", "calls per s"))


def cpu(rows: list[Row]) -> Any:
    title = "CPU time of both processes per call, us"
    return lines(rows, "in_flight", "cpu_us", ("calls in flight", title))


def echo(kind: str) -> Callable[[list[Row]], Any]:
    def draw(rows: list[Row]) -> Any:
        wanted = [r for r in rows if r["kind"] == kind or r["case"].startswith("floor")]
        titles = (f"bytes of the value ({kind})", "MB/s, both ways added")
        return lines(wanted, "size", "mb_per_s", titles)

    return draw


def beside(rows: list[Row]) -> Any:
    names = {"alone_p99_us": "alone", "beside_p99_us": "while 50 MB go there and back"}
    return bars(rows, names, "p99 of a no-op call, us")


DRAWINGS = {
    "latency": ("Calls", latency),
    "rate": ("Calls", rate),
    "cpu": ("Calls", cpu),
    "echo_bytes": ("Echo", echo("bytes")),
    "echo_numpy": ("Echo", echo("numpy")),
    "beside": ("Beside", beside),
}
"""The name of the file, the class of the rows, and what draws them."""


def main(settings: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    for name, (kind, draw) in DRAWINGS.items():
        if rows := settings["rows"].get(kind):
            file = f"{name}.png"
            figure = draw(rows)
            figure.savefig(Path(settings["directory"], file), dpi=100)
            plt.close(figure)
            found.append({"file": file})
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
