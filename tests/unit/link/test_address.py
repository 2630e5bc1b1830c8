from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.address import TCP_LIMIT, TEXT_LIMIT, Addresses, Endpoint

IPS = st.ip_addresses(v=4) | st.ip_addresses(v=6)


def endpoint(text: str) -> Endpoint:
    return Endpoint.parse(text)


def tcp(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(host=host, port=4000) for host in hosts)


# Endpoints


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:///run/link", Endpoint(path="/run/link")),
        ("unix:///a b/%20/é", Endpoint(path="/a b/%20/é")),
        ("tcp://10.0.0.1:4000", Endpoint(host="10.0.0.1", port=4000)),
        ("tcp://[2001:db8::1]:1", Endpoint(host="2001:db8::1", port=1)),
        ("tcp://[::1]:65535", Endpoint(host="::1", port=65535)),
    ],
)
def test_text_round_trip(text: str, expected: Endpoint) -> None:
    assert endpoint(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tcp://[2001:DB8:0::1]:04000", "tcp://[2001:db8::1]:4000"),
        ("tcp://[::ffff:10.0.0.1]:4000", "tcp://10.0.0.1:4000"),
    ],
)
def test_other_notations(text: str, canonical: str) -> None:
    assert str(endpoint(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:4000",
        "udp://10.0.0.1:4000",
        "tcp://10.0.0.1",
        "tcp://10.0.0.1:",
        "tcp://10.0.0.1:0",
        "tcp://10.0.0.1:65536",
        "tcp://10.0.0.1:+80",
        "tcp://10.0.0.1: 80",
        "tcp://10.0.0.1:8_0",
        "tcp://10.0.0.1:٨٠",
        "tcp://10.0.0.1:000080",
        "tcp://:80",
        "tcp://[]:80",
        "tcp://[10.0.0.1]:80",
        "tcp://::1:80",
        "tcp://[2001:db8::12:80",
        "tcp://2001:db8::1]:80",
        "tcp://[::1]80",
        "tcp://example.org:80",
        "tcp://10.0.0.256:80",
        "tcp://10.0.0.1/24:80",
        "tcp://user@10.0.0.1:80",
        "tcp://[fe80::1%eth0]:80",
        "tcp://0.0.0.0:80",
        "tcp://[::]:80",
        "tcp://[::ffff:0.0.0.0]:80",
        "tcp://255.255.255.255:80",
        "tcp://224.0.0.1:80",
        "tcp://[ff02::1]:80",
        "unix://",
        "unix://relative/path",
        "unix:///with\x00zero",
        "unix:///with\nnewline",
        "unix:///with\udc80surrogate",
        "unix:///" + "x" * 256,
    ],
)
def test_odd_endpoints(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        endpoint(text)


@given(IPS, st.integers(1, 65535))
def test_any_address_is_refused_or_round_trips(ip: Any, port: int) -> None:
    try:
        found = Endpoint(host=str(ip), port=port)
    except ValueError:
        assert ip.is_unspecified or ip.is_multicast or ip.version == 4 or ip.ipv4_mapped
        return
    assert endpoint(str(found)) == found
    assert found.kind == "tcp"


@given(st.text(max_size=40) | st.from_regex(r"(tcp|unix)://\[?[0-9a-f:./]*\]?:[0-9]*"))
def test_random_text_is_an_endpoint_or_an_error(text: str) -> None:
    try:
        found = endpoint(text)
    except ValueError:
        return
    assert endpoint(str(found)) == found


def test_a_path_or_a_host() -> None:
    for values in ({"host": "10.0.0.1"}, {"port": 80}):
        with pytest.raises(ValueError, match="not both"):
            Endpoint(path="/run/link", **values)
    with pytest.raises(ValueError, match="''"):
        Endpoint()


@pytest.mark.parametrize(
    ("text", "kind", "local", "ipv6"),
    [
        ("unix:///run/link", "uds", True, False),
        ("tcp://127.0.0.1:1", "tcp", True, False),
        ("tcp://127.0.1.1:1", "tcp", True, False),
        ("tcp://[::1]:1", "tcp", True, True),
        ("tcp://[::ffff:127.0.0.1]:1", "tcp", True, False),
        ("tcp://169.254.3.4:1", "tcp", True, False),
        ("tcp://[fe80::5]:1", "tcp", True, True),
        ("tcp://10.0.0.1:1", "tcp", False, False),
        ("tcp://8.8.8.8:1", "tcp", False, False),
        ("tcp://[fd00::1]:1", "tcp", False, True),
    ],
)
def test_kinds(text: str, kind: str, local: bool, ipv6: bool) -> None:
    found = endpoint(text)
    assert (found.kind, found.is_local, found.is_ipv6) == (kind, local, ipv6)


# Records

MINE = Addresses(
    process="0" * 32,
    host="here",
    unix="/run/mine",
    tcp=tcp("10.0.0.1", "2001:db8::1"),
    fingerprint="",
    pid=100,
    started=1234.5,
    version=1,
)


def theirs(host: str, *hosts: str, unix: str | None = "/run/theirs") -> Addresses:
    return dataclasses.replace(
        MINE, process="1" * 32, host=host, unix=unix, tcp=tcp(*hosts)
    )


def test_record_round_trip() -> None:
    record = json.loads(json.dumps(MINE.to_dict()))
    assert record == {
        "process": "0" * 32,
        "host": "here",
        "unix": "/run/mine",
        "tcp": ["tcp://10.0.0.1:4000", "tcp://[2001:db8::1]:4000"],
        "fingerprint": "",
        "pid": 100,
        "started": 1234.5,
        "version": 1,
    }
    assert Addresses.from_dict(record) == MINE


def test_a_record_without_addresses() -> None:
    bare = dataclasses.replace(MINE, unix=None, tcp=(), fingerprint="a" * 64)
    assert Addresses.from_dict(bare.to_dict()) == bare


def test_the_limits_of_a_record_are_valid() -> None:
    path = "/" + "x" * (TEXT_LIMIT - 1)
    limit = dataclasses.replace(
        MINE, host="h", unix=path, tcp=tcp("10.0.0.1") * TCP_LIMIT, pid=1, started=0.0
    )
    assert Addresses.from_dict(limit.to_dict()) == limit
    assert dataclasses.replace(limit, host="h" * TEXT_LIMIT, started=1.0).pid == 1


def test_entries_of_newer_releases_are_left_out() -> None:
    assert Addresses.from_dict({**MINE.to_dict(), "colour": "red"}) == MINE
    assert Addresses.from_dict({**MINE.to_dict(), "started": 7}).started == 7.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("process", "0" * 31),
        ("process", "G" * 32),
        ("process", "A" * 32),
        ("process", 5),
        ("process", b"0" * 32),
        ("host", ""),
        ("host", "x" * 257),
        ("host", "new\nline"),
        ("host", None),
        ("unix", ""),
        ("unix", "relative"),
        ("unix", 5),
        ("tcp", "tcp://10.0.0.1:4000"),
        ("tcp", None),
        ("tcp", [5]),
        ("tcp", [["tcp://10.0.0.1:4000"]]),
        ("tcp", ["tcp://example.org:4000"]),
        ("tcp", ["unix:///run/link"]),
        ("tcp", ["tcp://10.0.0.1:4000"] * (TCP_LIMIT + 1)),
        ("fingerprint", "0" * 63),
        ("fingerprint", None),
        ("pid", 0),
        ("pid", -1),
        ("pid", 1.0),
        ("pid", True),
        ("pid", "1"),
        ("started", -1.0),
        ("started", float("nan")),
        ("started", float("inf")),
        ("started", 10**400),
        ("started", None),
        ("version", 0),
        ("version", True),
    ],
)
def test_odd_records(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Addresses.from_dict({**MINE.to_dict(), name: value})


@pytest.mark.parametrize("name", MINE.to_dict())
def test_incomplete_records(name: str) -> None:
    record = MINE.to_dict()
    del record[name]
    if name == "unix":
        assert Addresses.from_dict(record).unix is None
        return
    with pytest.raises(ValueError, match=f"an odd '{name}'"):
        Addresses.from_dict(record)


@pytest.mark.parametrize("record", [None, [], "text", 5])
def test_records_of_other_types(record: Any) -> None:
    with pytest.raises(ValueError, match="not a mapping"):
        Addresses.from_dict(record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(list(MINE.to_dict())), JSON)
def test_random_values_are_records_or_errors(name: str, value: object) -> None:
    try:
        found = Addresses.from_dict({**MINE.to_dict(), name: value})
    except ValueError:
        return
    assert Addresses.from_dict(found.to_dict()) == found


# Candidates


def candidates(mine: Addresses, other: Addresses) -> list[str]:
    return [str(e) for e in mine.candidates(other)]


def test_the_unix_socket_comes_first_on_the_same_host() -> None:
    assert candidates(MINE, theirs("here", "10.0.0.1", "127.0.0.1")) == [
        "unix:///run/theirs",
        "tcp://10.0.0.1:4000",
        "tcp://127.0.0.1:4000",
    ]
    assert candidates(MINE, theirs("here", "10.0.0.1", unix=None)) == [
        "tcp://10.0.0.1:4000"
    ]


def test_another_host_is_dialled_by_addresses_that_mean_something_here() -> None:
    other = theirs(
        "there", "127.0.0.1", "10.0.0.2", "169.254.1.1", "fe80::1", "::1", "fd00::2"
    )
    assert candidates(MINE, other) == ["tcp://[fd00::2]:4000", "tcp://10.0.0.2:4000"]


def test_own_addresses_are_not_those_of_another_host() -> None:
    other = theirs("there", "10.0.0.1", "10.0.0.2")
    assert candidates(MINE, other) == ["tcp://10.0.0.2:4000"]


def test_families_alternate_in_the_published_order() -> None:
    other = theirs("there", "10.0.0.7", "10.0.0.6", "10.0.0.5", "fd00::9", "fd00::8")
    assert candidates(MINE, other) == [
        "tcp://[fd00::9]:4000",
        "tcp://10.0.0.7:4000",
        "tcp://[fd00::8]:4000",
        "tcp://10.0.0.6:4000",
        "tcp://10.0.0.5:4000",
    ]


@pytest.mark.parametrize(
    ("own", "first"),
    [
        ((), "tcp://[fd00::2]:4000"),
        (("10.0.0.1",), "tcp://10.0.0.2:4000"),
        (("fd00::1",), "tcp://[fd00::2]:4000"),
        (("10.0.0.1", "fd00::1"), "tcp://[fd00::2]:4000"),
    ],
)
def test_the_family_that_this_process_has_comes_first(
    own: tuple[str, ...], first: str
) -> None:
    mine = dataclasses.replace(MINE, tcp=tcp(*own))
    found = candidates(mine, theirs("there", "10.0.0.2", "fd00::2"))
    assert found[0] == first
    assert len(found) == 2


def test_nothing_is_dialled_twice() -> None:
    other = theirs("there", "10.0.0.2", "10.0.0.2", "::ffff:10.0.0.2")
    assert candidates(MINE, other) == ["tcp://10.0.0.2:4000"]


def test_a_host_that_cannot_be_dialled() -> None:
    assert candidates(MINE, theirs("there")) == []
    assert candidates(MINE, theirs("there", "127.0.0.1", "::1")) == []
