"""The secrets of a namespace that this process accepts."""

from __future__ import annotations

from academy.exchange.secret import (
    NamespaceSecret,
    new_secret,
    secret_from_environment,
)
from academy.exchange.server import Server


class Keyring:
    """Secrets of a namespace: the current one first, then those it replaced.

    Args:
        server: Where members agree on a secret, unless the environment gives one.
        private: Whether the server must not know it, so that only the environment can
            give one.
    """

    def __init__(self, server: Server, *, private: bool = False) -> None:
        self._server = server
        self._private = private
        self.secrets: list[NamespaceSecret] = []

    async def agree(self) -> None:
        """Find the current secret; those that were found before stay valid.

        Raises:
            ExchangeError: The server does not tell.
            ValueError: The one from the environment is too short, or not private, or
                there is none where one is needed.
        """
        found = secret_from_environment()
        if found is None and self._private:
            raise ValueError(
                "encrypt_relay=True needs a secret that the server does not know, and "
                "the environment gives none: set ACADEMY_SECRET_FILE, to the same "
                "secret for all members of the namespace."
            )
        if found is None:
            candidate = self.secrets[0] if self.secrets else new_secret()
            stored = await self._server.call("secret", candidate.stored(), timeout=10.0)
            found = NamespaceSecret(stored)
        if found not in self.secrets:
            self.secrets.insert(0, found)

    def stored(self) -> list[bytes]:
        """Return the secrets as bytes."""
        return [secret.stored() for secret in self.secrets]
