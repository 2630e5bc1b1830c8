"""`academy demo`: the demo, and what came of it."""

from __future__ import annotations

import importlib.util
import sys

from academy.cli.error import FAILED, UsageError
from academy.cli.output import complain, console, print_json, print_text

_NEEDED = {"numpy": "NumPy", "sklearn": "scikit-learn"}


def demo(*, rounds: int, sites: int, seed: int, headless: bool, as_json: bool) -> int:
    """Run the demo, print what came of it, and return the exit code.

    Raises:
        UsageError: A package that it needs is not installed.
        KeyboardInterrupt: Ctrl-C; no process is left.
        Exception: Something does not work.
    """
    check_packages()
    from academy.demo.report import Plan, problems, summary
    from academy.demo.run import StoppedError, run
    from academy.demo.screen import Lines, Screen, View

    view: View
    if as_json:
        view = Lines(sys.stderr)
    elif headless or not sys.stdout.isatty():
        view = Lines(sys.stdout)
    else:
        view = Screen(console())
    try:
        report = run(Plan(rounds, sites, seed), view)
    except StoppedError as e:
        complain(str(e))
        return 128 + e.signal
    if as_json:
        print_json(report.as_json())
    else:
        print_text("\n".join(["", *summary(report)]))
    wrong = problems(report)
    for problem in wrong:
        complain(problem)
    return FAILED if wrong else 0


def check_packages() -> None:
    """Check that what the demo computes with is installed.

    Raises:
        UsageError: It is not; the message says how to install it.
    """
    missing = [
        title for name, title in _NEEDED.items() if not importlib.util.find_spec(name)
    ]
    if missing:
        raise UsageError(
            f"The demo needs {' and '.join(missing)}. Install what is missing with: "
            'pip install "academy-hybrid[demo]"'
        )
