"""A server whose programs are users of one namespace each, for the whole test suite.

`ACADEMY_TEST_ACL=1 pytest ...` runs the tests as such users. What they do as somebody
else, such as to look at all keys, they do with `admin_kwargs`.

A test with the mark `admin` gets the login of the administrator: it is about the server
itself. The programs of a test about faults are users nevertheless, see `member_url`.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import redis

from academy.embedded import EmbeddedServer
from academy.exchange.acl import NamespaceUser
from academy.exchange.keys import Keys

RESTRICTED = os.environ.get("ACADEMY_TEST_ACL") == "1"


def admin_kwargs(server: EmbeddedServer) -> dict[str, str]:
    """Return the login of a user who may do all."""
    return {"password": server.password}


def admin(server: EmbeddedServer) -> redis.Redis:
    """Return a client that may do all."""
    return redis.Redis(server.host, server.port, **admin_kwargs(server))


def make_user(server: EmbeddedServer, namespace: str) -> NamespaceUser:
    """Make a user for a namespace on a server."""
    with admin(server) as client:
        return _make_user(client, namespace)


def _make_user(client: redis.Redis, namespace: str) -> NamespaceUser:
    user = NamespaceUser(f"academy-{namespace}", secrets.token_urlsafe(12), namespace)
    client.execute_command(*user.rule.split())
    return user


def allow(server: EmbeddedServer, *namespaces: str) -> None:
    """Let the user of this moment use further namespaces."""
    if isinstance(server, RestrictedServer):
        server.allow(*namespaces)


def url_for(server_url: str, user: NamespaceUser) -> str:
    """Return the URL of a server for a user."""
    parts = urlsplit(server_url)
    address = parts.netloc.rpartition("@")[2]
    login = f"{quote(user.name, safe='')}:{user.password}"
    return parts._replace(netloc=f"{login}@{address}").geturl()


def member_url(admin_url: str, namespace: str) -> str:
    """Return the URL for the programs of a namespace, given the administrator's."""
    if not RESTRICTED:
        return admin_url
    with redis.Redis.from_url(admin_url) as client:
        user = _make_user(client, namespace)
    port = urlsplit(admin_url).port
    assert port is not None
    RestrictedServer.members.setdefault(port, []).append(user)
    return url_for(admin_url, user)


class RestrictedServer(EmbeddedServer):
    """Its URL is that of the user whose namespace was the last."""

    members: ClassVar[dict[int, list[NamespaceUser]]] = {}
    """The users that `member_url` has made, by the port of their server."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._users: dict[str, NamespaceUser] = {}
        self._current: NamespaceUser | None = None

    def restrict(self, namespace: str | None) -> None:
        """From now on, be somebody who may use this namespace only; `None`: all."""
        self._current = None
        if namespace is not None:
            self._current = self._users[namespace] = make_user(self, namespace)

    def allow(self, *namespaces: str) -> None:
        """Let the user of this moment, if there is one, use further namespaces."""
        if self._current is None:
            return
        patterns = [f"~{Keys(namespace).prefix}*" for namespace in namespaces]
        with admin(self) as client:
            client.execute_command("ACL", "SETUSER", self._current.name, *patterns)

    def _config(self, data: Path, addresses: list[str], port: int) -> str:
        """Let the users be there from the first moment of a restart."""
        users = (*self._users.values(), *self.members.get(port, ()))
        lines = [user.rule.replace("ACL SETUSER", "user") + "\n" for user in users]
        return super()._config(data, addresses, port) + "".join(lines)

    @property
    def url(self) -> str:
        url = super().url
        return url if self._current is None else url_for(url, self._current)

    @property
    def redis_kwargs(self) -> dict[str, str]:
        if self._current is None:
            return super().redis_kwargs
        return {"username": self._current.name, "password": self._current.password}


Server = RestrictedServer if RESTRICTED else EmbeddedServer
"""The server that tests start."""
