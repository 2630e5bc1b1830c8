from __future__ import annotations

import asyncio
from typing import Any

from academy.deadline import Deadlines, deadline_body
from academy.identifier import AgentId, UserId
from academy.message import ActionRequest, Message
from academy.serialize import SerializationStrategy
from tests.unit.local_agents import eventually


async def test_tells_when_they_pass() -> None:
    told: list[str] = []
    deadlines = Deadlines(told.append)
    deadlines.start("late", 0.02)
    deadlines.start("soon", 0)
    deadlines.start("never", None)
    deadlines.start("stopped", 0)
    assert len(deadlines) == 3
    deadlines.stop("stopped")
    deadlines.stop("unknown")
    assert deadlines.passed("soon")
    for key in ("late", "never", "stopped", "unknown"):
        assert not deadlines.passed(key)
    await eventually(lambda: told == ["soon", "late"])


async def test_passed_does_not_depend_on_being_told() -> None:
    """When the event loop was busy, what it does next may not have been called yet."""
    deadlines = Deadlines[str](lambda key: None)
    deadlines.start("a", 1e-9)
    while not deadlines.passed("a"):
        pass
    deadlines.clear()


async def test_clear() -> None:
    told: list[str] = []
    deadlines = Deadlines(told.append)
    for key in ("a", "b"):
        deadlines.start(key, 0)
    deadlines.clear()
    assert len(deadlines) == 0
    await asyncio.sleep(0)
    assert not told


def test_answers() -> None:
    request = Message.create(
        UserId.new(),
        AgentId[Any].new(name="bob"),
        ActionRequest(action="sq", serialization=SerializationStrategy.JSON),
    )
    never, partly = deadline_body(request, "no"), deadline_body(request, "maybe")
    assert (never.executed, partly.executed) == ("no", "maybe")
    for body, text in ((never, "was not executed"), (partly, "was executed in part")):
        error = body.get_exception()
        assert type(error) is TimeoutError
        assert text in str(error)
        assert "AgentId<bob>" in str(error)
        assert "'sq'" in str(error)
