from __future__ import annotations

import pickle
import traceback
from typing import Any

import pytest

from academy.embedded import EmbeddedServer
from academy.exchange.connection import (
    RedisConnectionInfo,
    async_client,
    parse_url,
    sync_client,
)

PASSWORD = "open sesame"


@pytest.mark.parametrize(
    ("url", "host", "port", "kwargs"),
    [
        ("redis://h", "h", 6379, {}),
        ("redis://h:7000", "h", 7000, {}),
        ("redis://:pw@h/3", "h", 6379, {"password": "pw", "db": 3}),
        ("redis://u:p%20w@h", "h", 6379, {"username": "u", "password": "p w"}),
        ("redis://[::1]:7000/0", "::1", 7000, {"db": 0}),
        ("valkey://h:1", "h", 1, {}),
        ("rediss://h", "h", 6379, {"ssl": True}),
        ("valkeys://u:p@h:5", "h", 5, {"username": "u", "password": "p", "ssl": True}),
        (
            "rediss://h?ssl_cert_reqs=none",
            "h",
            6379,
            {"ssl": True, "ssl_cert_reqs": "none"},
        ),
        ("unix:///run/s.sock", "localhost", 6379, {"unix_socket_path": "/run/s.sock"}),
    ],
)
def test_urls(url: str, host: str, port: int, kwargs: dict[str, Any]) -> None:
    assert parse_url(url) == RedisConnectionInfo(host, port, kwargs)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:6379",
        f"http://:{PASSWORD}@h",
        f"redis:{PASSWORD}",
        f"redis://:{PASSWORD}@",
        "redis://",
        f"redis://:{PASSWORD}@h:port",
        f"redis://:{PASSWORD}@h:99999",
        f"redis://:{PASSWORD}@[::1",
        f"redis://:{PASSWORD}#x@h",
        f"redis://:{PASSWORD}/x@h",
        f"redis://:{PASSWORD}℀@h",
        f"redis://:{PASSWORD}@h?socket_timeout=soon",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="Not a Redis URL") as caught:
        parse_url(url)
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_an_address_does_not_show_its_password() -> None:
    info = parse_url(f"redis://joe:{PASSWORD}@h:7000/2")
    for text in (repr(info), str(info), f"{info}", f"{(info,)}"):
        assert PASSWORD not in text
        assert "h:7000" in text
        assert "joe" in text


def test_an_identity_is_that_of_server_and_login() -> None:
    info = RedisConnectionInfo("h", 1, {"password": "a", "db": 0})
    same = RedisConnectionInfo("h", 1, {"db": 0, "password": "a"})
    assert info.identity() == same.identity()
    assert hash(info.identity())
    for other in (
        RedisConnectionInfo("g", 1, info.kwargs),
        RedisConnectionInfo("h", 2, info.kwargs),
        RedisConnectionInfo("h", 1, info.kwargs | {"db": 1}),
        RedisConnectionInfo("h", 1, {"password": "b", "db": 0}),
    ):
        assert other.identity() != info.identity()


def test_an_address_travels() -> None:
    info = RedisConnectionInfo("h", 1, {"password": "a"})
    assert pickle.loads(pickle.dumps(info)) == info


async def test_clients_reach_the_server(server: EmbeddedServer) -> None:
    info = parse_url(server.url)
    echo = ("EVAL", "return ARGV[1]", 0, "x")
    client = async_client(info, timeout=5.0)
    assert await client.execute_command(*echo) == b"x"
    await client.aclose()
    with sync_client(info, timeout=5.0) as blocking:
        assert blocking.execute_command(*echo) == b"x"


async def test_clients_reach_a_unix_socket(server: EmbeddedServer) -> None:
    info = parse_url(f"unix://:{server.password}@{server.unix_socket}")
    client = async_client(info, timeout=5.0)
    assert await client.execute_command("ECHO", "x") == b"x"
    await client.aclose()


def test_arguments_of_the_user_reach_the_client() -> None:
    info = RedisConnectionInfo("h", 1, {"socket_connect_timeout": 9, "db": 4})
    kwargs = async_client(info, timeout=2.0).connection_pool.connection_kwargs
    assert kwargs["socket_connect_timeout"] == 9
    assert kwargs["socket_timeout"] == 2.0
    assert (kwargs["host"], kwargs["port"], kwargs["db"]) == ("h", 1, 4)
