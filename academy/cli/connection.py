"""The exchange that a command works on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from academy.cli.error import UsageError
from academy.cli.url import VARIABLE
from academy.exchange.client import ExchangeClient
from academy.exchange.hybrid import HybridExchangeFactory


@dataclass(frozen=True)
class Connection:
    """Where to connect to.

    Attributes:
        url: URL of the server, if one was given.
        namespace: Namespace on that server.
    """

    url: str | None = field(repr=False)
    namespace: str

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ExchangeClient[Any]]:
        """Return a client of the exchange, for `async with`.

        Raises:
            UsageError: No URL was given, or the URL or the namespace is none.
            redis.exceptions.ConnectionError: The server cannot be reached.
        """
        if not self.url:
            raise UsageError(
                f"No server is given: set {VARIABLE} or use --url. `academy server` "
                "starts a server and prints its URL."
            )
        try:
            factory = HybridExchangeFactory.from_url(self.url, namespace=self.namespace)
        except ValueError as e:
            raise UsageError(str(e)) from e
        async with await factory.create_user_client(name="academy-cli") as client:
            yield client
