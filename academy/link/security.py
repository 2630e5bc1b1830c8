"""Which connections are encrypted, and which may be in clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from academy.link.address import Addresses, Endpoint
from academy.link.admission import plain_ip

MODES = ("auto", "tls", "authenticated")


@dataclass(frozen=True)
class Security:
    """How the links of a process are protected.

    In each mode both sides prove that they know the secret of the namespace. Unix
    sockets are never encrypted: the kernel keeps other users out. What has to be
    encrypted and cannot be is not sent; there is no fall-back to clear text.

    Attributes:
        mode: `'auto'`: TLS 1.3 between hosts, clear text within a host; `'tls'`: TLS
            on each TCP connection; `'authenticated'`: no encryption, but towards
            processes that have a certificate. Then whoever can listen to the network
            reads all messages, and whoever can change them on their way runs code in
            the agents: only for a network where nobody can.
        certificate: Path of a certificate (PEM) instead of one that the process
            makes for itself.
        key: Path of its private key (PEM).

    Raises:
        ValueError: There is no such mode, or one of the paths without the other.
    """

    mode: str = "auto"
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(
                f"security={self.mode!r} is not known; give one of "
                f"{', '.join(map(repr, MODES))}."
            )
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Give certificate= and key=, or neither.")

    def needs_certificate(self, hosts: Sequence[str]) -> bool:
        """Return whether a process that listens at these addresses needs one.

        Args:
            hosts: The addresses; none for all.
        """
        if self.mode == "auto" and hosts:
            return not all(plain_ip(host).is_loopback for host in hosts)
        return self.mode != "authenticated"

    def admits_clear(self, host: str) -> bool:
        """Return whether TCP connections from an address may be in clear."""
        if self.mode == "auto":
            return plain_ip(host).is_loopback
        return self.mode == "authenticated"

    def route(self, endpoint: Endpoint, mine: Addresses, theirs: Addresses) -> Route:
        """Return how to dial an endpoint of another process.

        Args:
            endpoint: The endpoint.
            mine: Addresses of this process.
            theirs: Addresses of the other process.
        """
        if endpoint.path is not None:
            return Route(endpoint)
        if self.mode == "auto":
            loopback = plain_ip(endpoint.host).is_loopback
            clear = loopback and mine.host == theirs.host
        else:
            clear = self.mode == "authenticated" and not theirs.fingerprint
        return Route(endpoint, None if clear else theirs.fingerprint)


@dataclass(frozen=True)
class Route:
    """A way to another process.

    Attributes:
        endpoint: Where to dial.
        pin: SHA-256 of the certificate that must answer, 64 hexadecimal digits; empty
            if encryption is needed and the process has published none; `None` for a
            connection in clear.
    """

    endpoint: Endpoint
    pin: str | None = None

    def __str__(self) -> str:
        return str(self.endpoint)

    @property
    def binding(self) -> bytes:
        """What both sides prove the connection to be bound to."""
        return bytes.fromhex(self.pin or "")
