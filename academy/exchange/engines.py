"""The engines of this process: one per event loop, server and namespace, shared."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.engine import Engine
from academy.link.security import Security


class _Slot:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.engine: Engine | None = None
        self.users = 0


_slots: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[Any, ...], _Slot]
] = weakref.WeakKeyDictionary()


async def acquire(
    info: RedisConnectionInfo,
    namespace: str,
    *,
    direct: bool = False,
    interface: str | None = None,
    encrypt_relay: bool = False,
    security: Security = Security(),  # noqa: B008 - a value
) -> Engine:
    """Return the engine for a server and namespace, made when there is none.

    Args:
        info: The server.
        namespace: The namespace.
        direct: Whether it talks directly to other processes.
        interface: Network interface, by name or address, for that; `None` for all.
        encrypt_relay: Whether it encrypts what goes into queues.
        security: How direct links are protected.

    Every `acquire` needs a `release`.

    Raises:
        redis.exceptions.ConnectionError: The server cannot be reached.
        IncompatibleServerError: The server is too old.
        ValueError: The namespace cannot be used in keys, or there is no secret for
            encryption.
    """
    slots = _slots.setdefault(asyncio.get_running_loop(), {})
    key = (*info.identity(), namespace, direct, interface, encrypt_relay, security)
    slot = slots.setdefault(key, _Slot())
    slot.users += 1
    try:
        async with slot.lock:
            if slot.engine is None:
                engine = Engine(
                    info,
                    namespace,
                    direct=direct,
                    interface=interface,
                    encrypt_relay=encrypt_relay,
                    security=security,
                )
                await engine.open()
                slot.engine = engine
            return slot.engine
    except BaseException:
        slot.users -= 1
        _forget(slots, key)
        raise


async def release(engine: Engine) -> None:
    """Give an engine back; the last user closes it."""
    slots = _slots.get(asyncio.get_running_loop(), {})
    for key, slot in list(slots.items()):
        if slot.engine is engine:
            slot.users -= 1
            try:
                async with slot.lock:
                    # Somebody may have come meanwhile.
                    if slot.users == 0 and slot.engine is engine:
                        slot.engine = None
                        await engine.close()
            finally:
                _forget(slots, key)


def _forget(slots: dict[tuple[Any, ...], _Slot], key: tuple[Any, ...]) -> None:
    if key in slots and slots[key].users == 0:
        del slots[key]
