from __future__ import annotations

import struct
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.codec import LENGTH, acks, encode, parse
from academy.link.frame import (
    LARGEST_NUMBER,
    Abort,
    Ack,
    Back,
    Buffer,
    Bye,
    Close,
    Control,
    Data,
    Dropped,
    Frame,
    Lent,
    Mapped,
    Offer,
    Open,
    Opened,
    Part,
    Ping,
    Pong,
    Refused,
    RemoteProtocolError,
    Returned,
    Unmapped,
)
from tests.unit.link.pair import plain

CHANNELS = st.integers(0, 2**32 - 1)
SIZES = st.integers(0, 2**64 - 1)
NUMBERS = st.integers(1, LARGEST_NUMBER)
SEGMENTS = st.lists(st.binary(max_size=30), max_size=20)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Open, CHANNELS, st.integers(0, 1), st.uuids(), NUMBERS, st.uuids()),
    st.builds(Opened, CHANNELS, NUMBERS, st.integers(0, LARGEST_NUMBER)),
    st.builds(Refused, CHANNELS, st.integers(0, 255)),
    st.builds(Data, CHANNELS, NUMBERS, SEGMENTS),
    st.builds(Abort, CHANNELS, NUMBERS),
    st.builds(Part, CHANNELS, NUMBERS, st.booleans(), st.binary(min_size=1)),
    st.builds(Ack, st.lists(st.tuples(CHANNELS, NUMBERS)).map(tuple)),
    st.builds(Ping),
    st.builds(Pong),
    st.builds(Control, st.binary()),
    st.builds(Close, CHANNELS),
    st.builds(Bye),
    st.builds(Offer, CHANNELS, CHANNELS, SIZES, SIZES),
    st.builds(Lent, CHANNELS, NUMBERS, st.booleans(), CHANNELS, SIZES),
    st.builds(Back, CHANNELS, NUMBERS, st.booleans(), CHANNELS, SIZES, SIZES),
    *(st.builds(kind, CHANNELS) for kind in (Mapped, Unmapped, Returned, Dropped)),
)


def joined(frame: Frame) -> bytes:
    return b"".join(bytes(piece) for piece in encode(frame))


def parse_body(body: bytes) -> Frame:
    return parse(body, 0, len(body))


@given(FRAMES, st.binary(max_size=5), st.binary(max_size=5))
def test_round_trip_amid_other_bytes(frame: Frame, before: bytes, after: bytes) -> None:
    data = joined(frame)
    (length,) = struct.unpack_from("!I", data)
    assert length == len(data) - 4
    assert parse(before + data + after, len(before) + 4, len(before + data)) == frame


@given(st.binary(min_size=1, max_size=80))
def test_random_bodies_are_frames_or_refused(body: bytes) -> None:
    try:
        frame = parse_body(body)
    except RemoteProtocolError:
        return
    assert joined(frame)[4:] == body


@given(FRAMES, st.data())
def test_damaged_frames_are_frames_or_refused(
    frame: Frame, data: st.DataObject
) -> None:
    body = bytearray(joined(frame)[4:])
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_body(bytes(body))
    except RemoteProtocolError:
        return


@given(FRAMES.filter(lambda f: not isinstance(f, Control | Part | Ack)))
def test_neither_a_byte_less_nor_one_more(frame: Frame) -> None:
    body = joined(frame)[4:]
    with pytest.raises(RemoteProtocolError, match="a damaged frame"):
        parse_body(body + b"?")
    if len(body) > 1:
        with pytest.raises(RemoteProtocolError, match="a damaged frame"):
            parse_body(body[:-1])


def test_the_next_frame_is_not_read_into_a_short_one() -> None:
    data = joined(Data(1, 1, [b"abc"]))
    for end in range(6, len(data)):
        with pytest.raises(RemoteProtocolError):
            parse(data, 4, end)


def test_large_pieces_are_not_copied() -> None:
    large = bytearray(100)
    assert encode(Data(1, 1, [b"head", large]))[2] is large
    assert encode(Part(1, 1, True, large))[1] is large
    assert encode(Control(large))[1] is large


@given(st.lists(st.sampled_from([bytes, bytearray, memoryview]), max_size=5))
def test_types_of_segments(types: list[Any]) -> None:
    segments = [kind(bytes([i])) for i, kind in enumerate(types)]
    frame = parse_body(joined(Data(1, 1, segments))[4:])
    assert isinstance(frame, Data)
    assert [type(s) for s in frame.segments] == types
    assert plain(frame.segments) == plain(segments)
    for segment in frame.segments:
        assert type(segment) is not memoryview or not segment.readonly


@pytest.mark.parametrize("count", [0, 1, 15, 16, 1000])
def test_any_number_of_segments(count: int) -> None:
    segments: list[Buffer] = [bytes([i % 256]) * (i % 3) for i in range(count)]
    frame = parse_body(joined(Data(1, 1, segments))[4:])
    assert isinstance(frame, Data)
    assert [bytes(s) for s in frame.segments] == segments


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\x00", "a frame of unknown type 0"),
        (b"\xff abc", "a frame of unknown type 255"),
        (b"\x07 ", "type 7: 1 bytes too many"),
        (struct.pack("!BIQH", 4, 1, 1, 3) + b"abcd", "it is cut off"),
        (struct.pack("!BIQHI", 4, 1, 1, 1, 5) + b"abcd", "do not add up"),
        (struct.pack("!BIQHI", 4, 1, 1, 1, 0xFFFFFFFF), "do not add up"),
        (struct.pack("!BIQH", 4, 1, 0, 0), "number 0"),
        (struct.pack("!BIQH", 4, 1, 2**53, 0), "number 9007199254740992"),
        (struct.pack("!BIQHI", 4, 1, 1, 1, 3 << 30), "a segment of kind 3"),
        (struct.pack("!BIQ", 5, 1, 1), "type 5"),
        (struct.pack("!BIQBB", 5, 1, 1, 2, 0), "2 for a truth value"),
        (struct.pack("!BIQBB", 5, 1, 2**53, 1, 0), "number"),
        (struct.pack("!BIQ", 6, 1, 2**53), "a number out of range"),
        (struct.pack("!BIQ", 6, 1, 1)[:-1], "a damaged frame of type 6"),
        (struct.pack("!BIB16xQ16x", 1, 1, 2, 1), "lane 2"),
        (struct.pack("!BIB16xQ16x", 1, 1, 0, 0), "number 0"),
        (struct.pack("!BIQQ", 2, 1, 0, 0), "number 0"),
        (struct.pack("!BIQQ", 2, 1, 1, 2**64 - 1), "number"),
    ],
)
def test_refused_bodies(body: bytes, text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=text):
        parse_body(body)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
@pytest.mark.parametrize("limit", [13, 24, 25, 100, 10_000])
def test_acks_within_a_limit(count: int, limit: int) -> None:
    marks = [(channel, 5) for channel in range(count)]
    found = acks(marks, limit)
    assert [mark for frame in found for mark in frame.marks] == marks
    sizes = [len(joined(frame)) - LENGTH.size for frame in found]
    assert max(sizes, default=0) <= limit
    assert all(size + 12 > limit for size in sizes[:-1])


def test_frames_are_frozen_and_compare_by_type() -> None:
    frames: list[Frame] = [Ping(), Pong(), Close(1), Control(b"")]
    assert all((a == b) == (a is b) for a in frames for b in frames)
    with pytest.raises(AttributeError):
        Close(1).channel = 2  # type: ignore[misc]


def test_open_carries_identifiers() -> None:
    src, dest = uuid.uuid4(), uuid.uuid4()
    frame = parse_body(joined(Open(3, 1, src, 5, dest))[4:])
    assert frame == Open(3, 1, src, 5, dest)
