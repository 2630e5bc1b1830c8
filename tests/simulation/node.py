"""A process on the network: its links, and the sessions that they carry.

A small model of `academy.link.node` and `academy.link.peer`, around the real sessions.
"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from academy.link.channel import ChannelKey
from academy.link.config import LinkConfig
from academy.link.frame import Frame, RemoteProtocolError
from academy.link.protocol import (
    Cause,
    LinkClosed,
    LinkOpen,
    Suspected,
    Trusted,
)
from academy.link.session import Session
from tests.simulation.clock import Clock

if TYPE_CHECKING:
    from tests.simulation.network import End, Network
    from tests.simulation.process import Process

REDIAL = 5.0
CONFIG = dataclasses.replace(
    LinkConfig(),
    frame_limit=4096,
    chunk=96,
    part=96,
    window_messages=8,
    window_bytes=800,
    ack_messages=4,
)


class Peer:
    """Another process, as one process sees it."""

    def __init__(self, node: Node, uid: bytes) -> None:
        self.node = node
        self.uid = uid
        self.session = Session(node.config)
        self.end: End | None = None
        self.suspected = False
        self.dialling = False
        self.not_before = 0.0

    @property
    def usable(self) -> bool:
        return self.end is not None and not self.suspected

    def take_back(self, key: ChannelKey, seq: int) -> bool:
        """Do not send a message, if it has not been sent to the end."""
        self.touch()
        return self.session.take_back(key, seq)

    def touch(self) -> None:
        """Have what the session says sent at the end of this event."""
        self.node.touched[self.uid] = self


class Node:
    """The links of a process."""

    config: LinkConfig

    def __init__(
        self, clock: Clock, chance: random.Random, network: Network, process: Process
    ) -> None:
        self.clock = clock
        self.chance = chance
        self.network = network
        self.process = process
        self.uid = process.uid
        self.config = CONFIG
        self.peers: dict[bytes, Peer] = {}
        self.touched: dict[bytes, Peer] = {}
        self.ends: dict[End, Peer | None] = {}
        self.vanished = False
        network.nodes[self.uid] = self

    def connect(self, uid: bytes) -> Peer:
        """Return the peer of a process; dial it unless it is linked or was tried."""
        peer = self._peer(uid)
        due = self.clock.now >= peer.not_before
        if peer.end is None and not peer.dialling and due:
            peer.dialling = True
            self.network.dial(self, uid)
        return peer

    def close(self) -> None:
        """End all links in good order."""
        for end in list(self.ends):
            end.protocol.close("the process closes")
            end.write()

    def die(self, *, vanish: bool) -> None:
        """End all links without a word; who vanishes does not even send an RST."""
        self.vanished = vanish
        for end in self.ends:
            if vanish:
                end.broken = True
            else:
                end.end()

    # What the network tells

    def dialled(self, uid: bytes, end: End | None) -> None:
        peer = self._peer(uid)
        if end is None:
            self._not_reached(peer)
        else:
            self.ends[end] = None
            self._work(end)

    def received(self, end: End, data: bytes | None) -> None:
        if not end.open:
            return
        self.ends.setdefault(end, None)
        if data is None:
            end.protocol.receive_eof(self.clock.now)
        else:
            end.protocol.receive_data(data, self.clock.now)
        self._work(end)

    def fire(self, end: End, due: float) -> None:
        if due != end.timer or end not in self.ends:
            return
        end.timer = float("inf")
        end.protocol.handle_timer(self.clock.now)
        peer = self.ends[end]
        if peer is not None:
            peer.session.handle_timer(self.clock.now)
            peer.touch()
        self._work(end)

    def settle(self) -> None:
        """Send what the sessions have to say."""
        while self.touched:
            _, peer = self.touched.popitem()
            if peer.end is None:
                continue
            for frame in peer.session.frames_to_send(256):
                peer.end.protocol.send(frame)
            if peer.session.has_parts:
                self.clock.after(0.0002, self.process, peer.touch)
            peer.end.write()
            self._arm(peer.end)

    # What the protocols say

    def _work(self, end: End) -> None:
        end.write()
        for event in end.protocol.events_received():
            match event:
                case LinkOpen(uid):
                    self._link_open(end, uid)
                case Suspected() | Trusted():
                    self._suspect(end, isinstance(event, Suspected))
                case LinkClosed(cause, _):
                    self._link_closed(end, cause)
                case frame:
                    self._receive(end, frame)
        self._arm(end)

    def _receive(self, end: End, frame: Frame) -> None:
        peer = self.ends.get(end)
        if peer is None:
            return
        try:
            peer.session.receive(frame)
        except RemoteProtocolError:
            # Nobody sends that who keeps to all rules.
            self.process.world.ledger.disorder += 1
            return
        for item in peer.session.events_received():
            self.process.session_event(peer, item)
        peer.touch()

    def _link_open(self, end: End, uid: bytes) -> None:
        peer = self._peer(uid)
        peer.dialling = peer.dialling and not end.dialled
        current = peer.end
        if current is not None and not current.protocol.closed:
            if current.dialled != end.dialled and self._wins(current, uid):
                end.protocol.close("there is another link already")
                end.write()
                return
            self.ends[current] = None
            self._detach(peer, may_return=True)
            current.protocol.close("replaced by a newer link")
            current.write()
        self.ends[end] = peer
        peer.end = end
        peer.suspected = False
        peer.session.link_up()
        self.process.link_up(peer)
        peer.touch()

    def _wins(self, end: End, uid: bytes) -> bool:
        return (self.uid if end.dialled else uid) == min(self.uid, uid)

    def _suspect(self, end: End, suspected: bool) -> None:
        peer = self.ends.get(end)
        if peer is None or peer.suspected == suspected:
            return
        peer.suspected = suspected
        if suspected:
            self.process.link_down(peer, may_return=False)
        else:
            self.process.link_up(peer)
        peer.touch()

    def _link_closed(self, end: End, cause: Cause) -> None:
        peer = self.ends.pop(end, None)
        if cause is Cause.VIOLATED:
            raise AssertionError("bytes were damaged")
        if peer is not None and peer.end is end:
            self._detach(peer, may_return=cause is Cause.LOST)
        elif end.dialled:
            self._not_reached(self._peer(end.other.node.uid))

    def _not_reached(self, peer: Peer) -> None:
        if peer.dialling:
            peer.dialling = False
            peer.not_before = self.clock.now + REDIAL
            if peer.end is None:
                self.process.link_down(peer, may_return=False)

    def _detach(self, peer: Peer, *, may_return: bool) -> None:
        was_usable = peer.usable
        peer.end = None
        peer.suspected = False
        peer.session.link_down()
        if was_usable:
            self.process.link_down(peer, may_return=may_return)

    def _arm(self, end: End) -> None:
        peer = self.ends.get(end)
        dues = [end.protocol.next_timer()]
        if peer is not None:
            dues.append(peer.session.next_timer())
        due = min((d for d in dues if d is not None), default=None)
        if due is not None and due < end.timer:
            end.timer = due
            self.clock.after(
                max(0.0, due - self.clock.now), self.process, self.fire, end, due
            )

    def _peer(self, uid: bytes) -> Peer:
        peer = self.peers.get(uid)
        if peer is None:
            peer = self.peers[uid] = Peer(self, uid)
        return peer
