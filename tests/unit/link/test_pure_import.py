"""The core of links runs where nothing can be reached."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import academy

ROOT = pathlib.Path(academy.__file__).parent.parent

PROGRAM = """
import sys

BLOCKED = (
    "asyncio socket ssl redis select selectors subprocess logging random "
    "pydantic"
).split()
for name in BLOCKED:
    assert name not in sys.modules, name
    sys.modules[name] = None

import uuid

from academy.link.address import Addresses, Endpoint
from academy.link.config import LinkConfig
from academy.link.frame import Ack, Data, Part
from academy.link.handshake import Handshake, Identity, Role, namespace_hash
from academy.link.protocol import LinkOpen, LinkProtocol
from academy.link.channel import (
    Accepted, ChannelKey, ChannelOffered, Received, Taken, Told
)
from academy.link.session import Session

CONFIG = LinkConfig()


class Process:
    def __init__(self, role, uid):
        identity = Identity(uid, namespace_hash("ns"), uid * 2)
        handshake = Handshake(role, identity, [b"secret"])
        self.link = LinkProtocol(CONFIG, role, handshake, 0.0)
        self.session = Session(CONFIG)
        self.found = []
        self.kinds = set()

    def turn(self, other, now):
        for frame in self.session.frames_to_send(1 << 30):
            self.kinds.add(type(frame))
            self.link.send(frame)
        other.link.receive_data(b"".join(self.link.data_to_send()), now)
        for event in other.link.events_received():
            match event:
                case LinkOpen(peer):
                    other.session.link_up()
                    other.found.append(peer)
                case frame:
                    other.session.receive(frame)
        for event in other.session.events_received():
            other.found.append(event)
            match event:
                case ChannelOffered(channel):
                    other.session.accept(channel, 9, 0)
                case Received(channel, _, seq):
                    other.session.taken(channel, seq, now)


a, b = Process(Role.CLIENT, b"a" * 16), Process(Role.SERVER, b"b" * 16)
for side in ("there", "back") * 2:
    a.turn(b, 0.0)
    b.turn(a, 0.0)
assert a.found == [b"b" * 16] and b.found == [b"a" * 16]

there = ChannelKey(uuid.UUID(int=1), 5, uuid.UUID(int=2), 0)
back = ChannelKey(uuid.UUID(int=2), 6, uuid.UUID(int=1), 1)
a.session.open(there)
b.session.open(back)
for _ in range(2):
    a.turn(b, 1.0)
    b.turn(a, 1.0)
assert Accepted(there, 9, 0) in a.found and Accepted(back, 9, 0) in b.found

large = bytes(range(256)) * 4096
a.session.send(there, 1, [b"head", b"request"])
a.session.send(there, 2, [b"head", b"", large])
b.session.send(back, 1, [b"head", b"reply"])
a.session.tell(b"are you well?")
for _ in range(3):
    a.turn(b, 2.0)
    b.turn(a, 2.0)
for one, other in ((a, b), (b, a)):
    one.session.handle_timer(3.0)
    one.turn(other, 3.0)
assert Received(1, there, 1, [b"head", b"request"]) in b.found
assert Received(1, there, 2, [b"head", b"", large]) in b.found
assert Received(1, back, 1, [b"head", b"reply"]) in a.found
assert Told(b"are you well?") in b.found
assert Taken(there, 2) in a.found and Taken(back, 1) in b.found
assert {Data, Part} <= a.kinds and Ack in b.kinds

here = Addresses("0" * 32, "h", "/run/x", (), "", 1, 2.0, 1)
assert Addresses.from_dict(here.to_dict()) == here
assert here.candidates(here) == [Endpoint.parse("unix:///run/x")]
assert all(sys.modules[name] is None for name in BLOCKED)
assert "threading" not in sys.modules
print("done")
"""


def test_two_peers_in_memory() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr
