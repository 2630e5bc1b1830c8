"""The failure detector: is a process gone whose link was lost?

A lost link alone proves nothing. On the same host the process table does. Elsewhere,
where the host answers and nobody listens at the port any more, the lease of the process
is shortened to less than a living one needs to renew it (a challenge): the audit then
learns from the lease. Otherwise the lease has to run out (PROTOCOL.md, section 1).
"""

from __future__ import annotations

import asyncio
import logging

from academy.exception import ExchangeError
from academy.exchange.audit import Auditor
from academy.exchange.courier import Courier
from academy.exchange.directory import Directory
from academy.exchange.keys import entity_key
from academy.link.address import Addresses
from academy.link.host import has_ended
from academy.task import Tasks

logger = logging.getLogger(__name__)

LOOKS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between the looks at a process table: a process that is killed closes its
sockets shortly before it is gone."""
CHALLENGE = 2.8
"""Seconds that a challenged process has to renew its lease."""


class FailureDetector:
    """Finds out what became of processes whose links were lost.

    Args:
        directory: Where leases are ended or shortened.
        courier: Gives up what a process that is gone may have executed.
        auditor: Looks at the requests to it.
    """

    def __init__(
        self, directory: Directory, courier: Courier, auditor: Auditor
    ) -> None:
        self._directory = directory
        self._courier = courier
        self._auditor = auditor
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks("exchange-detector")
        self._looking: set[str] = set()

    def link_lost(self, theirs: Addresses, *, same_host: bool, refused: bool) -> None:
        """Look for a process.

        Args:
            theirs: The process.
            same_host: Whether it runs on this host.
            refused: Whether its host answers, and refuses connections to it.
        """
        if theirs.process in self._looking or not (same_host or refused):
            return
        self._looking.add(theirs.process)
        look = self._look(theirs) if same_host else self._challenge(theirs)
        self._tasks.spawn(look, name=f"look-for-{theirs.process[:8]}")

    async def close(self) -> None:
        """Stop looking."""
        await self._tasks.cancel()

    async def _look(self, theirs: Addresses) -> None:
        try:
            for pause in LOOKS:
                await asyncio.sleep(pause)
                if has_ended(theirs):
                    break
            else:
                return
            detail = f"its process {theirs.pid} has ended"
            keys = self._keys(theirs)
            self._courier.lost(bytes.fromhex(theirs.process), detail)
            await self._directory.bury(theirs.process)
            self._hurry(keys)
        except ExchangeError as e:
            logger.debug("The directory could not be told of a death: %s", e)
        finally:
            self._looking.discard(theirs.process)

    async def _challenge(self, theirs: Addresses) -> None:
        try:
            await self._directory.challenge(theirs.process, CHALLENGE)
            await asyncio.sleep(CHALLENGE)
            self._hurry(self._keys(theirs))
        except ExchangeError as e:
            logger.debug("A lease could not be challenged: %s", e)
        finally:
            self._looking.discard(theirs.process)

    def _keys(self, theirs: Addresses) -> set[str]:
        """Return the keys of the mailboxes that a process had."""
        lines = self._courier.lines.at(bytes.fromhex(theirs.process))
        return {entity_key(line.dest) for line in lines}

    def _hurry(self, keys: set[str]) -> None:
        for key in keys:
            self._auditor.look_at(key)
