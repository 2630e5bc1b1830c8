"""Configuration of exchange clients."""

from __future__ import annotations

from msgspec import Struct

from academy.value import Value, coerce_fields


class ExchangeClientConfig(Value, Struct, kw_only=True, forbid_unknown_fields=True):
    """How a client tells the exchange that it is alive.

    The exchanges of this package know by leases which processes live (10 s after a
    process vanished at the latest), so there these fields change nothing; they are
    for exchanges of others, which rely on the heartbeats of each client.

    Attributes:
        heartbeat_interval: Seconds between two heartbeats.
        stale_heartbeat_threshold: Missed heartbeats after which the client counts
            as inactive.

    Raises:
        ValueError: A value has the wrong type or is not positive.
    """

    heartbeat_interval: float = 30
    stale_heartbeat_threshold: int = 3

    def __post_init__(self) -> None:
        coerce_fields(self)
        for name in ("heartbeat_interval", "stale_heartbeat_threshold"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"ExchangeClientConfig({name}={getattr(self, name)!r}): "
                    "it must be greater than 0."
                )
