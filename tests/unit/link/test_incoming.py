from __future__ import annotations

import dataclasses

import pytest

from academy.link.channel import REPLIES, REQUESTS, Received
from academy.link.config import LinkConfig
from academy.link.frame import Part, RemoteProtocolError
from academy.link.incoming import Incoming, Unfinished
from academy.link.parts import cut
from tests.unit.link.pair import channel_key

CONFIG = LinkConfig(
    frame_limit=1024,
    chunk=256,
    part=256,
    message_limit=4096,
    parts_limit=2000,
    window_messages=2,
    window_bytes=10_000,
)


def incoming(
    lane: int = REQUESTS,
    unfinished: Unfinished | None = None,
    config: LinkConfig = CONFIG,
) -> Incoming:
    return Incoming(
        3, 30, channel_key(lane), config, unfinished or Unfinished(config.parts_limit)
    )


def parts(seq: int, *segments: bytes) -> list[Part]:
    pieces = list(cut(segments, 256))
    return [Part(3, seq, i == len(pieces), p) for i, p in enumerate(pieces, 1)]


def test_whole_messages() -> None:
    channel = incoming()
    assert channel.number == 3
    assert not channel.accepted
    channel.note = "whose"
    channel.receive(5, [b"head", b"body"])
    found = channel.event(5, [b"head", b"body"])
    assert found == Received(30, channel.key, 5, [b"head", b"body"], "whose")


def test_messages_in_parts() -> None:
    channel = incoming()
    *first, last = parts(5, b"head", bytes(600))
    assert all(channel.receive_part(part) is None for part in first)
    found = channel.receive_part(last)
    assert found == Received(30, channel.key, 5, [b"head", bytes(600)])
    channel.receive(6, [b"next"])
    with pytest.raises(RemoteProtocolError, match="message 6 after 6"):
        channel.receive(6, [b"next"])


def test_a_message_in_a_single_part() -> None:
    found = incoming().receive_part(*parts(5, b"small"))
    assert found is not None
    assert found.segments == [b"small"]


def test_a_message_amid_parts() -> None:
    channel = incoming()
    channel.receive_part(parts(5, bytes(600))[0])
    with pytest.raises(RemoteProtocolError, match="a message amid the parts"):
        channel.receive(6, [b"small"])


def test_parts_of_two_messages_mixed() -> None:
    channel = incoming()
    channel.receive_part(parts(5, bytes(600))[0])
    with pytest.raises(RemoteProtocolError, match="a part amid those of another"):
        channel.receive_part(parts(6, bytes(600))[0])


def test_a_large_message_must_come_in_parts() -> None:
    incoming().receive(5, [bytes(256 - 64)])
    with pytest.raises(RemoteProtocolError, match="a large message in one frame"):
        incoming().receive(5, [bytes(257 - 64)])
    with pytest.raises(RemoteProtocolError, match="a large message in one frame"):
        incoming().receive(5, [b""] * 5)


def test_damaged_messages() -> None:
    with pytest.raises(RemoteProtocolError, match="a damaged message"):
        incoming().receive_part(Part(3, 5, True, b"?"))
    with pytest.raises(RemoteProtocolError, match="larger than allowed"):
        incoming().receive_part(parts(5, bytes(4097))[0])


def test_the_window_counts_both_kinds() -> None:
    channel = incoming()
    channel.receive(1, [b"a"])
    for part in parts(2, bytes(600)):
        channel.receive_part(part)
    for seq in (3, 4):
        channel.receive(seq, [b"a"])
    with pytest.raises(RemoteProtocolError, match="5 messages of 604 bytes"):
        channel.receive(5, [b"a"])


def test_replies_have_no_window() -> None:
    channel = incoming(REPLIES)
    for seq in range(1, 100):
        channel.receive(seq, [b"a"])


def test_parts_come_in_order_too() -> None:
    channel = incoming()
    channel.receive(5, [b"a"])
    with pytest.raises(RemoteProtocolError, match="message 4 after 5"):
        channel.receive_part(*parts(4, b"small"))


def test_unfinished_messages_of_a_session() -> None:
    unfinished = Unfinished(1000)
    channels = [incoming(unfinished=unfinished) for _ in range(5)]
    for channel in channels[:3]:
        channel.receive_part(parts(5, bytes(250))[0])  # weighs 326
    with pytest.raises(RemoteProtocolError, match="too many unfinished messages"):
        channels[3].receive_part(parts(5, bytes(250))[0])


def test_finished_and_dropped_messages_make_room() -> None:
    unfinished = Unfinished(1000)
    for _ in range(20):
        channel = incoming(unfinished=unfinished)
        for part in parts(5, bytes(900)):
            channel.receive_part(part)
        channel.receive_part(parts(6, bytes(900))[0])
        channel.end()
        channel.end()
    unfinished.change(0, 400)
    unfinished.change(0, 600)
    with pytest.raises(RemoteProtocolError, match="too many unfinished messages"):
        unfinished.change(0, 1)


def test_a_single_message_may_be_heavier() -> None:
    config = dataclasses.replace(CONFIG, parts_limit=10)
    channel = incoming(config=config)
    found = [channel.receive_part(part) for part in parts(5, bytes(4000))]
    assert found[-1] is not None
