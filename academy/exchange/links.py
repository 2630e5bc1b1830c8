"""Direct links: which process a mailbox is in, and what the sessions with it say."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from academy.exception import ExchangeError, IncompatibleNetworkProtocolError
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.courier import Courier, Line
from academy.exchange.directory import Directory
from academy.exchange.keys import uuid_to_base32
from academy.exchange.stream import Offer, stream_name
from academy.identifier import EntityId
from academy.link.address import Addresses
from academy.link.host import addresses_of
from academy.link.node import Node
from academy.link.peer import Peer
from academy.link.session import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Event,
    Reason,
    Received,
    Rejected,
    Taken,
    Told,
)
from academy.message import Message, decode
from academy.task import Tasks

logger = logging.getLogger(__name__)

SEEK_PAUSE = 1.0
"""Seconds between two questions where the same mailbox is."""


class Links:
    """The direct path of one process.

    Args:
        directory: The directory.
        by_uid: The mailboxes bound in this process, by their UUID.
        bounce: Called with a request that a former incarnation may have executed.
        node: Makes the node, given its handler.
    """

    def __init__(
        self,
        directory: Directory,
        by_uid: Mapping[uuid.UUID, BoundMailbox],
        bounce: Callable[[BoundMailbox, Message[Any]], None],
        node: Callable[[Links], Node],
    ) -> None:
        self._directory = directory
        self._by_uid = by_uid
        self._bounce = bounce
        self.refused = 0
        """Messages that could not be read, or were in a wrong name."""
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks("exchange-links")
        self._where: dict[uuid.UUID, bytes] = {}
        self._addresses: dict[bytes, Addresses] = {}
        self._seeking: dict[uuid.UUID, float] = {}
        self.node = node(self)
        self.courier: Courier
        self.mine: Addresses

    async def open(self) -> Addresses:
        """Begin to listen; return where this process can be reached."""
        await self.node.open()
        self.mine = addresses_of(self.node)
        return self.mine

    async def close(self) -> None:
        """End all links."""
        await self._tasks.cancel()
        await self.node.close()

    # Finding

    def seek(self, line: Line) -> None:
        """Link to the process that has the destination of a line, if that is known."""
        process = self._where.get(line.dest.uid)
        if process is not None:
            self._use(line, process)
            return
        now = self._loop.time()
        if self._seeking.get(line.dest.uid, 0.0) <= now:
            self._seeking[line.dest.uid] = now + SEEK_PAUSE
            self._tasks.spawn(self._locate(line.dest), name=f"locate-{line.dest}")

    def forget(self, dest: uuid.UUID) -> None:
        """Ask anew where a mailbox is, for it has moved or ended."""
        self._where.pop(dest, None)
        self._seeking.pop(dest, None)

    async def _locate(self, dest: EntityId) -> None:
        try:
            addresses = await self._directory.locate(dest)
        except ExchangeError as e:
            logger.debug("%s could not be located: %s", dest, e)
            return
        if addresses is None:
            return
        process = bytes.fromhex(addresses.process)
        self._where[dest.uid] = process
        self._addresses[process] = addresses
        for line in self.courier.lines_to(dest.uid):
            self._use(line, process)

    def _use(self, line: Line, process: bytes) -> None:
        """Open the channel of a line to a process, linking to that first."""
        if process == self.node.process:
            return
        peer = self.node.connect(process, self.mine, self._addresses[process])
        line.peer = peer
        if peer.usable:
            peer.session.open(line.key)
            peer.flush_soon()

    # What the node tells

    def link_up(self, peer: Peer) -> None:
        """Open the channels of the lines that wait for this peer."""
        for line in self.courier.lines_by(peer):
            peer.session.open(line.key)
        peer.flush_soon()

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        """Take the other way, or wait for a moment if the link may come back."""
        lines = self.courier.lines_by(peer)
        for line in lines:
            # A suspected peer may be heard again; then the channel is opened anew.
            peer.session.close(line.key)
            self.courier.channel_lost(line, grace=may_return)
        addresses = self._addresses.get(peer.process)
        if may_return and lines and addresses is not None:
            self.node.connect(peer.process, self.mine, addresses)

    def session_event(self, peer: Peer, event: Event) -> None:
        """React to what the session with a peer says."""
        match event:
            case Received():
                self._received(peer, event)
            case Taken(key, seq):
                self.courier.taken(key, seq)
            case Accepted(key, inc, accepted):
                self.courier.channel_open(key, inc, accepted)
            case Rejected(key):
                self.forget(key.dest)
                self.courier.rejected(key)
            case ChannelOffered(channel, key):
                self._offered(peer, channel, key)
            case Told():
                logger.debug("A peer sent a control message that is not known here")

    # Receiving

    def _offered(self, peer: Peer, channel: int, key: ChannelKey) -> None:
        box = self._by_uid.get(key.dest)
        if box is None or box.ended:
            peer.session.refuse(channel, Reason.NOT_HERE)
            return
        name = stream_name(uuid_to_base32(key.src), key.src_inc, key.lane)
        peer.session.accept(channel, box.inc, box.received.accepted(name))
        box.attach(name, peer, channel)

    def _received(self, peer: Peer, event: Received) -> None:
        box = self._by_uid.get(event.key.dest)
        if box is None or box.ended:
            return
        key = event.key
        name = stream_name(uuid_to_base32(key.src), key.src_inc, key.lane)
        try:
            message = decode(event.segments)
        except (ValueError, IncompatibleNetworkProtocolError):
            self.refused += 1
            return
        if message.src.uid != key.src or message.dest.uid != key.dest:
            self.refused += 1
            return
        offer = box.received.offer(name, event.seq)
        if offer is Offer.NEW:
            segments = list(event.segments)
            box.accept(Delivery(message, name, event.seq, segments, local=True))
        elif offer is Offer.FORMER and message.is_request():
            self._bounce(box, message)
