"""The moment that a terminated mailbox has to answer what it had taken already."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable

from academy.exchange.bound import BoundMailbox
from academy.exchange.ledger import Awaited

GRACE = 1.0
"""Seconds that a terminated agent has to answer what it had taken already."""
TOGETHER = 0.1
"""Seconds that pass at least between two looks at the requests of one mailbox."""


class Graces:
    """Requests to mailboxes that were closed for good; what is not answered in time.

    When many end together, the requests of each sender are looked through a few times,
    and not once for every mailbox.

    Args:
        settle: Called with a sender, its request, and why the mailbox was closed.
    """

    def __init__(self, settle: Callable[[BoundMailbox, Awaited, str], None]) -> None:
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._ended: dict[BoundMailbox, dict[int, tuple[float, str]]] = {}

    def start(
        self, senders: Iterable[BoundMailbox], dest: uuid.UUID, reason: str
    ) -> None:
        """Note that a mailbox was closed for good.

        Args:
            senders: Who has sent to it.
            dest: The mailbox.
            reason: Why it was closed.
        """
        due = self._loop.time() + GRACE
        for box in senders:
            if not box.ledger.awaited:
                continue
            if box not in self._ended:
                self._ended[box] = {}
                self._loop.call_at(due, self._look, box)
            self._ended[box].setdefault(dest.int, (due, reason))

    def _look(self, box: BoundMailbox) -> None:
        now = self._loop.time()
        ended = self._ended.pop(box)
        over = {dest: reason for dest, (due, reason) in ended.items() if due <= now}
        for awaited in list(box.ledger.awaited.values()):
            reason = over.get(awaited.header.dest.uid.int)
            if reason is not None:
                self._settle(box, awaited, reason)
        rest = {dest: end for dest, end in ended.items() if dest not in over}
        if rest:
            self._ended[box] = rest
            due = max(now + TOGETHER, min(due for due, _ in rest.values()))
            self._loop.call_at(due, self._look, box)
