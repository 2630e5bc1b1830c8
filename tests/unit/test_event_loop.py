from __future__ import annotations

import asyncio
import sys

import pytest

from academy.event_loop import loop_factory


def made() -> str:
    """Return where the event loops come from that are made."""
    loop = loop_factory()()
    loop.close()
    return type(loop).__module__.partition(".")[0]


@pytest.mark.parametrize(("chosen", "module"), [("1", "uvloop"), ("0", "asyncio")])
def test_it_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: str, module: str
) -> None:
    pytest.importorskip("uvloop")
    monkeypatch.setenv("ACADEMY_UVLOOP", chosen)
    assert made() == module


def test_where_uvloop_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory() is asyncio.new_event_loop
