"""Valid inputs for the targets, from which the corpus is made."""

from __future__ import annotations

import json
import uuid
from typing import Any

from academy.exchange.mailbox import REQUEST, make_entry
from academy.exchange.secret import NamespaceSecret
from academy.exchange.stream import Mark
from academy.identifier import AgentId, UserId
from academy.link.address import Addresses, Endpoint
from academy.link.channel import ChannelKey
from academy.link.codec import encode
from academy.link.frame import (
    Ack,
    Back,
    Bye,
    Close,
    Control,
    Data,
    Dropped,
    Frame,
    Lent,
    Offer,
    Open,
    Opened,
    Part,
    Ping,
    Pong,
    Refused,
    Returned,
)
from academy.link.handshake import Handshake, Identity, Role, namespace_hash
from academy.link.parts import cut
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    CancelRequest,
    ErrorCode,
    Message,
    PingRequest,
    ShutdownRequest,
    SuccessResponse,
)
from academy.message import encode as encode_message
from academy.segment import Segment
from academy.serialize import SerializationStrategy, join
from tests.fuzz.door import Tls
from tests.fuzz.identity import CLIENT, NAMESPACE, SECRET, SERVER

STREAM_KEY = ChannelKey(uuid.UUID(int=1), 7, uuid.UUID(int=2), 0)
SEPARATOR = b"|"
NEXT = b"\0next\0"
REGION = 1 << 20
"""Bytes of a region."""
LENT = 600
"""Bytes of it that are lent."""


def separated(data: bytes) -> list[bytes]:
    """Return the fields of an entry."""
    return data.split(SEPARATOR)


def wire(*frames: Frame) -> bytes:
    return b"".join(bytes(piece) for frame in frames for piece in encode(frame))


def opened(number: int, lane: int = 0) -> Open:
    return Open(number, lane, uuid.UUID(int=3), 5, uuid.UUID(int=4))


def frame_seeds() -> dict[str, bytes]:
    """Return streams of frames that a session accepts in this order."""
    parts = list(cut([b"head", b"body", bytes(600)], 256))
    large = [Part(2, 2, i == len(parts), p) for i, p in enumerate(parts, 1)]
    other = [Part(3, 1, i == len(parts), p) for i, p in enumerate(parts, 1)]
    turns = [part for pair in zip(large, other, strict=True) for part in pair]
    small = [Data(1, seq, [b"head", b"body"][:seq]) for seq in range(4)[1:]]
    return {
        "channel": wire(opened(1), *small, Close(1)),
        "segments": wire(opened(1), Data(1, 9, [b"", b"b", b"cc"]), Data(1, 10, [])),
        "parts": wire(opened(2), *large, Data(2, 3, [b"small"])),
        "turns": wire(opened(2), opened(3, lane=1), *turns),
        "closed": wire(opened(2), large[0], Close(2), opened(3), *other),
        "answers": wire(Opened(1, 9, 0), Ack(((1, 1),)), Refused(1, 0)),
        "refused": wire(Refused(1, 1), Ack(((1, 3),)), Control(b"probe")),
        "control": wire(Control(b""), Control(bytes(range(200)))),
        "offered": wire(Offer(1, 5, 1 << 20, 77), Offer(2, 6, 1 << 24, 78)),
    }


def sharing_seeds() -> dict[str, bytes]:
    """Return streams of frames that a session accepts which shares memory.

    Each side has lent nothing but the first `LENT` bytes of a region of this one, and
    each has a region with the number 1.
    """

    def ahead(size: int) -> Part:
        step = next(cut([b"head", memoryview(bytearray(size))], 1000))
        return Part(1, 1, False, bytes(step)[:-size])

    offers = [Offer(number, 5, REGION, 70 + number) for number in (2, 3)]
    return {
        "lent": wire(opened(1), ahead(600), Lent(1, 1, True, 1, 600)),
        "back": wire(opened(1), ahead(100), Back(1, 1, True, 1, 100, 20), Returned(1)),
        "returned": wire(Returned(1), *offers, Dropped(1)),
        "unwanted": wire(opened(1), Close(1), Lent(1, 1, True, 1, 40)),
    }


def link_seeds() -> dict[str, bytes]:
    """Return streams that leave an open link open."""
    signs = wire(Ping(), Pong(), Ping(), Ping())
    cut_off = wire(opened(5), Data(5, 1, [b"head", bytes(100)]))[:-30]
    return {**frame_seeds(), "signs": signs, "cut": cut_off}


def handshake_seeds() -> tuple[bytes, bytes]:
    """Return a client's hello, and what a server answers."""
    namespace = namespace_hash(NAMESPACE)
    client = Handshake(Role.CLIENT, Identity(CLIENT, namespace, CLIENT * 2), [SECRET])
    server = Handshake(
        Role.SERVER, Identity(SERVER, namespace, SERVER * 2), [b"older", SECRET]
    )
    hello = client.start()
    challenge = server.receive(hello)
    assert challenge is not None
    return hello, challenge


def crowd(data: bytes) -> list[bytes]:
    """Return what strangers say who come to a process at the same time."""
    return data.split(NEXT)


def stranger_seeds() -> dict[str, bytes]:
    """Return what strangers say who do nothing wrong, and prove nothing.

    Those who say an odd number of bytes hang up then.
    """
    hello, _ = handshake_seeds()
    first, proof = (len(body).to_bytes(4, "big") + body for body in (hello, bytes(32)))
    said = {"hello": first, "cut": first[:40], "proof": first + proof}
    few = [first, b"", first[:-20]]
    return {**said, "few": NEXT.join(few), "many": NEXT.join([*said.values(), *few])}


def entry_seeds() -> dict[str, bytes]:
    found = {}
    for name, segments in (("small", [b"head"]), ("rest", [b"head", b"", b"body"])):
        entry = make_entry("aSRC:7:0", 5, REQUEST, b"t" * 16, segments)
        for nonce in range(1000):
            entry = entry._replace(tag=b"%016d" % nonce)
            sealed = entry.sealed(NamespaceSecret(SECRET), "DEST")
            values = [v if isinstance(v, bytes) else str(v).encode() for v in sealed]
            if not any(SEPARATOR in value for value in values):
                break
        names = b"sqkgmbh"
        pairs = [(names[i : i + 1], value) for i, value in enumerate(values)]
        found[name] = SEPARATOR.join(part for pair in pairs for part in pair)
    return found


def message_seeds() -> dict[str, list[Segment]]:
    agent: AgentId[Any] = AgentId(uid=uuid.UUID(int=1), name="a")
    user = UserId(uid=uuid.UUID(int=2))
    bodies: dict[str, Any] = {
        "action": ActionRequest(
            action="add",
            pargs=(1, "two"),
            kargs={"three": [3.0]},
            serialization=SerializationStrategy.JSON,
        ),
        "result": ActionResponse(
            result=[1, 2], serialization=SerializationStrategy.JSON
        ),
        "ping": PingRequest(),
        "cancel": CancelRequest(target_tag=uuid.UUID(int=9)),
        "shutdown": ShutdownRequest(terminate=True),
        "success": SuccessResponse(),
        "error": AcademyErrorResponse(error_code=ErrorCode.PEER_LOST, mailbox_id=agent),
    }
    tags = {"tag": uuid.UUID(int=7), "label": uuid.UUID(int=8)}
    return {
        name: encode_message(Message.create(user, agent, body, **tags))
        for name, body in bodies.items()
    }


def address_seeds() -> dict[str, bytes]:
    tcp = (Endpoint(host="10.0.0.1", port=4000), Endpoint(host="fd00::1", port=4000))
    full = Addresses("0" * 32, "host", "/run/l", tcp, "a" * 64, 100, 12.5, 1)
    bare = Addresses("0" * 32, "host", None, (), "", 100, 0.0, 1)
    return {
        name: json.dumps(record.to_dict()).encode()
        for name, record in (("full", full), ("bare", bare))
    }


def all_seeds() -> dict[str, dict[str, bytes]]:
    """Return valid inputs by target and name."""
    hello, challenge = handshake_seeds()
    length = len(hello).to_bytes(4, "big")
    tls = Tls().shake_hands(b"")
    segments = message_seeds()
    return {
        "frames": sharing_seeds() | link_seeds() | {"cut": wire(Bye())},
        "handshake_server": {"hello": hello},
        "handshake_client": {"challenge": challenge},
        "link_of_stranger": {"hello": length + hello, "cut": (length + hello)[:40]},
        "door": {**stranger_seeds(), "tls": tls + bytes(len(tls) % 2)},
        "door_in_tls": stranger_seeds(),
        "link_of_peer": link_seeds(),
        "sessions": frame_seeds(),
        "sharing": sharing_seeds(),
        "entries": entry_seeds(),
        "blocks": {
            "none": join([]),
            "some": join([b"head", b"", b"body"]),
        },
        "messages": {name: join(found) for name, found in segments.items()},
        "heads": {name: bytes(found[0]) for name, found in segments.items()},
        "marks": {
            "new": str(Mark()).encode(),
            "old": str(Mark(57, 10**15, 3)).encode(),
        },
        "endpoints": {
            "unix": b"unix:///run/link",
            "ipv4": b"tcp://10.0.0.1:4000",
            "ipv6": b"tcp://[fd00::1]:4000",
        },
        "addresses": address_seeds(),
    }
