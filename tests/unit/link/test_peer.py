"""A session and the connection that carries it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from academy.link.channel import ChannelOffered, Event, Taken, Told
from academy.link.config import LinkConfig
from academy.link.connection import Connection
from academy.link.frame import Ack, Buffer, Control, Data, Frame, Open, Opened, Part
from academy.link.part_queue import TAIL
from academy.link.parts import cut
from academy.link.peer import BUDGET, FEW, FLUSH_AT, Peer
from tests.unit.link.network import Changes, nothing_left
from tests.unit.link.pair import channel_key, plain

PROMPT = LinkConfig(ack_delay=0.01)
PATIENT = LinkConfig(ack_delay=3600.0)


class Wire:
    """Stands for a connection: keeps what is sent."""

    kind = "tcp"
    rtt = 0.5

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.paused = False
        self.drained = True
        self.writes: list[list[Frame]] = []
        self.failed: list[str] = []

    def send(self, frames: list[Frame]) -> None:
        self.writes.append(frames)
        self._changes.note()

    def drain(self) -> None:
        self.paused = True

    def regions(self) -> None:
        """Share no memory."""

    def fail(self, reason: str) -> None:
        self.failed.append(reason)

    @property
    def frames(self) -> list[Frame]:
        return [frame for frames in self.writes for frame in frames]


class Setup:
    """A peer on a wire."""

    def __init__(self, config: LinkConfig) -> None:
        self.changes = Changes()
        self.wire = Wire(self.changes)
        self.events: list[Event] = []
        self.messages: list[tuple[object, int, list[bytes]]] = []
        self.takes: int | None = None
        """Channel whose messages are taken as they come."""
        self.peer = Peer(b"p" * 16, config, self._message, self._note)

    def _message(
        self, peer: Peer, note: object, seq: int, segments: Sequence[Buffer]
    ) -> None:
        assert peer is self.peer
        self.messages.append((note, seq, plain(segments)))
        if self.takes is not None:
            peer.taken(self.takes, seq)

    def _note(self, peer: Peer, event: Event) -> None:
        assert peer is self.peer
        self.events.append(event)

    def attach(self) -> None:
        connection: Connection = self.wire  # type: ignore[assignment]
        self.peer.attach(connection)

    def offered(self) -> int:
        """Let the other side open a channel, and accept it."""
        key = channel_key()
        self.peer.receive([Open(1, key.lane, key.src, key.src_inc, key.dest)])
        (offer,) = self.events
        assert offer == ChannelOffered(offer.channel, key)
        self.events.clear()
        self.peer.session.accept(offer.channel, 9, 0, "note")
        self.peer.flush()
        assert self.wire.writes.pop() == [Opened(1, 9, 0)]
        return offer.channel

    def opened(self) -> None:
        """Open a channel to the other side."""
        self.key = channel_key()
        self.peer.session.open(self.key)
        self.peer.receive([Opened(1, 9, 0)])
        self.peer.flush()
        self.wire.writes.clear()
        self.events.clear()


@pytest.fixture
async def left() -> AsyncIterator[None]:
    async with nothing_left():
        yield


pytestmark = pytest.mark.usefixtures("left")


def linked(config: LinkConfig = PATIENT) -> Setup:
    setup = Setup(config)
    setup.attach()
    return setup


class TestState:
    async def test_fresh(self) -> None:
        peer = Setup(PATIENT).peer
        assert not peer.usable
        assert (peer.path, peer.reason, peer.rtt) == ("relay", "", None)
        assert peer.rate == 0.0

    async def test_linked(self) -> None:
        setup = Setup(PATIENT)
        setup.peer.reason, setup.peer.refused = "nobody listens", True
        setup.attach()
        assert setup.peer.usable
        assert setup.peer.session.linked
        assert (setup.peer.path, setup.peer.reason) == ("tcp", "")
        assert setup.peer.rtt == 0.5
        assert not setup.peer.refused

    async def test_suspected(self) -> None:
        setup = linked()
        setup.peer.suspected = True
        assert not setup.peer.usable
        assert setup.peer.path == "relay"
        setup.attach()
        assert setup.peer.usable

    async def test_detached(self) -> None:
        setup = linked()
        setup.peer.suspected = True
        setup.peer.detach("it is gone")
        assert not setup.peer.suspected
        assert not setup.peer.session.linked
        assert (setup.peer.path, setup.peer.reason) == ("relay", "it is gone")

    async def test_rate(self) -> None:
        setup = linked()
        setup.peer.sent += 30
        setup.peer.received += 30
        assert 50 < setup.peer.rate < 80


class TestReceive:
    async def test_messages_are_passed_on(self) -> None:
        setup = linked()
        setup.offered()
        setup.peer.receive([Data(1, 1, [b"text"]), Data(1, 2, [b"more"])])
        assert setup.messages == [("note", 1, [b"text"]), ("note", 2, [b"more"])]
        assert not setup.events

    async def test_messages_in_parts_are_passed_on(self) -> None:
        setup = linked()
        setup.offered()
        whole = [b"head", bytes(100_000)]
        *first, last = cut(whole, 60_000)
        setup.peer.receive([Part(1, 1, False, piece) for piece in first])
        assert not setup.messages
        setup.peer.receive([Part(1, 1, True, last)])
        assert setup.messages == [("note", 1, whole)]
        assert not setup.events

    async def test_what_is_taken_meanwhile_is_confirmed_together(self) -> None:
        setup = linked()
        channel = setup.offered()
        setup.takes = channel
        setup.peer.receive([Data(1, seq, [b"text"]) for seq in range(1, 6)])
        setup.peer.acknowledge()
        setup.peer.flush()
        assert setup.wire.frames[-1:] == [Ack(((1, 5),))]

    async def test_use_is_noted(self) -> None:
        setup = linked()
        before = setup.peer.last_used
        assert setup.peer.last_used == before
        setup.peer.receive([Control(b"text")])
        assert setup.peer.last_used > before
        assert setup.events == [Told(b"text")]

    async def test_broken_protocol(self) -> None:
        setup = linked()
        setup.peer.receive([Data(7, 1, [b"text"])])
        assert setup.wire.failed == ["a message on channel 7, not open"]
        assert not setup.events

    async def test_broken_protocol_without_a_connection(self) -> None:
        """The frame was read before the connection was given up."""
        setup = linked()
        setup.peer.detach("it is gone")
        setup.peer.receive([Data(7, 1, [b"text"])])
        assert not setup.wire.failed
        assert not setup.events

    async def test_sound_beginning_of_a_broken_frame(self) -> None:
        """It is told at once, not when the next connection brings something."""
        setup = linked()
        setup.opened()
        setup.peer.receive([Ack(((1, 1), (7, 1)))])
        assert setup.wire.failed == ["an answer to channel 7, never opened"]
        assert setup.events == [Taken(setup.key, 1)]


class TestFlush:
    async def test_in_one_go(self) -> None:
        setup = linked()
        for text in (b"1", b"2"):
            setup.peer.session.tell(text)
            setup.peer.flush_soon()
        assert not setup.wire.writes
        await setup.changes.until(lambda: bool(setup.wire.writes))
        assert setup.wire.writes == [[Control(b"1"), Control(b"2")]]

    @pytest.mark.parametrize("after", [True, False])
    async def test_first_answer_at_once(self, after: bool) -> None:
        """Whether it is there when a read has been handled, or comes later."""
        setup = linked()
        if after:
            setup.peer.receive([])
        setup.peer.session.tell(b"1")
        setup.peer.flush_soon() if after else setup.peer.receive([])
        assert setup.wire.writes == [[Control(b"1")]]
        for text in (b"2", b"3"):
            setup.peer.session.tell(text)
            setup.peer.flush_soon()
        await setup.changes.until(lambda: len(setup.wire.writes) == 2)
        assert setup.wire.writes[1] == [Control(b"2"), Control(b"3")]

    async def test_after_much_was_read_all_goes_together(self) -> None:
        """Each has an answer coming, and one write for all costs least."""
        setup = linked()
        setup.peer.receive([Control(b"text")] * (FEW + 1))
        for text in (b"1", b"2"):
            setup.peer.session.tell(text)
            setup.peer.flush_soon()
        assert not setup.wire.writes
        await setup.changes.until(lambda: len(setup.wire.writes) == 1)
        assert setup.wire.frames == [Control(b"1"), Control(b"2")]

    async def test_many_at_a_time(self) -> None:
        """The peer should not be idle until all are there."""
        setup = linked()
        for _ in range(2 * FLUSH_AT + 1):
            setup.peer.session.tell(b"text")
            setup.peer.flush_soon()
        assert [len(frames) for frames in setup.wire.writes] == [FLUSH_AT, FLUSH_AT]
        await setup.changes.until(lambda: len(setup.wire.writes) == 3)
        assert len(setup.wire.writes[2]) == 1

    async def test_nothing_to_write(self) -> None:
        setup = linked()
        before = setup.peer.last_used
        setup.peer.flush_soon()
        setup.peer.flush()
        assert not setup.wire.writes
        assert setup.peer.last_used == before

    async def test_without_a_connection(self) -> None:
        setup = linked()
        setup.peer.session.tell(b"text")
        setup.peer.detach("it is gone")
        setup.peer.flush_soon()
        setup.peer.flush()
        assert not setup.wire.writes

    async def test_large_message_goes_in_turns(self) -> None:
        setup = linked()
        setup.opened()
        text = bytes(10 * BUDGET)
        setup.peer.session.send(setup.key, 1, [text])
        setup.peer.flush_soon()
        setup.peer.session.tell(b"between")
        await setup.changes.until(lambda: not setup.peer.session.has_parts)
        sizes = [
            sum(len(frame.data) for frame in frames if isinstance(frame, Part))
            for frames in setup.wire.writes
        ]
        assert sum(sizes) > len(text)
        assert max(sizes) <= 2 * BUDGET
        assert Control(b"between") in [f for w in setup.wire.writes[:3] for f in w]

    async def test_large_message_waits_for_the_writer(self) -> None:
        setup = linked()
        setup.opened()
        setup.wire.paused = True
        setup.peer.session.send(setup.key, 1, [bytes(2 * BUDGET)])
        setup.peer.session.tell(b"small")
        setup.peer.flush()
        assert setup.wire.frames == [Control(b"small")]
        setup.wire.paused = False
        setup.peer.flush()
        assert isinstance(setup.wire.frames[-1], Part)
        await setup.changes.until(lambda: not setup.peer.session.has_parts)

    async def test_the_end_of_lent_memory_waits_until_the_rest_is_written(self) -> None:
        setup = linked()
        setup.opened()
        text = bytearray(BUDGET)
        setup.peer.send(setup.key, 1, [b"head", b"", text], len(text) + 4, True)
        setup.wire.drained = False
        setup.peer.flush()
        while not setup.wire.paused:
            setup.peer.flush()
        parts = [f for f in setup.wire.frames if isinstance(f, Part)]
        assert parts
        assert not parts[-1].last
        setup.peer.flush()
        assert setup.wire.frames[-1] is parts[-1]
        setup.wire.paused, setup.wire.drained = False, True
        setup.peer.flush()
        last = setup.wire.frames[-1]
        assert isinstance(last, Part)
        assert last.last
        assert type(last.data) is bytes
        assert 0 < len(last.data) <= TAIL


class TestTaken:
    async def test_confirmed_soon(self) -> None:
        setup = linked(PROMPT)
        channel = setup.offered()
        for seq in (1, 2):
            setup.peer.receive([Data(1, seq, [b"text"])])
            setup.peer.taken(channel, seq)
        assert not setup.wire.writes
        await setup.changes.until(lambda: bool(setup.wire.writes))
        assert setup.wire.frames == [Ack(((1, 2),))]

    async def test_confirmed_with_the_next_frame(self) -> None:
        setup = linked()
        channel = setup.offered()
        setup.peer.receive([Data(1, 1, [b"text"])])
        setup.peer.taken(channel, 1)
        setup.peer.session.tell(b"answer")
        setup.peer.flush()
        assert setup.wire.frames == [Control(b"answer"), Ack(((1, 1),))]
        setup.peer.detach("the test is over")

    async def test_confirmed_at_once_when_it_is_much(self) -> None:
        """The sender may wait for just that."""
        setup = linked(LinkConfig(ack_delay=3600.0, ack_bytes=4))
        channel = setup.offered()
        setup.peer.receive([Data(1, 1, [b"text"])])
        assert not setup.wire.writes
        setup.peer.taken(channel, 1)
        await setup.changes.until(lambda: bool(setup.wire.writes))
        assert setup.wire.frames == [Ack(((1, 1),))]

    async def test_no_timer_without_a_connection(self) -> None:
        setup = linked(PROMPT)
        channel = setup.offered()
        setup.peer.receive([Data(1, 1, [b"text"])])
        setup.peer.taken(channel, 1)
        timer = setup.peer._timer
        assert timer is not None
        setup.peer.detach("it is gone")
        assert timer.cancelled()
        assert setup.peer._timer is None
        await asyncio.sleep(0)
        assert not setup.wire.writes
