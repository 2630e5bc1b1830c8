"""Figures as a part of a document, and as plots."""

from __future__ import annotations

import json
from pathlib import Path

from academy.bench.interpreter import Interpreter
from academy.bench.suite import Results

BEGIN = "<!-- figures: `python -m bench --report` writes what follows -->"
END = "<!-- end of figures -->"
PLOTS = Path(__file__).parent / "programs" / "plots.py"


class ReportError(Exception):
    """There is no place for the figures."""


def write_report(path: Path, results: Results) -> None:
    """Replace what stands between the two markers of a document.

    Raises:
        OSError: It cannot be read or written.
        ReportError: It does not have the markers.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReportError(f"{path} does not have the lines {BEGIN} and {END}")
    path.write_text(
        f"{before}{BEGIN}\n\n{as_markdown(results)}\n\n{END}{after}", encoding="utf-8"
    )


def as_markdown(results: Results) -> str:
    """Return the machine and all tables."""
    kind = "A quick run" if results.quick else "A full run"
    first = f"{kind} of {results.seconds:.0f} s on {results.machine}."
    return "\n\n".join([first, *(table.markdown() for table in results.tables())])


def draw_plots(directory: Path, results: Results, python: Interpreter) -> list[str]:
    """Draw the figures as PNG and return the names of the files.

    Raises:
        ProgramError: It cannot be done.
    """
    directory.mkdir(parents=True, exist_ok=True)
    document = json.loads(results.as_json())
    settings = {"directory": str(directory.resolve()), "rows": document["rows"]}
    return [row["file"] for row in python.run(PLOTS, settings)]
