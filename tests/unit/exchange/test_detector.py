from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from academy.exception import ExchangeError, PeerLostError
from academy.exchange import detector as detector_module
from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.keys import Keys
from academy.exchange.line import Line
from academy.link.address import Addresses
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    connect,
    failure,
    send,
    take,
    until,
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be killed."""
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


async def pair(
    new_engine: NewEngine,
) -> tuple[Engine, BoundMailbox, Engine, BoundMailbox, Line]:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    return here, user, there, agent, await connect(here, user, agent)


def addresses(engine: Engine) -> Addresses:
    assert engine.links is not None
    return engine.links.mine


async def test_a_request_fails_at_once_when_its_process_is_gone(
    new_engine: NewEngine,
    child: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    (first,) = await send(here, user, agent.uid, 1)
    await take(agent)
    await agree(there, agent, first)
    await until(lambda: user.has_answer(first.tag))
    await send(here, user, agent.uid, 2, 3)
    await take(agent)
    theirs = dataclasses.replace(addresses(there), pid=child.pid, started=0.0)
    here._detector.link_lost(theirs, same_host=True, refused=False)
    assert not user.inbox.items()[1:]
    child.kill()
    assert (await answer(user)).tag == first.tag
    for _ in range(2):
        error = await failure(user)
        assert isinstance(error, PeerLostError)
        assert error.executed == "maybe"
        assert f"process {child.pid} has ended" in str(error)


async def test_the_directory_is_told_of_a_death(
    new_engine: NewEngine, child: subprocess.Popen[bytes]
) -> None:
    here, _, there, agent, _ = await pair(new_engine)
    theirs = dataclasses.replace(addresses(there), pid=child.pid, started=0.0)
    child.kill()
    there._lease._stop.set()
    here._detector.link_lost(theirs, same_host=True, refused=False)
    await here._detector._tasks.join(5.0)
    (record,) = await here.directory.lookup([agent.uid])
    assert not record.live


async def test_a_process_that_lives_is_left_alone(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "LOOKS", (0.0, 0.0))
    here, user, there, agent, _ = await pair(new_engine)
    await send(here, user, agent.uid, 1)
    theirs = addresses(there)
    assert theirs.pid == os.getpid()
    here._detector.link_lost(theirs, same_host=True, refused=True)
    await here._detector._tasks.join(5.0)
    (record,) = await here.directory.lookup([agent.uid])
    assert record.live
    assert not user.inbox


async def test_a_challenge_shortens_the_lease_until_it_is_renewed(
    new_engine: NewEngine, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "CHALLENGE", 0.2)
    here, user, there, agent, _ = await pair(new_engine)
    (_request,) = await send(here, user, agent.uid, 1)
    there._lease._stop.set()
    assert there.links is not None
    await there.links.node.close()
    here._detector.link_lost(addresses(there), same_host=False, refused=True)
    error = await failure(user)
    assert isinstance(error, PeerLostError)
    assert error.executed == "maybe"


async def test_a_silent_host_is_not_challenged(new_engine: NewEngine) -> None:
    here, _, there, _, _ = await pair(new_engine)
    before = here.server.commands
    here._detector.link_lost(addresses(there), same_host=False, refused=False)
    assert not here._detector._looking
    assert here.server.commands == before


@pytest.mark.parametrize("same_host", [False, True])
async def test_a_directory_that_cannot_be_told(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch, same_host: bool
) -> None:
    here, _, there, _, _ = await pair(new_engine)

    async def refuse(*_: object) -> None:
        raise ExchangeError("no")

    monkeypatch.setattr(here.directory, "bury", refuse)
    monkeypatch.setattr(here.directory, "challenge", refuse)
    monkeypatch.setattr(detector_module, "has_ended", lambda _: True)
    detector = here._detector
    for _ in range(2):  # the second one while the first look is under way
        detector.link_lost(addresses(there), same_host=same_host, refused=True)
    assert len(detector._tasks) == 1
    await detector._tasks.join(5.0)
    assert not detector._looking
