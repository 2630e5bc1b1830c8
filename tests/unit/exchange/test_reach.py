from __future__ import annotations

import asyncio
import logging
import pickle

import pytest

from academy.embedded import EmbeddedServer
from academy.exchange import reach
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.reach import Advertisement, chosen_interface
from academy.link.address import Addresses, Endpoint

MINE = Addresses(
    process="0" * 32,
    host="here",
    unix="/run/s.sock",
    tcp=(
        Endpoint(host="10.0.0.1", port=7000),
        Endpoint(host="10.0.0.2", port=7000),
        Endpoint(host="10.0.0.1", port=7001),
    ),
    fingerprint="",
    pid=1,
    started=0.0,
    version=1,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (reach.INTERFACE_VARIABLE, reach.ADVERTISE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reach, "_missed", set())
    return monkeypatch


@pytest.mark.parametrize("travelled", [True, False])
@pytest.mark.parametrize("interface", [None, "lo", "127.0.0.1"])
def test_an_interface_that_is_there(interface: str | None, travelled: bool) -> None:
    assert chosen_interface(interface, travelled=travelled) == interface


def test_one_that_is_not_there_was_misspelt() -> None:
    with pytest.raises(ValueError, match="no interface 'nowhere0'"):
        chosen_interface("nowhere0", travelled=False)


def test_one_of_another_host(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert chosen_interface("nowhere0", travelled=True) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'nowhere0'" in record.getMessage()
    assert "ACADEMY_INTERFACE names another one" in record.getMessage()


def test_the_environment_of_a_worker(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ACADEMY_INTERFACE", "lo")
    assert chosen_interface("nowhere0", travelled=True) == "lo"
    assert chosen_interface("127.0.0.1", travelled=True) == "lo"
    assert chosen_interface(None, travelled=False) == "lo"
    assert chosen_interface("127.0.0.1", travelled=False) == "127.0.0.1"
    environment.setenv("ACADEMY_INTERFACE", "nowhere1")
    with pytest.raises(ValueError, match="ACADEMY_INTERFACE=nowhere1: This host has"):
        chosen_interface("lo", travelled=True)


async def advertised(environment: pytest.MonkeyPatch, text: str) -> list[str]:
    environment.setenv("ACADEMY_ADVERTISE", text)
    advertisement = await Advertisement.from_environment()
    return [str(endpoint) for endpoint in advertisement.instead_of(MINE).tcp]


async def test_nothing_is_advertised(environment: pytest.MonkeyPatch) -> None:
    assert (await Advertisement.from_environment()).instead_of(MINE) is MINE
    environment.setenv("ACADEMY_ADVERTISE", " , ")
    assert (await Advertisement.from_environment()).instead_of(MINE) is MINE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ["192.0.2.1:7000", "192.0.2.1:7001"]),
        ("192.0.2.1:99", ["192.0.2.1:99"]),
        ("192.0.2.1:99, 192.0.2.1:99", ["192.0.2.1:99"]),
        ("2001:db8::1", ["[2001:db8::1]:7000", "[2001:db8::1]:7001"]),
        ("[2001:db8::1]", ["[2001:db8::1]:7000", "[2001:db8::1]:7001"]),
        ("[2001:db8::1]:99,192.0.2.1:8", ["[2001:db8::1]:99", "192.0.2.1:8"]),
    ],
)
async def test_addresses(
    environment: pytest.MonkeyPatch, text: str, found: list[str]
) -> None:
    assert await advertised(environment, text) == [f"tcp://{e}" for e in found]


async def test_names(environment: pytest.MonkeyPatch) -> None:
    assert "tcp://127.0.0.1:99" in await advertised(environment, "localhost:99")


@pytest.mark.parametrize("text", ["no-such-host.invalid", "0.0.0.0", "224.0.0.1"])
async def test_what_cannot_be_dialled_is_left_out(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    assert await advertised(environment, f"{text},192.0.2.1:9") == ["tcp://192.0.2.1:9"]
    assert text in caplog.text
    assert await advertised(environment, text) == [str(e) for e in MINE.tcp]


@pytest.mark.parametrize(
    "text",
    ["a:b", "a:", ":7000", "a:0", "a:65536", "a b", "[::1", "tcp://a:1", "u@a", "[x]"],
)
async def test_what_is_no_address(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("ACADEMY_ADVERTISE", text)
    with pytest.raises(ValueError, match="ACADEMY_ADVERTISE has") as caught:
        await Advertisement.from_environment()
    assert repr(text) in str(caught.value)


async def test_a_factory_from_another_host(
    server: EmbeddedServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    factory = HybridExchangeFactory.from_url(
        server.url, namespace=namespace, interface="nowhere0"
    )
    with pytest.raises(ValueError, match="no interface 'nowhere0'"):
        await factory.create_user_client()
    async with await pickle.loads(pickle.dumps(factory)).create_user_client():
        assert "'nowhere0'" in caplog.text


async def test_a_port_is_released_when_the_interface_is_wrong(
    server: EmbeddedServer, namespace: str, environment: pytest.MonkeyPatch
) -> None:
    factory = HybridExchangeFactory.from_url(
        server.url, namespace=namespace, ports=[29431]
    )
    environment.setenv("ACADEMY_INTERFACE", "nowhere0")
    with pytest.raises(ValueError, match="nowhere0"):
        await factory.create_user_client()
    environment.delenv("ACADEMY_INTERFACE")
    async with await factory.create_user_client():
        pass


async def test_what_is_advertised_is_published(
    server: EmbeddedServer, namespace: str, environment: pytest.MonkeyPatch
) -> None:
    """A process elsewhere is told these addresses, and only these."""
    environment.setenv("ACADEMY_ADVERTISE", "192.0.2.1:99,192.0.2.2")
    factory = HybridExchangeFactory.from_url(server.url, namespace=namespace)
    async with await factory.create_user_client() as user, asyncio.timeout(10):
        engine = user._transport.engine
        location = await engine.directory.locate(user.client_id, engine.process)
        assert engine.links is not None
        (port,) = engine.links.node.ports
    assert location is not None
    assert list(map(str, location.addresses.tcp)) == [
        "tcp://192.0.2.1:99",
        f"tcp://192.0.2.2:{port}",
    ]
