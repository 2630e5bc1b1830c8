"""Taking from the queues on the server, for all mailboxes of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from academy.exception import ExchangeError, FencedError, MailboxTerminatedError
from academy.exchange.bound import BoundMailbox
from academy.exchange.queues import NotRegisteredError, Queues
from academy.exchange.receiver import Receiver
from academy.exchange.server import ServerUnavailableError
from academy.task import Tasks

logger = logging.getLogger(__name__)

TAKE_AGAIN = 1.0
"""Seconds after which a take is repeated that the server has refused."""


class Taker:
    """Takes messages for mailboxes whose consumers wait for some.

    Args:
        queues: The queues.
        receiver: Gets what was taken.
        fenced: Called with a mailbox that has a newer owner.
        gone: Called with the key of a mailbox that is closed for good, and why.
        restore: Called when the server has forgotten a mailbox.
    """

    def __init__(
        self,
        queues: Queues,
        receiver: Receiver,
        fenced: Callable[[BoundMailbox], None],
        gone: Callable[[str, str], None],
        restore: Callable[[], None],
    ) -> None:
        self._queues = queues
        self._receiver = receiver
        self._fenced = fenced
        self._gone = gone
        self._restore = restore
        self._tasks = Tasks("exchange-taker")

    def want(self, box: BoundMailbox) -> None:
        """Take for a mailbox, unless that is under way."""
        if box.take is None or box.take.done():
            box.take = self._tasks.spawn(self._take(box), name=f"take-{box.uid}")

    async def close(self) -> None:
        """Stop taking."""
        await self._tasks.cancel()

    async def _take(self, box: BoundMailbox) -> None:
        try:
            while box.wanting:
                box.dirty = False
                for entry in await self._queues.take(box):
                    self._receiver.queued(box, entry)
        except FencedError:
            self._fenced(box)
        except MailboxTerminatedError as e:
            self._gone(box.key, e.reason or "")
        except NotRegisteredError:
            box.dirty = True
            self._restore()
        except ServerUnavailableError:
            # When the server is back, the reader reports a gap and this box is woken.
            box.dirty = True
        except ExchangeError as e:
            logger.warning("%s could not take its messages: %s", box.uid, e)
            box.dirty = True
            asyncio.get_running_loop().call_later(TAKE_AGAIN, box.wake)
        finally:
            box.take = None  # Of many mailboxes, few are being taken from.
