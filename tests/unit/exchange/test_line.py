from __future__ import annotations

import asyncio

import pytest

from academy.exchange.bound import BoundMailbox
from academy.exchange.ledger import Awaited
from academy.exchange.line import Line, Lines, drained
from academy.exchange.outbox import Outbox
from academy.exchange.outlet import Outlet
from academy.exchange.stream import REPLIES, REQUESTS, Received, SendStream
from academy.identifier import AgentId, EntityId
from academy.link.channel import ChannelKey
from academy.message import Message, PingRequest

DEST: AgentId[None] = AgentId.new()


@pytest.fixture
async def box() -> BoundMailbox:
    return BoundMailbox(AgentId.new(), (), 7, Received(7, {}), lambda _: None)


def make(box: BoundMailbox, dest: EntityId = DEST, lane: int = REQUESTS) -> Line:
    outlet = Outlet(dest, SendStream(box.key, box.inc, lane))
    outbox = Outbox(outlet.stream, 8, 1000)
    return Line(box, outlet, ChannelKey(box.uid.uid, box.inc, dest.uid, lane), outbox)


def awaited(line: Line, *, now: float = 0.0) -> Awaited:
    """Submit a request on a line."""
    header = Message.create(line.box.uid, line.dest, PingRequest()).header
    parcel, _ = line.outbox.submit("q", header.tag.bytes, [b"x"], now)
    parcel.note = header
    return Awaited(header, now, line.key.lane, parcel.seq, parcel)


async def test_lines_are_found_by_all_that_they_belong_to(box: BoundMailbox) -> None:
    lines, other = Lines(), AgentId.new()
    first, second = make(box), make(box, other)
    for line in (first, second):
        lines.add(line)
    assert lines.get(first.key) is first
    assert set(lines.all()) == set(lines.of(box)) == {first, second}
    assert lines.to(DEST.uid) == [first]
    assert lines.at(b"p") == []
    lines.place(first, b"p")
    lines.place(second, b"q")
    lines.place(first, b"q")
    assert lines.at(b"p") == []
    assert set(lines.at(b"q")) == {first, second}
    lines.place(second, b"")
    assert lines.at(b"q") == [first]
    for line in (first, second, second):
        lines.remove(line)
    assert lines.get(first.key) is None
    assert not (lines.all())
    assert not (lines.of(box))
    assert not (lines.to(DEST.uid))
    assert not (lines.at(b"q"))


async def test_of_two_lines_of_a_channel_the_later_is_found(
    box: BoundMailbox,
) -> None:
    lines, former, later = Lines(), make(box), make(box)
    lines.add(former)
    lines.add(later)
    lines.remove(former)
    assert lines.get(later.key) is later
    assert lines.all() == lines.of(box) == lines.to(DEST.uid) == [later]


async def test_waiting_until_nothing_is_on_the_way(box: BoundMailbox) -> None:
    line = make(box)
    line.outbox.expect(0.0)
    first = awaited(line).parcel
    assert first is not None
    waiting = asyncio.create_task(drained([line], 60.0))
    await asyncio.sleep(0)
    line.outbox.drop(first)
    line.note_progress()
    second = awaited(line).parcel  # before anybody has run
    assert second is not None
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    line.outbox.drop(second)
    line.note_progress()
    async with asyncio.timeout(5):
        await waiting
    awaited(line)
    async with asyncio.timeout(5):
        await drained([line], 0.01)  # and no longer than that


async def test_a_sender_that_waits_is_told_once(box: BoundMailbox) -> None:
    line = make(box)
    parcel = awaited(line).parcel
    assert parcel is not None
    assert not line.failed(parcel, ValueError())
    accepted = asyncio.get_running_loop().create_future()
    parcel.accepted = accepted
    assert line.failed(parcel, ValueError("first"))
    assert not line.failed(parcel, ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        await accepted


async def test_the_tags_of_answers_that_are_on_their_way(box: BoundMailbox) -> None:
    lines = Lines()
    requests, replies = make(box), make(box, lane=REPLIES)
    for line in (requests, replies):
        line.outbox.expect(0.0)
        lines.add(line)
    awaited(requests)
    tag = awaited(replies).header.tag.bytes
    assert lines.answering(box) == {tag}


async def test_withdrawing_a_request(box: BoundMailbox) -> None:
    lines, line = Lines(), make(box)
    lines.add(line)
    line.outbox.expect(0.0)
    held = awaited(line)
    assert lines.withdraw(box, held)
    assert not len(line.outbox)
    assert not lines.withdraw(box, held)
    line.outbox.channel_open(3, 0, 0.0)
    sent = awaited(line)
    assert not lines.withdraw(box, sent)
    assert sent.parcel is not None
    assert not sent.parcel.kept


async def test_withdrawing_what_no_line_carries(box: BoundMailbox) -> None:
    lines, line = Lines(), make(box)
    assert not lines.withdraw(box, awaited(line))
    lines.add(line)
    header = Message.create(box.uid, DEST, PingRequest()).header
    assert not lines.withdraw(box, Awaited(header, 0.0, REQUESTS, 1, None))


async def test_what_is_had_directly(box: BoundMailbox) -> None:
    lines, line = Lines(), make(box)
    assert not lines.has_directly(box, awaited(line))  # no line carries it
    lines.add(line)
    line.outbox.expect(0.0)
    held = awaited(line)
    assert not lines.has_directly(box, held)
    line.outbox.channel_open(3, 1, 0.0)
    sent = awaited(line)
    assert lines.has_directly(box, sent)
    line.outbox.channel_lost(0.0, grace=True)
    assert not lines.has_directly(box, sent)
    line.outbox.channel_open(4, 1, 0.0)
    assert not lines.has_directly(box, sent)


async def test_news_of_an_incarnation_are_looked_at_once(box: BoundMailbox) -> None:
    lines, line, later = Lines(), make(box), make(box, lane=REPLIES)
    assert lines.outdated(DEST.uid, 5) == []
    lines.add(line)
    assert lines.outdated(DEST.uid, 5) == [line]
    assert lines.outdated(DEST.uid, 5) == []
    assert lines.outdated(DEST.uid, 4) == []
    lines.add(later)
    assert later.known == 5
    assert set(lines.outdated(DEST.uid, 6)) == {line, later}
    lines.remove(line)
    lines.remove(later)
    assert not lines._newest


async def test_who_is_reached_directly(box: BoundMailbox) -> None:
    lines, line = Lines(), make(box)
    other = BoundMailbox(AgentId.new(), (), 8, Received(8, {}), lambda _: None)
    lines.add(line)
    assert not lines.reaches(box, DEST, 0)
    line.outbox.channel_open(5, 0, 0.0)
    assert lines.reaches(box, DEST, 0)
    assert lines.reaches(box, DEST, 5)
    assert not lines.reaches(box, DEST, 6)
    assert not lines.reaches(other, DEST, 0)
    assert not lines.reaches(box, AgentId.new(), 0)
