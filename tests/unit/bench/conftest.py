from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from academy.bench.interpreter import PROGRAMS


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `target`, which programs import by its bare name."""
    monkeypatch.syspath_prepend(PROGRAMS)
    for name in ("load", "target"):
        # What was not there is removed again.
        monkeypatch.setitem(sys.modules, name, sys)
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("target")
