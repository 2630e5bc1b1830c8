"""Names of everything that an exchange keeps in Redis.

All keys of a namespace start with the namespace in braces, a hash tag, so that they
share a slot of a cluster and one script can change several of them. Scripts are given
the prefix and build the same names from it.
"""

from __future__ import annotations

import base64
import re
import uuid

from academy.identifier import EntityId

_BASE32 = re.compile("[A-Z2-7]{26}")
_DIGITS = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789abcdefghijklmnopqrstuv"
)
"""From the digits of base32 to those that `int` reads, which is much faster."""
_NAMESPACE = re.compile(r"[A-Za-z0-9_.:/@-]{1,128}")


def uuid_to_base32(uid: uuid.UUID) -> str:
    """Write a UUID as base32: 26 characters, without padding."""
    return base64.b32encode(uid.bytes).decode().rstrip("=")


def base32_to_uuid(uid: str) -> uuid.UUID:
    """Read what `uuid_to_base32` wrote.

    Raises:
        ValueError: It is anything else.
    """
    if not isinstance(uid, str) or len(uid) != 26:
        raise ValueError(f"Not the base32 form of a UUID (26 characters): {uid!r}.")
    if not _BASE32.fullmatch(uid):
        raise ValueError(f"Not the base32 form of a UUID: {uid!r} (A to Z, 2 to 7).")
    number = int(uid.translate(_DIGITS), 32)
    if number & 3:
        raise ValueError(f"Not the base32 form of a UUID: {uid!r} has stray bits.")
    return uuid.UUID(int=number >> 2)


def check_namespace(namespace: str) -> str:
    """Return the namespace if it can be used in keys.

    Raises:
        ValueError: It is empty, too long, or has characters with a meaning in keys.
    """
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"Not a namespace: {namespace!r}. Use 1 to 128 letters, digits, and "
            "any of _ . : / @ -"
        )
    return namespace


class Keys:
    """Key names of one namespace.

    Args:
        namespace: The namespace.

    Raises:
        ValueError: The namespace cannot be used in keys.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = check_namespace(namespace)
        self.prefix = f"{{{namespace}}}:"
        self.secret = f"{self.prefix}secret"
        """What proves that messages come from a member of the namespace."""

    def wake(self, process: str) -> str:
        """Stream of everything one process must hear."""
        return f"{self.prefix}wake:{process}"

    def lease(self, process: str) -> str:
        """Lives as long as the process does."""
        return f"{self.prefix}ls:{process}"


def entity_key(uid: EntityId) -> str:
    """Return the part of a key that names an entity."""
    return uuid_to_base32(uid.uid)
