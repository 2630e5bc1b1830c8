"""The lease that shows others that a process lives."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable

from redis.exceptions import ConnectionError, RedisError

from academy.exchange.connection import RedisConnectionInfo, sync_client
from academy.exchange.server import script

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after its last renewal at which a process counts as gone."""
RENEWAL = 2.0
"""Seconds between two renewals; less than the time that a challenge gives."""
RETRY = 0.25
"""Seconds between two attempts when the server does not answer."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# Goes on while a laptop sleeps, which the clock of the event loop does not on Linux.
_now = functools.partial(time.clock_gettime, _CLOCK)


class Lease:
    """Renews a process's lease from a thread of its own.

    A thread, because an event loop that is blocked by an agent's computation is alive
    nevertheless. It ends with `close`, or when the event loop has been closed.

    Args:
        info: The server.
        prefix: Key prefix of the namespace.
        process: Identifier of the process.
        on_lost: Called in the event loop when the lease had lapsed or was deleted,
            so that the server may have lost more.
    """

    def __init__(
        self,
        info: RedisConnectionInfo,
        prefix: str,
        process: str,
        on_lost: Callable[[], None],
    ) -> None:
        self._client = sync_client(info, timeout=3.0)
        # Sent by its hash: with its text, 10,000 processes would send 20 MB a second.
        self._script = self._client.register_script(script("renew"))
        self._prefix = prefix
        self._process = process
        self.value = b""
        """What others may read about the process, from the next renewal on."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._looked = _now()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="academy-lease", daemon=True
        )

    async def open(self, value: bytes) -> None:
        """Take the lease and start to renew it.

        Args:
            value: What others may read about the process.

        Raises:
            redis.exceptions.RedisError: The server did not answer.
        """
        self.value = value
        try:
            await asyncio.to_thread(self._renew)
        except ConnectionError:
            # One that breaks just now says nothing yet of the server.
            await asyncio.to_thread(self._renew)
        self._thread.start()

    async def publish(self, value: bytes) -> None:
        """Change what others may read, at once if the server answers."""
        self.value = value
        try:
            await asyncio.to_thread(self._renew)
        except (RedisError, OSError) as e:
            logger.debug("The lease could not be renewed: %s", e)

    def certain(self) -> bool:
        """Return whether this process can know that its mailboxes are still its own.

        It cannot when it was stopped for so long that others may have counted it as
        gone, until it has looked. A server that does not answer gives them to nobody.
        """
        return _now() - self._looked <= LEASE

    def confirm(self) -> None:
        """Note that the mailboxes of this process have just been looked at."""
        self._looked = _now()

    async def close(self) -> None:
        """Stop renewing. The lease itself is given up by the caller. Idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 0.5)

    def _run(self) -> None:
        pause = RENEWAL
        while not self._stop.wait(pause):
            if self._loop.is_closed():
                break
            # Its answer may come after a pause of the process, and be old news.
            began = _now()
            pause = RENEWAL
            try:
                had = self._renew()
            except (RedisError, OSError) as e:
                logger.debug("The lease could not be renewed: %s", e)
                had, pause = True, RETRY
            if had:
                self._looked = began
            else:
                self._report()
        self._client.close()

    def _renew(self) -> bool:
        """Renew, and return whether the lease was still there."""
        key = f"{self._prefix}secret"
        milliseconds = int(LEASE * 1000)
        told: list[str | bytes] = [self._process, str(milliseconds), self.value]
        reply = self._script(keys=[key], args=[self._prefix, *told])
        return bool(reply)

    def _report(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._on_lost)
        except RuntimeError:
            logger.debug("The event loop closed while the lease was renewed")
