"""Connections between processes: byte pipes that delay, stall, break and lie silent."""

from __future__ import annotations

import collections
import math
import random
from typing import TYPE_CHECKING

from academy.link.handshake import Handshake, Identity, Role
from academy.link.protocol import LinkProtocol
from tests.simulation.clock import Clock

if TYPE_CHECKING:
    from tests.simulation.node import Node

CONNECT_TIMEOUT = 3.0
SECRET = b"s" * 32
NAMESPACE = b"n" * 16


class End:
    """One end of a connection, and the pipe from it to the other end."""

    def __init__(
        self, network: Network, node: Node, role: Role, expected: bytes | None
    ) -> None:
        self.network = network
        self.node = node
        self.dialled = role is Role.CLIENT
        self.open = True
        self.broken = False
        self.other: End = self
        self.pipe: collections.deque[bytes | None] = collections.deque()
        self.stalled = 0
        self.due = 0.0
        self.timer = math.inf
        nonce = network.chance.randbytes(32)
        identity = Identity(node.uid, NAMESPACE, nonce)
        handshake = Handshake(role, identity, [SECRET], expected)
        self.protocol = LinkProtocol(node.config, role, handshake, network.clock.now)

    def write(self) -> None:
        """Write what the protocol has to send, and close what it has ended."""
        data = b"".join(self.protocol.data_to_send())
        if not self.open:
            return
        if data:
            self._put(data)
        if self.protocol.closed:
            self._put(None)
            self.open = False

    def end(self) -> None:
        """The process has died, and its host tells the other side."""
        if self.open:
            self.truncate()
            self.open = False

    def truncate(self) -> None:
        """Lose the pipe at any byte of what is on the way."""
        left = [c for c in self.pipe if c is not None]
        keep = self.network.chance.randint(0, sum(map(len, left)))
        self.pipe.clear()
        for chunk in left:
            if keep > 0:
                self.pipe.append(chunk[:keep])
            keep -= len(chunk)
        self._put(None)
        self.broken = True

    def _put(self, chunk: bytes | None) -> None:
        if self.broken:
            return
        if chunk is not None and len(chunk) > 1 and self.network.chance.random() < 0.1:
            at = self.network.chance.randint(1, len(chunk) - 1)
            self._put(chunk[:at])
            chunk = chunk[at:]
        self.pipe.append(chunk)
        self.network.carry(self)


class Network:
    """All connections, and which pairs of processes cannot hear each other."""

    def __init__(self, clock: Clock, chance: random.Random, latency: float) -> None:
        self.clock = clock
        self.chance = chance
        self.latency = latency
        self.nodes: dict[bytes, Node] = {}
        self.ends: list[End] = []
        self.blocked: set[tuple[bytes, bytes]] = set()

    def block(self, a: bytes, b: bytes) -> None:
        """Let nothing pass from one process to another."""
        self.blocked.add((a, b))

    def heal(self) -> None:
        """Let everything pass again."""
        self.blocked.clear()
        for end in self.ends:
            stalled, end.stalled = end.stalled, 0
            for _ in range(stalled):
                self.carry(end)

    def cut(self, end: End) -> None:
        """Break a connection; both sides get part of what was on the way."""
        end.truncate()
        end.other.truncate()

    def dial(self, node: Node, uid: bytes) -> None:
        """Connect a process to another; `node.dialled` gets the end, or `None`."""
        self.clock.after(self._delay(), None, self._knock, node, uid)

    def carry(self, end: End) -> None:
        """Bring one piece of a pipe to its other end, in order."""
        end.due = max(end.due, self.clock.now + self._delay())
        receiver = end.other.node.process
        self.clock.after(end.due - self.clock.now, receiver, self._deliver, end)

    def _delay(self) -> float:
        return self.latency * self.chance.uniform(0.5, 2.0)

    def _knock(self, node: Node, uid: bytes) -> None:
        target = self.nodes[uid]
        if {(node.uid, uid), (uid, node.uid)} & self.blocked or target.vanished:
            self.clock.after(CONNECT_TIMEOUT, node.process, node.dialled, uid, None)
        elif target.process.dead:
            self.clock.after(self._delay(), node.process, node.dialled, uid, None)
        else:
            near = End(self, node, Role.CLIENT, uid)
            far = End(self, target, Role.SERVER, None)
            near.other, far.other = far, near
            self.ends = [e for e in self.ends if e.open or e.other.open]
            self.ends += [near, far]
            self.clock.after(self._delay(), node.process, node.dialled, uid, near)

    def _deliver(self, end: End) -> None:
        if (end.node.uid, end.other.node.uid) in self.blocked:
            end.stalled += 1
        elif end.pipe:
            end.other.node.received(end.other, end.pipe.popleft())
