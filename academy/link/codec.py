"""How frames look as bytes.

A frame is a length (4 bytes, big-endian, of what follows), a type (1 byte) and the
fields of that type. A `FrameReader` finds the bodies of frames in a byte stream,
`parse` turns a body into a frame. Neither allocates by what a length field says.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

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
from academy.segment import BYTES, KINDS, MEMORY, copied

LENGTH = struct.Struct("!I")
"""The length field: of what follows."""
_HEAD = struct.Struct("!IB")
_OPEN = struct.Struct("!IB16sQ16s")
_OPENED = struct.Struct("!IQQ")
_REFUSED = struct.Struct("!IB")
_DATA = struct.Struct("!IQH")
_PART = struct.Struct("!IQB")
PART_HEAD = 1 + _PART.size
"""Bytes of a part before its data, without the length field."""
_ABORT = struct.Struct("!IQ")
_ACK = struct.Struct("!IQ")
_CHANNEL = struct.Struct("!I")
_OFFER = struct.Struct("!IIQQ")
_LENT = struct.Struct("!IQBIQ")
_BACK = struct.Struct("!IQBIQQ")
_REGION = struct.Struct("!I")
_SINGLE_ACK = struct.Struct("!IBIQ")
# The kind of a segment stands above its length; that of `bytes` is 0.
_LENGTH_BITS = 30
_LENGTH = (1 << _LENGTH_BITS) - 1
# Most messages have two segments: what is before them, and that in a whole frame.
_USUAL = struct.Struct("!IQH2I")
_USUAL_HEAD = struct.Struct("!IBIQH2I")


def acks(marks: Sequence[tuple[int, int]], limit: int) -> list[Ack]:
    """Return what confirms all these, in frames that do not exceed a limit."""
    most = (limit - 1) // _ACK.size
    return [Ack(tuple(marks[i : i + most])) for i in range(0, len(marks), most)]


def encode(frame: Frame) -> list[Buffer]:
    """Return the bytes of a frame, large pieces uncopied."""
    return _ENCODERS[frame.type](frame)


def _encode_data(frame: Data) -> list[Buffer]:
    segments = frame.segments
    count = len(segments)
    if count == 2 and type(segments[1]) is bytes and type(segments[0]) is bytes:
        head, body = segments
        one, two = len(head), len(body)
        size = 1 + _USUAL.size + one + two
        packed = _USUAL_HEAD.pack(size, 4, frame.channel, frame.seq, 2, one, two)
        return [packed, head, body]
    lengths = [KINDS[type(s)] << _LENGTH_BITS | len(s) for s in segments]
    form = struct.Struct(f"!IBIQH{count}I")
    size = form.size - LENGTH.size + sum(map(len, segments))
    packed = form.pack(size, Data.type, frame.channel, frame.seq, count, *lengths)
    return [packed, *segments]


def _encode_part(frame: Part) -> list[Buffer]:
    fields = _PART.pack(frame.channel, frame.seq, frame.last)
    size = 1 + len(fields) + len(frame.data)
    return [_HEAD.pack(size, Part.type) + fields, frame.data]


def _encode_open(frame: Open) -> list[Buffer]:
    src, dest = frame.src.bytes, frame.dest.bytes
    return _framed(
        Open.type, _OPEN.pack(frame.channel, frame.lane, src, frame.src_inc, dest)
    )


def _encode_ack(frame: Ack) -> list[Buffer]:
    if len(frame.marks) == 1:
        return [_SINGLE_ACK.pack(1 + _ACK.size, Ack.type, *frame.marks[0])]
    return _framed(Ack.type, b"".join([_ACK.pack(*mark) for mark in frame.marks]))


def _framed(kind: int, fields: bytes) -> list[Buffer]:
    return [_HEAD.pack(1 + len(fields), kind) + fields]


def _fields(form: struct.Struct) -> Callable[[Any], list[Buffer]]:
    """Return an encoder for frames whose attributes are all of one format."""

    def encode_fields(frame: Any) -> list[Buffer]:
        names = frame.__struct_fields__
        return _framed(frame.type, form.pack(*[getattr(frame, n) for n in names]))

    return encode_fields


_OF_REGIONS = (Mapped, Unmapped, Returned, Dropped)
"""Frames that have the number of a region, and nothing else."""

_ENCODERS: dict[int, Callable[[Any], list[Buffer]]] = {
    Open.type: _encode_open,
    Opened.type: _fields(_OPENED),
    Refused.type: _fields(_REFUSED),
    Data.type: _encode_data,
    Part.type: _encode_part,
    Ack.type: _encode_ack,
    Ping.type: lambda f: _framed(f.type, b""),
    Pong.type: lambda f: _framed(f.type, b""),
    Control.type: lambda f: [_HEAD.pack(1 + len(f.data), f.type), f.data],
    Close.type: _fields(_CHANNEL),
    Bye.type: lambda f: _framed(f.type, b""),
    Abort.type: _fields(_ABORT),
    Offer.type: _fields(_OFFER),
    Lent.type: _fields(_LENT),
    Back.type: _fields(_BACK),
    **{kind.type: _fields(_REGION) for kind in _OF_REGIONS},
}


def parse(data: bytes, start: int, end: int) -> Frame:
    """Return the frame whose body `FrameReader` has found there.

    Raises:
        RemoteProtocolError: It is no frame.
    """
    try:
        return _PARSERS[data[start]](data, start + 1, end)
    except (struct.error, ValueError) as e:
        raise RemoteProtocolError(f"a damaged frame of type {data[start]}: {e}") from e
    except KeyError:
        raise RemoteProtocolError(f"a frame of unknown type {data[start]}") from None


def _parse_data(data: bytes, start: int, end: int) -> Frame:
    begin = start + _USUAL.size
    if begin <= end:
        channel, seq, count, one, two = _USUAL.unpack_from(data, start)
        middle = begin + one
        if count == 2 and middle + two == end and 0 < seq <= LARGEST_NUMBER:
            return Data(channel, seq, [data[begin:middle], data[middle:end]])
    return _parse_unusual_data(data, start, end)


def _parse_unusual_data(data: bytes, start: int, end: int) -> Frame:
    table = start + _DATA.size
    channel, seq, count = _DATA.unpack_from(data, start)
    begin = table + 4 * count
    if begin > end:
        raise ValueError("it is cut off")
    entries = struct.unpack_from(f"!{count}I", data, table)
    if begin + sum(entry & _LENGTH for entry in entries) != end:
        raise ValueError("its segments do not add up")
    segments: list[Buffer] = []
    for entry in entries:
        first, begin = begin, begin + (entry & _LENGTH)
        kind = entry >> _LENGTH_BITS
        if kind > MEMORY:
            raise ValueError(f"a segment of kind {kind}")
        piece = data[first:begin]
        segments.append(piece if kind == BYTES else copied(piece, kind))
    return Data(channel, _number(seq), segments)


def _parse_part(data: bytes, start: int, end: int) -> Frame:
    begin = start + _PART.size
    if begin > end:
        raise ValueError("it is cut off")
    channel, seq, last = _PART.unpack_from(data, start)
    return Part(channel, _number(seq), _truth(last), memoryview(data)[begin:end])


def _parse_ack(data: bytes, start: int, end: int) -> Frame:
    marks = tuple(_ACK.iter_unpack(memoryview(data)[start:end]))
    if max([seq for _, seq in marks], default=0) > LARGEST_NUMBER:
        raise ValueError("a number out of range")
    return Ack(marks)


def _parse_open(data: bytes, start: int, end: int) -> Frame:
    channel, lane, src, src_inc, dest = _OPEN.unpack(data[start:end])
    if lane > 1:
        raise ValueError(f"lane {lane}")
    src, dest = uuid.UUID(bytes=src), uuid.UUID(bytes=dest)
    return Open(channel, lane, src, _number(src_inc), dest)


def _parse_opened(data: bytes, start: int, end: int) -> Frame:
    channel, inc, accepted = _OPENED.unpack(data[start:end])
    return Opened(channel, _number(inc), _number(accepted, least=0))


def _parse_abort(data: bytes, start: int, end: int) -> Frame:
    channel, seq = _ABORT.unpack(data[start:end])
    return Abort(channel, _number(seq))


def _parse_lent(data: bytes, start: int, end: int) -> Frame:
    channel, seq, last, region, size = _LENT.unpack(data[start:end])
    return Lent(channel, _number(seq), _truth(last), region, size)


def _parse_back(data: bytes, start: int, end: int) -> Frame:
    channel, seq, last, region, size, offset = _BACK.unpack(data[start:end])
    return Back(channel, _number(seq), _truth(last), region, size, offset)


def _truth(value: int) -> bool:
    if value > 1:
        raise ValueError(f"{value} for a truth value")
    return value == 1


def _number(value: int, least: int = 1) -> int:
    if not least <= value <= LARGEST_NUMBER:
        raise ValueError(f"number {value}")
    return value


def _empty(frame: Frame) -> Callable[[bytes, int, int], Frame]:
    """Return a parser for a frame without fields."""

    def parse_empty(data: bytes, start: int, end: int) -> Frame:
        if start != end:
            raise ValueError(f"{end - start} bytes too many")
        return frame

    return parse_empty


def _plain(
    kind: Callable[..., Frame], form: struct.Struct
) -> Callable[[bytes, int, int], Frame]:
    """Return a parser for frames whose attributes are as they are packed."""
    return lambda data, start, end: kind(*form.unpack(data[start:end]))


_PARSERS: dict[int, Callable[[bytes, int, int], Frame]] = {
    Open.type: _parse_open,
    Opened.type: _parse_opened,
    Refused.type: _plain(Refused, _REFUSED),
    Data.type: _parse_data,
    Part.type: _parse_part,
    Ack.type: _parse_ack,
    Ping.type: _empty(Ping()),
    Pong.type: _empty(Pong()),
    Control.type: lambda data, start, end: Control(data[start:end]),
    Close.type: _plain(Close, _CHANNEL),
    Bye.type: _empty(Bye()),
    Abort.type: _parse_abort,
    Offer.type: _plain(Offer, _OFFER),
    Lent.type: _parse_lent,
    Back.type: _parse_back,
    **{kind.type: _plain(kind, _REGION) for kind in _OF_REGIONS},
}
