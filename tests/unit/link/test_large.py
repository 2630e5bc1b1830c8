"""Large messages through a link protocol and a session, as a connection drives them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from academy.link import incoming as incoming_module
from academy.link.channel import ChannelKey, Reason, Received, Rejected
from academy.link.codec import encode
from academy.link.config import LinkConfig
from academy.link.frame import Abort, Buffer, Data, Filled, Part, RemoteProtocolError
from academy.link.session import Session
from tests.unit.link.pair import Pair, channel_key, open_pair, plain

CONFIG = dataclasses.replace(
    LinkConfig(), frame_limit=4096, chunk=128, part=200, parts_limit=4000
)
TYPES = st.sampled_from([bytes, bytearray, memoryview])
MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(st.tuples(TYPES, st.integers(0, 700)), min_size=1, max_size=5),
    ),
    max_size=6,
)


class Receiver:
    """The receiving side of a link, which reads as a connection does."""

    def __init__(self, session: Session) -> None:
        _, self.link = open_pair(CONFIG)
        self.session = session

    def read(self, stream: memoryview, size: int, *, direct: bool) -> int:
        """Read at most so many bytes; return how many."""
        part, rest = self.link.part, self.link.rest
        room = None
        if direct and part is not None and rest:
            room = self.session.room(part.channel, min(size, rest))
        if room is None:
            size = min(size, len(stream))
            self.link.receive_data(bytearray(stream[:size]), 0.0)
        else:
            size = min(len(room), len(stream))
            room[:size] = stream[:size]
            self.link.receive_filled(size, 0.0)
        for event in self.link.events_received():
            assert isinstance(event, (Data, Part, Filled, Abort)), event
            self.session.receive(event)
        return size


def channels(pair: Pair) -> list[ChannelKey]:
    keys = [channel_key() for _ in range(3)]
    for key in keys:
        pair.channel(key)
    return keys


def value(kind: type[Buffer], size: int, seed: int) -> Buffer:
    return kind(bytes((seed + i) % 256 for i in range(size)))


@given(
    MESSAGES,
    st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=20),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_messages_arrive_wherever_the_stream_is_cut(
    messages: list[tuple[int, list[tuple[type[Buffer], int]]]],
    reads: list[tuple[bool, int]],
    lent: bool,
) -> None:
    pair = Pair(CONFIG)
    keys = channels(pair)
    sent: dict[ChannelKey, list[list[Buffer]]] = {key: [] for key in keys}
    for number, (which, shape) in enumerate(messages):
        segments = [value(*one, seed=number) for one in shape]
        key = keys[which]
        sent[key].append(segments)
        pair.a.send(key, len(sent[key]), segments, None, lent)
    frames = pair.a.frames_to_send(1 << 30)
    while pair.a.has_parts:
        frames += pair.a.frames_to_send(1 << 30)
    receiver = Receiver(pair.b)
    stream = memoryview(b"".join(bytes(p) for f in frames for p in encode(f)))
    for direct, size in itertools.cycle(reads):
        if not stream:
            break
        stream = stream[receiver.read(stream, size, direct=direct) :]
    found: dict[ChannelKey, list[Sequence[Buffer]]] = {key: [] for key in keys}
    for event in pair.b.events_received():
        assert isinstance(event, Received)
        found[event.key].append(event.segments)
        assert event.seq == len(found[event.key])
    for key in keys:
        assert list(map(plain, found[key])) == list(map(plain, sent[key]))
        for ours, theirs in zip(found[key], sent[key], strict=True):
            assert [*map(type, ours)] == [*map(type, theirs)]
    assert pair.b._in.unfinished.weight == 0


def test_a_message_that_is_taken_back() -> None:
    pair = Pair(CONFIG)
    first, second, _ = channels(pair)
    text = bytearray(2000)
    pair.a.send(first, 1, [b"head", b"", text], None, True)
    pair.a.send(first, 2, [b"next"])
    pair.carry(budget=700)
    assert pair.b._in.unfinished.weight > 2000
    assert pair.a.take_back(first, 1)
    assert not pair.a.take_back(first, 1)
    text[:] = b"?" * len(text)
    pair.a.send(second, 1, [bytes(3000)])
    assert Abort(1, 1) in pair.carry()
    found = [(e.seq, plain(e.segments)) for e in received(pair)]
    assert sorted(found) == [(1, [bytes(3000)]), (2, [b"next"])]
    assert pair.b._in.unfinished.weight == 0


def received(pair: Pair) -> list[Received]:
    events = pair.b.events_received()
    assert all(isinstance(event, Received) for event in events)
    return [event for event in events if isinstance(event, Received)]


def test_a_message_that_is_taken_back_before_it_was_begun() -> None:
    pair = Pair(CONFIG)
    key, *_ = channels(pair)
    pair.a.send(key, 1, [bytearray(2000)], None, True)
    assert pair.a.take_back(key, 1)
    assert pair.carry() == []


@pytest.mark.parametrize("size", [10, 2000])
def test_too_late_to_take_back(size: int) -> None:
    pair = Pair(CONFIG)
    key, *_ = channels(pair)
    pair.a.send(key, 1, [bytearray(size)], None, True)
    while pair.a.has_output:
        pair.carry()
    assert not pair.a.take_back(key, 1)
    assert not pair.a.take_back(channel_key(), 1)
    assert [e.seq for e in received(pair)] == [1]


def test_what_was_lent_is_whole_however_it_changes_afterwards() -> None:
    """Whoever takes a message back in vain may do with its memory what he wants."""
    for turns in range(40):
        pair = Pair(CONFIG)
        key, *_ = channels(pair)
        text = bytearray(b"x" * 2000)
        pair.a.send(key, 1, [b"head", b"", text], None, True)
        for _ in range(turns):
            pair.carry(budget=1)
        in_time = pair.a.take_back(key, 1)
        text[:] = b"?" * len(text)
        while pair.a.has_output:
            pair.carry(budget=1)
        found = [plain(event.segments) for event in received(pair)]
        assert found == ([] if in_time else [[b"head", b"", b"x" * 2000]])
        if not in_time:
            assert turns > 1
            break
    else:
        raise AssertionError("it was always in time")


def test_an_abort_of_what_was_not_begun() -> None:
    pair = Pair(CONFIG)
    key, *_ = channels(pair)
    with pytest.raises(RemoteProtocolError, match="was not begun"):
        pair.b.receive(Abort(1, 1))
    pair.a.send(key, 1, [bytes(2000)])
    pair.carry(budget=1)
    with pytest.raises(RemoteProtocolError, match="was not begun"):
        pair.b.receive(Abort(1, 2))


def test_pieces_that_do_not_belong_to_the_message() -> None:
    pair = Pair(CONFIG)
    key, *_ = channels(pair)
    with pytest.raises(RemoteProtocolError, match="a piece of no message"):
        pair.b.receive(Filled(1, 1, 5))
    pair.a.send(key, 1, [bytes(2000)])
    pair.carry(budget=300)
    with pytest.raises(RemoteProtocolError, match="a piece of no message"):
        pair.b.receive(Filled(1, 2, 5))
    with pytest.raises(RemoteProtocolError, match="more than its memory"):
        pair.b.receive(Filled(1, 1, 2000))


def test_on_a_channel_that_was_refused_nothing_is_read_to_its_place() -> None:
    pair = Pair(CONFIG)
    key = channel_key()
    channel = pair.channel(key)
    pair.a.send(key, 1, [bytes(2000)])
    pair.carry(budget=300)
    assert pair.b.room(1, 100) is not None
    pair.b.refuse(channel, Reason.NOT_HERE)
    assert pair.b.room(1, 100) is None
    pair.b.receive(Filled(1, 1, 5))
    pair.b.receive(Abort(1, 1))


def test_no_room_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sender is told, and the link goes on."""

    class Assembly(incoming_module.Assembly):
        def add(self, data: Buffer) -> None:
            if self.weight:
                raise MemoryError
            super().add(data)

    monkeypatch.setattr(incoming_module, "Assembly", Assembly)
    pair = Pair(CONFIG)
    key, other, _ = channels(pair)
    pair.a.send(key, 1, [bytes(2000)])
    pair.a.send(other, 1, [b"small"])
    pair.carry()
    assert [plain(e.segments) for e in received(pair)] == [[b"small"]]
    assert pair.b._in.unfinished.weight == 0
    pair.carry_back()
    assert pair.a.events_received() == [Rejected(key, Reason.NO_MEMORY)]
    assert not pair.a.has_parts
