from __future__ import annotations

import uuid

from academy.link.channel import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Event,
    Reason,
    Taken,
)


def test_equal_keys_find_each_other() -> None:
    src, dest = uuid.uuid4(), uuid.uuid4()
    key = ChannelKey(src, 5, dest, 1)
    same = ChannelKey(uuid.UUID(bytes=src.bytes), 5, uuid.UUID(bytes=dest.bytes), 1)
    assert {key: "found"}[same] == "found"
    assert len({key, ChannelKey(src, 6, dest, 1), ChannelKey(src, 5, dest, 0)}) == 3


def test_events_can_be_matched() -> None:
    key = ChannelKey(uuid.uuid4(), 5, uuid.uuid4(), 1)
    match Accepted(key, 3, 4):
        case Accepted(found, inc, accepted):
            assert (found, inc, accepted) == (key, 3, 4)
    events: list[Event] = [Taken(key, 3), Accepted(key, 3, 3), ChannelOffered(3, key)]
    assert all((a == b) == (a is b) for a in events for b in events)


def test_reasons_of_newer_peers_count_as_the_common_one() -> None:
    assert Reason(1) is Reason.TOO_MANY
    assert Reason(200) is Reason.NOT_HERE
