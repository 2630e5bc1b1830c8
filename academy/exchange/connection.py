"""Where the Redis or Valkey server is, and clients that connect to it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from academy.exchange.credential import Secret, disclosed, protected, redacted

CONNECT_TIMEOUT = 3.0
"""Seconds that a connection may take to be made."""
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}


class _Fields(NamedTuple):
    hostname: str
    port: int
    kwargs: dict[str, Any]


class RedisConnectionInfo(_Fields):
    """Where the server is and how to log in. Neither text nor pickle has a password.

    Attributes:
        hostname: Host of the server.
        port: Its port.
        kwargs: Further arguments of `redis.asyncio.Redis`, with a `Secret` for each
            password.
    """

    __slots__ = ()

    def __new__(
        cls, hostname: str, port: int, kwargs: Mapping[str, Any], *, embed: bool = False
    ) -> Self:
        """Take the arguments.

        Args:
            hostname: Host of the server.
            port: Its port.
            kwargs: Further arguments of `redis.asyncio.Redis`. Passwords may be given
                by reference, as `password_env` or `password_file`.
            embed: Whether pickles are to have passwords that were given in the clear.

        Raises:
            ValueError: A password is given twice.
        """
        return super().__new__(cls, hostname, port, protected(kwargs, embed=embed))

    def __repr__(self) -> str:
        return f"{self.hostname}:{self.port} ({redacted(self.kwargs)})"

    def identity(self) -> tuple[Any, ...]:
        """Return what tells one server and login from another, in this process.

        Raises:
            CredentialError: A password cannot be found.
        """
        pairs = ((k, _identity(v)) for k, v in self.kwargs.items())
        return (self.hostname, self.port, tuple(sorted(pairs)))


def _identity(value: Any) -> str:
    if isinstance(value, Secret):
        return value.identity()
    # What a class of the user's shows of itself may be its password.
    plain = (str, bytes, int, float, list, tuple, dict, type(None))
    return repr(value) if isinstance(value, plain) else object.__repr__(value)


def parse_url(url: str) -> RedisConnectionInfo:
    """Read a `redis://`, `rediss://` (TLS) or `unix://` URL.

    Raises:
        ValueError: It is no such URL. The message shows no password.
    """
    scheme, mark, rest = url.partition(":")
    try:
        parts = urllib.parse.urlsplit(url)
        if scheme not in _SCHEMES or not (parts.hostname or parts.path):
            raise ValueError
        plain = _SCHEMES[scheme] + mark + rest
        kwargs = dict(redis.connection.parse_url(plain))  # type: ignore[no-untyped-call]
    except ValueError:
        # The cause may quote a part of the password.
        raise ValueError(
            f"Not a Redis URL (its scheme is {scheme if rest[:2] == '//' else ''!r}). "
            "Write redis://[[user]:password@]host[:port][/db], or rediss://... for "
            "TLS, with special characters of the password percent-encoded."
        ) from None
    if kwargs.pop("connection_class", None) is redis.connection.SSLConnection:
        kwargs["ssl"] = True
    if "path" in kwargs:
        kwargs["unix_socket_path"] = kwargs.pop("path")
    return RedisConnectionInfo(
        kwargs.pop("host", "localhost"), kwargs.pop("port", 6379), kwargs
    )


def _client_arguments(info: RedisConnectionInfo) -> dict[str, Any]:
    fixed = {
        "host": info.hostname,
        "port": info.port,
        "decode_responses": False,
        "legacy_responses": False,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "max_connections": 4,
    }
    # Who the client is, nobody asks; a user for one namespace may not tell it either.
    usual = {"socket_connect_timeout": CONNECT_TIMEOUT, "driver_info": None}
    return usual | disclosed(info.kwargs) | fixed


def async_client(
    info: RedisConnectionInfo, *, timeout: float | None
) -> redis.asyncio.Redis:
    """Return a client that never repeats a command by itself.

    Args:
        info: The server.
        timeout: Longest wait for a reply in seconds; `None` for blocking reads.
    """
    arguments = _client_arguments(info)
    arguments["socket_timeout"] = timeout
    return redis.asyncio.Redis(**arguments, retry=Retry(NoBackoff(), 0))


def sync_client(info: RedisConnectionInfo, *, timeout: float) -> redis.Redis:
    """Return a blocking client for use in a thread."""
    arguments = _client_arguments(info)
    arguments["socket_timeout"] = timeout
    arguments["socket_connect_timeout"] = timeout
    retry = redis.retry.Retry(NoBackoff(), 0)
    return redis.Redis(**arguments, retry=retry)
