"""The engines of this process: one per event loop, server and namespace, shared."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from academy.exchange.engine import Engine
from academy.exchange.server import RedisConnectionInfo


class _Slot:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.engine: Engine | None = None
        self.users = 0


_slots: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[Any, ...], _Slot]
] = weakref.WeakKeyDictionary()


async def acquire(info: RedisConnectionInfo, namespace: str) -> Engine:
    """Return the engine for a server and namespace, made when there is none.

    Every `acquire` needs a `release`.

    Raises:
        redis.exceptions.ConnectionError: The server cannot be reached.
        IncompatibleServerError: The server is too old.
        ValueError: The namespace cannot be used in keys.
    """
    slots = _slots.setdefault(asyncio.get_running_loop(), {})
    slot = slots.setdefault((*info.identity(), namespace), _Slot())
    async with slot.lock:
        if slot.engine is None:
            engine = Engine(info, namespace)
            await engine.open()
            slot.engine = engine
        slot.users += 1
        return slot.engine


async def release(engine: Engine) -> None:
    """Give an engine back; the last user closes it."""
    for slot in _slots.get(asyncio.get_running_loop(), {}).values():
        if slot.engine is engine:
            async with slot.lock:
                slot.users -= 1
                if slot.users == 0:
                    slot.engine = None
                    await engine.close()
            return
