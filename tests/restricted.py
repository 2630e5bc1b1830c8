"""A server whose programs are users of one namespace each, for the whole test suite.

`ACADEMY_TEST_ACL=1 pytest ...` runs the tests as such users, but for those with the
mark `admin`, which do what such a user may not. What the others do as somebody else,
they do with `admin_kwargs`.
"""

from __future__ import annotations

import os
import secrets
from typing import Any
from urllib.parse import quote, urlsplit

import redis

from academy.embedded import EmbeddedServer
from academy.exchange.acl import NamespaceUser

RESTRICTED = os.environ.get("ACADEMY_TEST_ACL") == "1"


def admin_kwargs(server: EmbeddedServer) -> dict[str, str]:
    """Return the login of a user who may do all."""
    return {"password": server.password}


def admin(server: EmbeddedServer) -> redis.Redis:
    """Return a client that may do all."""
    return redis.Redis(server.host, server.port, **admin_kwargs(server))


def make_user(server: EmbeddedServer, namespace: str) -> NamespaceUser:
    """Make a user for a namespace on a server."""
    user = NamespaceUser(f"academy-{namespace}", secrets.token_urlsafe(12), namespace)
    with admin(server) as client:
        client.execute_command(*user.rule.split())
    return user


def url_for(server_url: str, user: NamespaceUser) -> str:
    """Return the URL of a server for a user."""
    parts = urlsplit(server_url)
    address = parts.netloc.rpartition("@")[2]
    login = f"{quote(user.name, safe='')}:{user.password}"
    return parts._replace(netloc=f"{login}@{address}").geturl()


class RestrictedServer(EmbeddedServer):
    """Its URL is that of the user whose namespace was the last."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._users: dict[str, NamespaceUser] = {}
        self._current: NamespaceUser | None = None

    def restrict(self, namespace: str | None) -> None:
        """From now on, be somebody who may use this namespace only; `None`: all."""
        self._current = None
        if namespace is not None:
            self._current = self._users[namespace] = make_user(self, namespace)

    def restart(self) -> None:
        """Start again; users are not kept, so make them again."""
        super().restart()
        with admin(self) as client:
            for user in self._users.values():
                client.execute_command(*user.rule.split())

    @property
    def url(self) -> str:
        url = super().url
        return url if self._current is None else url_for(url, self._current)

    @property
    def redis_kwargs(self) -> dict[str, str]:
        if self._current is None:
            return super().redis_kwargs
        return {"username": self._current.name, "password": self._current.password}
