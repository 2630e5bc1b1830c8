"""The parsers: each target returns whether an input was valid.

What a parser's docstring names is an outcome; everything else that it raises is a
finding, and so is a failed assertion about what it keeps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from academy.exception import IncompatibleNetworkProtocolError
from academy.exchange.mailbox import open_entry
from academy.exchange.secret import NamespaceSecret
from academy.exchange.stream import Mark
from academy.link.address import Addresses, Endpoint
from academy.link.borrowing import PEER_COUNT, PEER_SUM
from academy.link.channel import ChannelOffered, Received
from academy.link.codec import LENGTH, encode, parse
from academy.link.config import LinkConfig
from academy.link.frame import Frame, Mapped, Offer, RemoteProtocolError
from academy.link.handshake import (
    Handshake,
    HandshakeError,
    Identity,
    Role,
    namespace_hash,
)
from academy.link.lending import Copying
from academy.link.protocol import LinkClosed, LinkProtocol, State
from academy.link.reader import FrameReader
from academy.link.session import Session
from academy.link.sharing import SharedMemory
from academy.message import Message, decode
from academy.serialize import join, split
from tests.fuzz.door import UNPROVED, received
from tests.fuzz.identity import CLIENT, NAMESPACE, SECRET, SERVER
from tests.fuzz.mutation import pieces
from tests.fuzz.seeds import LENT, REGION, STREAM_KEY, crowd, separated
from tests.unit.link.memory import FakeRegions

CROWD = 8
"""Strangers who come at the same time, at most."""
CONFIG = LinkConfig(
    frame_limit=2048, chunk=256, part=256, message_limit=4096, parts_limit=8192
)


def frames(data: bytes) -> bool:
    """`FrameReader` and `parse`."""
    reader = FrameReader(CONFIG.frame_limit)
    found = b""
    try:
        for piece in pieces(data):
            for body, start, end in reader.feed(piece):
                frame = parse(body, start, end)
                found += b"".join(map(bytes, encode(frame)))
            assert reader.pending <= CONFIG.frame_limit + 4
    except RemoteProtocolError:
        return False
    assert data.startswith(found)
    return found == data


def handshake_server(data: bytes) -> bool:
    """`Handshake.receive`: a stranger dials."""
    side = handshake(Role.SERVER)
    try:
        side.receive(data)
    except HandshakeError:
        return False
    finally:
        assert not side.done
    try:
        side.receive(data[-32:])
    except HandshakeError:
        return True
    raise AssertionError("a stranger has proved itself")


def handshake_client(data: bytes) -> bool:
    """`Handshake.receive`: a stranger answers."""
    side = handshake(Role.CLIENT)
    try:
        side.receive(data)
    except HandshakeError:
        assert not side.done
        return False
    assert side.done
    return True


def link_of_stranger(data: bytes) -> bool:
    """`LinkProtocol.receive_data` before the handshake is over."""
    link = LinkProtocol(CONFIG, Role.SERVER, handshake(Role.SERVER), 0.0)
    for piece in pieces(data):
        link.receive_data(piece, 1.0)
        assert link._reader.pending < LENGTH.size + CONFIG.handshake_limit
    assert link.state is not State.OPEN
    assert sum(map(len, link.data_to_send())) <= CONFIG.handshake_limit
    events = link.events_received()
    assert len(events) == link.closed
    link.handle_timer(1e9)
    assert link.closed
    return not events


def door(data: bytes) -> bool:
    """`Acceptor`, `Gate`, `Admission` and `Node`: strangers come, and say this."""
    return received(crowd(data)[:CROWD]) <= UNPROVED


def door_in_tls(data: bytes) -> bool:
    """The same, within TLS."""
    return received(crowd(data)[:CROWD], encrypted=True) <= UNPROVED


def link_of_peer(data: bytes) -> bool:
    """`LinkProtocol.receive_data` on an open link, and what a shell does with it."""
    link, session = open_link(), open_session()
    for piece in pieces(data):
        link.receive_data(piece, 1.0)
        for event in link.events_received():
            if isinstance(event, Frame) and session.linked:
                try:
                    session.receive(event)
                    consume(session)
                except RemoteProtocolError as e:
                    link.fail(str(e))
                    session.link_down()
        link.data_to_send()
    if link.closed:
        return False
    link.receive_eof(1.0)
    (end,) = link.events_received()
    assert isinstance(end, LinkClosed)
    return True


def sessions(data: bytes) -> bool:
    """`Session.receive`."""
    session = open_session()
    try:
        for body, start, end in FrameReader(CONFIG.frame_limit).feed(data):
            session.receive(parse(body, start, end))
            kept = session._in.unfinished.weight
            assert 0 <= kept <= CONFIG.parts_limit + CONFIG.message_limit
            consume(session)
    except RemoteProtocolError:
        return False
    return True


def sharing(data: bytes) -> bool:
    """`Session.receive` where memory is shared."""
    session, memory = sharing_session()
    try:
        for body, start, end in FrameReader(CONFIG.frame_limit).feed(data):
            session.receive(parse(body, start, end))
            consume(session)
            opened = memory.borrower.opened.values()
            assert sum(foreign.region.size for foreign in opened) <= PEER_SUM
            assert len(opened) <= PEER_COUNT
    except RemoteProtocolError:
        return False
    finally:
        session.link_down()
        assert not memory.borrower.opened
        assert not memory.lender.owned
    return True


def entries(data: bytes) -> bool:
    """`exchange.mailbox.open_entry`."""
    entry = open_entry(separated(data), [NamespaceSecret(SECRET)], "DEST")
    if entry is None:
        return False
    # It is signed, so it is one of the corpus: only its order may be another.
    assert entry.segments()
    return True


def blocks(data: bytes) -> bool:
    """`serialize.split`."""
    try:
        segments = split(data)
    except ValueError:
        return False
    assert join(segments) == data
    return True


def messages(data: bytes) -> bool:
    """`message.decode`, and the plain fields of the body."""
    try:
        message: Message[object] = Message.model_deserialize(data)
        message.get_body()
    except (ValueError, IncompatibleNetworkProtocolError):
        return False
    return True


def heads(data: bytes) -> bool:
    """`message.decode` of a single segment."""
    try:
        decode([data]).get_body()
    except (ValueError, IncompatibleNetworkProtocolError):
        return False
    return True


def marks(data: bytes) -> bool:
    """`exchange.stream.Mark.parse`."""
    try:
        mark = Mark.parse(data.decode("utf-8", "replace"))
    except ValueError:
        return False
    assert Mark.parse(str(mark)) == mark
    return True


def endpoints(data: bytes) -> bool:
    """`link.address.Endpoint.parse`."""
    try:
        endpoint = Endpoint.parse(data.decode("utf-8", "replace"))
    except ValueError:
        return False
    assert Endpoint.parse(str(endpoint)) == endpoint
    return True


def addresses(data: bytes) -> bool:
    """`link.address.Addresses.from_dict`."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return False
    try:
        found = Addresses.from_dict(record)
    except ValueError:
        return False
    assert Addresses.from_dict(found.to_dict()) == found
    there = dataclasses.replace(found, host="another host", tcp=())
    assert not any(e.is_local for e in there.candidates(found))
    return True


TARGETS: dict[str, Callable[[bytes], bool]] = {
    target.__name__: target
    for target in (
        frames,
        handshake_server,
        handshake_client,
        link_of_stranger,
        door,
        door_in_tls,
        link_of_peer,
        sessions,
        sharing,
        entries,
        blocks,
        messages,
        heads,
        marks,
        endpoints,
        addresses,
    )
}


def handshake(role: Role) -> Handshake:
    uid = CLIENT if role is Role.CLIENT else SERVER
    identity = Identity(uid, namespace_hash(NAMESPACE), uid * 2)
    return Handshake(role, identity, [SECRET])


def open_link() -> LinkProtocol:
    """Return the server's side of a link that is open."""
    client = LinkProtocol(CONFIG, Role.CLIENT, handshake(Role.CLIENT), 0.0)
    server = LinkProtocol(CONFIG, Role.SERVER, handshake(Role.SERVER), 0.0)
    for sender, receiver in ((client, server), (server, client), (client, server)):
        receiver.receive_data(b"".join(map(bytes, sender.data_to_send())), 0.0)
    server.events_received()
    return server


def open_session() -> Session:
    """Return a session that has asked for a channel, with the number 1."""
    session = Session(CONFIG)
    session.link_up()
    session.open(STREAM_KEY)
    session.frames_to_send(0)
    return session


def sharing_session() -> tuple[Session, SharedMemory]:
    """Return a session where each side has a region, and has lent the other's."""
    session, regions = Session(CONFIG), FakeRegions()
    memory = SharedMemory(regions, lambda: None)
    session.link_up(memory)
    session.receive(Offer(1, 3, REGION, regions.create(REGION).inode))
    assert memory.lender.lend(memoryview(bytes(REGION))) is None
    session.receive(Mapped(1))
    way = Copying(memory.lender.owned[1], memoryview(bytes(LENT)))
    while not way.done:
        way.advance()
    way.frame(1, 1, True)
    session.frames_to_send(0)
    return session, memory


def consume(session: Session) -> None:
    """Accept channels and take messages, as an exchange does."""
    for event in session.events_received():
        if isinstance(event, ChannelOffered):
            session.accept(event.channel, 9, 0)
        elif isinstance(event, Received):
            session.taken(event.channel, event.seq, 1.0)
    if session.is_open(STREAM_KEY):
        session.send(STREAM_KEY, 1, [b"head"])
    session.handle_timer(9.0)
    session.frames_to_send(1 << 20)
