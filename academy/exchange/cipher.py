"""Encryption of what waits in queues on a server that is not trusted with content.

AES-256-GCM (NIST SP 800-38D) with random nonces. Each stream has a key of its own,
derived from the secret of the namespace with HKDF-SHA256 (RFC 5869), so that no key
ever comes near the number of messages that random nonces are good for (2^32).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from academy.segment import Segment
from academy.serialize import join

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
PURPOSE = b"academy relay 1 "
"""What keys are derived for. Another layout of what is encrypted needs another one."""


class StreamCipher:
    """Encrypts the messages of one stream.

    Args:
        secret: Secret of the namespace.
        stream: Name of the stream.
    """

    def __init__(self, secret: bytes, stream: str) -> None:
        self._gcm = _derived(secret, stream)

    def seal(self, text: Segment, bound: Sequence[Segment]) -> bytes:
        """Return the text encrypted, and bound to other fields that stay readable."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._gcm.encrypt(nonce, text, join(bound))

    def open(self, sealed: Segment, bound: Sequence[Segment]) -> bytes:
        """Return the text that `seal` was given.

        Raises:
            ValueError: It was not sealed with this key, or not with these fields.
        """
        from cryptography.exceptions import InvalidTag

        view = memoryview(sealed)
        try:
            return self._gcm.decrypt(
                view[:NONCE_BYTES], view[NONCE_BYTES:], join(bound)
            )
        except (InvalidTag, ValueError):
            raise ValueError("Not encrypted by a member of the namespace.") from None


@functools.lru_cache(maxsize=1024)
def _derived(secret: bytes, stream: str) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    purpose = PURPOSE + stream.encode()
    return AESGCM(HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret))
