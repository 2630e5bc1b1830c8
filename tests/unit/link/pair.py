"""Two ends of a link in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from academy.link.channel import Accepted, ChannelKey, ChannelOffered
from academy.link.codec import encode
from academy.link.config import LinkConfig
from academy.link.frame import Buffer, Frame
from academy.link.handshake import Handshake, Identity, Role, namespace_hash
from academy.link.protocol import LinkProtocol
from academy.link.session import Session

CLIENT = b"c" * 16
SERVER = b"s" * 16
SECRET = b"a secret of some length"
CONFIG = LinkConfig()


def wire(frames: Iterable[Frame]) -> bytes:
    """Return the bytes of frames."""
    return b"".join(bytes(piece) for frame in frames for piece in encode(frame))


def plain(segments: Iterable[Buffer]) -> list[bytes]:
    return [bytes(segment) for segment in segments]


def identity(process: bytes) -> Identity:
    # A nonce need not be random here, only different on each side.
    return Identity(process, namespace_hash("ns"), process * 2)


def protocol(role: Role, config: LinkConfig = CONFIG, now: float = 0.0) -> LinkProtocol:
    me = CLIENT if role is Role.CLIENT else SERVER
    return LinkProtocol(config, role, Handshake(role, identity(me), [SECRET]), now)


def written(link: LinkProtocol) -> bytes:
    return b"".join(map(bytes, link.data_to_send()))


def open_pair(
    config: LinkConfig = CONFIG, now: float = 0.0
) -> tuple[LinkProtocol, LinkProtocol]:
    """Return two links that have proved themselves to each other."""
    client = protocol(Role.CLIENT, config, now)
    server = protocol(Role.SERVER, config, now)
    server.receive_data(written(client), now)
    client.receive_data(written(server), now)
    server.receive_data(written(client), now)
    client.events_received()
    server.events_received()
    return client, server


def channel_key(lane: int = 0) -> ChannelKey:
    return ChannelKey(uuid.uuid4(), 7, uuid.uuid4(), lane)


class Pair:
    """Two linked sessions; frames go only when the test says so."""

    def __init__(self, config: LinkConfig = CONFIG) -> None:
        self.a = Session(config)
        self.b = Session(config)
        self.relink()

    def relink(self) -> None:
        self.a.link_up()
        self.b.link_up()

    def carry(self, budget: int = 1 << 30) -> list[Frame]:
        """Carry all frames from a to b."""
        return _carry(self.a, self.b, budget)

    def carry_back(self, budget: int = 1 << 30) -> list[Frame]:
        """Carry all frames from b to a."""
        return _carry(self.b, self.a, budget)

    def channel(self, key: ChannelKey, accepted: int = 0) -> int:
        """Open a channel from a to b and return its number at b."""
        self.a.open(key)
        self.carry()
        (offered,) = self.b.events_received()
        assert isinstance(offered, ChannelOffered)
        assert offered.key == key
        self.b.accept(offered.channel, 9, accepted)
        self.carry_back()
        assert self.a.events_received() == [Accepted(key, 9, accepted)]
        return offered.channel


def _carry(sender: Session, receiver: Session, budget: int) -> list[Frame]:
    frames = sender.frames_to_send(budget)
    for frame in frames:
        receiver.receive(frame)
    return frames
