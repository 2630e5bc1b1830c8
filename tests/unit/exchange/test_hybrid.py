from __future__ import annotations

import asyncio
import pickle
import socket

import pytest

from academy.embedded import EmbeddedServer
from academy.exchange.hybrid import HybridExchangeFactory
from academy.link.security import Security
from academy.message import Message, PingRequest, SuccessResponse
from academy.socket import open_port
from tests.unit.exchange.foreign import Calc


@pytest.fixture
def near(server: EmbeddedServer, namespace: str) -> HybridExchangeFactory:
    return HybridExchangeFactory.from_url(server.url, namespace=namespace)


@pytest.fixture
def blocked(server: EmbeddedServer, namespace: str) -> HybridExchangeFactory:
    return HybridExchangeFactory.from_url(server.url, namespace=namespace, direct=False)


def test_repr_tells_whether_it_is_direct(
    near: HybridExchangeFactory, blocked: HybridExchangeFactory
) -> None:
    assert "direct=True" in repr(near)
    assert "direct=False" in repr(blocked)


def test_pickle_of_a_blocked_one(blocked: HybridExchangeFactory) -> None:
    again = pickle.loads(pickle.dumps(blocked))
    assert again.direct is False
    assert repr(again) == repr(blocked)


@pytest.mark.parametrize("direct", [True, False])
async def test_clients_give_factories_of_their_kind(
    server: EmbeddedServer, namespace: str, direct: bool
) -> None:
    factory = HybridExchangeFactory.from_url(
        server.url, namespace=namespace, direct=direct
    )
    async with await factory.create_user_client() as user:
        made = user.factory()
    assert isinstance(made, HybridExchangeFactory)
    assert made.direct is direct


async def test_only_direct_ones_can_be_located(
    near: HybridExchangeFactory, blocked: HybridExchangeFactory
) -> None:
    async with (
        await near.create_user_client() as open_user,
        await blocked.create_user_client() as user,
    ):
        engine = open_user._transport.engine
        here = await engine.directory.locate(open_user.client_id, engine.process)
        there = await engine.directory.locate(user.client_id, engine.process)
    assert here is not None
    assert there is None


async def test_messages_of_a_blocked_one_take_the_relay(
    near: HybridExchangeFactory, blocked: HybridExchangeFactory
) -> None:
    """Both ends are asked; each has an engine of its own."""

    async def answer(request: Message[object]) -> None:
        await agent.send(request.create_response(SuccessResponse()))

    async with await near.create_user_client() as user:
        registration = await user.register_agent(Calc)
        agent = await blocked.create_agent_client(registration, answer)
        async with agent, asyncio.timeout(20):
            for _ in range(10):
                ping = Message.create(user.client_id, agent.client_id, PingRequest())
                assert (await user.request(ping)).is_response()
            ours, theirs = await user.links(), await user.links(agent.client_id)
    assert ours is not None
    assert theirs is not None
    assert ours.process != theirs.process
    links = [*ours.links, *theirs.links]
    assert {link.path for link in links} == {"relay"}
    assert sum(link.sent + link.received for link in links) == 0
    assert theirs.links[0].reason == "this process makes no direct links"


async def test_processes_of_one_host_share_a_range(
    server: EmbeddedServer, namespace: str
) -> None:
    """Another process has the first port."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        ports = [port, open_port()]
        factory = HybridExchangeFactory.from_url(
            server.url, namespace=namespace, ports=ports
        )
        async with await factory.create_user_client() as user:
            links = user._transport.engine.links
            assert links is not None
            assert ports[1] in links.node.ports
            with pytest.raises(OSError, match=f"Port {port} cannot be used"):
                await factory.create_user_client()


def test_security_of_a_factory(server: EmbeddedServer) -> None:
    factory = HybridExchangeFactory.from_url(server.url)
    assert factory.security == Security("auto")
    options = {"security": "tls", "certificate": "/c.pem", "key": "/k.pem"}
    factory = HybridExchangeFactory.from_url(server.url, **options)
    assert factory.security == Security("tls", "/c.pem", "/k.pem")
    assert "security='tls'" in repr(factory)
    assert pickle.loads(pickle.dumps(factory)).security == factory.security


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"security": "none"}, "security='none' is not known"),
        ({"certificate": "/c.pem"}, "or neither"),
    ],
)
def test_security_that_is_none(options: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HybridExchangeFactory("localhost", 6379, **options)  # type: ignore[arg-type]


async def test_security_of_clients(server: EmbeddedServer, namespace: str) -> None:
    """They share an engine with those of the same setting only."""
    tls, again, plain = (
        HybridExchangeFactory.from_url(
            server.url, namespace=namespace, interface="127.0.0.1", security=security
        )
        for security in ("tls", "tls", "auto")
    )
    async with (
        await tls.create_user_client() as one,
        await again.create_user_client() as other,
        await plain.create_user_client() as third,
    ):
        engines = [c._transport.engine for c in (one, other, third)]
        assert engines[0] is engines[1] is not engines[2]
        made = one.factory()
        assert isinstance(made, HybridExchangeFactory)
        assert made.security == tls.security
        assert engines[0].links is not None
        assert engines[2].links is not None
        mine = engines[0].links.mine
        assert mine.fingerprint == engines[0].links.node.fingerprint != ""
        # On the loopback interface alone, nobody needs one.
        assert engines[2].links.mine.fingerprint == ""
        found = await engines[2].directory.locate(one.client_id, engines[2].process)
        assert found is not None
        assert found.addresses.fingerprint == mine.fingerprint


async def test_certificate_that_is_not_there(
    server: EmbeddedServer, namespace: str
) -> None:
    factory = HybridExchangeFactory.from_url(
        server.url, namespace=namespace, certificate="/no/c.pem", key="/no/k.pem"
    )
    with pytest.raises(FileNotFoundError):
        await factory.create_user_client()
