"""What the package is compared with, where that is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from academy.bench.case import Case
from academy.bench.cases import (
    BESIDE,
    CALLS,
    CASES,
    ECHOES,
    FAN,
    FIND,
    GIGABYTE,
    HYBRID,
    ONE_WAY,
    QUICK_BESIDE,
    QUICK_ECHOES,
    Groups,
    agents,
    imports,
)
from academy.bench.interpreter import PROGRAMS, Interpreter, ProgramError
from academy.bench.rows import Beside, Calls, Echo, Fan, Find, OneWay

HOME = Path(__file__).parent
PEER_PROGRAMS = HOME / "programs"
ENVIRONMENTS = HOME.parent / ".venv-peers"
"""Where `make peers` puts them."""

ACADEMY_PY = "academy-py 1.0.0, hybrid, two processes"


@dataclass(frozen=True)
class Environment:
    """A Python environment with peers in it.

    Attributes:
        variable: Names its interpreter.
        usual: The interpreter, if the variable is not set and this is there.
        code: Prints `answer` if the peers are there.
        answer: What is printed then.
    """

    variable: str
    usual: Path
    code: str
    answer: str

    def find(self, environ: Mapping[str, str]) -> Interpreter | None:
        """Return the interpreter, if there is one.

        Raises:
            ProgramError: The one that is named cannot be run, or lacks the peers.
        """
        python = environ.get(self.variable)
        if not python:
            if not self.usual.exists():
                return None
            python = str(self.usual)
        # What the programs of peers share with ours is beside ours.
        found = Interpreter(python, PROGRAMS)
        try:
            answer = found.evaluate(self.code)
        except (OSError, ProgramError) as e:
            answer = str(e).splitlines()[-1]
        if answer != self.answer:
            raise ProgramError(
                f"{python} is not what {self.variable} means: {answer}; `make peers` "
                "makes it"
            )
        return found


ACADEMY_PY_ENVIRONMENT = Environment(
    "ACADEMY_PEER_PYTHON",
    ENVIRONMENTS / "academy-py" / "bin" / "python",
    "import importlib.metadata as m; print('academy-py', m.version('academy-py'))",
    "academy-py 1.0.0",
)
OTHERS_ENVIRONMENT = Environment(
    "ACADEMY_PEERS_PYTHON",
    ENVIRONMENTS / "bin" / "python",
    "import xoscar, zmq.asyncio; print('ok')",
    "ok",
)


@dataclass(frozen=True)
class Peers:
    """The interpreters that were found, and which are missing.

    Attributes:
        academy_py: Has academy-py 1.0.0.
        others: Has xoscar and pyzmq, and what draws plots.
        nats: Whether there is a NATS server and its client.
        missing: What cannot be measured, and why, in sentences.
    """

    academy_py: Interpreter | None
    others: Interpreter | None
    nats: bool
    missing: tuple[str, ...]

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Peers:
        """Return what is there.

        Raises:
            ProgramError: An interpreter that a variable names is not what it should be.
        """
        academy_py = ACADEMY_PY_ENVIRONMENT.find(environ)
        others = OTHERS_ENVIRONMENT.find(environ)
        missing = []
        if academy_py is None:
            missing.append("academy-py 1.0.0 is not there: see `make peers`.")
        if others is None:
            missing.append("xoscar and pyzmq are not there: see `make peers`.")
        no_nats = why_no_nats(others)
        if no_nats:
            missing.append(no_nats)
        return cls(academy_py, others, not no_nats, tuple(missing))

    def groups(self) -> Groups:
        """Return the cases of this package, each group with those of the peers."""
        groups = {name: list(cases) for name, cases in CASES.items()}
        if self.academy_py is not None:
            for name, case in of_academy_py(self.academy_py).items():
                groups[name].append(case)
        if self.others is not None:
            for name, cases in of_others(self.others, nats=self.nats).items():
                groups[name] += cases
        return groups


def why_no_nats(others: Interpreter | None) -> str:
    """Return why NATS cannot be measured, or an empty text."""
    if shutil.which("nats-server") is None:
        return "NATS is left out: no nats-server in PATH."
    if others is None:
        return "NATS is left out: no environment of peers."
    try:
        others.evaluate("import nats")
    except ProgramError:
        return "NATS is left out: the environment of peers has no nats-py."
    return ""


def of_academy_py(python: Interpreter) -> dict[str, Case]:
    """Return a case for each group that academy-py can run: our own programs."""
    name = ACADEMY_PY
    fan, find = PROGRAMS / "fan.py", PROGRAMS / "find.py"
    return {
        "import": imports(
            name, ["academy.agent", "academy.exchange.hybrid"], python=python
        ),
        "calls": agents(Calls, name, CALLS | HYBRID, python=python),
        "echo": agents(Echo, name, ECHOES | HYBRID, quick=QUICK_ECHOES, python=python),
        "beside": agents(
            Beside,
            name,
            BESIDE | HYBRID,
            quick=QUICK_BESIDE,
            timeout=20,  # it hangs when two large messages are on one connection
            python=python,
        ),
        "fan": Case(Fan, fan, FAN, name=name, python=python),
        "discover": Case(Find, find, FIND, name=name, python=python),
    }


def of_others(python: Interpreter, *, nats: bool) -> Groups:
    """Return the cases of peers that are called as an agent is."""
    programs = {"xoscar": "xoscar_actor.py", "pyzmq, pickle": "zmq_sockets.py"}
    if nats:
        programs["NATS, pickle"] = "nats_requests.py"

    def cases(row: Any, settings: dict[str, Any], **more: Any) -> list[Case]:
        return [
            Case(row, PEER_PROGRAMS / file, settings, name=name, python=python, **more)
            for name, file in programs.items()
            # A NATS server lets messages through up to 1 MB.
            if name != "NATS, pickle" or row not in (Beside, OneWay)
        ]

    return {
        "import": [imports("xoscar", ["xoscar"], python=python)],
        "calls": cases(Calls, CALLS),
        "echo": cases(Echo, ECHOES, quick=QUICK_ECHOES),
        "gigabyte": [
            *cases(Echo, GIGABYTE, rounds=1),
            *cases(OneWay, ONE_WAY, rounds=1),
        ],
        "beside": cases(Beside, BESIDE, quick=QUICK_BESIDE),
        "fan": [
            Case(
                Fan, PEER_PROGRAMS / "xoscar_fan.py", FAN, name="xoscar", python=python
            )
        ],
    }
