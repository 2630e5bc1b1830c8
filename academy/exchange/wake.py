"""The one blocking reader of a process: what others have put on its wake stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from academy.exchange.connection import RedisConnectionInfo, async_client
from academy.exchange.server import backoff

logger = logging.getLogger(__name__)

BLOCK = 2.0
"""Seconds that one read waits on the server for news."""
OVERDUE = 5.0
"""Seconds after that at which a read that has not returned is given up."""
CAPACITY = 10_000
"""Entries that a wake stream keeps for certain."""


class News(NamedTuple):
    """One entry of a wake stream.

    Attributes:
        kind: `m` a message waits, `b` a mailbox was bound, `c` closed, `g` terminated,
            `f` a mailbox of this process was taken over, `gap` news may be missing.
        entity: Key of the mailbox.
        inc: Incarnation it is about.
        text: Reason of a termination.
    """

    kind: str
    entity: str = ""
    inc: int = 0
    text: str = ""


GAP = News("gap")


class WakeReader:
    """Reads a wake stream for as long as the process wants to hear.

    It never ends on a server error: it backs off, comes back, and reports a gap.

    Args:
        info: The server.
        key: The stream.
    """

    def __init__(self, info: RedisConnectionInfo, key: str) -> None:
        self._client = async_client(info, timeout=None)
        self._key = key
        self._last = "0-0"

    async def news(self) -> AsyncIterator[list[News]]:
        """Yield the news as they come, in order, several at a time."""
        attempt = 0
        while True:
            # When it comes back the reader does not wait: the gap is news itself.
            block = None if attempt else int(BLOCK * 1000)
            try:
                async with asyncio.timeout(BLOCK + OVERDUE):
                    reply: Any = await self._client.xread(
                        {self._key: self._last},
                        count=CAPACITY,
                        block=block,
                    )
            except (RedisError, OSError, TimeoutError) as e:
                attempt += 1
                logger.debug("The wake stream cannot be read: %s", e)
                await self._client.connection_pool.disconnect()
                await asyncio.sleep(backoff(attempt))
                continue
            found = self._parse(reply)
            if attempt:
                attempt = 0
                found.append(GAP)
            # Nothing is kept while the next ones are waited for, which may be long.
            del reply
            if found:
                yield found
            del found

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        await self._client.aclose()

    def _parse(self, reply: Any) -> list[News]:
        entries = reply.get(self._key.encode(), []) if reply else []
        if not entries:
            return []
        self._last = entries[-1][0].decode()
        found = [News(*_fields(fields)) for _, fields in entries]
        # As many as the stream is sure to keep: older ones may have been trimmed.
        return [*found, GAP] if len(entries) >= CAPACITY else found


def _fields(fields: dict[bytes, bytes]) -> tuple[str, str, int, str]:
    text = {k: v.decode("utf-8", "replace") for k, v in fields.items()}
    try:
        inc = int(text.get(b"i") or 0)
    except ValueError:
        inc = 0
    return text.get(b"t", ""), text.get(b"e", ""), inc, text.get(b"r", "")
