"""The secret of a namespace, and what it signs."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from academy.segment import Segment
from academy.serialize import NoPickleMixin

SECRET_BYTES = 32


class NamespaceSecret(NoPickleMixin):
    """What the members of a namespace share; messages in queues are signed with it.

    Args:
        value: At least 16 bytes.

    Raises:
        ValueError: The value is too short to protect anything.
    """

    def __init__(self, value: bytes) -> None:
        if len(value) < 16:
            raise ValueError("A namespace secret needs at least 16 bytes.")
        self._value = value

    def __repr__(self) -> str:
        return "NamespaceSecret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamespaceSecret) and hmac.compare_digest(
            self._value, other._value
        )

    def __hash__(self) -> int:
        return hash(hashlib.sha256(self._value).digest())

    def sign(self, parts: Iterable[Segment]) -> bytes:
        """Return the HMAC-SHA256 (RFC 2104) of the parts and their lengths."""
        mac = hmac.new(self._value, digestmod=hashlib.sha256)
        for part in parts:
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.digest()

    def verify(self, parts: Iterable[Segment], signature: Segment) -> bool:
        """Return whether the signature is that of the parts."""
        return hmac.compare_digest(self.sign(parts), bytes(signature))

    def stored(self) -> bytes:
        """Return the value, to be stored where members find it."""
        return self._value


def new_secret() -> NamespaceSecret:
    """Return a secret that nobody knows."""
    return NamespaceSecret(secrets.token_bytes(SECRET_BYTES))


def secrets_from_environment() -> list[NamespaceSecret]:
    """Return the secrets that the environment gives, the current one first.

    `ACADEMY_SECRET_FILE` names a file that only its owner may read; `ACADEMY_SECRET`
    is the secret itself. With either, access to the server alone does not make a
    member of the namespace. Each line is a secret: the first one is used, the others
    are accepted, too.

    Raises:
        ValueError: A secret is too short, or others may read the file.
        OSError: The file cannot be read.
    """
    name = os.environ.get("ACADEMY_SECRET_FILE")
    if name:
        path = Path(name)
        if path.stat().st_mode & 0o077:
            raise ValueError(
                f"Others may read the secret in {path}; run: chmod 600 {path}"
            )
        text = path.read_bytes()
        if not text.strip():
            raise ValueError(f"There is no secret in {path}.")
    else:
        text = os.environ.get("ACADEMY_SECRET", "").encode()
    lines = [line.strip() for line in text.splitlines()]
    return [NamespaceSecret(line) for line in lines if line]
