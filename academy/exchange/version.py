"""Which servers will do."""

from __future__ import annotations

from typing import Any

import redis.asyncio
from redis.exceptions import InvalidResponse, NoPermissionError, ResponseError

from academy.exception import ExchangeError

MINIMUM_VERSION = (7, 0)


class IncompatibleServerError(ExchangeError):
    """The server lacks commands that the exchange needs."""


async def check_version(client: redis.asyncio.Redis, where: str) -> None:
    """Ask a server for its version.

    Args:
        client: A client of the server.
        where: Its host and port, for people.

    Raises:
        IncompatibleServerError: It is older than 7.0, or no Redis server at all.
        redis.exceptions.RedisError: It cannot be reached, or refused the login.
    """
    try:
        hello: Any = await client.execute_command("HELLO")  # type: ignore[no-untyped-call]
        found = hello[b"version"].decode()
        version = tuple(int(n) for n in found.split(".")[:2])
    except NoPermissionError:
        raise  # refused, and a `ResponseError` all the same
    except (
        ResponseError,
        InvalidResponse,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as e:
        raise IncompatibleServerError(
            f"{where} does not answer as Redis 7 does ({e}). Use Redis >= 7.0 or "
            "Valkey."
        ) from e
    if version < MINIMUM_VERSION:
        raise IncompatibleServerError(
            f"{where} runs version {found}; the exchange needs Redis >= 7.0 or Valkey."
        )
