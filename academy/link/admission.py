"""Who may stay at the door: connections that have not proved themselves are few.

Nobody is kept out by strangers who stay. When there is no room, one of those at the
door has to go: the one of the same source that has been there longest, for a member
proves itself in milliseconds; or by chance one of all, the more likely the less room
there is, for a stranger may have many addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

GuestT = TypeVar("GuestT")

LIMIT = 128
"""Connections at the door, at most."""
PER_SOURCE = 64
"""Of these from one source, at most: so many processes of one host may come at once."""
EARLY = 0.75
"""Share of the limit from which on chance decides."""


class Admission(Generic[GuestT]):
    """Connections that have not proved themselves, by their source.

    Args:
        chance: Gives random numbers in [0, 1).
        limit: How many there may be.
        per_source: How many there may be of one source.
    """

    def __init__(
        self,
        chance: Callable[[], float],
        limit: int = LIMIT,
        per_source: int = PER_SOURCE,
    ) -> None:
        self._chance = chance
        self._limit = max(1, limit)
        self._per_source = max(1, per_source)
        # Both in the order in which they have come.
        self._guests: dict[GuestT, str] = {}
        self._by_source: dict[str, dict[GuestT, None]] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[GuestT]:
        return iter(list(self._guests))

    def enter(self, guest: GuestT, source: str) -> GuestT | None:
        """Let a connection wait at the door.

        Returns:
            The connection that has to go for it, forgotten here; `None` if there is
            room.
        """
        victim = self._victim(source)
        if victim is not None:
            self.leave(victim)
        self._guests[guest] = source
        self._by_source.setdefault(source, {})[guest] = None
        return victim

    def leave(self, guest: GuestT) -> None:
        """Forget a connection that has proved itself, or has ended. Idempotent."""
        source = self._guests.pop(guest, None)
        if source is not None:
            del self._by_source[source][guest]
            if not self._by_source[source]:
                del self._by_source[source]

    def _victim(self, source: str) -> GuestT | None:
        same = self._by_source.get(source, {})
        if len(same) >= self._per_source:
            return next(iter(same))
        early = int(EARLY * self._limit)
        pressure = (len(self._guests) - early) / max(1, self._limit - early)
        if not self._guests or self._chance() >= pressure:
            return None
        return list(self._guests)[int(self._chance() * len(self._guests))]


def source_of(host: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of one of IPv6."""
    ip = plain_ip(host)
    if ip.version == 4 or ip.is_loopback:
        return str(ip)
    return str(ipaddress.ip_network((int(ip), 64), strict=False))


def plain_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as a socket gives it, without zone; IPv4 never within IPv6."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip
