"""Sessions that share memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from academy.link.channel import REPLIES, ChannelKey, Reason, Received
from academy.link.config import LinkConfig
from academy.link.frame import (
    Abort,
    Ack,
    Back,
    Buffer,
    Close,
    Data,
    Dropped,
    Frame,
    Lent,
    Mapped,
    Offer,
    Opened,
    Part,
    Ping,
    Refused,
    RemoteProtocolError,
    Returned,
    Unmapped,
)
from academy.link.lending import State
from academy.link.session import Session
from academy.link.sharing import SharedMemory
from academy.segment import make_table
from tests.unit.link.memory import LEAST, MOST, shared, small
from tests.unit.link.pair import Pair, channel_key, plain

__all__ = ["small"]

pytestmark = pytest.mark.usefixtures("small")

CONFIG = dataclasses.replace(
    LinkConfig(), frame_limit=4096, chunk=50, part=200, parts_limit=4000
)


class Sharers(Pair):
    """Two sessions that share memory, each with a channel to the other."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.there, self.back = self.open(self.a, self.b), self.open(self.b, self.a)

    def relink(self) -> None:
        self.memory = shared(), shared()
        self.a.link_up(self.memory[0])
        self.b.link_up(self.memory[1])

    def open(self, sender: Session, receiver: Session, lane: int = 0) -> ChannelKey:
        key = channel_key(lane)
        sender.open(key)
        self.run()
        (offered,) = receiver.events_received()
        receiver.accept(offered.channel, 9, 0)  # type: ignore[union-attr]
        self.run()
        sender.events_received()
        return key

    def run(self) -> list[Frame]:
        """Carry all that there is, both ways; return it."""
        found: list[Frame] = []
        while self.a.has_output or self.b.has_output:
            found += self.carry(budget=1)
            found += self.carry_back(budget=1)
        return found

    def received(self) -> list[Sequence[Buffer]]:
        events = self.b.events_received() + self.a.events_received()
        return [event.segments for event in events if isinstance(event, Received)]

    def ready(self, size: int = 100) -> None:
        """Let both have a region that is free."""
        self.a.send(self.there, 1, [array(size)])
        self.b.send(self.back, 1, [array(size)])
        self.run()
        self.received()


def array(size: int, seed: int = 0) -> memoryview:
    return memoryview(bytearray((seed + i) % 256 for i in range(size)))


def kinds(frames: Sequence[Frame]) -> list[type[Frame]]:
    return [type(frame) for frame in frames]


@pytest.mark.parametrize("lent", [False, True])
def test_a_segment_is_lent(lent: bool) -> None:
    pair = Sharers()
    pair.ready()
    value = array(100, 5)
    pair.a.send(pair.there, 2, [b"head", value, bytearray(b"tail")], None, lent)
    frames = pair.run()
    assert kinds(frames) == [Part, Lent, Part]
    value[:] = bytes(100)
    ((head, found, tail),) = pair.received()
    assert (head, tail) == (b"head", bytearray(b"tail"))
    assert found == array(100, 5)
    assert pair.b._in.unfinished.weight == 0
    del found
    assert kinds(pair.run()) == [Returned]


def test_it_may_be_the_last_of_its_message() -> None:
    pair = Sharers()
    pair.ready()
    pair.a.send(pair.there, 2, [b"head", array(100)], None, True)
    (_, lent) = pair.run()
    assert isinstance(lent, Lent)
    assert lent.last
    assert plain(pair.received()[0]) == [b"head", bytes(array(100))]


def test_other_kinds_of_segments_go_in_parts() -> None:
    pair = Sharers()
    for seq in (1, 2, 3):
        pair.a.send(pair.there, seq, [bytes(200), bytearray(200)])
        assert {Part, Ack} > set(kinds(pair.run()))


def test_what_a_message_has_to_itself_goes_back() -> None:
    pair = Sharers()
    pair.ready()
    answers = pair.open(pair.b, pair.a, REPLIES)
    pair.a.send(pair.there, 2, [array(100, 5)])
    pair.run()
    ((value,),) = pair.received()
    pair.b.send(answers, 1, [b"head", value])
    frames = pair.run()
    assert kinds(frames) == [Part, Back]
    ((_, back),) = pair.received()
    assert back == array(100, 5)
    back[0] = 77
    assert value[0] == 77
    (own,) = pair.memory[0].lender.owned.values()
    del value
    assert kinds(pair.run()) == [Returned]
    assert own.state is State.BACK
    del back
    pair.run()
    assert own.state is State.FREE


@pytest.mark.parametrize(("lane", "lent"), [(0, False), (0, True), (1, True)])
def test_what_others_may_have_is_copied(lane: int, lent: bool) -> None:
    pair = Sharers()
    pair.ready()
    key = pair.open(pair.b, pair.a, lane)
    pair.a.send(pair.there, 2, [array(100, 5)])
    pair.run()
    ((value,),) = pair.received()
    pair.b.send(key, 1, [b"head", value], None, lent)
    assert kinds(pair.run()) == [Part, Lent]
    ((_, copy),) = pair.received()
    copy[0] = 77
    assert value == array(100, 5)


def test_on_a_channel_that_was_refused() -> None:
    pair = Sharers()
    pair.ready()
    pair.a.send(pair.there, 2, [array(100)])
    frames = pair.a.frames_to_send(1000)
    assert kinds(frames) == [Part, Lent]
    pair.b.receive(frames[0])
    pair.b.refuse(1, Reason.NOT_HERE)
    pair.b.receive(frames[1])
    assert kinds(pair.run()) == [Refused, Returned]
    assert not pair.received()
    (own,) = pair.memory[0].lender.owned.values()
    assert own.state is State.FREE


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_taken_back_amid_it(turns: int) -> None:
    """While it is copied, and when it was lent and something else is missing."""
    pair = Sharers()
    pair.ready(200)
    value = array(200, 5)
    pair.a.send(pair.there, 2, [b"head", value, bytes(300)], None, True)
    for _ in range(turns):
        pair.carry(budget=1)
    assert pair.a.take_back(pair.there, 2)
    frames = pair.run()
    # Copied in two turns, then what is before it, then the segment itself.
    assert kinds(frames) == ([], [], [Abort], [Abort, Returned])[turns - 1]
    assert not pair.received()
    assert pair.b._in.unfinished.weight == 0
    (own,) = pair.memory[0].lender.owned.values()
    assert own.state is State.FREE


def test_closed_amid_it() -> None:
    pair = Sharers()
    pair.ready(200)
    pair.a.send(pair.there, 2, [array(200)])
    pair.a.frames_to_send(1)
    pair.a.frames_to_send(1)
    pair.a.close(pair.there)
    assert Close in kinds(pair.run())
    (own,) = pair.memory[0].lender.owned.values()
    assert own.state is State.FREE


def test_after_a_new_connection_nothing_of_the_old_one_counts() -> None:
    pair = Sharers()
    pair.ready()
    pair.a.send(pair.there, 2, [array(100, 5)])
    pair.run()
    ((value,),) = pair.received()
    former = pair.memory
    pair.relink()
    assert all(memory._closed for memory in former)
    there = pair.open(pair.a, pair.b)
    for seq in range(1, 5):
        pair.a.send(there, seq, [array(100, seq)])
        pair.run()
    assert value == array(100, 5)
    del value
    assert not pair.b.has_output
    pair.a.link_down()
    assert pair.a._memory is None


def test_sweep() -> None:
    pair = Sharers()
    pair.ready()
    for _ in range(2):
        pair.a.sweep()
    assert kinds(pair.run()) == [Dropped]
    Session(CONFIG).sweep()


def test_who_shares_nothing_says_so() -> None:
    pair = Pair(CONFIG)
    pair.b.receive(Offer(1, 3, LEAST, 1))
    assert pair.b.frames_to_send(0) == [Unmapped(1)]


@pytest.mark.parametrize(
    "frame",
    [
        Mapped(1),
        Unmapped(1),
        Returned(1),
        Dropped(1),
        Lent(1, 1, True, 1, 9),
        Back(1, 1, True, 1, 9, 0),
        Ping(),
    ],
)
def test_words_about_memory_where_none_is_shared(frame: Frame) -> None:
    pair = Pair(CONFIG)
    with pytest.raises(RemoteProtocolError, match=f"{type(frame).__name__} to a"):
        pair.b.receive(frame)
    if isinstance(frame, Ping):
        with pytest.raises(RemoteProtocolError, match="Ping to a session"):
            Sharers().b.receive(frame)


def begun(pair: Sharers, *segments: Buffer) -> None:
    """Let a message of a begin at b, with nothing of the segments."""
    pair.b.receive(Part(1, 2, False, make_table(segments)))


@pytest.mark.parametrize(
    ("segments", "frame", "problem"),
    [
        ([array(99)], Lent(1, 2, True, 1, 100), "for another segment"),
        ([bytes(100)], Lent(1, 2, True, 1, 100), "for another segment"),
        ([array(100)], Lent(1, 3, True, 1, 100), "amid those of another"),
        ([array(100)] * 2, Lent(1, 2, True, 1, 100), "are missing"),
        ([array(100)], Lent(2, 2, True, 1, 100), "not open"),
    ],
)
def test_segments_that_do_not_fit(
    segments: list[Buffer], frame: Frame, problem: str
) -> None:
    pair = Sharers()
    pair.ready()
    begun(pair, *segments)
    with pytest.raises(RemoteProtocolError, match=problem):
        pair.b.receive(frame)
    pair.b.link_down()


def test_a_segment_of_a_message_that_was_not_begun() -> None:
    pair = Sharers()
    pair.ready()
    with pytest.raises(RemoteProtocolError, match="before the table"):
        pair.b.receive(Lent(1, 2, True, 1, 100))


def test_a_message_amid_one() -> None:
    pair = Sharers()
    pair.ready()
    begun(pair, array(100), array(5))
    pair.b.receive(Lent(1, 2, False, 1, 100))
    with pytest.raises(RemoteProtocolError, match="amid the parts"):
        pair.b.receive(Data(1, 3, [b""]))


SHAPES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.booleans(),
        st.lists(
            st.tuples(
                st.sampled_from([bytes, bytearray, memoryview, memoryview]),
                st.sampled_from([0, 1, LEAST, 100, 300, MOST, MOST + 1]),
            ),
            min_size=1,
            max_size=4,
        ),
    ),
    max_size=8,
)


@given(SHAPES, st.lists(st.integers(1, 600), min_size=1, max_size=10), st.booleans())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_all_messages_arrive(
    shapes: list[tuple[int, bool, list[tuple[type[Buffer], int]]]],
    budgets: list[int],
    keep: bool,
) -> None:
    pair = Sharers()
    keys = [pair.open(pair.a, pair.b, lane) for lane in (0, 1, 0)]
    sent: dict[ChannelKey, list[list[bytes]]] = {key: [] for key in keys}
    found: dict[ChannelKey, list[list[bytes]]] = {key: [] for key in keys}
    kept = []

    def take() -> None:
        for event in pair.b.events_received():
            assert isinstance(event, Received)
            found[event.key].append(plain(event.segments))
            if keep:
                kept.append((event.segments, plain(event.segments)))

    for number, (which, lent, shape) in enumerate(shapes):
        segments = [
            kind(bytes((number + i) % 256 for i in range(size))) for kind, size in shape
        ]
        sent[keys[which]].append(plain(segments))
        pair.a.send(keys[which], len(sent[keys[which]]), segments, None, lent)
        pair.carry(budgets[number % len(budgets)])
        take()
        pair.carry_back()
    while pair.a.has_output or pair.b.has_output:
        pair.carry(budgets[0])
        take()
        pair.carry_back()
    assert found == sent
    assert all(plain(segments) == text for segments, text in kept)
    assert pair.b._in.unfinished.weight == 0
    kept.clear()
    pair.run()
    owned = pair.memory[0].lender.owned.values()
    assert {own.state for own in owned} <= {State.FREE}


def test_the_answer_to_an_opened_channel_is_no_word_about_memory() -> None:
    pair = Sharers()
    with pytest.raises(RemoteProtocolError, match="a second answer to channel"):
        pair.a.receive(Opened(1, 9, 0))
    assert isinstance(pair.memory[0], SharedMemory)
