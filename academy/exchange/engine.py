"""The engine of one process and event loop: all its mailboxes over few connections.

Redis and hybrid exchange share it. It binds mailboxes, takes messages for them, hears
the news of the directory, and restores what a restarted server has lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging

from academy.exception import (
    ExchangeError,
    FencedError,
    IncompatibleNetworkProtocolError,
    MailboxTerminatedError,
)
from academy.exchange.audit import Auditor
from academy.exchange.backlog import Backlog
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.courier import Courier
from academy.exchange.detector import FailureDetector
from academy.exchange.directory import Directory, new_process_id, process_value
from academy.exchange.inspector import Inspector
from academy.exchange.keyring import Keyring
from academy.exchange.keys import Keys, base32_to_uuid, entity_key
from academy.exchange.lease import Lease
from academy.exchange.links import Links
from academy.exchange.queues import NotRegisteredError, Queues
from academy.exchange.receiver import Receiver
from academy.exchange.router import TAKEN_OVER, Router, terminated
from academy.exchange.server import Server
from academy.exchange.stream import Received
from academy.exchange.taker import Taker
from academy.exchange.wake import News, WakeReader
from academy.identifier import EntityId
from academy.link.address import Addresses
from academy.link.config import LinkConfig
from academy.link.node import Node
from academy.link.security import Security
from academy.message import decode
from academy.task import Tasks

logger = logging.getLogger(__name__)

STALL = 0.7
"""Seconds for which a step of closing waits for a server that answers nobody."""
FLUSH_TIMEOUT = 5.0
"""Seconds for which closing waits until answers to others are on their way."""
SEND_GRACE = 1.0
"""Seconds that messages on their way have when their sender closes, before they are
queued."""


class Engine:
    """All mailboxes of one process and event loop in one namespace.

    Transports get it from `academy.exchange.engines.acquire`.

    Args:
        info: The server.
        namespace: The namespace.
        direct: Whether to talk directly to other processes.
        interface: Network interface, by name or address, for that; `None` for all.
        encrypt_relay: Whether to encrypt what goes into queues.
        security: How direct links are protected.
    """

    def __init__(
        self,
        info: RedisConnectionInfo,
        namespace: str,
        *,
        direct: bool = False,
        interface: str | None = None,
        encrypt_relay: bool = False,
        security: Security = Security(),  # noqa: B008 - a value
    ) -> None:
        self._interface = interface
        keys = Keys(namespace)
        self.process = new_process_id()
        self.server = Server(info, keys.prefix)
        self.directory = Directory(self.server)
        ring = self.keyring = Keyring(self.server, private=encrypt_relay)
        self.queues = Queues(
            self.server, self.process, ring.secrets, ring.renew, encrypt=encrypt_relay
        )
        self.boxes: dict[EntityId, BoundMailbox] = {}
        self._by_key: dict[str, BoundMailbox] = {}
        self._by_uid: dict[int, BoundMailbox] = {}
        self._backlog = Backlog()
        self._binding: dict[str, bool] = {}
        """Mailboxes that are being bound, each with whether there were news of it."""
        self._tasks = Tasks("exchange-engine")
        config = LinkConfig()
        self.courier = Courier(self.queues, config, self._restore)
        self.router = Router(self.process, self.queues, self._by_uid, self.courier)
        self.auditor = Auditor(self.directory, self.router, self.boxes, self.courier)
        self._receiver = Receiver(
            self.queues, self.router, self.auditor, self.courier.newer
        )
        self._taker = Taker(
            self.queues,
            self._receiver,
            self._fenced,
            self._mailbox_gone,
            self._restore,
        )
        # Bound once, and not for each of many mailboxes.
        self._want, self._bounce = self._taker.want, self._receiver.bounce
        self._detector = FailureDetector(self.directory, self.courier, self.auditor)
        self._lease = Lease(info, keys.prefix, self.process, self._lease_lost)
        self.links: Links | None = None
        if direct:
            node = functools.partial(
                Node,
                bytes.fromhex(self.process),
                namespace,
                self.keyring.stored,
                config=config,
                security=security,
            )
            self.links = Links(
                self.directory,
                self._by_uid,
                self.courier,
                self._receiver,
                self._lease.certain,
                self._link_lost,
                node,
            )
            self.courier.direct = True
            self.courier.seek = self.links.seek
            self.courier.moved = self.links.forget
        parts = self.queues, self.courier, self.boxes, self.auditor, self.links
        self.auditor.inspect = Inspector(self.process, *parts).look
        self._reader = WakeReader(info, keys.wake(self.process))
        self._restoring: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and start to hear.

        Raises:
            redis.exceptions.ConnectionError: The server cannot be reached, or refuses
                the login.
            IncompatibleServerError: The server is too old.
            ValueError: There is no such interface, or the certificate or the secret is
                not as it is needed.
            OSError: The certificate or its key cannot be read.
        """
        try:
            await self.server.open()
            await self.keyring.agree()
            addresses = None
            if self.links is not None:
                addresses = await self.links.open(self._interface)
            await self._lease.open(process_value(addresses))
        except BaseException:
            if self.links is not None:
                await self.links.close()
            await self.server.close()
            await self._reader.close()
            raise
        self._tasks.spawn(self._hear(), name="exchange-news")
        self._tasks.spawn(self.auditor.run(), name="exchange-audit")
        self._tasks.spawn(self.keyring.run(), name="exchange-secrets")

    async def close(self) -> None:
        """Give up the lease and close the connections, within seconds."""
        await self._tasks.cancel()
        await self._taker.close()
        await self.router.close()
        await self.courier.close()
        if self.links is not None:
            await self.links.close()
        await self._detector.close()
        await self._lease.close()
        with contextlib.suppress(ExchangeError):
            await self.server.call("leave", self.process, timeout=5.0, stall=STALL)
        await self._reader.close()
        await self.server.close()

    async def listen(self, port: int) -> None:
        """Be reachable at one more TCP port, and publish that.

        Raises:
            OSError: It cannot be bound.
        """
        if self.links is not None:
            await self.links.node.add_port(port)
            await self._lease.publish(process_value(self.links.look()))

    def unlisten(self, port: int) -> None:
        """Be no longer reachable at a TCP port; links stay."""
        if self.links is not None:
            self.links.node.remove_port(port)
            self._lease.value = process_value(self.links.look())

    # Mailboxes

    async def bind(self, uid: EntityId) -> BoundMailbox:
        """Bind a mailbox; a former owner, here or elsewhere, is fenced.

        Raises:
            BadEntityIdError: It is not registered.
            MailboxTerminatedError: It is closed for good.
            ServerUnavailableError: The server was away for too long.
        """
        former = self.boxes.get(uid)
        if former is not None:
            self._drop(former)
            former.fence()
            await self._release(former, TAKEN_OVER)
        key = entity_key(uid)
        self._binding.setdefault(key, False)
        try:
            inc, marks, mro, clean, waiting = await self.directory.bind(
                uid, self.process
            )
        finally:
            told = self._binding.pop(key, True)
        parts = Received(inc, marks), self._want, clean, self._bounce
        box = BoundMailbox(uid, mro, inc, *parts, self._backlog)
        box.dirty = waiting or told
        former = self.boxes.get(uid)
        if former is not None:
            self._fenced(former)
        self.boxes[uid] = box
        self._by_key[box.key] = box
        self._by_uid[uid.uid.int] = box
        return box

    async def unbind(self, box: BoundMailbox) -> None:
        """Give a mailbox up; what was not taken stays in its queue.

        Callers of requests that were taken and not answered are told so.
        """
        await self.courier.release(box, SEND_GRACE)
        owned = self._drop(box)
        box.leave()
        if owned:
            await self._release(box, "it stopped before it answered")

    async def terminate(self, uid: EntityId, reason: str = "") -> None:
        """Close a mailbox for good and answer the requests that wait in it."""
        if (own := self.boxes.get(uid)) is not None:
            await self.courier.release(own, SEND_GRACE)
        # A process's own mailbox ends with it; that must not wait for a dead server.
        stall = STALL if uid in self.boxes else None
        waiting = await self.directory.terminate(uid, reason, stall=stall)
        for head, maybe in self.queues.heads(uid, waiting):
            with contextlib.suppress(ValueError, IncompatibleNetworkProtocolError):
                header = decode([head]).header
                body = terminated(uid, reason, "maybe" if maybe else "no")
                self.router.respond_soon(header, body)
        self._mailbox_gone(entity_key(uid), reason)
        await self.router.flush(FLUSH_TIMEOUT)

    async def _release(self, box: BoundMailbox, why: str) -> None:
        """Give back what the consumer of an ended box did not take."""
        self.router.answer_open(box, why)
        async with self.router.giving_back(box):
            if not await self._return_untaken(box):
                return
        await self.router.flush(FLUSH_TIMEOUT)

    async def _return_untaken(self, box: BoundMailbox) -> bool:
        """Put into the queue what was not taken; return whether that could be done."""
        untaken: list[Delivery] = []
        try:
            if box.take is not None:
                # What it brings must be given back, too.
                await self.server.while_answering(box.take, STALL)
            untaken = self.router.returnable(box, box.untaken())
            await self._give_back(box, untaken)
        except FencedError:
            self.router.resend(box, untaken)
        except MailboxTerminatedError as e:
            self.router.refuse(box, untaken, e.reason or "")
        except ExchangeError as e:
            logger.warning("%s could not be closed cleanly: %s", box.uid, e)
            self.router.resend(box, untaken or box.untaken())
            return False
        finally:
            # Only now: who is told to go elsewhere must find what was given back.
            box.detach()
        return True

    async def _give_back(self, box: BoundMailbox, untaken: list[Delivery]) -> None:
        try:
            await self.queues.give_back(box, untaken, stall=STALL)
        except NotRegisteredError:
            # The server was emptied, and the box was not restored before it ended.
            await self._reassert(box)
            await self.queues.give_back(box, untaken, stall=STALL)

    # News

    async def _hear(self) -> None:
        async for news in self._reader.news():
            while news:  # Emptied: nothing is kept until there are others.
                try:
                    self._on_news(news.pop(0))
                except Exception:
                    # Damaged news must not make this process deaf.
                    logger.exception("News were dropped")

    def _on_news(self, news: News) -> None:
        box = self._by_key.get(news.entity)
        if news.entity in self._binding:
            self._binding[news.entity] = True
        if news.kind == "m" and box is not None:
            box.wake()
        elif news.kind == "f" and box is not None and news.inc > box.inc:
            self._fenced(box)
        elif news.kind == "g":
            self._mailbox_gone(news.entity, news.text)
        elif news.kind in ("b", "c"):
            self._moved(news.entity)
            if news.kind == "b":
                self.courier.newer(base32_to_uuid(news.entity), news.inc)
            self.auditor.look_at(news.entity)
        elif news.kind == "gap":
            self._restore()

    def _fenced(self, box: BoundMailbox) -> None:
        """A newer owner elsewhere: what it has not seen goes into the queue."""
        if self._drop(box):
            self.router.answer_open(box, TAKEN_OVER)
        box.fence()
        self.router.resend(box, box.untaken())
        box.detach()
        self.courier.retire(box)

    def _mailbox_gone(self, key: str, reason: str) -> None:
        box = self._by_key.get(key)
        if box is not None:
            self._drop(box)
            box.terminate(reason)
            box.detach()
            self.courier.retire(box)
            self.router.refuse(box, box.untaken(), reason)
        self._moved(key)
        self.router.forget_dest(base32_to_uuid(key), reason)

    def _drop(self, box: BoundMailbox) -> bool:
        """Forget a box; return whether it was the current one of its mailbox."""
        if self.boxes.get(box.uid) is not box:
            return False
        del self.boxes[box.uid]
        del self._by_key[box.key]
        del self._by_uid[box.uid.uid.int]
        self.router.forget_source(box)
        return True

    def _moved(self, key: str) -> None:
        if self.links is not None:
            self.links.forget(base32_to_uuid(key))

    def _link_lost(self, theirs: Addresses, refused: bool) -> None:
        here = self.links is not None and self.links.mine.host == theirs.host
        self._detector.link_lost(theirs, same_host=here, refused=refused)

    # Recovery

    def _lease_lost(self) -> None:
        logger.warning("The lease of this process was lost; checking its mailboxes")
        self._restore()

    def _restore(self) -> None:
        """Repair the directory after the server was away or has lost data."""
        self.auditor.distrust_leases()
        self._binding = dict.fromkeys(self._binding, True)
        if self._restoring is None or self._restoring.done():
            self._restoring = self._tasks.spawn(
                self._restore_all(), name="exchange-restore"
            )

    async def _restore_all(self) -> None:
        try:
            await self.keyring.agree()
            await asyncio.gather(*map(self._reassert, list(self.boxes.values())))
        except ExchangeError as e:
            logger.warning("The directory could not be restored: %s", e)
        self._lease.confirm()
        for box in list(self.boxes.values()):
            box.wake()
        self.auditor.look_at_all()

    async def _reassert(self, box: BoundMailbox) -> None:
        outcome = await self.directory.reassert(
            box.uid, box.mro, self.process, box.inc, box.received.held()
        )
        if outcome == "fenced":
            self._fenced(box)
        elif outcome == "terminated":
            self._mailbox_gone(box.key, "")
