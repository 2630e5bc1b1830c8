"""The secrets of a namespace that this process accepts.

A secret can be changed while processes run. The new one signs at once; the one that it
replaces is accepted for another `OVERLAP`, so that nothing that was signed with it is
lost, and links go on. Processes look for a new secret every `REFRESH`, and at once when
they are given something that they cannot verify.

- Where the members have agreed on a secret through the server (the default):
  `academy rotate-secret --namespace NS`.
- Where the environment gives it: write the new secret as the first line of the file
  that `ACADEMY_SECRET_FILE` names, on each host, and leave the old one as the second.
  Remove that when all hosts have the new file: then it is accepted no more.
"""

from __future__ import annotations

import asyncio
import logging

from academy.exception import ExchangeError
from academy.exchange.secret import (
    NamespaceSecret,
    new_secret,
    secrets_from_environment,
)
from academy.exchange.server import Server

logger = logging.getLogger(__name__)

OVERLAP = 3600.0
"""Seconds for which a secret is accepted that another one has replaced."""
REFRESH = 60.0
"""Seconds between two looks for a new secret."""
PAUSE = 0.1
"""Seconds between two looks because something could not be verified."""
TIMEOUT = 10.0
"""Seconds for which the server is asked."""


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
        self._loop = asyncio.get_running_loop()
        self._named: list[NamespaceSecret] = []
        self._until: dict[NamespaceSecret, float] = {}
        self._looked = float("-inf")
        self._lock = asyncio.Lock()
        self.secrets: list[NamespaceSecret] = []
        """Always the same list."""

    async def agree(self) -> None:
        """Find the secrets that are valid.

        One that was current and is not named any more stays valid for `OVERLAP`: the
        server may have been emptied, and nobody has said that it is replaced.

        Raises:
            ExchangeError: The server does not tell.
            ValueError: One from the environment is too short, or its file not private,
                or there is none where one is needed.
            OSError: That file cannot be read.
        """
        self._looked = now = self._loop.time()
        named = secrets_from_environment()
        if not named and self._private:
            raise ValueError(
                "encrypt_relay=True needs a secret that the server does not know, and "
                "the environment gives none: set ACADEMY_SECRET_FILE, to the same "
                "secret for all members of the namespace."
            )
        named = named or await self._stored()
        if self._named and self._named[0] not in named:
            self._until[self._named[0]] = now + OVERLAP
        self._named = named
        for secret in [s for s, until in self._until.items() if until <= now]:
            del self._until[secret]
        left = [s for s in self._until if s not in named]
        # The newest of those that were replaced first.
        self.secrets[:] = [*named, *reversed(left)]

    async def run(self) -> None:
        """Look for new secrets, until it is cancelled."""
        while True:
            await asyncio.sleep(REFRESH)
            await self.renew()

    async def renew(self) -> bool:
        """Look for a new secret, a moment after the last look at the earliest.

        Returns:
            Whether there is one that was not known before.
        """
        asked, before = self._loop.time(), list(self.secrets)
        async with self._lock:
            if self._looked <= asked:
                await asyncio.sleep(self._looked + PAUSE - asked)
                try:
                    await self.agree()
                except (ExchangeError, ValueError, OSError) as e:
                    logger.warning("The secrets could not be renewed: %s", e)
        return any(secret not in before for secret in self.secrets)

    async def rotate(self, overlap: float = OVERLAP) -> bool:
        """Replace the secret that the members have agreed on through the server.

        Args:
            overlap: Seconds for which the one that it replaces is accepted.

        Returns:
            False if the one before is still accepted, and nothing was changed.

        Raises:
            ExchangeError: The server does not answer.
            ValueError: The secret is given by the environment, not by the server.
        """
        if secrets_from_environment():
            raise ValueError(
                "The environment gives the secret of this namespace. Write the new one "
                "as the first line of the file that ACADEMY_SECRET_FILE names, and "
                "leave the old one as the second until all hosts have the file."
            )
        reply = await self._server.call(
            "rotate", new_secret().stored(), int(1000 * overlap), timeout=TIMEOUT
        )
        await self.agree()
        return bool(reply == b"ok")

    def stored(self) -> list[bytes]:
        """Return the secrets as bytes."""
        return [secret.stored() for secret in self.secrets]

    async def _stored(self) -> list[NamespaceSecret]:
        candidate = self.secrets[0] if self.secrets else new_secret()
        found = await self._server.call("secret", candidate.stored(), timeout=TIMEOUT)
        return [NamespaceSecret(value) for value in found if value]
