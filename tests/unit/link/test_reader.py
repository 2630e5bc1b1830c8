from __future__ import annotations

import itertools
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.frame import Buffer, RemoteProtocolError
from academy.link.reader import FrameReader


def framed(*bodies: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(b)) + b for b in bodies)


def feed(reader: FrameReader, data: Buffer) -> list[bytes]:
    return [body[start:end] for body, start, end in reader.feed(data)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type[bytes]) -> None:
    data = kind(framed(b"one", b"two"))
    found = feed(FrameReader(9), data)
    assert found == [b"one", b"two"]
    assert [type(body) for body in found] == [bytes, bytes]


@given(st.lists(st.binary(min_size=1, max_size=40)), st.data())
def test_the_cuts_of_the_stream_do_not_matter(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = framed(*bodies)
    cuts = data.draw(st.lists(st.integers(0, len(stream)))) if stream else []
    edges = [0, *sorted(cuts), len(stream)]
    reader = FrameReader(40)
    found = []
    for start, end in itertools.pairwise(edges):
        found += feed(reader, stream[start:end])
    assert found == bodies
    assert reader.pending == 0


def test_byte_by_byte() -> None:
    reader = FrameReader(100)
    found = []
    for byte in framed(b"x" * 100, b"y"):
        found += feed(reader, bytes([byte]))
    assert found == [b"x" * 100, b"y"]


def test_a_changed_buffer_does_not_matter_afterwards() -> None:
    buffer = bytearray(framed(b"body")[:-1])
    reader = FrameReader(9)
    assert feed(reader, buffer) == []
    buffer[:] = b"?" * len(buffer)
    assert feed(reader, b"y") == [b"body"]


@pytest.mark.parametrize("length", [0, 10, 0xFFFFFFFF])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_bad_length_raises_before_more_is_read(length: int, cut: int) -> None:
    reader = FrameReader(9)
    stream = struct.pack("!I", length)
    assert feed(reader, stream[:cut]) == []
    with pytest.raises(RemoteProtocolError, match=f"a frame of {length} bytes"):
        feed(reader, stream[cut:])


def test_bodies_before_a_bad_length_are_found() -> None:
    bodies = FrameReader(9).feed(framed(b"good") + b"\xff" * 4)
    assert next(bodies)[1:] == (4, 8)
    with pytest.raises(RemoteProtocolError):
        next(bodies)


def test_the_limit_can_be_raised_between_bodies() -> None:
    reader = FrameReader(4)
    found = []
    for body, start, end in reader.feed(framed(b"four", b"seventeen letters")):
        found.append(body[start:end])
        reader.limit = 17
    assert found == [b"four", b"seventeen letters"]


def test_no_more_is_kept_than_was_received() -> None:
    reader = FrameReader(1 << 30)
    assert feed(reader, struct.pack("!I", 1 << 30) + b"abc") == []
    assert reader.pending == 7
    assert reader._partial.__sizeof__() < 200


def test_many_small_frames_cost_linear_time() -> None:
    """Moving the rest with every frame would copy 500 GB here."""
    stream = framed(b"small") * 350_000
    start = time.process_time()
    assert sum(1 for _ in FrameReader(9).feed(stream)) == 350_000
    assert time.process_time() - start < 5.0


def test_a_large_frame_in_small_pieces_costs_linear_time() -> None:
    reader = FrameReader(1 << 20)
    stream = framed(b"x" * (1 << 20))
    start = time.process_time()
    found = []
    for i in range(0, len(stream), 16):
        found += feed(reader, stream[i : i + 16])
    assert len(found) == 1
    # 65,536 pieces: copying what is there with each of them would be 32 GiB.
    assert time.process_time() - start < 3.0


HEAD = struct.pack("!BIQB", 5, 1, 1, 1)


def pieces(reader: FrameReader, data: Buffer) -> list[tuple[bytes, int]]:
    """Return what is given out, each with what is missing after it."""
    found = []
    for body, start, end in reader.feed(data):
        found.append((bytes(body[start:end]), reader.rest))
    return found


@given(st.lists(st.integers(0, 60), max_size=6), st.data())
def test_parts_come_in_pieces(sizes: list[int], data: st.DataObject) -> None:
    """Wherever the stream is cut, also within the heads of parts."""
    bodies = [HEAD + bytes([i]) * size for i, size in enumerate(sizes)]
    bodies = [b for body in bodies for b in (body, b"small")]
    stream = framed(*bodies)
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    reader = FrameReader(100)
    reader.gives_pieces = True
    found: list[bytes] = []
    rest = 0
    for start, end in itertools.pairwise([0, *sorted(cuts), len(stream)]):
        for piece, missing in pieces(reader, stream[start:end]):
            if rest:
                assert missing == rest - len(piece)
                found[-1] += piece
            else:
                assert len(piece) >= len(HEAD) or piece == b"small"
                found.append(piece)
            rest = missing
    assert found == bodies
    assert (rest, reader.pending) == (0, 0)


def test_nothing_is_kept_of_a_part() -> None:
    reader = FrameReader(1 << 30)
    reader.gives_pieces = True
    length = struct.pack("!I", len(HEAD) + 1000)
    assert pieces(reader, length + HEAD[:5]) == []
    assert reader.pending == 9
    assert pieces(reader, HEAD[5:]) == [(HEAD, 1000)]
    assert pieces(reader, b"x" * 300) == [(b"x" * 300, 700)]
    assert reader.pending == 0
    reader.rest -= 699  # was read elsewhere
    assert pieces(reader, b"y" + framed(b"next")) == [(b"y", 0), (b"next", 0)]


def test_pieces_are_not_copied() -> None:
    reader = FrameReader(1 << 30)
    reader.gives_pieces = True
    assert pieces(reader, struct.pack("!I", len(HEAD) + 1000) + HEAD) == [(HEAD, 1000)]
    data = bytearray(500)
    ((body, start, end),) = reader.feed(data)
    assert body is data
    assert (start, end) == (0, 500)


def test_no_pieces_before_the_peer_has_proved_itself() -> None:
    reader = FrameReader(1 << 30)
    assert pieces(reader, struct.pack("!I", len(HEAD) + 1000) + HEAD) == []
