"""A process: its mailboxes, its connection to the server, its links."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING

from academy.exchange.stream import REPLIES, SendStream
from academy.link.channel import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Event,
    Reason,
    Received,
    Rejected,
    Taken,
)
from tests.simulation.audit import Auditor
from tests.simulation.box import Box
from tests.simulation.clock import Actor
from tests.simulation.commands import Commands
from tests.simulation.line import Line
from tests.simulation.message import (
    REQUEST,
    TERMINATED_MAYBE,
    TERMINATED_NO,
    Message,
    decode,
)
from tests.simulation.node import Node, Peer
from tests.simulation.server import LEASE, Entry, Reply

if TYPE_CHECKING:
    from tests.simulation.world import World

RENEWAL = 2.5
RENEW_AGAIN = 0.25


class Process(Actor):
    """One process of the world."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__()
        self.world = world
        self.clock = world.clock
        self.uid = number.to_bytes(16, "big")
        self.commands = Commands(
            world.clock, world.chance, world.server, self, world.latency
        )
        self.node = Node(world.clock, world.chance, world.network, self)
        self.auditor = Auditor(self)
        self.boxes: dict[uuid.UUID, Box] = {}
        self.lines: dict[ChannelKey, Line] = {}
        self._own = SendStream(f"p{number}", 0, REPLIES)
        self._restoring = 0
        world.server.renew(self.uid)
        world.clock.after(RENEWAL, self, self._renew)

    def settle(self) -> None:
        self.node.settle()

    def bind(self, eid: uuid.UUID) -> None:
        """Own a mailbox from now on."""
        former = self.boxes.get(eid)
        if former is not None:
            former.then = lambda: self.bind(eid)
            former.close()
            return
        self.commands.call(
            "bind", eid, self.uid, done=lambda reply, _: self._bound(eid, reply)
        )

    def _bound(self, eid: uuid.UUID, reply: Reply | None) -> None:
        if reply is None or reply[0] == "terminated":
            self.world.not_bound(eid)
        elif reply[0] == "missing":
            # Whoever launches an agent registers it.
            self.commands.call("register", eid, done=lambda *_: self.bind(eid))
        else:
            _, inc, marks, since, closed = reply
            clean = range(since, closed + 1) if closed else range(0)
            former = self.boxes.get(eid)
            if former is not None:
                former.fenced()
            self.boxes[eid] = Box(self, eid, inc, marks, clean)
            self.world.bound(self.boxes[eid])
            self.boxes[eid].kick()

    def terminate(self, eid: uuid.UUID) -> None:
        """Close a mailbox for good."""
        self.commands.call("terminate", eid, done=self._terminated)

    def _terminated(self, reply: Reply | None, sent: int) -> None:
        if reply is None or reply[0] != "ok":
            return
        for entry, maybe in reply[1]:
            if entry.kind == REQUEST:
                status = TERMINATED_MAYBE if maybe or sent > 1 else TERMINATED_NO
                message = decode(entry.segments)
                self.respond(message.answer(status))
                self.world.ledger.refused(message, 0)

    # What this process says itself

    def respond(self, message: Message) -> None:
        """Answer in the name of a mailbox that this process has no more."""
        self.say(message.dest, message.kind, message.encode())

    def say(self, dest: uuid.UUID, kind: str, segments: list[bytes]) -> None:
        own = self._own
        self.commands.call(
            "send",
            dest,
            None,
            0,
            own.name,
            own.next(),
            0,
            self.uid,
            kind,
            segments,
            done=lambda *_: None,
        )

    # Links

    def session_event(self, peer: Peer, event: Event) -> None:
        match event:
            case ChannelOffered(channel, key):
                box = self.boxes.get(key.dest)
                if box is None or box.ended:
                    peer.session.refuse(channel, Reason.NOT_HERE)
                else:
                    box.accept(peer, channel, stream_name(key))
            case Received(channel, key, seq, segments):
                box = self.boxes.get(key.dest)
                name = stream_name(key)
                if box is None or box.ended:
                    return
                assert box.channels[name] == (peer, channel)
                kind = "r" if key.lane == REPLIES else "q"
                entry = Entry(0, name, seq, kind, 0, [bytes(s) for s in segments])
                box.receive(entry, queued=False)
            case Accepted(key, inc, accepted):
                line = self._line(peer, key)
                if line is not None:
                    line.accepted(inc, accepted)
            case Taken(key, seq):
                line = self._line(peer, key)
                if line is not None:
                    line.taken(seq)
            case Rejected(key, _):
                line = self._line(peer, key)
                if line is not None:
                    line.rejected()

    def link_up(self, peer: Peer) -> None:
        for line in list(self.lines.values()):
            line.link_up(peer)

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        for line in list(self.lines.values()):
            line.link_down(peer, may_return=may_return)

    def lost(self, uid: bytes) -> None:
        """Another process is known to be gone."""
        for line in list(self.lines.values()):
            if line.target == uid:
                line.lost()

    def _line(self, peer: Peer, key: ChannelKey) -> Line | None:
        line = self.lines.get(key)
        return line if line is not None and line.peer is peer else None

    # What the server tells, or has lost

    def hear(self, kind: str, eid: uuid.UUID, inc: int) -> None:
        """Take news from the wake stream."""
        box = self.boxes.get(eid)
        if kind == "m" and box is not None:
            box.wake()
        elif kind == "f" and box is not None and inc > box.inc:
            box.fenced()
        elif kind == "g":
            if box is not None:
                box.gone()
            self.auditor.terminated(eid)
        elif kind in ("b", "c"):
            self.auditor.look_at(eid)
            if kind == "b":
                for line in list(self.lines.values()):
                    if line.dest == eid and not line.box.ended:
                        line.seek(now=True)

    def restore(self) -> None:
        """Repair the directory after the server was away or has lost data."""
        self.auditor.trust_after = self.clock.now + LEASE
        if self._restoring:
            return
        boxes = [box for box in self.boxes.values() if not box.ended]
        self._restoring = len(boxes)
        for box in boxes:
            self.commands.call(
                "reassert",
                box.eid,
                self.uid,
                box.inc,
                box.received.held(),
                done=functools.partial(self._reasserted, box),
            )

    def _reasserted(self, box: Box, reply: Reply | None, sent: int) -> None:
        self._restoring -= 1
        if reply is not None and reply[0] == "fenced":
            box.fenced()
        elif reply is not None and reply[0] == "terminated":
            box.gone()
        if not self._restoring:
            for other in list(self.boxes.values()):
                other.wake()
            self.auditor.look_at_all()

    def _renew(self) -> None:
        if self.world.server.down:
            self.clock.after(RENEW_AGAIN, self, self._renew)
            return
        if not self.world.server.renew(self.uid):
            self.restore()
        self.clock.after(RENEWAL, self, self._renew)


def stream_name(key: ChannelKey) -> str:
    """Return the name of the stream that a channel carries."""
    return f"{key.src.int}:{key.src_inc}:{key.lane}"
