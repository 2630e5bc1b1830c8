from __future__ import annotations

import dataclasses

import pytest

from academy.link.address import Addresses, Endpoint
from academy.link.security import Route, Security

LOOPBACK, LAN = Endpoint(host="127.0.0.1", port=1), Endpoint(host="192.0.2.1", port=1)
LOOPBACK6 = Endpoint(host="::1", port=1)
UNIX = Endpoint(path="/run/link")
PIN = "ab" * 32
MINE = Addresses("0" * 32, "here", "/run/mine", (), "", 1, 1.0, 1)
NEAR = dataclasses.replace(MINE, process="1" * 32, fingerprint=PIN)
FAR = dataclasses.replace(NEAR, host="elsewhere")
BARE = dataclasses.replace(FAR, fingerprint="")


@pytest.mark.parametrize(
    ("mode", "endpoint", "theirs", "pin"),
    [
        ("auto", UNIX, NEAR, None),
        ("auto", LOOPBACK, NEAR, None),
        ("auto", LOOPBACK6, NEAR, None),
        ("auto", LAN, NEAR, PIN),
        ("auto", LAN, FAR, PIN),
        ("auto", LAN, BARE, ""),
        # A loopback address of another host may be anybody's.
        ("auto", LOOPBACK, FAR, PIN),
        ("auto", LOOPBACK, BARE, ""),
        ("tls", UNIX, NEAR, None),
        ("tls", LOOPBACK, NEAR, PIN),
        ("tls", LAN, FAR, PIN),
        ("tls", LAN, BARE, ""),
        ("authenticated", UNIX, NEAR, None),
        ("authenticated", LAN, FAR, PIN),
        ("authenticated", LAN, BARE, None),
    ],
)
def test_routes(
    mode: str, endpoint: Endpoint, theirs: Addresses, pin: str | None
) -> None:
    route = Security(mode).route(endpoint, MINE, theirs)
    assert route == Route(endpoint, pin)
    assert route.binding == bytes.fromhex(pin or "")
    assert str(route) == str(endpoint)


@pytest.mark.parametrize(
    ("mode", "admitted"),
    [
        ("auto", ["127.0.0.1", "::1", "::ffff:127.0.0.1"]),
        ("tls", []),
        ("authenticated", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.1"]),
    ],
)
def test_clear_text(mode: str, admitted: list[str]) -> None:
    hosts = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.1"]
    assert [h for h in hosts if Security(mode).admits_clear(h)] == admitted


@pytest.mark.parametrize(
    ("mode", "hosts", "needed"),
    [
        ("auto", [], True),
        ("auto", ["127.0.0.1", "::1"], False),
        ("auto", ["127.0.0.1", "192.0.2.1"], True),
        ("tls", ["127.0.0.1"], True),
        ("authenticated", [], False),
    ],
)
def test_certificates(mode: str, hosts: list[str], needed: bool) -> None:
    assert Security(mode).needs_certificate(hosts) is needed


def test_what_is_no_setting() -> None:
    with pytest.raises(ValueError, match=r"security='none' .*'auto', 'tls'"):
        Security("none")
    with pytest.raises(ValueError, match="or neither"):
        Security(certificate="c.pem")
    with pytest.raises(ValueError, match="or neither"):
        Security(key="k.pem")
