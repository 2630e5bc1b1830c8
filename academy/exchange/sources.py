"""In whose name a peer process may send: that of the mailboxes it has bound."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from academy.exception import ExchangeError
from academy.exchange.directory import Directory, Owner
from academy.link.channel import ChannelKey
from academy.link.refusal import Refusal

logger = logging.getLogger(__name__)

KNOWN = 65_536
"""Mailboxes of which is kept who has them; then they are asked for anew."""


class Sources:
    """Knows which process has which mailbox, and asks the directory for the rest.

    While the directory cannot tell, because the server is away or no live process has
    the mailbox, a process is believed, unless the mailbox is bound here: two processes
    that are linked go on without the server.

    Args:
        directory: The directory.
        process: Identifier of this process, 16 bytes.
        by_uid: The mailboxes bound in this process, by their UUID as an integer.
    """

    def __init__(
        self, directory: Directory, process: bytes, by_uid: Mapping[int, Any]
    ) -> None:
        self._directory = directory
        self._process = process
        self._by_uid = by_uid
        self._owners: dict[uuid.UUID, Owner] = {}

    def is_known(self, key: ChannelKey, process: bytes) -> bool:
        """Return whether a process is known to have the mailbox that it sends from."""
        owner = self._owners.get(key.src)
        return owner == Owner(key.src_inc, process)

    def forget(self, uid: uuid.UUID) -> None:
        """Ask anew who has a mailbox, for it has moved or ended."""
        self._owners.pop(uid, None)

    async def check(self, key: ChannelKey, process: bytes) -> Refusal | None:
        """Return why a process must not send on a channel; `None` if it may.

        Args:
            key: The channel.
            process: The process at the other end.
        """
        if key.src.int in self._by_uid:
            # If it has moved, the news is on its way, or comes with the answer.
            self.forget(key.src)
        owner = await self._owner(key.src)
        if owner is None:
            return Refusal.FOREIGN_SOURCE if key.src.int in self._by_uid else None
        if owner.process != process:
            return Refusal.FOREIGN_SOURCE
        if key.src_inc < owner.inc:
            return Refusal.OLD_INCARNATION
        if len(self._owners) >= KNOWN:
            self._owners.clear()
        self._owners[key.src] = Owner(key.src_inc, process)
        return None

    async def _owner(self, uid: uuid.UUID) -> Owner | None:
        if self._directory.away:
            return None
        try:
            return await self._directory.owner(uid, self._process.hex())
        except ExchangeError as e:
            logger.debug("The owner of a mailbox could not be found: %s", e)
            return None
