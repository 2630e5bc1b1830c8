"""Passwords of the server: shown in no text, and carried by no pickle unless asked.

A password is given to a factory in the clear, or by reference: an environment variable
(`password_env`), a file (`password_file`), or a credential provider of redis-py.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import hmac
import os
import pickle
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from redis.credentials import (
    CredentialProvider,
    StreamingCredentialProvider,
    UsernamePasswordCredentialProvider,
)
from redis.exceptions import AuthenticationError

from academy.exchange.deposit import leave, read_private

_PREFIX = "ACADEMY_REDIS_"
_process_key = secrets.token_bytes(16)


class CredentialError(AuthenticationError):
    """A password of the server cannot be found. The text says where it should be."""


class Secret(abc.ABC):
    """A password, or where it is. Its text does not tell it."""

    __slots__ = ()

    @abc.abstractmethod
    def reveal(self) -> str:
        """Return the password; raises `CredentialError` if it cannot be found."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text, for this process only, that is the same for the same one.

        Raises:
            CredentialError: It is needed for that, and cannot be found.
        """


@dataclass(frozen=True, slots=True)
class VariableSecret(Secret):
    """A password in an environment variable, of each process that connects.

    Attributes:
        variable: Name of the variable.
    """

    variable: str

    def reveal(self) -> str:
        """Return the password; raises `CredentialError` if it is not set."""
        value = os.environ.get(self.variable)
        if not value:
            raise CredentialError(
                f"The environment variable {self.variable} is to have a password of "
                f"the Redis server, and is not set in process {os.getpid()}."
            )
        return value

    def identity(self) -> str:
        """Return the reference."""
        return repr(self)


@dataclass(frozen=True, slots=True)
class FileSecret(Secret):
    """A password in a file, which is read again for each connection.

    Attributes:
        path: The file.
    """

    path: str

    def reveal(self) -> str:
        """Return the password.

        Raises:
            CredentialError: There is none, or others than its owner may read it.
        """
        try:
            return read_private(Path(self.path).expanduser())
        except (OSError, ValueError) as e:
            raise CredentialError(
                f"A password of the Redis server is to be in {self.path}: {e}."
            ) from e

    def identity(self) -> str:
        """Return the reference."""
        return repr(self)


class GivenSecret(Secret):
    """A password that was given in the clear.

    Its pickle has the path of a file that this process leaves for others, see
    `academy.exchange.deposit`. Where that cannot be read, the password is taken from
    the environment: `ACADEMY_REDIS_PASSWORD_FILE` or `ACADEMY_REDIS_PASSWORD`.

    Args:
        name: What it is called among the arguments of the Redis client.
        value: The password; `None` if it has to be found.
        path: A file that has it.
        embed: Whether its pickle has the password itself.
    """

    __slots__ = ("_embed", "_name", "_path", "_value")

    def __init__(
        self,
        name: str,
        value: str | None,
        path: str | None = None,
        embed: bool = False,
    ) -> None:
        self._name = name
        self._value = value
        self._path = path
        self._embed = embed

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GivenSecret):
            other = other.reveal()
        if not isinstance(other, str):
            return NotImplemented
        return hmac.compare_digest(self.reveal().encode(), other.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        if self._embed:
            return type(self), (self._name, self.reveal(), None, True)
        if self._path is None or not Path(self._path).exists():
            # One that is not here may be where the pickle is going.
            with contextlib.suppress(CredentialError):
                self._path = self._leave(self.reveal())
        return type(self), (self._name, None, self._path)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def reveal(self) -> str:
        """Return the password.

        Raises:
            CredentialError: This process was given a reference only, and finds it
                neither there nor in its environment.
        """
        if self._value is None:
            self._value = self._find()
        return self._value

    def identity(self) -> str:
        """Return a keyed hash; raises as `reveal` does."""
        return hmac.digest(_process_key, self.reveal().encode(), hashlib.sha256).hex()

    def embedded(self) -> GivenSecret:
        """Return the same, to be carried by its pickle."""
        return GivenSecret(self._name, self._value, self._path, embed=True)

    def _find(self) -> str:
        variable = _PREFIX + self._name.upper()
        tried = f"the factory's pickle names no file that has it (variable {variable})"
        if self._path is not None:
            try:
                return read_private(Path(self._path))
            except (OSError, ValueError) as e:
                tried = f"the process that pickled the factory left it in a file ({e})"
        if path := os.environ.get(f"{variable}_FILE"):
            return FileSecret(path).reveal()
        if value := os.environ.get(variable):
            return value
        raise CredentialError(
            f"A worker cannot find the {self._name} of the Redis server: {tried}. "
            "Such a file is there for the same user, while that process runs, on "
            f"hosts that share the directory. Set {variable} or {variable}_FILE where "
            "the worker runs, give the factory a reference that holds there "
            f"(redis_kwargs={{'{self._name}_file': ...}}), or make the factory with "
            "embed_credentials=True, which puts the password into each pickle."
        )

    def _leave(self, value: str) -> str:
        try:
            return str(leave(value))
        except OSError as e:
            raise pickle.PicklingError(
                "The exchange factory was not pickled: its password would be left in "
                f"a file for other processes, and that cannot be written ({e}). Set "
                "ACADEMY_HOME to a directory that can be, give a reference "
                f"(redis_kwargs={{'{self._name}_file': ...}}), or make the factory "
                "with embed_credentials=True."
            ) from e


class Login(CredentialProvider):
    """Tells redis-py user and password when it connects.

    Args:
        username: The user; `None` for the default one.
        password: The password.
    """

    def __init__(self, username: str | None, password: Secret) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return them; raises `CredentialError` if there is no password."""
        password = self._password.reveal()
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return them; raises `CredentialError` if there is no password."""
        return self.get_credentials()


class ForeignLogin(CredentialProvider):
    """A credential provider of the user's, whose errors are those of a login.

    Args:
        provider: The provider.
    """

    def __init__(self, provider: CredentialProvider) -> None:
        self._provider = provider

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return what it tells; raises `CredentialError` for whatever it raises."""
        try:
            return self._provider.get_credentials()
        except Exception as e:
            raise self._failed(e) from e

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return what it tells; raises `CredentialError` for whatever it raises."""
        try:
            return await self._provider.get_credentials_async()
        except Exception as e:
            raise self._failed(e) from e

    def _failed(self, error: Exception) -> CredentialError:
        name = type(self._provider).__name__
        return CredentialError(f"{name} gives no login ({type(error).__name__}).")


def protected(kwargs: Mapping[str, Any], *, embed: bool = False) -> dict[str, Any]:
    """Return arguments of a Redis client with a `Secret` for each password.

    Args:
        kwargs: The arguments; `NAME_env` and `NAME_file` refer to a password.
        embed: Whether pickles are to have passwords that were given in the clear.

    Raises:
        ValueError: A password is given twice.
    """
    found: dict[str, Any] = {}
    for key, value in _spread(kwargs):
        name, secret = _protect(key, value)
        if isinstance(secret, Secret) and isinstance(found.get(name), Secret):
            raise ValueError(
                f"The {name} of the server is given twice: give one of {name}, "
                f"{name}_env and {name}_file."
            )
        if embed and isinstance(secret, GivenSecret):
            secret = secret.embedded()
        found[name] = secret
    return found


def _spread(kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the arguments, with user and password instead of their mere holder."""
    pairs = dict(kwargs)
    provider = pairs.get("credential_provider")
    if type(provider) is UsernamePasswordCredentialProvider:
        del pairs["credential_provider"]
        pairs |= {"username": provider.username, "password": provider.password}
    return list(pairs.items())


def _protect(key: str, value: Any) -> tuple[str, Any]:
    if not value or "password" not in key or isinstance(value, Secret):
        return key, value
    if key.endswith("_env"):
        return key.removesuffix("_env"), VariableSecret(str(value))
    if key.endswith("_file"):
        return key.removesuffix("_file"), FileSecret(os.fspath(value))
    if isinstance(value, bytes):
        value = value.decode()
    return key, GivenSecret(key, value)


def disclosed(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as redis-py takes them.

    Raises:
        CredentialError: A password other than that of the login cannot be found; for
            that one, it is raised when a connection is made.
    """
    found = dict(kwargs)
    provider = found.get("credential_provider")
    if isinstance(found.get("password"), Secret):
        password, username = found.pop("password"), found.pop("username", None)
        found["credential_provider"] = Login(username, password)
    elif provider and not isinstance(provider, StreamingCredentialProvider):
        found["credential_provider"] = ForeignLogin(provider)
    return {k: v.reveal() if isinstance(v, Secret) else v for k, v in found.items()}


def redacted(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return connection arguments for people to read, without the passwords."""
    return {key: _shown(key, value) for key, value in kwargs.items()}


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, VariableSecret | FileSecret):
        return value
    if isinstance(value, Secret) or "password" in key:
        return "***"
    # What a class of the user's shows of itself is not known.
    return type(value) if key == "credential_provider" else value
