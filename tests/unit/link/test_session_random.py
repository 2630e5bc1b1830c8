"""Sessions under inputs of chance."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from academy.link.channel import ChannelKey, Received
from academy.link.codec import parse
from academy.link.config import LinkConfig
from academy.link.frame import Frame, RemoteProtocolError
from academy.link.reader import FrameReader
from tests.unit.link.pair import Pair, channel_key, plain, wire

SMALL = LinkConfig(
    frame_limit=1024, chunk=256, part=256, message_limit=4096, parts_limit=2048
)


def frames_of(data: bytes) -> Iterator[Frame]:
    for body in FrameReader(SMALL.frame_limit).feed(data):
        yield parse(*body)


@given(st.data())
def test_damaged_streams_are_sessions_or_violations(data: st.DataObject) -> None:
    key = ChannelKey(uuid.UUID(int=1), 7, uuid.UUID(int=2), 0)
    pair = Pair(SMALL)
    pair.channel(key)
    for seq in range(1, 4):
        pair.a.send(key, seq, [b"head", bytes(300 * (seq % 2))])
    pair.a.tell(b"hello")
    pair.a.open(channel_key())
    stream = bytearray(wire(pair.a.frames_to_send(1 << 30)))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        for frame in frames_of(bytes(stream)):
            pair.b.receive(frame)
    except RemoteProtocolError:
        pair.b.link_down()
    pair.b.events_received()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 700), st.integers(0, 600)),
        max_size=20,
    )
)
def test_messages_arrive_once_and_in_order(steps: list[tuple[int, int, int]]) -> None:
    pair = Pair(SMALL)
    keys = [channel_key(lane=1) for _ in range(3)]
    for key in keys:
        pair.channel(key)
    sent: dict[ChannelKey, list[tuple[int, list[bytes]]]] = {key: [] for key in keys}
    found: dict[ChannelKey, list[tuple[int, list[bytes]]]] = {key: [] for key in keys}
    for seq, (which, size, budget) in enumerate([*steps, (0, 0, 1 << 20)], 1):
        segments = [b"head", bytes(size)]
        pair.a.send(keys[which], seq, segments)
        sent[keys[which]].append((seq, segments))
        pair.carry(budget)
        for event in pair.b.events_received():
            assert isinstance(event, Received)
            found[event.key].append((event.seq, plain(event.segments)))
    assert found == sent
