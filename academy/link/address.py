"""Where a process can be reached, and which of its addresses to try in which order."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

LINK_VERSION = 1
"""Version of what a process publishes about itself."""


@dataclass(frozen=True)
class Endpoint:
    """One address: a Unix socket, or a host and a TCP port.

    Attributes:
        path: Path of a Unix socket; `None` for TCP.
        host: Host to connect to by TCP.
        port: TCP port.

    Raises:
        ValueError: It is neither or both, or the port is none.
    """

    path: str | None = None
    host: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if (self.path is None) == (not self.host):
            raise ValueError("An endpoint is a path, or a host and a port.")
        if self.path is None and not 1 <= self.port <= 65535:
            raise ValueError(f"Not a TCP port: {self.port!r}.")

    @property
    def kind(self) -> str:
        """`'uds'` or `'tcp'`."""
        return "tcp" if self.path is None else "uds"

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read what `str` gives.

        Raises:
            ValueError: It is anything else.
        """
        scheme, _, rest = text.partition("://")
        if scheme == "unix" and rest:
            return cls(path=rest)
        host, _, port = rest.rpartition(":")
        if scheme != "tcp" or not (port.isascii() and port.isdigit()):
            raise ValueError(f"Not an endpoint: {text!r}.")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))


@dataclass(frozen=True)
class Addresses:
    """What a process publishes about itself.

    Attributes:
        process: Identifier of the process, 32 hexadecimal digits.
        host_id: Text that all processes share that can use its Unix socket.
        endpoints: Where it can be reached, written as `Endpoint` does.
        pid: Its process number on that host.
        started: When it was started, in seconds since the epoch.
        version: Version of this record.

    Raises:
        ValueError: A value is of the wrong type, or an endpoint is none.
    """

    process: str
    host_id: str
    endpoints: tuple[str, ...]
    pid: int
    started: float
    version: int = LINK_VERSION

    def __post_init__(self) -> None:
        if not isinstance(self.process, str) or len(self.process) != 32:
            raise ValueError(f"Not the identifier of a process: {self.process!r}.")
        bytes.fromhex(self.process)
        if not isinstance(self.host_id, str) or not isinstance(self.pid, int):
            raise ValueError("The record of a process is damaged.")
        for text in self.endpoints:
            Endpoint.parse(text)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Addresses:
        """Read what `to_dict` gives; fields of newer versions are passed over.

        Raises:
            ValueError: It is anything else.
        """
        if not isinstance(data, Mapping):
            raise ValueError("The record of a process is no mapping.")
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        try:
            known["endpoints"] = tuple(known["endpoints"])
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as e:
            raise ValueError(f"The record of a process is damaged: {e}.") from e


def candidates(mine: Addresses, theirs: Addresses) -> list[Endpoint]:
    """Return the endpoints of a process in the order in which to try them.

    On one host, the Unix socket comes first. From other hosts, addresses that mean
    another host there are left out, and IPv6 and IPv4 take turns (RFC 8305).
    """
    found = [Endpoint.parse(text) for text in theirs.endpoints]
    tcp = [e for e in found if e.path is None]
    if mine.host_id == theirs.host_id:
        return [e for e in found if e.path is not None] + tcp
    reachable = [e for e in tcp if not _is_local(e.host)]
    six = [e for e in reachable if ":" in e.host]
    four = [e for e in reachable if ":" not in e.host]
    pairs = itertools.zip_longest(six, four)
    return [e for pair in pairs for e in pair if e is not None]


def _is_local(host: str) -> bool:
    """Return whether an address means another host, or nothing, elsewhere."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_link_local or address.is_unspecified
