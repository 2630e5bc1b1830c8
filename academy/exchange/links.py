"""Direct links: which process a mailbox is in, and what the sessions with it say."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence

import msgspec

from academy.exception import ExchangeError
from academy.exchange.bound import BoundMailbox
from academy.exchange.courier import Courier
from academy.exchange.directory import Directory
from academy.exchange.inlet import Inlet
from academy.exchange.line import Line
from academy.exchange.reach import Advertisement
from academy.exchange.receiver import Receiver
from academy.exchange.sources import Sources
from academy.identifier import EntityId
from academy.link.address import Addresses
from academy.link.channel import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Event,
    Reason,
    Rejected,
    Taken,
    Told,
)
from academy.link.frame import Buffer
from academy.link.host import addresses_of
from academy.link.node import Node
from academy.link.peer import Peer
from academy.link.refusal import Refusal
from academy.socket import interface_addresses
from academy.task import Tasks

logger = logging.getLogger(__name__)

BELIEVED_AFTER = 0.1
"""Seconds after which a channel is accepted before its sender is checked: its messages
wait no longer than three times that before they take another way."""
SEEK_PAUSE = 1.0
"""Seconds between two questions where the same mailbox is."""


class _Hello(msgspec.Struct, array_like=True):
    """What a process says of itself at the beginning of a link."""

    host: str
    pid: int


class Links:
    """The direct path of one process.

    Args:
        directory: The directory.
        by_uid: The mailboxes bound in this process, by their UUID as an integer.
        courier: Sends on the channels.
        receiver: Takes what comes on channels.
        certain: Tells whether this process can know that its mailboxes are its own.
        on_lost: Called when the link to a process has ended or could not be made,
            with where that process was, and whether its host refuses connections.
        node: Makes the node, given its handler.
    """

    def __init__(
        self,
        directory: Directory,
        by_uid: Mapping[int, BoundMailbox],
        courier: Courier,
        receiver: Receiver,
        certain: Callable[[], bool],
        on_lost: Callable[[Addresses, bool], None],
        node: Callable[[Links], Node],
    ) -> None:
        self._directory = directory
        self._by_uid = by_uid
        self._courier = courier
        self._lines = courier.lines
        self._receiver = receiver
        self._certain = certain
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks("exchange-links")
        self._where: dict[uuid.UUID, bytes] = {}
        self._addresses: dict[bytes, Addresses] = {}
        self._many_addresses = 16
        """How many there may be until those that nobody uses are dropped."""
        self._seeking: dict[uuid.UUID, float] = {}
        self.node = node(self)
        self._sources = Sources(directory, self.node.process, by_uid)
        self._hosts: Sequence[str] = ()
        self._advertised: Advertisement
        self.mine: Addresses

    async def open(self, interface: str | None) -> Addresses:
        """Begin to listen, and return where this process can be reached.

        Args:
            interface: Name or address of the network interface that others are to
                use; `None` for all.

        Raises:
            ValueError: There is no such interface, or `ACADEMY_ADVERTISE` is wrong.
        """
        self._hosts = () if interface is None else interface_addresses(interface)
        self._advertised = await Advertisement.from_environment()
        await self.node.open(self._hosts)
        return self.look()

    def look(self) -> Addresses:
        """Return where this process can be reached now."""
        own = addresses_of(self.node, self._hosts)
        self.mine = self._advertised.instead_of(own)
        return self.mine

    async def close(self) -> None:
        """End all links."""
        await self._tasks.cancel()
        await self.node.close()

    def whereabouts(self, process: bytes) -> tuple[str | None, int | None]:
        """Return host and process number of a process, for people to read.

        They are what it says itself on a link; else they are taken from where it can
        be reached, as far as that is known.
        """
        peer = self.node.peers.get(process)
        if peer is not None and peer.pid is not None:
            return peer.host, peer.pid
        theirs = self._addresses.get(process)
        if theirs is None:
            return None, None
        if theirs.host == self.mine.host:
            return platform.node(), theirs.pid
        return (theirs.tcp[0].host if theirs.tcp else None), theirs.pid

    # Finding

    def seek(self, line: Line) -> None:
        """Link to the process that has the destination of a line.

        Meanwhile messages wait, for a moment: the queue would cost much more than that.
        They go there as soon as it is known that there is no other way.
        """
        dest = line.dest.uid
        process = self._where.get(dest)
        if process is not None:
            self._use(line, process)
            return
        now = self._loop.time()
        if self._seeking.get(dest, 0.0) <= now:
            self._seeking[dest] = now + SEEK_PAUSE
            line.outbox.expect(now)
            self._tasks.spawn(self._locate(line.dest), name=f"locate-{line.dest}")

    def forget(self, dest: uuid.UUID) -> None:
        """Ask anew where a mailbox is, for it has moved or ended."""
        self._where.pop(dest, None)
        self._seeking.pop(dest, None)
        self._sources.forget(dest)

    async def _locate(self, dest: EntityId) -> None:
        try:
            found = await self._directory.locate(dest, self.node.process.hex())
        except ExchangeError as e:
            logger.debug("%s could not be located: %s", dest, e)
            return
        if found is None:
            for line in self._lines.to(dest.uid):
                self._courier.not_found(line)
            return
        process = bytes.fromhex(found.addresses.process)
        self._where[dest.uid] = process
        self._addresses.setdefault(process, found.addresses)
        self._forget_unused()
        self._courier.newer(dest.uid, found.inc)
        for line in self._lines.to(dest.uid):
            self._use(line, process)

    def _forget_unused(self) -> None:
        if len(self._addresses) <= self._many_addresses:
            return
        used = {*self._where.values(), *self.node.peers}
        kept = {p: a for p, a in self._addresses.items() if p in used}
        self._addresses, self._many_addresses = kept, 2 * len(kept) + 16

    def _use(self, line: Line, process: bytes) -> None:
        """Have a line go by the link to a process; dial that if there is none."""
        if process == self.node.process:
            self._courier.not_found(line)
            return
        if line.process != process:
            self._lines.place(line, process)
            if line.peer is not None:
                self._courier.leave(line, grace=False)
        waits = line.peer is not None or self.node.is_dialling(process)
        peer = self._connect(process)
        if peer is None:
            # To be located anew, but not for every message.
            self._where.pop(line.dest.uid, None)
        elif peer.usable:
            self._open(line, peer)
        hopeful = line.peer is not None or self.node.is_dialling(process)
        if not hopeful or not (waits or self._is_near(process)):
            # To another host it takes longer, and may fail: what waits need not.
            self._courier.not_found(line)
        if hopeful and not waits:
            # The way will be open in a moment, or not at all.
            line.outbox.expect(self._loop.time())

    def _is_near(self, process: bytes) -> bool:
        theirs = self._addresses.get(process)
        return theirs is not None and theirs.host == self.mine.host

    def _connect(self, process: bytes) -> Peer | None:
        """Return the peer of a process, dialling it if that makes sense."""
        addresses = self._addresses.get(process)
        if addresses is None:
            return self.node.peers.get(process)
        return self.node.connect(process, self.mine, addresses)

    def _open(self, line: Line, peer: Peer) -> None:
        if line.peer is None:
            line.peer = peer
            peer.session.open(line.key)
            peer.flush_soon()

    # What the node tells

    def link_up(self, peer: Peer) -> None:
        """Open the channels of the lines that wait for this peer."""
        hello = _Hello(platform.node(), os.getpid())
        peer.session.tell(msgspec.msgpack.encode(hello))
        for line in self._lines.at(peer.process):
            self._open(line, peer)

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        """Take the other way, or wait for a moment if the link may come back."""
        lines = self._lines.at(peer.process)
        for line in lines:
            self._courier.leave(line, grace=may_return)
        if not may_return and not peer.suspected:
            self._forget_idle(lines)
        addresses = self._addresses.get(peer.process)
        if addresses is None:
            return
        if may_return and lines:
            self.node.connect(peer.process, self.mine, addresses)
        if not peer.suspected:
            self._on_lost(addresses, peer.refused)

    def message(
        self, peer: Peer, note: Inlet, seq: int, segments: Sequence[Buffer]
    ) -> None:
        """Take a message that has come directly."""
        peer.received += 1
        if self._certain() or self._owns(note.box):
            refusal = self._receiver.direct(note, seq, segments)
            if refusal is not None:
                detail = f"it is not what {note.key.src} may send"
                self._refuse(peer, refusal, detail)

    def _forget_idle(self, lines: list[Line]) -> None:
        """Forget those lines that nothing is on, and no answer is awaited on.

        Their streams go on with the next message, which makes a new line.
        """
        for line in lines:
            if not len(line.outbox) and not line.box.ledger.awaiting(line.dest):
                self._courier.drop(line)

    def session_event(self, peer: Peer, event: Event) -> None:
        """React to what else the session with a peer says."""
        match event:
            case Taken(key, seq):
                line = self._line(peer, key)
                if line is not None:
                    self._courier.taken(line, seq)
            case Accepted(key, inc, accepted):
                line = self._line(peer, key)
                if line is not None and not self._courier.open(line, inc, accepted):
                    self.forget(key.dest)
            case Rejected(key):
                line = self._line(peer, key)
                if line is not None:
                    self.forget(key.dest)
                    self._courier.rejected(line)
            case ChannelOffered(channel, key):
                self._offered(peer, channel, key)
            case Told(data):
                self._told(peer, data)

    def _owns(self, box: BoundMailbox) -> bool:
        """Return whether a box may take what comes; if that is not known, send it away.

        Its senders go by the queue then, where a former owner gets nothing.
        """
        certain = self._certain()
        if not certain:
            box.detach()
        return certain

    def _line(self, peer: Peer, key: ChannelKey) -> Line | None:
        """Return the line of a channel, if it goes by this peer now."""
        line = self._lines.get(key)
        return line if line is not None and line.peer is peer else None

    def _offered(self, peer: Peer, channel: int, key: ChannelKey) -> None:
        if self._sources.is_known(key, peer.process):
            self._admit(peer, channel, key)
        else:
            checking = self._check(peer, channel, key)
            self._tasks.spawn(checking, name=f"check-{key.src}")

    async def _check(self, peer: Peer, channel: int, key: ChannelKey) -> None:
        """Accept a channel, if its process may send in that name.

        Once per channel: what comes on it is compared with it only. A directory that
        does not answer soon delays nobody; what it says then counts all the same.
        """
        checking = asyncio.ensure_future(self._sources.check(key, peer.process))
        try:
            done, _ = await asyncio.wait({checking}, timeout=BELIEVED_AFTER)
            if not done:
                self._admit(peer, channel, key)
                peer.flush_soon()
            refusal = await checking
        finally:
            checking.cancel()
        if refusal is not None:
            self._refuse(peer, refusal, f"it sends in the name of {key.src}")
            self.forget(key.src)
            peer.session.refuse(channel, Reason.FORBIDDEN)
        elif done:
            self._admit(peer, channel, key)
        peer.flush_soon()

    def _refuse(self, peer: Peer, refusal: Refusal, detail: str) -> None:
        source = f"process {peer.process.hex()[:8]}"
        self.node.tally.count(refusal, source, detail)

    def _admit(self, peer: Peer, channel: int, key: ChannelKey) -> None:
        self._courier.newer(key.src, key.src_inc)
        # Whoever sends from there can be answered there, if that is not a former owner.
        self._where[key.src] = peer.process
        box = self._by_uid.get(key.dest.int)
        if box is None or box.ended or box.crowded or not self._owns(box):
            peer.session.refuse(channel, Reason.NOT_HERE)
        else:
            inlet = Inlet(box, key, peer, channel)
            accepted = box.received.accepted(inlet.stream)
            peer.session.accept(channel, box.inc, accepted, inlet)
            box.attach(inlet)
        peer.flush_soon()

    def _told(self, peer: Peer, data: Buffer) -> None:
        try:
            hello = msgspec.msgpack.decode(data, type=_Hello)
        except ValueError:
            logger.debug("A peer sent a control message that is not known here")
            return
        peer.host, peer.pid = hello.host, hello.pid
