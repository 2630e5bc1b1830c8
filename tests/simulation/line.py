"""What a mailbox sends to another: an outbox, and the channel it may use."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from academy.exchange.appender import LONGEST_PAUSE, SHORTEST_PAUSE
from academy.exchange.flight import Room
from academy.exchange.outbox import RECONNECT_GRACE
from academy.exchange.parcel import Append, Effect, GiveUp, Parcel, Refuse, SendDirect
from academy.exchange.stream import REPLIES, REQUESTS, SendStream
from academy.link.channel import ChannelKey
from tests.simulation.loop import Loop
from tests.simulation.message import Message
from tests.simulation.server import Reply

if TYPE_CHECKING:
    import uuid

    from tests.simulation.box import Box
    from tests.simulation.node import Peer

QUEUE_LIMIT = 200
"""Bytes of the largest request that goes through the queue; answers have no limit here,
for who gives a smaller one instead is not part of this."""
RECOVERY_TIMEOUT = 5.0
RECOVERY_PAUSE = 0.2
SEEK_PAUSE = 1.0


class Line:
    """One stream from a mailbox to another."""

    def __init__(self, box: Box, dest: uuid.UUID, lane: int) -> None:
        self.box = box
        self.process = box.process
        self.clock = box.process.clock
        self.dest = dest
        self.lane = lane
        self.key = ChannelKey(box.eid, box.inc, dest, lane)
        config = box.process.node.config
        window = config.window_messages if lane == REQUESTS else 0
        self.outbox = box.process.world.rules.outbox(
            SendStream(str(box.eid.int), box.inc, lane),
            window,
            config.window_bytes,
            QUEUE_LIMIT if lane == REQUESTS else 1 << 30,
            direct=box.process.world.direct,
        )
        self.peer: Peer | Loop | None = None
        self.target = b""
        self.known_inc = 0
        self.not_before = 0.0
        self.timer = math.inf
        self.looking = False
        self.ended = False

    def submit(self, message: Message, since: float | None = None) -> Parcel:
        """Send a message, or begin to."""
        rest = self.process.world.padding()
        parcel, effects = self.outbox.submit(
            message.kind, b"", message.encode(*rest), self.clock.now
        )
        if effects is None:
            effects = [SendDirect(parcel)]
        parcel.note = (message, self.clock.now if since is None else since)
        self.box.sending(message, self, parcel)
        if not self.outbox.incarnation:
            self.seek()
        self.run(effects)
        return parcel

    # Where the destination is

    def seek(self, *, now: bool = False) -> None:
        """Ask where the destination is, and link to that process."""
        if not self.process.world.direct:
            return
        if not now and (self.peer is not None or self.clock.now < self.not_before):
            return
        self.not_before = self.clock.now + SEEK_PAUSE
        self.outbox.expect(self.clock.now)
        self.process.commands.call(
            "resolve", self.dest, self.process.uid, done=self._found, timeout=5.0
        )

    def newer(self, inc: int) -> None:
        """The destination has this incarnation: leave a former one, and seek it.

        A former one that has not heard of it yet would take what is sent to it, also
        the answers to requests of the newer one.
        """
        if not self.process.world.rules.newer:
            return
        self.known_inc = max(self.known_inc, inc)
        former = self.outbox.incarnation
        if 0 < former < inc:
            self.outbox.stop()
            self.clock.after(RECONNECT_GRACE, self.process, self._leave_former, former)

    def _leave_former(self, former: int) -> None:
        if self.outbox.incarnation == former and not self.ended:
            self.leave(grace=False)
            self.seek(now=True)

    def link_up(self, peer: Peer) -> None:
        """Open the channel, if this is the process to talk to."""
        if self.target == peer.uid:
            self.peer = peer
            peer.session.open(self.key)
            peer.touch()

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        """Stop to use the channel."""
        if self.peer is peer:
            self.leave(grace=may_return)
            if may_return:
                self.process.node.connect(peer.uid)

    def leave(self, *, grace: bool) -> None:
        """Give the channel up."""
        if self.peer is not None:
            self.peer.session.close(self.key)
            self.peer.touch()
            self.peer = None
        self.run(self.outbox.channel_lost(self.clock.now, grace=grace))

    def rejected(self) -> None:
        """The incarnation of the channel has ended."""
        self.peer = None
        self.target = b""
        self.run(self.outbox.channel_lost(self.clock.now, grace=False, ended=True))

    def accepted(self, inc: int, accepted: int) -> None:
        """Use the channel that was opened."""
        if inc < self.known_inc:
            self.leave(grace=False)
            return
        self.known_inc = inc
        self.run(self.outbox.channel_open(inc, accepted, self.clock.now))

    def end(self) -> None:
        """Forget everything."""
        self.ended = True
        if self.peer is not None:
            self.peer.session.close(self.key)
            self.peer.touch()
            self.peer = None
        self.process.lines.pop(self.key, None)

    def taken(self, seq: int) -> None:
        """Note an acknowledgement."""
        confirmed, effects = self.outbox.taken(seq, self.clock.now)
        for parcel in confirmed:
            self.process.world.ledger.confirmed(parcel.note[0])
        self.run(effects)

    def lost(self) -> None:
        """The process with the destination is gone: fail what it had."""
        for tag, awaited in list(self.box.awaited.items()):
            parcel = awaited.parcel
            had = awaited.line is self and 0 < parcel.inc == self.known_inc
            if had and not self.box.has_answer(tag):
                self.outbox.drop(parcel)
                self.box.settle(tag, "PeerLost", "maybe")
        self.target = b""

    def _found(self, reply: Reply | None, sent: int) -> None:
        if self.box.ended or reply is None or reply[0] != "ok":
            return
        _, inc, owner = reply
        if not owner:
            self.run(self.outbox.no_channel(self.clock.now))
        if not owner or inc < self.known_inc:
            return
        moved = owner != self.target
        self.target, self.known_inc = owner, inc
        if moved and self.peer is not None:
            self.leave(grace=False)
        if owner == self.process.uid:
            self._loop()
            return
        peer = self.process.node.connect(owner)
        if peer.usable and self.peer is None:
            self.link_up(peer)

    def _loop(self) -> None:
        """Open a channel to a mailbox of this process."""
        box = self.process.boxes.get(self.dest)
        if box is not None and not box.ended and self.peer is None:
            self.peer = Loop(self, box)
            box.accept(self.peer, 0, self.outbox.stream.name)

    def take_back(self, parcel: Parcel) -> bool:
        """Do not send what nobody waits for; return whether it was sent nowhere."""
        if self.outbox.withdraw(parcel):
            return True
        unsent = self.peer is not None and self.peer.take_back(self.key, parcel.seq)
        self.run(self.outbox.take_back(parcel, self.clock.now, unsent=unsent))
        return False

    # What the outbox decides

    def run(self, effects: list[Effect]) -> None:
        """Carry out effects."""
        if self.ended:
            return
        for effect in effects:
            match effect:
                case SendDirect(parcel):
                    self._send_direct(parcel)
                case Append(parcel, stamp):
                    self._append(parcel, stamp)
                case Refuse(parcel):
                    executed = "maybe" if parcel.inc else "no"
                    self._failed(parcel, "MessageTooLarge", executed)
                case GiveUp(parcel):
                    executed = "no" if parcel.fresh else "maybe"
                    self._failed(parcel, "PeerUnreachable", executed)
        self.process.world.ledger.measure(self)
        due = self.outbox.next_timer()
        if due is not None and due < self.timer:
            self.timer = due
            delay = max(0.0, due - self.clock.now)
            self.clock.after(delay, self.process, self._fire, due)
        if self.outbox.short and not self.looking:
            self.looking = True
            self.clock.after(SHORTEST_PAUSE, self.process, self._look, SHORTEST_PAUSE)

    def _fire(self, due: float) -> None:
        if due != self.timer:
            return
        self.timer = math.inf
        up = not self.process.commands.away
        self.run(self.outbox.handle_timer(self.clock.now, relay_up=up))

    def _send_direct(self, parcel: Parcel) -> None:
        assert self.peer is not None
        self.peer.session.send(self.key, parcel.seq, parcel.segments, None, True)
        self.peer.touch()

    def _append(self, parcel: Parcel, stamp: int) -> None:
        if self.lane == REPLIES:
            # One that arrives twice, or that nobody awaits, is dropped.
            stamp = 0
        self.process.commands.call(
            "send",
            self.dest,
            self.box.eid,
            self.box.inc,
            self.outbox.stream.name,
            parcel.seq,
            stamp,
            self.process.uid,
            parcel.kind,
            parcel.segments,
            parcel.ahead,
            done=functools.partial(self._appended, parcel, stamp),
        )

    def _appended(
        self, parcel: Parcel, stamp: int, reply: Reply | None, sent: int
    ) -> None:
        careful = self.process.world.rules.careful
        certain = not careful or (parcel.fresh and sent <= 1)
        if reply == ("full", True) and parcel.patient:
            parcel.fresh = certain
            self.run(self.outbox.refused(parcel, self.clock.now))
            return
        arrived = sent > 0 if reply is None else reply[0] == "ok"
        effects = self.outbox.appended(parcel, self.clock.now, arrived=arrived)
        match reply:
            case None:
                executed = "no" if parcel.fresh and not sent else "maybe"
                self._failed(parcel, "PeerUnreachable", executed)
            case ("ok", kept):
                parcel.inc = kept
            case ("lost",):
                self._failed(parcel, "PeerLost", "maybe")
            case ("missing",) | ("sender", "missing"):
                self._recover(parcel, certain=certain)
            case ("sender", "fenced"):
                self.box.fenced()
            case ("full", _):
                executed = "no" if certain else "maybe"
                self._failed(parcel, "MailboxFull", executed)
            case _:
                executed = "no" if certain else "maybe"
                self._failed(parcel, "MailboxTerminated", executed)
        self.run(effects)

    def _look(self, pause: float) -> None:
        """Ask whether there is room for what the outbox holds."""
        if self.ended or not self.outbox.short:
            self.looking = False
            return
        done = functools.partial(self._looked, pause)
        self.process.commands.call("room", self.dest, done=done)

    def _looked(self, pause: float, reply: Reply | None, sent: int) -> None:
        live = reply is not None and reply[0] == "ok"
        room = Room(reply[1], 1 << 40) if reply is not None and live else None
        effects = self.outbox.room(room, self.clock.now)
        pause = SHORTEST_PAUSE if effects else min(2 * pause, LONGEST_PAUSE)
        self.run(effects)
        self.clock.after(pause, self.process, self._look, pause)

    def _recover(self, parcel: Parcel, *, certain: bool) -> None:
        """The server was emptied: try again, if nobody can have the message."""
        self.process.restore()
        since = parcel.note[1]
        if certain and self.clock.now < since + RECOVERY_TIMEOUT:
            self.clock.after(RECOVERY_PAUSE, self.process, self._again, parcel)
        else:
            executed = "no" if certain else "maybe"
            self._failed(parcel, "RequestLost", executed)

    def _again(self, parcel: Parcel) -> None:
        message, since = parcel.note
        if self.box.ended:
            return
        awaited = self.box.awaited.get(message.tag)
        if message.kind == "q" and (awaited is None or awaited.parcel is not parcel):
            return
        self.submit(message, since)

    def _failed(self, parcel: Parcel, name: str, executed: str) -> None:
        awaited = self.box.awaited.get(parcel.note[0].tag)
        if awaited is not None and awaited.parcel is parcel:
            self.box.settle(parcel.note[0].tag, name, executed)
