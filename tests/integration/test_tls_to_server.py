"""A server that speaks TLS: nothing is said to it in the clear."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from academy.embedded import EmbeddedServer
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.redis import RedisExchangeFactory
from academy.executor import SubprocessExecutor
from academy.manager import Manager
from tests.launched_agents import Counter
from tests.tls_server import (
    KEY_PASSWORD,
    PASSWORD,
    Certificates,
    TLSServer,
    make_certificates,
    tls_server,
)

CERTIFICATE = "certificate verify failed"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[TLSServer]:
    directory = tmp_path_factory.mktemp("tls")
    with tls_server(directory, certificates, ask_clients=False) as running:
        yield running


@pytest.fixture(scope="module")
def asking(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[TLSServer]:
    """It wants certificates of its clients, too."""
    directory = tmp_path_factory.mktemp("asking")
    with tls_server(directory, certificates, ask_clients=True) as running:
        yield running


async def run_program(factory: Any) -> None:
    executor = SubprocessExecutor()
    async with await Manager.from_exchange_factory(factory, executors=executor) as m:
        counter = await m.launch(Counter)
        assert [await counter.add() for _ in range(3)] == [1, 2, 3]
        assert await m.exchange_client.discover(Counter) == (counter.agent_id,)


async def test_a_program_with_a_url(secure: TLSServer, namespace: str) -> None:
    await run_program(HybridExchangeFactory.from_url(secure.url, namespace=namespace))


@pytest.mark.parametrize("kind", [HybridExchangeFactory, RedisExchangeFactory])
async def test_a_program_with_arguments(
    secure: TLSServer, namespace: str, kind: Any
) -> None:
    kwargs = secure.kwargs()
    arguments = {"redis_kwargs": kwargs} if kind is HybridExchangeFactory else kwargs
    await run_program(kind("127.0.0.1", secure.port, namespace=namespace, **arguments))


async def test_a_program_with_a_certificate(
    asking: TLSServer, namespace: str, certificates: Certificates, tmp_path: Path
) -> None:
    """The password of its key is a secret like that of the login."""
    kwargs = asking.kwargs(
        ssl_certfile=str(certificates.client),
        ssl_keyfile=str(certificates.client_key),
        ssl_password=KEY_PASSWORD,
    )
    factory = HybridExchangeFactory(
        "127.0.0.1", asking.port, redis_kwargs=kwargs, namespace=namespace
    )
    for text in (repr(factory).encode(), pickle.dumps(factory)):
        assert KEY_PASSWORD.encode() not in text
        assert PASSWORD.encode() not in text
    await run_program(factory)


async def refusal(factory: HybridExchangeFactory) -> str:
    began = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        await factory.create_user_client()
    message = str(caught.value)
    assert PASSWORD not in message
    # A certificate does not get better by waiting.
    assert time.monotonic() - began < (2 if CERTIFICATE in message else 10)
    return message


async def test_a_program_without_a_certificate(asking: TLSServer) -> None:
    assert str(asking.port) in await refusal(HybridExchangeFactory.from_url(asking.url))


async def test_another_authority(secure: TLSServer) -> None:
    other = str(secure.certificates.other_authority)
    kwargs = secure.kwargs(ssl_ca_certs=other)
    factory = HybridExchangeFactory("127.0.0.1", secure.port, redis_kwargs=kwargs)
    assert CERTIFICATE in await refusal(factory)


async def test_an_authority_that_is_not_asked_for(secure: TLSServer) -> None:
    """Without arguments those of the system count, which do not know this one."""
    url = f"rediss://:{PASSWORD}@127.0.0.1:{secure.port}"
    message = await refusal(HybridExchangeFactory.from_url(url))
    assert CERTIFICATE in message


async def test_another_name(secure: TLSServer) -> None:
    url = secure.url.replace("127.0.0.1", "localhost")
    message = await refusal(HybridExchangeFactory.from_url(url))
    assert CERTIFICATE in message


async def test_a_clear_connection_to_it(secure: TLSServer) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{secure.port}"
    await refusal(HybridExchangeFactory.from_url(url))


async def test_tls_to_a_server_without(server: EmbeddedServer) -> None:
    url = f"rediss://:{PASSWORD}@127.0.0.1:{server.port}"
    await refusal(HybridExchangeFactory.from_url(url))
