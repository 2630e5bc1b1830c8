"""Which way messages go, as clients are told."""

from __future__ import annotations

import os
import platform

import pytest

from academy.exception import BadEntityIdError
from academy.exchange.link_info import ProcessInfo
from academy.identifier import AgentId
from tests.contract.office import Office, numbered, within


def where(info: ProcessInfo | None) -> tuple[str, int]:
    assert info is not None
    return info.host, info.pid


HERE = platform.node(), os.getpid()


async def test_the_process_of_a_client(mail: Office) -> None:
    user = await mail.user()
    info = await user.links()
    assert where(info) == HERE
    assert info is not None
    assert info.links == ()


async def test_the_process_of_an_agent(mail: Office) -> None:
    user, desk = await mail.user(), await mail.desk()
    info = await user.links(desk.uid)
    assert where(info) == HERE
    assert info == await desk._place.run(desk.client.links())


async def test_agents_that_no_process_runs(mail: Office) -> None:
    user = await mail.user()
    uid = (await mail.register()).agent_id
    async with within(3):
        assert await user.links(uid) is None
        await user.terminate(uid)
        assert await user.links(uid) is None
    with pytest.raises(BadEntityIdError):
        await user.links(AgentId.new())


@pytest.mark.parametrize("place", ["elsewhere"], indirect=True)
async def test_both_sides_tell_the_same(mail: Office, kind: str) -> None:
    user, desk = await mail.user(), await mail.desk()
    for n in range(10):
        await user.request(numbered(user.client_id, desk.uid, n))
    ours, theirs = await user.links(), await user.links(desk.uid)
    assert ours is not None
    assert theirs is not None
    if kind == "local":
        assert (ours.links, theirs.links) == ((), ())
        return
    (to,), (back,) = ours.links, theirs.links
    assert ours.process != theirs.process
    if kind == "redis":
        assert {to.path, back.path} == {"relay"}
        assert to.reason == back.reason == "this process makes no direct links"
        return
    assert (to.process, back.process) == (theirs.process, ours.process)
    assert {to.path, back.path} == {"uds"}
    assert (to.reason, back.reason) == ("", "")
    assert to.sent == back.received > 0
    assert to.received == back.sent > 0
