"""Where a process can be reached."""

from __future__ import annotations

import ipaddress
import itertools
import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

_IP: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

TCP_LIMIT = 64
"""TCP endpoints in a record, at most."""
TEXT_LIMIT = 256
"""Characters of a host identifier, or bytes of a path, at most."""


@dataclass(frozen=True)
class Endpoint:
    """A Unix socket, or a TCP port at an IP address.

    Attributes:
        path: Absolute path of the Unix socket; `None` for TCP.
        host: IPv4 or IPv6 address; empty for a Unix socket.
        port: TCP port; 0 for a Unix socket.

    Raises:
        ValueError: Nothing can be reached at this.
    """

    path: str | None = None
    host: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if self.path is None:
            object.__setattr__(self, "host", str(_usable_ip(self.host)))
            if not 0 < self.port < 1 << 16:
                raise ValueError(f"{self.port} is no TCP port.")
        elif self.host or self.port:
            raise ValueError("An endpoint is a path, or a host and a port; not both.")
        elif not self._path_is_usable(self.path):
            raise ValueError(f"{self.path!r} is no path of a Unix socket.")

    @staticmethod
    def _path_is_usable(path: str) -> bool:
        short = len(path.encode()) <= TEXT_LIMIT
        return path.startswith("/") and path.isprintable() and short

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gives: `unix:///path`, `tcp://host:port`.

        Raises:
            ValueError: It is anything else.
        """
        scheme, _, rest = text.partition("://")
        if scheme == "unix":
            return cls(path=rest)
        host, _, port = rest.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        if (
            scheme != "tcp"
            or bracketed != (":" in host)
            or not (port.isascii() and port.isdigit() and len(port) <= 5)
        ):
            raise ValueError(
                f"{text!r} is no endpoint: write unix:///path or tcp://host:port, an "
                "IPv6 address in brackets."
            )
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if self._ip.version == 6 else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def kind(self) -> str:
        """`'uds'` or `'tcp'`."""
        return "tcp" if self.path is None else "uds"

    @property
    def is_local(self) -> bool:
        """Whether it means nothing, or something else, to other hosts."""
        return self.path is not None or self._ip.is_loopback or self._ip.is_link_local

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is one of IPv6."""
        return self.path is None and self._ip.version == 6

    @property
    def _ip(self) -> _IP:
        return ipaddress.ip_address(self.host)


def _usable_ip(host: str) -> _IP:
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _usable_ip(str(ip.ipv4_mapped))
        if ip.scope_id is not None:
            raise ValueError(f"{host} has a scope, which other hosts do not know.")
    if ip.is_unspecified or ip.is_multicast or int(ip) == 0xFFFFFFFF:
        raise ValueError(f"{host} is not the address of one host.")
    return ip


@dataclass(frozen=True)
class Addresses:
    """Where a process can be reached, as it publishes that with its lease.

    Attributes:
        process: Identifier of the process, 32 hexadecimal digits.
        host: Identifier of its host: the same for two processes if one can be seen
            from the other, by path and by pid.
        unix: Path of its Unix socket, if it has one.
        tcp: Its TCP endpoints.
        fingerprint: SHA-256 of its certificate, 64 hexadecimal digits; empty if it
            has none.
        pid: Its pid.
        started: When it was started, in seconds since any fixed moment.
        version: Version of the protocol that it speaks on links.

    Raises:
        ValueError: A value is none of these.
    """

    process: str
    host: str
    unix: str | None
    tcp: tuple[Endpoint, ...]
    fingerprint: str
    pid: int
    started: float
    version: int

    def __post_init__(self) -> None:
        if self.unix is not None:
            Endpoint(path=self.unix)
        for holds, name in (
            (_is_hex(self.process, 32), "process"),
            (0 < len(self.host) <= TEXT_LIMIT and self.host.isprintable(), "host"),
            (len(self.tcp) <= TCP_LIMIT, "tcp"),
            (all(e.kind == "tcp" for e in self.tcp), "tcp"),
            (not self.fingerprint or _is_hex(self.fingerprint, 64), "fingerprint"),
            (self.pid > 0, "pid"),
            (math.isfinite(self.started) and self.started >= 0, "started"),
            (self.version > 0, "version"),
        ):
            if not holds:
                raise _odd(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values, for JSON or MessagePack."""
        return {
            "process": self.process,
            "host": self.host,
            "unix": self.unix,
            "tcp": [str(endpoint) for endpoint in self.tcp],
            "fingerprint": self.fingerprint,
            "pid": self.pid,
            "started": self.started,
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gives; entries that are not known here are left out.

        Raises:
            ValueError: It is anything else.
        """
        if not isinstance(record, Mapping):
            raise ValueError("The addresses of a process are not a mapping.")
        found: dict[str, Any] = {name: record.get(name) for name in _TYPES}
        for name, types in _TYPES.items():
            if type(found[name]) not in types:
                raise _odd(name)
        if not all(type(text) is str for text in found["tcp"]):
            raise _odd("tcp")
        try:
            found["started"] = float(found["started"])
        except OverflowError as e:
            raise _odd("started") from e
        tcp = tuple(Endpoint.parse(text) for text in found["tcp"][: TCP_LIMIT + 1])
        return cls(**{**found, "tcp": tcp})

    def candidates(self, theirs: Addresses) -> list[Endpoint]:
        """Return where to dial another process from this one, the best first.

        On the same host that is its Unix socket, then its TCP ports. On another host
        it is its TCP ports, but for addresses that have no meaning here. Addresses of
        IPv6 and IPv4 alternate (RFC 8305, section 4), beginning with the family that
        this process has.

        Args:
            theirs: Addresses of the other process.
        """
        if self.host == theirs.host:
            unix = [] if theirs.unix is None else [Endpoint(path=theirs.unix)]
            return [*unix, *self._alternating(theirs.tcp)]
        own = set(self.tcp)
        return self._alternating(
            e for e in theirs.tcp if not e.is_local and e not in own
        )

    def _alternating(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        ipv6: list[Endpoint] = []
        ipv4: list[Endpoint] = []
        for endpoint in dict.fromkeys(endpoints):
            (ipv6 if endpoint.is_ipv6 else ipv4).append(endpoint)
        own = {endpoint.is_ipv6 for endpoint in self.tcp}
        pairs = itertools.zip_longest(
            *((ipv4, ipv6) if own == {False} else (ipv6, ipv4))
        )
        return [e for e in itertools.chain.from_iterable(pairs) if e is not None]


_TYPES: dict[str, tuple[type, ...]] = {
    "process": (str,),
    "host": (str,),
    "unix": (str, type(None)),
    "tcp": (list, tuple),
    "fingerprint": (str,),
    "pid": (int,),
    "started": (int, float),
    "version": (int,),
}


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not set(text) - set(string.hexdigits.lower())


def _odd(name: str) -> ValueError:
    return ValueError(f"The addresses of a process have an odd {name!r}.")
