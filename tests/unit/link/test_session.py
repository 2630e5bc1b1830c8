from __future__ import annotations

import dataclasses
import struct

import msgspec
import pytest

from academy.link.channel import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Reason,
    Received,
    Rejected,
    Taken,
    Told,
)
from academy.link.config import LinkConfig
from academy.link.frame import (
    Ack,
    Bye,
    Close,
    Control,
    Data,
    Frame,
    LocalProtocolError,
    Open,
    Opened,
    Part,
    Ping,
    Refused,
    RemoteProtocolError,
)
from academy.link.session import Session
from tests.unit.link.pair import CONFIG, Pair, channel_key, plain, wire

SMALL = LinkConfig(
    frame_limit=1024,
    chunk=256,
    part=256,
    message_limit=4096,
    parts_limit=8192,
    channel_limit=3,
    ack_messages=4,
    ack_bytes=1000,
)


def messages(session: Session) -> list[tuple[int, list[bytes]]]:
    """Return number and segments of the received messages."""
    return [
        (e.seq, plain(e.segments))
        for e in session.events_received()
        if isinstance(e, Received)
    ]


# Channels


def test_a_channel_is_offered_and_accepted() -> None:
    pair, key = Pair(), channel_key()
    pair.a.open(key)
    assert not pair.a.is_open(key)
    pair.carry()
    (offered,) = pair.b.events_received()
    assert offered == ChannelOffered(1, key)
    pair.b.accept(1, inc=9, accepted=5)
    pair.carry_back()
    assert pair.a.events_received() == [Accepted(key, 9, 5)]
    assert pair.a.is_open(key)


def test_opening_again_asks_nothing_more() -> None:
    pair, key = Pair(), channel_key()
    pair.a.open(key)
    pair.a.open(key)
    assert len(pair.carry()) == 1
    pair.a.open(key)
    assert pair.carry() == []


def test_opening_without_a_link_asks_nothing() -> None:
    session = Session(CONFIG)
    assert not session.linked
    session.open(channel_key())
    session.link_up()
    assert session.linked
    assert session.frames_to_send(0) == []


def test_a_refused_channel() -> None:
    pair, key = Pair(), channel_key()
    pair.a.open(key)
    pair.carry()
    pair.b.refuse(1, Reason.NOT_HERE)
    pair.b.refuse(1, Reason.NOT_HERE)
    assert len(pair.carry_back()) == 1
    assert pair.a.events_received() == [Rejected(key, Reason.NOT_HERE)]
    assert not pair.a.is_open(key)
    pair.a.open(key)
    assert len(pair.carry()) == 1


def test_accepting_what_is_accepted_or_gone_says_nothing() -> None:
    pair, key = Pair(), channel_key()
    channel = pair.channel(key)
    pair.b.accept(channel, 9, 0)
    pair.b.accept(99, 9, 0)
    assert pair.carry_back() == []


def test_refused_while_messages_are_on_the_way() -> None:
    pair, key = Pair(), channel_key()
    channel = pair.channel(key)
    pair.a.send(key, 1, [b"small"])
    pair.a.send(key, 2, [bytes(3 << 20)])
    pair.b.refuse(channel, Reason.NOT_HERE)
    pair.carry()
    assert pair.b.events_received() == []
    pair.a.send(key, 3, [bytes(3 << 20)])
    pair.carry_back()
    assert pair.a.events_received() == [Rejected(key, Reason.NOT_HERE)]
    assert not pair.a.has_parts
    assert pair.carry() == []


def test_refused_amid_a_message() -> None:
    pair, key = Pair(), channel_key()
    channel = pair.channel(key)
    pair.a.send(key, 1, [bytes(3 << 20)])
    pair.carry(budget=1)
    pair.b.refuse(channel, Reason.NOT_HERE)
    pair.carry()
    assert pair.b.events_received() == []


def test_a_closed_channel_and_a_new_one() -> None:
    pair, key = Pair(), channel_key()
    first = pair.channel(key)
    pair.a.send(key, 1, [bytes(3 << 20)])
    pair.carry(budget=1)
    pair.a.close(key)
    pair.a.close(key)
    assert not pair.a.has_parts
    assert [type(f) for f in pair.carry()] == [Close]
    second = pair.channel(key)
    assert second != first
    pair.a.send(key, 1, [bytes(3 << 20)])
    pair.carry()
    assert messages(pair.b) == [(1, [bytes(3 << 20)])]


def test_closed_while_answers_are_on_the_way() -> None:
    pair = Pair()
    keys = [channel_key() for _ in range(3)]
    for key in keys:
        pair.a.open(key)
    pair.carry()
    pair.b.accept(1, 9, 0)
    pair.carry_back()
    pair.a.events_received()
    pair.b.accept(2, 9, 0)
    pair.b.refuse(3, Reason.NOT_HERE)
    pair.b.taken(1, 5, 0.0)
    for key in keys:
        pair.a.close(key)
    assert [type(f) for f in pair.carry_back()] == [Opened, Refused, Ack]
    assert pair.a.events_received() == []
    pair.carry()


def test_limit_of_channels() -> None:
    pair = Pair(SMALL)
    keys = [channel_key() for _ in range(4)]
    for key in keys:
        pair.a.open(key)
    pair.carry()
    assert len(pair.b.events_received()) == 3
    pair.carry_back()
    assert pair.a.events_received() == [Rejected(keys[3], Reason.TOO_MANY)]
    pair.a.close(keys[0])
    pair.carry()
    pair.channel(channel_key())


# Messages


def test_messages_both_ways() -> None:
    pair, there, back = Pair(), channel_key(0), channel_key(1)
    channel = pair.channel(there)
    pair.b.open(back)
    pair.carry_back()
    pair.a.events_received()
    pair.a.accept(1, 9, 0)
    pair.carry()
    pair.b.events_received()
    pair.a.send(there, 1, [b"head", b"body"])
    pair.b.send(back, 1, [b"reply"])
    pair.carry()
    pair.carry_back()
    assert pair.b.events_received() == [Received(channel, there, 1, [b"head", b"body"])]
    assert pair.a.events_received() == [Received(1, back, 1, [b"reply"])]


def test_sending_needs_an_open_channel() -> None:
    pair, key = Pair(), channel_key()
    with pytest.raises(LocalProtocolError, match="not open"):
        pair.a.send(key, 1, [b"x"])
    pair.a.open(key)
    with pytest.raises(LocalProtocolError, match="not open"):
        pair.a.send(key, 1, [b"x"])


@pytest.mark.parametrize("size", [0, 1, 191, 192, 193, 255, 256, 257, 4000, 4096])
def test_messages_of_any_size(size: int) -> None:
    pair, key = Pair(SMALL), channel_key()
    pair.channel(key)
    pair.a.send(key, 1, [bytes(size)])
    frames = pair.carry()
    assert messages(pair.b) == [(1, [bytes(size)])]
    assert all(len(wire([f])) <= SMALL.frame_limit + 4 for f in frames)
    assert isinstance(frames[0], Data if size <= 192 else Part)


def test_many_small_segments_make_a_large_message() -> None:
    pair, key = Pair(SMALL), channel_key()
    pair.channel(key)
    pair.a.send(key, 1, [b""] * 64)
    assert all(isinstance(f, Part) for f in pair.carry())
    assert messages(pair.b) == [(1, [b""] * 64)]


@pytest.mark.parametrize("segments", [[bytes(4097)], [b""] * 65, [bytes(2049)] * 2])
def test_messages_above_the_limit(segments: list[bytes]) -> None:
    pair, key = Pair(SMALL), channel_key()
    pair.channel(key)
    with pytest.raises(LocalProtocolError, match="the limit is 4096"):
        pair.a.send(key, 1, segments)
    pair.a.send(key, 1, [bytes(4096)])
    assert pair.carry()


def test_a_small_message_waits_behind_a_large_one_of_its_channel() -> None:
    pair, key = Pair(), channel_key()
    pair.channel(key)
    pair.a.send(key, 1, [bytes(3 << 20)])
    pair.a.send(key, 2, [b"small"])
    pair.carry(budget=1)
    pair.a.send(key, 3, [b"small"])
    pair.carry()
    assert [seq for seq, _ in messages(pair.b)] == [1, 2, 3]
    pair.a.send(key, 4, [b"small"])
    assert [type(f) for f in pair.carry()] == [Data]


def test_a_large_message_delays_others_by_one_part() -> None:
    pair, large, small = Pair(), channel_key(), channel_key()
    pair.channel(large)
    pair.channel(small)
    pair.a.send(large, 1, [bytes(64 << 20)])
    for seq in range(1, 20):
        assert len(pair.carry(budget=1)) == 1
        pair.a.send(small, seq, [b"quick"])
        first, *_ = pair.carry(budget=1)
        assert isinstance(first, Data)
        assert messages(pair.b) == [(seq, [b"quick"])]
    assert pair.a.has_parts


def test_large_messages_of_two_channels_share_the_link() -> None:
    pair, one, two = Pair(), channel_key(), channel_key()
    pair.channel(one)
    pair.channel(two)
    pair.a.send(one, 1, [bytes(16 << 20)])
    pair.a.send(two, 1, [bytes(16 << 20)])
    channels = [f.channel for f in pair.carry() if isinstance(f, Part)]
    assert channels == [1, 2] * 33


def test_parts_of_two_messages_mixed() -> None:
    pair, key = Pair(), channel_key()
    pair.channel(key)
    pair.b.receive(Part(1, 1, False, b"\x00"))
    with pytest.raises(RemoteProtocolError, match="amid those of another"):
        pair.b.receive(Part(1, 2, False, b"\x00"))


def test_a_peer_cannot_make_this_side_keep_much() -> None:
    config = dataclasses.replace(SMALL, channel_limit=1000)
    pair = Pair(config)
    for _ in range(100):
        pair.channel(channel_key())
    # They count as large as they say they are, before that has come.
    begin = Part(0, 1, False, struct.pack("!IQ", 1, 1000) + b"?")
    weight = 64 + 12 + 1000
    room = config.parts_limit // weight
    assert room == 7
    for number in range(1, room + 1):
        pair.b.receive(msgspec.structs.replace(begin, channel=number))
    with pytest.raises(RemoteProtocolError, match="too many unfinished"):
        pair.b.receive(msgspec.structs.replace(begin, channel=room + 1))


def test_what_was_kept_of_an_ended_channel_is_let_go() -> None:
    pair = Pair(SMALL)
    for _ in range(20):
        key = channel_key()
        pair.channel(key)
        pair.a.send(key, 1, [bytes(4096)])
        pair.carry(budget=3000)
        pair.a.close(key)
        pair.carry()


def test_control_messages() -> None:
    pair = Pair()
    pair.a.tell(b"are you there?")
    pair.carry()
    assert pair.b.events_received() == [Told(b"are you there?")]


def test_limit_of_control_messages() -> None:
    pair = Pair(SMALL)
    pair.a.tell(bytes(256))
    pair.carry()
    with pytest.raises(LocalProtocolError, match="257 bytes exceeds 256"):
        pair.a.tell(bytes(257))
    with pytest.raises(RemoteProtocolError, match="a control message of 257 bytes"):
        pair.b.receive(Control(bytes(257)))


def test_control_messages_without_a_link_are_dropped() -> None:
    session = Session(CONFIG)
    session.tell(b"lost")
    session.link_up()
    assert session.frames_to_send(0) == []


# Acknowledgements


def acked(frames: list[Frame]) -> list[tuple[int, int]]:
    return [mark for f in frames if isinstance(f, Ack) for mark in f.marks]


def exchange(pair: Pair, key: ChannelKey, seq: int, size: int = 1) -> int:
    pair.a.send(key, seq, [bytes(size)])
    pair.carry()
    (received,) = pair.b.events_received()
    assert isinstance(received, Received)
    return received.channel


def test_acks_wait_for_company() -> None:
    pair, key = Pair(), channel_key()
    pair.channel(key)
    channel = exchange(pair, key, 1)
    assert pair.b.next_timer() is None
    pair.b.taken(channel, 1, now=10.0)
    assert pair.b.next_timer() == pytest.approx(10.02)
    assert pair.carry_back() == []
    pair.b.handle_timer(10.01)
    assert pair.carry_back() == []
    pair.b.handle_timer(pair.b.next_timer() or 0.0)
    assert acked(pair.carry_back()) == [(1, 1)]
    assert pair.a.events_received() == [Taken(key, 1)]
    assert pair.b.next_timer() is None
    pair.b.handle_timer(11.0)
    assert pair.carry_back() == []


def test_acks_by_count() -> None:
    pair, key = Pair(SMALL), channel_key()
    pair.channel(key)
    for seq in range(1, 4):
        pair.b.taken(exchange(pair, key, seq), seq, now=0.0)
        assert pair.carry_back() == []
    pair.b.taken(exchange(pair, key, 4), 4, now=0.0)
    assert acked(pair.carry_back()) == [(1, 4)]


def test_acks_by_bytes() -> None:
    pair, key = Pair(SMALL), channel_key()
    pair.channel(key)
    pair.b.taken(exchange(pair, key, 1, 999), 1, now=0.0)
    assert pair.carry_back() == []
    pair.b.taken(exchange(pair, key, 2, 1), 2, now=0.0)
    assert acked(pair.carry_back()) == [(1, 2)]


def test_acks_go_with_other_frames() -> None:
    pair, key = Pair(), channel_key()
    pair.channel(key)
    pair.b.taken(exchange(pair, key, 1), 1, now=0.0)
    pair.b.tell(b"something")
    assert [type(f) for f in pair.carry_back()] == [Control, Ack]


def test_acks_go_with_parts() -> None:
    pair, there, back = Pair(), channel_key(0), channel_key(1)
    channel = pair.channel(there)
    pair.b.open(back)
    pair.carry_back()
    pair.a.accept(1, 9, 0)
    pair.carry()
    pair.b.send(back, 1, [bytes(3 << 20)])
    pair.b.taken(channel, 1, now=0.0)
    assert [type(f) for f in pair.carry_back(budget=1)] == [Ack, Part]


def test_a_mark_is_given_once_and_never_taken_back() -> None:
    pair, key = Pair(), channel_key()
    channel = pair.channel(key)
    pair.b.taken(channel, 5, now=0.0)
    pair.b.taken(channel, 4, now=0.0)
    pair.b.handle_timer(1.0)
    assert acked(pair.carry_back()) == [(1, 5)]
    pair.b.taken(channel, 5, now=2.0)
    assert pair.b.next_timer() is None


def test_nothing_is_taken_from_channels_that_are_not_open() -> None:
    pair, key = Pair(), channel_key()
    pair.a.open(key)
    pair.carry()
    pair.b.taken(1, 5, now=0.0)
    pair.b.taken(99, 5, now=0.0)
    assert pair.b.next_timer() is None


def test_a_channel_that_ends_takes_its_mark_along() -> None:
    pair, key = Pair(), channel_key()
    channel = pair.channel(key)
    pair.b.taken(channel, 5, now=0.0)
    pair.b.refuse(channel, Reason.NOT_HERE)
    assert [type(f) for f in pair.carry_back()] == [Refused]
    pair.a.events_received()
    other = channel_key()
    pair.b.taken(pair.channel(other), 5, now=0.0)
    pair.a.close(other)
    pair.carry()
    assert pair.b.next_timer() is None


def test_marks_are_split_over_frames() -> None:
    config = LinkConfig(
        frame_limit=516, chunk=256, part=256, ack_messages=10_000, ack_bytes=1 << 30
    )
    pair = Pair(config)
    channels = [pair.channel(channel_key()) for _ in range(100)]
    for channel in channels:
        pair.b.taken(channel, 3, now=0.0)
    pair.b.handle_timer(1.0)
    frames = pair.carry_back()
    assert len(acked(frames)) == 100
    assert [len(acked([frame])) for frame in frames] == [42, 42, 16]
    assert all(len(wire([f])) <= config.frame_limit + 4 for f in frames)


# Connections come and go


def test_a_new_connection_begins_anew() -> None:
    pair, key = Pair(), channel_key()
    old = pair.channel(key)
    pair.a.send(key, 1, [bytes(3 << 20)])
    pair.carry(budget=1)
    pair.a.send(key, 2, [b"lost"])
    pair.b.taken(old, 1, now=0.0)
    pair.a.link_down()
    pair.b.link_down()
    for session in (pair.a, pair.b):
        assert not session.linked
        assert session.frames_to_send(1 << 30) == []
        assert session.next_timer() is None
    assert not pair.a.is_open(key)
    assert not pair.a.has_parts
    pair.relink()
    assert pair.carry() == []
    new = pair.channel(key, accepted=1)
    assert new != old
    pair.a.send(key, 2, [b"again"])
    pair.carry()
    assert pair.b.events_received() == [Received(new, key, 2, [b"again"])]


def test_a_new_connection_may_replace_one_that_has_not_ended() -> None:
    pair, key = Pair(), channel_key()
    pair.channel(key)
    pair.relink()
    assert not pair.a.is_open(key)
    pair.channel(key)


def test_channels_of_former_connections_are_not_mixed_up() -> None:
    """A peer that forgot its session counts its channels from 1 again."""
    pair, one, two = Pair(), channel_key(), channel_key()
    old = pair.channel(one)
    pair.a = Session(CONFIG)
    pair.relink()
    new = pair.channel(two)
    assert new != old
    pair.b.taken(old, 100, now=0.0)
    pair.b.refuse(old, Reason.NOT_HERE)
    pair.b.accept(old, 9, 0)
    pair.b.handle_timer(9.0)
    assert pair.carry_back() == []


def test_events_survive_the_connection() -> None:
    pair = Pair()
    pair.a.tell(b"arrived")
    pair.carry()
    pair.b.link_down()
    assert pair.b.events_received() == [Told(b"arrived")]


# What a peer must not do

KEY = channel_key()
OPEN_FRAME = Open(1, 0, KEY.src, KEY.src_inc, KEY.dest)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([OPEN_FRAME, OPEN_FRAME], "channel 1 after 1"),
        ([Data(1, 1, [])], "on channel 1, not open"),
        ([Part(1, 1, True, b"x")], "on channel 1, not open"),
        ([OPEN_FRAME, Data(1, 1, [])], "on channel 1, not accepted"),
        ([Opened(1, 1, 0)], "an answer to channel 1, never opened"),
        ([Refused(1, 0)], "an answer to channel 1, never opened"),
        ([Ack(((1, 1),))], "an answer to channel 1, never opened"),
        ([Ping()], "Ping to a session"),
        ([Bye()], "Bye to a session"),
    ],
)
def test_violations(frames: list[Frame], text: str) -> None:
    session = Session(CONFIG)
    session.link_up()
    *first, last = frames
    for frame in first:
        session.receive(frame)
    with pytest.raises(RemoteProtocolError, match=text):
        session.receive(last)


def test_a_second_answer() -> None:
    pair = Pair()
    pair.channel(KEY)
    with pytest.raises(RemoteProtocolError, match="a second answer to channel 1"):
        pair.a.receive(Opened(1, 1, 0))


def test_an_ack_before_the_answer() -> None:
    pair = Pair()
    pair.a.open(KEY)
    with pytest.raises(RemoteProtocolError, match="an ack of channel 1, not open"):
        pair.a.receive(Ack(((1, 1),)))


def test_closing_an_unknown_channel_is_no_violation() -> None:
    """It may have been refused meanwhile."""
    session = Session(CONFIG)
    session.receive(Close(5))


def test_a_window_that_is_ignored() -> None:
    pair = Pair()
    pair.channel(KEY)
    for seq in range(1, 2 * CONFIG.window_messages + 1):
        pair.b.receive(Data(1, seq, [b"x"]))
    with pytest.raises(RemoteProtocolError, match="ahead of its window"):
        pair.b.receive(Data(1, 10_000, [b"x"]))
