"""Where others can reach this process, as its factory and its environment say."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import os
import re
import socket
from typing import NamedTuple, Self

from academy.link.address import TCP_LIMIT, Addresses, Endpoint
from academy.socket import interface_addresses

logger = logging.getLogger(__name__)

INTERFACE_VARIABLE = "ACADEMY_INTERFACE"
"""Names the interface of processes whose factory names none, or one of another host."""
ADVERTISE_VARIABLE = "ACADEMY_ADVERTISE"
"""Has the addresses that a process publishes instead of its own."""

_ENTRY = re.compile(
    r"(\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^][:/@\s]+))(:(?P<port>[0-9]{1,5}))?"
    r"|(?P<bare>[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)"
)
_missed: set[str] = set()


def chosen_interface(interface: str | None, *, travelled: bool) -> str | None:
    """Return the interface, by name or address, to listen on; `None` for all.

    Args:
        interface: That of the factory.
        travelled: Whether the factory was made in another process, perhaps on another
            host. There, `ACADEMY_INTERFACE` counts more, and an interface that this
            host lacks is logged and makes no difference.

    Raises:
        ValueError: This host lacks the one that is named here.
    """
    named = os.environ.get(INTERFACE_VARIABLE) or None
    if named is not None and (travelled or interface is None):
        try:
            interface_addresses(named)
        except ValueError as e:
            raise ValueError(f"{INTERFACE_VARIABLE}={named}: {e}") from e
        return named
    if interface is None:
        return None
    try:
        interface_addresses(interface)
    except ValueError as e:
        if not travelled:
            raise
        if interface not in _missed:
            _missed.add(interface)
            logger.warning(
                "The exchange factory names the interface %r, and was made in another "
                "process. %s All are used; %s names another one.",
                interface,
                e,
                INTERFACE_VARIABLE,
            )
        return None
    return interface


class _Entry(NamedTuple):
    host: str
    port: int | None


class Advertisement:
    """Addresses that a process publishes instead of its own, for instance behind NAT.

    Args:
        entries: IP addresses, each with a port if that differs from those listened on.
    """

    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = entries

    @classmethod
    async def from_environment(cls) -> Self:
        """Read `ACADEMY_ADVERTISE`: addresses or names, with commas in between.

        Each may have a port: `gate.example.org:7000`, `[2001:db8::1]:7000`. Names are
        looked up now; one that stands for nothing is logged and left out.

        Raises:
            ValueError: Something in it is no address, name, or port.
        """
        entries = []
        for text in os.environ.get(ADVERTISE_VARIABLE, "").split(","):
            if text.strip():
                host, port = _parse(text.strip())
                entries += [_Entry(found, port) for found in await _look_up(host)]
        return cls(entries)

    def instead_of(self, mine: Addresses) -> Addresses:
        """Return the addresses to publish."""
        if not self._entries:
            return mine
        listening = list(dict.fromkeys(endpoint.port for endpoint in mine.tcp))
        found = [
            Endpoint(host=entry.host, port=port)
            for entry in self._entries
            for port in (listening if entry.port is None else [entry.port])
        ]
        tcp = tuple(dict.fromkeys(found))[:TCP_LIMIT]
        return dataclasses.replace(mine, tcp=tcp)


def _parse(text: str) -> tuple[str, int | None]:
    """Return host and port."""
    found = _ENTRY.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 1) < 1 << 16:
        raise ValueError(
            f"{ADVERTISE_VARIABLE} has {text!r}: write addresses or names with commas "
            "in between, each with a port if need be, as in 192.0.2.1, "
            "gate.example.org:7000, [2001:db8::1]:7000."
        )
    host = found["ipv6"] or found["bare"] or found["host"]
    return host, int(found["port"]) if found["port"] else None


async def _look_up(host: str) -> list[str]:
    """Return the addresses that a name, or an address, stands for."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as e:
        logger.warning("%s has %r, which is left out: %s.", ADVERTISE_VARIABLE, host, e)
        return []
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return [text for text in addresses if _is_of_one_host(text)]


def _is_of_one_host(text: str) -> bool:
    ip = ipaddress.ip_address(text.partition("%")[0])
    usable = not (ip.is_unspecified or ip.is_multicast or "%" in text)
    if not usable:
        logger.warning(
            "%s has %s, which is left out: it is not the address of one host.",
            ADVERTISE_VARIABLE,
            text,
        )
    return usable
