"""Exchanges: how messages travel between agents and users.

The names are loaded when they are first used, so that a program with a local exchange
does not load a Redis client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from academy.exchange.client import (
        AgentExchangeClient,
        ExchangeClient,
        UserExchangeClient,
    )
    from academy.exchange.client_config import ExchangeClientConfig
    from academy.exchange.factory import ExchangeFactory
    from academy.exchange.hybrid import HybridExchangeFactory, HybridExchangeTransport
    from academy.exchange.local import LocalExchangeFactory, LocalExchangeTransport
    from academy.exchange.redis import RedisExchangeFactory, RedisExchangeTransport
    from academy.exchange.transport import (
        AgentRegistration,
        ExchangeTransport,
        MailboxStatus,
    )

__all__ = [
    "AgentExchangeClient",
    "AgentRegistration",
    "ExchangeClient",
    "ExchangeClientConfig",
    "ExchangeFactory",
    "ExchangeTransport",
    "HybridExchangeFactory",
    "HybridExchangeTransport",
    "LocalExchangeFactory",
    "LocalExchangeTransport",
    "MailboxStatus",
    "RedisExchangeFactory",
    "RedisExchangeTransport",
    "UserExchangeClient",
]

_HOMES = {
    "client": ["AgentExchangeClient", "ExchangeClient", "UserExchangeClient"],
    "client_config": ["ExchangeClientConfig"],
    "factory": ["ExchangeFactory"],
    "hybrid": ["HybridExchangeFactory", "HybridExchangeTransport"],
    "local": ["LocalExchangeFactory", "LocalExchangeTransport"],
    "redis": ["RedisExchangeFactory", "RedisExchangeTransport"],
    "transport": ["AgentRegistration", "ExchangeTransport", "MailboxStatus"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
